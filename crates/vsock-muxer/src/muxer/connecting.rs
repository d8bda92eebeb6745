// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Streams to host components that are reached after a while, as over TCP.
//!
//! A stream that is not connected yet is watched for writing, and is neither read nor written. The
//! guest gets its RESPONSE when the host's end is connected; an RST when it cannot be reached, or
//! has not answered within the time that a host component has.

use vsock_backend_api::VsockStream;
use vsock_proto::Tick;

use crate::action::CloseMode;
use crate::entry::ConnectionEntry;
use crate::host_stream::{HostStream, Link};
use crate::muxer::Muxer;
use crate::slot::SlotKey;
use crate::token::{Readiness, Token};

impl Muxer {
    /// A backend has returned a stream for a connection of the guest, which is then to be reviewed.
    pub(super) fn begin_connect(&mut self, now: Tick, key: SlotKey, stream: Box<dyn VsockStream>) {
        // Nothing of it is registered while it says whether it is connected.
        let mut host = HostStream::unwatched(stream, Token::stream(key));
        let link = host.finish_connect();
        let Some(entry) = self.table.connection(key.slot) else {
            return;
        };
        if link == Link::Refused {
            host.close(CloseMode::Abort, &mut self.actions);
        } else {
            host.begin_watch(&mut self.actions);
            entry.host = Some(host);
        }
        entry.on_link(now, link);
        let ports = entry.conn.key();
        if link == Link::Refused {
            self.note_host_refusal(ports, None);
        }
    }

    /// An event of a stream. Returns whether it may be read and written now.
    pub(super) fn go_on_connecting(&mut self, now: Tick, key: SlotKey, ready: Readiness) -> bool {
        let Some(entry) = self.table.connection(key.slot) else {
            return false;
        };
        let Some(host) = entry.host.as_mut().filter(|host| host.is_pending()) else {
            return true;
        };
        let link = match host.finish_connect() {
            // What has hung up is not reached any more.
            Link::Pending if ready.hangup => Link::Refused,
            link => link,
        };
        entry.on_link(now, link);
        let ports = entry.conn.key();
        if link == Link::Refused {
            self.note_host_refusal(ports, None);
        }
        link == Link::Up
    }
}

impl ConnectionEntry {
    fn on_link(&mut self, now: Tick, link: Link) {
        match link {
            Link::Pending => {}
            Link::Up => self.conn.on_host_connected(now),
            Link::Refused => self.conn.on_host_refused(now),
        }
    }
}
