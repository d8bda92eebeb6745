// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! What makes two connections one, where the other end is a guest as well.

use std::collections::VecDeque;

use vsock_backend_api::VsockCredit;
use vsock_proto::{Cid, Credit, Tick};

use crate::action::Action;
use crate::entry::ConnectionEntry;
use crate::host_stream::HostStream;
use crate::muxer::Muxer;
use crate::slot::SlotKey;

impl Muxer {
    /// The descriptor that tells of the other guest's credit had an event.
    pub(super) fn on_credit_event(&mut self, now: Tick, key: SlotKey) {
        if self.table.get(key).is_none() {
            return;
        }
        let Some(entry) = self.table.connection(key.slot) else {
            return;
        };
        let Some(host) = &mut entry.host else {
            return;
        };
        host.far.rang = true;
        // A guest without credit writes nothing by which it could be found out.
        if host.has_left_unseen() {
            host.note_hangup(&mut self.actions);
            entry.conn.on_host_readable(now);
        }
        self.review(now, key.slot);
    }
}

impl ConnectionEntry {
    /// Brings the connection in line with that of the guest at the other end, if there is one.
    pub(super) fn heed_sibling(&mut self, now: Tick, out: &mut VecDeque<Action>) {
        if self.conn.key().host_cid != Cid::HOST {
            self.exchange_credit(now, out);
            self.heed_reader(now);
        }
    }

    /// Each guest has credit for what the other one's program has taken. What this one has told
    /// goes to the other end before it is confirmed, so that no answer is given without.
    fn exchange_credit(&mut self, now: Tick, out: &mut VecDeque<Action>) {
        let Some(host) = &mut self.host else {
            return;
        };
        let ours = self.conn.guest_credit().map(to_stream);
        if let Some(heard) = host.exchange_credit(ours) {
            self.conn.on_far_credit(now, Some(from_stream(heard)));
        }
        // An event is answered in any case, for a loop that reports levels.
        let waits = self.conn.awaits_far_credit() || host.far.rang;
        if waits && host.await_credit(out).is_err() {
            // Better credit for what the stream takes than none: both are bounded.
            self.conn.on_far_credit(now, None);
        }
    }

    /// A guest that reads no more is heard of before anything is written to it, as between two
    /// sockets of one machine. What it has sent is read first: then one SHUTDOWN says both.
    fn heed_reader(&mut self, now: Tick) {
        let is_asked = !self.conn.reads_next();
        let host = self.host.as_ref().filter(|_| is_asked);
        if host.is_some_and(HostStream::peer_stopped_reading) {
            self.conn.on_host_stopped_reading(now);
        }
    }
}

const fn to_stream(Credit { buf_alloc, fwd_cnt }: Credit) -> VsockCredit {
    VsockCredit { buf_alloc, fwd_cnt }
}

const fn from_stream(VsockCredit { buf_alloc, fwd_cnt }: VsockCredit) -> Credit {
    Credit { buf_alloc, fwd_cnt }
}
