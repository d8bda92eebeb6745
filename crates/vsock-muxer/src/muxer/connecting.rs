// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Streams that take time to connect to a host component, for example over TCP.
//!
//! A stream that is not yet connected is watched for writing, and neither read nor written. When it
//! is connected, the guest receives its RESPONSE; if the component cannot be reached or does not
//! answer in time, the guest receives an RST.

use vsock_backend_api::VsockStream;
use vsock_proto::Tick;

use crate::action::CloseMode;
use crate::entry::ConnectionEntry;
use crate::host_stream::{HostStream, Link};
use crate::muxer::Muxer;
use crate::slot::SlotKey;
use crate::token::{Readiness, Token};

impl Muxer {
    /// Starts a connection of the guest with the stream that a backend returned. The caller must
    /// review the connection afterwards.
    pub(super) fn begin_connect(&mut self, now: Tick, key: SlotKey, stream: Box<dyn VsockStream>) {
        // Query the stream before its descriptor is registered, in case it panics.
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

    /// Continues to connect after an event of the stream. Returns whether the stream can be read
    /// and written now.
    pub(super) fn go_on_connecting(&mut self, now: Tick, key: SlotKey, ready: Readiness) -> bool {
        let Some(entry) = self.table.connection(key.slot) else {
            return false;
        };
        let Some(host) = entry.host.as_mut().filter(|host| host.is_pending()) else {
            return true;
        };
        let link = match host.finish_connect() {
            // A hang-up before the connection is complete means that it never will be.
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
    /// Applies the result of an attempt to reach the host component.
    fn on_link(&mut self, now: Tick, link: Link) {
        match link {
            Link::Pending => {}
            Link::Up => self.conn.on_host_connected(now),
            Link::Refused => self.conn.on_host_refused(now),
        }
    }
}
