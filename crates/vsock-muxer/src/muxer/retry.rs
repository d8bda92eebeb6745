// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Connections of the guest to host components that are busy.
//!
//! A host whose backlog is full is asked again, for the connection that has waited longest, and
//! then for the next. It is not asked when its listener is another one: a server that starts anew
//! would get all the connections that were meant for the one before, and the guest may have given
//! up each of them without a word. Those that wait get an RST; a guest that has not given up asks
//! anew.
//!
//! A call does not say which listener it has met. So that is asked before the call and after it,
//! and a stream counts only if it was the right one both times. For the first call of a queue it is
//! asked after it alone: if the listener has changed in between, the new one is met by a REQUEST
//! that has just come.

use std::io::ErrorKind;

use vsock_backend_api::VsockStream;
use vsock_proto::{Phase, Tick};

use crate::backends::addr;
use crate::backoff::Backoff;
use crate::busy::{First, Target, Ticket};
use crate::muxer::Muxer;
use crate::slot::Slot;

/// Connections that are tried before others have their turn.
const TRIES: usize = 64;

/// What a host component has said.
enum Answer {
    Stream(Box<dyn VsockStream>),
    Busy,
    Refusal(Option<ErrorKind>),
    /// It is not the one that was busy.
    Another,
}

impl Muxer {
    /// Asks a busy host component again, for those who wait for it in their order. Returns for how
    /// many.
    pub(super) fn ask_again(&mut self, now: Tick, target: Target) -> usize {
        for served in 0..TRIES {
            let Some(first) = self.busy.first(target) else {
                return served;
            };
            if self.gives_up(now, first.slot) {
                continue;
            }
            match self.ask(target, first) {
                Answer::Stream(stream) => self.meet(now, first.slot, stream),
                Answer::Refusal(error) => self.refuse(now, first.slot, error),
                Answer::Another => return served + self.refuse_all(now, target),
                Answer::Busy => {
                    if served > 0 || first.pause.at() <= now {
                        let before = Some(first.pause).filter(|_| served == 0);
                        self.put_off(now, target, Backoff::after(before, now));
                    }
                    return served;
                }
            }
        }
        self.put_off(now, target, Backoff::over(now));
        TRIES
    }

    /// A connection does not wait for a busy host component any more. If it was the first of those,
    /// the component is asked for the next from now on.
    pub(super) fn stop_waiting(&mut self, now: Tick, ticket: Ticket) {
        self.busy.remove(ticket);
        if let Some(first) = self.busy.first(ticket.target()) {
            self.review(now, first.slot);
        }
    }

    /// Whether a guest has had no reason to go on waiting.
    fn gives_up(&mut self, now: Tick, slot: Slot) -> bool {
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

    fn ask(&mut self, target: Target, first: First) -> Answer {
        if self.backends.listener(target) != first.met {
            return Answer::Another;
        }
        let Some(entry) = self.table.connection(first.slot) else {
            return Answer::Refusal(None);
        };
        let from = addr(self.guest.cid(), entry.conn.key().peer);
        match self.backends.connect(from, target) {
            Ok(_) if self.backends.listener(target) != first.met => Answer::Another,
            Ok(stream) => Answer::Stream(stream),
            Err(error) if error.kind() == ErrorKind::WouldBlock => Answer::Busy,
            Err(error) => Answer::Refusal(Some(error.kind())),
        }
    }

    fn meet(&mut self, now: Tick, slot: Slot, stream: Box<dyn VsockStream>) {
        let Some(key) = self.table.key(slot) else {
            return;
        };
        self.begin_connect(now, key, stream);
        self.review(now, slot);
    }

    fn refuse(&mut self, now: Tick, slot: Slot, error: Option<ErrorKind>) {
        if let Some(entry) = self.table.connection(slot) {
            entry.conn.on_host_refused(now);
            let key = entry.conn.key();
            self.note_host_refusal(key, error);
        }
        self.review(now, slot);
    }

    fn refuse_all(&mut self, now: Tick, target: Target) -> usize {
        let mut refused = 0;
        while let Some(first) = self.busy.first(target) {
            self.refuse(now, first.slot, None);
            refused += 1;
        }
        refused
    }

    fn put_off(&mut self, now: Tick, target: Target, pause: Backoff) {
        self.busy.set_pause(target, pause);
        if let Some(first) = self.busy.first(target) {
            self.review(now, first.slot);
        }
    }
}
