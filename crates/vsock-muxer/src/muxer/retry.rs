// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Connections of the guest to busy host components.
//!
//! If a component's backlog is full, the component is asked again for the connection that has
//! waited longest, and then for the next one. This stops if its listener has been replaced: a
//! restarted server would receive all the connections that were meant for its predecessor, although
//! the guest may have given up each of them without saying so. The waiting connections receive an
//! RST instead; a guest program that has not given up connects again.
//!
//! A `connect` call does not report which listener it reached. The listener is therefore queried
//! before and after the call, and a stream counts only if the listener was the expected one both
//! times. Before the first call of a queue, there is no expected listener, so it is queried
//! afterwards only: if it has changed in between, the new one receives a REQUEST that has only just
//! arrived.

use std::io::ErrorKind;

use vsock_backend_api::VsockStream;
use vsock_proto::{Phase, Tick};

use crate::backends::addr;
use crate::backoff::Backoff;
use crate::busy::{First, Target, Ticket};
use crate::muxer::Muxer;
use crate::slot::Slot;

/// How many connections are tried in one turn.
const TRIES: usize = 64;

/// The answer of a host component.
enum Answer {
    Stream(Box<dyn VsockStream>),
    Busy,
    Refusal(Option<ErrorKind>),
    /// Its listener has been replaced.
    Another,
}

impl Muxer {
    /// Asks a busy host component again for the connections that wait for it, in order. Returns how
    /// many were handled.
    pub(super) fn ask_again(&mut self, now: Tick, target: Target) -> usize {
        for served in 0..TRIES {
            let Some(first) = self.busy.first(target) else {
                return served;
            };
            if self.has_expired(now, first.slot) {
                continue;
            }
            match self.ask(target, first) {
                Answer::Stream(stream) => self.connect_waiting(now, first.slot, stream),
                Answer::Refusal(error) => self.refuse(now, first.slot, error),
                Answer::Another => return served + self.refuse_all(now, target),
                Answer::Busy => {
                    // The pause grows only if nothing was accepted since the last one. An early
                    // attempt that fails must not delay the attempt that is already scheduled.
                    if served > 0 || first.pause.at() <= now {
                        let before = Some(first.pause).filter(|_| served == 0);
                        self.postpone(now, target, Backoff::after(before, now));
                    }
                    return served;
                }
            }
        }
        self.postpone(now, target, Backoff::over(now));
        TRIES
    }

    /// Removes a connection from the queue for a busy host component. If it was the first one, the
    /// next attempt is made for its successor.
    pub(super) fn stop_waiting(&mut self, now: Tick, ticket: Ticket) {
        self.busy.remove(ticket);
        if let Some(first) = self.busy.first(ticket.target()) {
            self.review(now, first.slot);
        }
    }

    /// Checks whether the connection's own deadline has passed, in which case it needs no stream
    /// any more.
    fn has_expired(&mut self, now: Tick, slot: Slot) -> bool {
        let Some(entry) = self.table.connection(slot) else {
            return false;
        };
        entry.conn.on_timeout(now);
        let gone = entry.conn.phase() != Phase::Accepting;
        if gone {
            self.review(now, slot);
        }
        gone
    }

    /// Asks the host component for a stream for the first connection in its queue.
    fn ask(&mut self, target: Target, first: First) -> Answer {
        if self.backends.listener(target) != first.met {
            return Answer::Another;
        }
        let Some(entry) = self.table.connection(first.slot) else {
            return Answer::Refusal(None);
        };
        let from = addr(self.guest.cid(), entry.conn.key().peer);
        // A stream of another listener is dropped: nothing was written to it.
        match self.backends.connect(from, target) {
            Ok(_) if self.backends.listener(target) != first.met => Answer::Another,
            Ok(stream) => Answer::Stream(stream),
            Err(error) if error.kind() == ErrorKind::WouldBlock => Answer::Busy,
            Err(error) => Answer::Refusal(Some(error.kind())),
        }
    }

    /// Gives a waiting connection its stream.
    fn connect_waiting(&mut self, now: Tick, slot: Slot, stream: Box<dyn VsockStream>) {
        let Some(key) = self.table.key(slot) else {
            return;
        };
        self.begin_connect(now, key, stream);
        self.review(now, slot);
    }

    /// Refuses a waiting connection.
    fn refuse(&mut self, now: Tick, slot: Slot, error: Option<ErrorKind>) {
        if let Some(entry) = self.table.connection(slot) {
            entry.conn.on_host_refused(now);
            let key = entry.conn.key();
            self.note_host_refusal(key, error);
        }
        self.review(now, slot);
    }

    /// Refuses all connections in a queue. Returns how many there were.
    fn refuse_all(&mut self, now: Tick, target: Target) -> usize {
        let mut refused = 0;
        while let Some(first) = self.busy.first(target) {
            self.refuse(now, first.slot, None);
            refused += 1;
        }
        refused
    }

    /// Sets the time of the next attempt for a queue.
    fn postpone(&mut self, now: Tick, target: Target, pause: Backoff) {
        self.busy.set_pause(target, pause);
        if let Some(first) = self.busy.first(target) {
            self.review(now, first.slot);
        }
    }
}
