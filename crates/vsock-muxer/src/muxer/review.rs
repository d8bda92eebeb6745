// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! The review of a connection after each event: what has changed, and what to do about it.

use std::collections::VecDeque;
use std::net::Shutdown;

use vsock_proto::{Confirmation, Ending, GuestCid, HostAction, Phase, Progress, Tick};

use crate::action::{Action, CloseMode};
use crate::backends::addr;
use crate::backoff::Backoff;
use crate::counters::MuxerCounters;
use crate::entry::{Batch, ConnectionEntry, Entry};
use crate::host_stream::HostStream;
use crate::muxer::Muxer;
use crate::payload::write;
use crate::rxq::Lane;
use crate::slot::Slot;

/// How many writes to a stream are made in one turn. Each message is a separate write.
const WRITES: usize = 64;

impl Muxer {
    /// Executes a connection's actions on its stream, updates its watches and deadline, and queues
    /// it if it has something to send to the guest. Must be called after every event, although most
    /// events change little.
    pub(super) fn review(&mut self, now: Tick, slot: Slot) {
        let Some(entry) = self.table.connection(slot) else {
            return;
        };
        // While the connection still reads, the hang-up can wait: reading reaches the end anyway,
        // and one SHUTDOWN then reports both conditions instead of two.
        if !entry.conn.reads_next() && entry.host.as_mut().is_some_and(HostStream::take_hangup) {
            let max_message = self.config.max_message() as usize;
            entry.on_hangup(now, &mut self.message_buffer, max_message);
        }
        entry.sync_with_sibling(now, &mut self.actions);
        entry.do_actions(now, self.guest, &mut self.actions);
        entry.watch_writing(now, &mut self.actions, &mut self.counters);
        entry.count_credit_stall(&mut self.counters);
        // A connection keeps its place in the queue for a busy component only while it has no
        // stream.
        let waits = entry.conn.phase() == Phase::Accepting && entry.host.is_none();
        let left = entry.ticket.take_if(|_| !waits);
        if let Some(ticket) = entry.ticket {
            entry.retry = self.busy.retry(ticket);
        }
        // The tuple can be free before the connection is: a draining connection still writes to the
        // host while the guest may already use the ports again.
        if !entry.conn.phase().has_tuple() {
            let ports = entry.conn.key();
            self.table.release_ports(ports, slot);
        }
        // The next connection in that queue is tried from now on.
        if let Some(ticket) = left {
            self.stop_waiting(now, ticket);
        }
        self.schedule(slot);
    }

    /// Updates a connection's deadline and place in the queue, or removes it if it is closed.
    pub(super) fn schedule(&mut self, slot: Slot) {
        let Some(entry) = self.table.connection(slot) else {
            return;
        };
        if entry.conn.is_closed() {
            self.remove(slot);
            return;
        }
        match entry.deadline() {
            Some(at) => self.timers.set(slot, at),
            None => self.timers.cancel(slot),
        }
        if entry.conn.wants_transmit() {
            let lane = Lane::of(entry.conn.key());
            self.rxq.push(slot, lane);
        }
    }

    /// Removes a closed connection.
    fn remove(&mut self, slot: Slot) {
        self.timers.cancel(slot);
        self.rxq.remove(slot);
        let Some(Entry::Connection(mut entry)) = self.table.take(slot) else {
            return;
        };
        if entry.batch != Batch::Out {
            self.batch.retain(|listed| *listed != slot);
        }
        if let Some(ending) = entry.conn.ending() {
            self.note_ending(&entry, ending);
        }
        if let Some(lease) = entry.lease.take() {
            self.ports.release(lease);
        }
        if let Some(host) = entry.host.take() {
            host.close(CloseMode::Abort, &mut self.actions);
        }
        self.table.free(slot);
    }
}

impl ConnectionEntry {
    /// Executes the pending actions on the stream. A flush can add more.
    fn do_actions(&mut self, now: Tick, guest: GuestCid, out: &mut VecDeque<Action>) {
        loop {
            let actions = self.conn.take_actions();
            if actions.is_empty() {
                return;
            }
            let ends_writing = actions.contains(HostAction::ShutdownWrite);
            let closes = actions.contains(HostAction::Close);
            if closes || actions.contains(HostAction::ShutdownRead) {
                // The guest will not receive the rest.
                self.unsent = None;
            }
            // Ending both directions in one call wakes the peer only once.
            let both = ends_writing && actions.contains(HostAction::ShutdownRead);
            for action in actions {
                match action {
                    HostAction::Confirm => self.confirm(now, guest),
                    HostAction::ShutdownWrite | HostAction::ShutdownRead if closes => {}
                    HostAction::ShutdownWrite if both => self.shutdown(Shutdown::Both),
                    HostAction::ShutdownRead if both => {}
                    HostAction::ShutdownWrite => self.shutdown(Shutdown::Write),
                    HostAction::ShutdownRead => self.shutdown(Shutdown::Read),
                    HostAction::Close if ends_writing => self.close(CloseMode::Shutdown, out),
                    HostAction::Close => self.close(self.close_mode(), out),
                }
            }
        }
    }

    /// Tells the client of a host-initiated connection that the guest has accepted.
    fn confirm(&mut self, now: Tick, guest: GuestCid) {
        if self.conn.confirmation() == Confirmation::OutOfBand {
            let key = self.conn.key();
            let from = addr(guest.cid(), key.peer);
            let to = addr(key.host_cid, key.local);
            // An error means that the client has left.
            if let Some(host) = &mut self.host {
                if host.stream().confirm_from(from, to).is_err() {
                    self.conn.on_host_hangup(now);
                }
            }
        } else {
            self.flush(now);
        }
    }

    /// Returns how to close a stream whose written bytes need no explicit end.
    fn close_mode(&self) -> CloseMode {
        match self.conn.ending() {
            Some(Ending::Clean) => CloseMode::Drop,
            _ => CloseMode::Abort,
        }
    }

    /// Closes the stream. If there is none yet, no more attempts are made to obtain one.
    fn close(&mut self, mode: CloseMode, out: &mut VecDeque<Action>) {
        self.retry = None;
        if let Some(host) = self.host.take() {
            host.close(mode, out);
        }
    }

    /// Shuts down one or both directions. An error is harmless: a stream that does not support
    /// half-close, or has already ended, shows its end when it is dropped.
    fn shutdown(&mut self, how: Shutdown) {
        if let Some(host) = &mut self.host {
            drop(host.stream().shutdown(how));
        }
    }

    /// Writes waiting bytes to the stream, in a limited number of calls to be fair to other
    /// connections. If that is not enough, a deadline continues the work, because an edge is not
    /// reported twice.
    pub(super) fn flush(&mut self, now: Tick) {
        self.flush_at = None;
        if self.batch == Batch::Gathered {
            self.batch = Batch::Offered;
        }
        let Some(host) = &mut self.host else {
            return;
        };
        let mut calls = 0;
        let flush_at = &mut self.flush_at;
        self.conn.flush(now, |chunk| {
            if calls == WRITES {
                *flush_at = Some(now);
                return Progress::Pending;
            }
            calls += 1;
            write(host.stream(), chunk)
        });
    }

    /// Counts each transition to a full guest buffer.
    fn count_credit_stall(&mut self, counters: &mut MuxerCounters) {
        let stalls = self.conn.awaits_credit();
        if stalls != self.stalls.credit {
            self.stalls.credit = stalls;
            counters.credit_stalls += u64::from(stalls);
        }
    }

    /// Counts each time that the stream begins to refuse bytes.
    fn count_host_stall(&mut self, stalls: bool, counters: &mut MuxerCounters) {
        if stalls != self.stalls.host {
            self.stalls.host = stalls;
            counters.host_stalls += u64::from(stalls);
        }
    }

    /// Watches the stream for writing as long as bytes wait that the stream has refused, or as long
    /// as the stream is being connected.
    fn watch_writing(
        &mut self,
        now: Tick,
        out: &mut VecDeque<Action>,
        counters: &mut MuxerCounters,
    ) {
        let Some(host) = &mut self.host else {
            return;
        };
        // Gathered bytes were not offered to the stream yet, so it may be ready.
        if self.batch == Batch::Gathered {
            return;
        }
        let waits = self.conn.interest().write;
        if !waits && !host.is_pending() {
            self.retry = None;
            host.rest_writing(out);
        } else if self.retry.is_none_or(|retry| retry.at() <= now) {
            // If there is no descriptor for it, retry after a pause.
            self.retry = match host.watch_writing(out) {
                Ok(()) => None,
                Err(_) => {
                    counters.watch_failures += 1;
                    Some(Backoff::after(self.retry, now))
                }
            };
        }
        self.count_host_stall(waits, counters);
    }
}
