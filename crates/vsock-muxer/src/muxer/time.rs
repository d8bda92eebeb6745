// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Deadlines.

use vsock_proto::Tick;

use crate::entry::Entry;
use crate::muxer::Muxer;
use crate::refusal::{ConnectionRefusal, RefusalReason};
use crate::slot::Slot;
use crate::token::BackendId;

/// How many due connections are handled in one turn. Each of them may require a call of a backend.
const BATCH: usize = 256;

impl Muxer {
    /// Returns when [`on_timeout`](Self::on_timeout) must be called. The time may be now or in the
    /// past: then work is left that was postponed to be fair to other connections.
    #[must_use]
    pub fn deadline(&self) -> Option<Tick> {
        match (
            self.timers.next_deadline(),
            self.accept_timers.next_deadline(),
        ) {
            (Some(one), Some(other)) => Some(one.min(other)),
            (one, other) => one.or(other),
        }
    }

    /// Does the work that is due, or a limited part of it to be fair to others, in which case the
    /// deadline stays in the past. Has no effect if nothing is due.
    pub fn on_timeout(&mut self, now: Tick) {
        self.unwinding(|muxer| muxer.do_due(now));
    }

    fn do_due(&mut self, now: Tick) {
        // Handle each entry at most once, because its next deadline may already be due.
        let mut left = self.timers.len().min(BATCH);
        while left > 0 {
            let Some(slot) = self.timers.pop_due(now) else {
                break;
            };
            left = left.saturating_sub(self.on_due(now, slot));
        }
        for _ in 0..self.accept_timers.len() {
            let Some(slot) = self.accept_timers.pop_due(now) else {
                break;
            };
            self.accept(now, BackendId(slot.number()));
        }
    }

    /// Handles an entry whose deadline has passed. Returns how many connections this involved.
    fn on_due(&mut self, now: Tick, slot: Slot) -> usize {
        match self.table.entry(slot) {
            Some(Entry::Handshake(handshake)) if handshake.deadline <= now => {
                self.note_refusal(ConnectionRefusal::of_client(
                    RefusalReason::CommandTimedOut,
                    None,
                ));
                self.end_handshake(slot);
            }
            Some(Entry::Connection(entry)) => {
                entry.flush_at = None;
                if entry.conn.interest().write {
                    // A socket reports that it is writable only when much of its buffer is free. A
                    // slow reader may have taken some bytes nevertheless, which counts as progress
                    // and must prevent the loss of the rest.
                    entry.flush(now);
                }
                entry.conn.on_timeout(now);
                let retry = entry.retry.is_some_and(|retry| retry.at() <= now);
                self.review(now, slot);
                let ticket = self.table.connection(slot).and_then(|entry| entry.ticket);
                if let Some(ticket) = ticket.filter(|_| retry) {
                    return self.ask_again(now, ticket.target()).max(1);
                }
            }
            _ => {}
        }
        1
    }
}
