// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Joins the two connections that make up a connection between guests.

use std::collections::VecDeque;

use vsock_backend_api::VsockCredit;
use vsock_proto::{Cid, Credit, Tick};

use crate::action::Action;
use crate::entry::ConnectionEntry;
use crate::host_stream::HostStream;
use crate::muxer::Muxer;
use crate::slot::SlotKey;

impl Muxer {
    /// Handles an event of the descriptor that signals changes of the other guest's credit.
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
        host.far.signalled = true;
        // A guest without credit never writes to the stream, so a hang-up would go unnoticed.
        if host.has_left_unseen() {
            host.note_hangup(&mut self.actions);
            entry.conn.on_host_readable(now);
        }
        self.review(now, key.slot);
    }
}

impl ConnectionEntry {
    /// Takes the state of the other guest's connection into account, if the peer is a guest.
    pub(super) fn sync_with_sibling(&mut self, now: Tick, out: &mut VecDeque<Action>) {
        if self.conn.key().host_cid != Cid::HOST {
            self.exchange_credit(now, out);
            self.check_reader(now);
        }
    }

    /// Exchanges credit with the other guest, so that each guest has credit for what the other
    /// one's program has read. What this guest has reported is passed on before the connection is
    /// confirmed; otherwise, the other guest would be answered without credit.
    fn exchange_credit(&mut self, now: Tick, out: &mut VecDeque<Action>) {
        let Some(host) = &mut self.host else {
            return;
        };
        let ours = self.conn.guest_credit().map(to_stream);
        if let Some(heard) = host.exchange_credit(ours) {
            self.conn.on_far_credit(now, Some(from_stream(heard)));
        }
        // Always re-arm after an event, because a level-triggered loop would repeat it.
        let waits = self.conn.awaits_far_credit() || host.far.signalled;
        if waits && host.await_credit(out).is_err() {
            // Without a descriptor, give credit for what the stream accepts rather than none: both
            // are bounded.
            self.conn.on_far_credit(now, None);
        }
    }

    /// Learns that the other guest reads no more, before anything is written to it, as with two
    /// sockets on one machine. What that guest has sent is read first, so that one SHUTDOWN can
    /// report both ends.
    fn check_reader(&mut self, now: Tick) {
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
