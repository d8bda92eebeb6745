// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! What time brings.

use vsock_proto::Tick;

use crate::entry::Entry;
use crate::muxer::Muxer;
use crate::refusal::{ConnectionRefusal, RefusalReason};
use crate::slot::Slot;
use crate::token::BackendId;

/// Connections whose time has come that are looked at before others have their turn: each may
/// cost a call of a backend.
const BATCH: usize = 256;

impl Muxer {
    /// When [`on_timeout`](Self::on_timeout) is to be called. It may be now, or past: then there is
    /// work left that was put off, so that others do not wait too long for their turn.
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

    /// Does what is due, or as much of it as is fair to others: then the deadline stays past.
    /// Called too early, it does nothing.
    pub fn on_timeout(&mut self, now: Tick) {
        self.unwinding(|muxer| muxer.do_due(now));
    }

    fn do_due(&mut self, now: Tick) {
        // Each at most once: a new deadline may be due already.
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

    /// Returns how many connections that was for.
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
                    // A socket is called writable when much of it is free. A slow reader may
                    // have taken something all the same, and is not to lose the rest.
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
