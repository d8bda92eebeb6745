// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Descriptor events.

use std::collections::VecDeque;

use vsock_proto::Tick;

use crate::action::Action;
use crate::entry::{ConnectionEntry, Entry};
use crate::muxer::Muxer;
use crate::token::{Owner, Readiness, Token};

impl Muxer {
    /// Handles an event that the event loop reports for a token. An unknown or outdated token is
    /// ignored.
    pub fn on_event(&mut self, now: Tick, token: Token, ready: Readiness) {
        self.unwinding(|muxer| muxer.take_event(now, token, ready));
    }

    fn take_event(&mut self, now: Tick, token: Token, ready: Readiness) {
        match token.owner() {
            Some(Owner::Backend(id)) => self.on_backend_event(now, id),
            Some(Owner::Stream(key)) => match self.table.get(key) {
                Some(Entry::Handshake(_)) => {
                    self.on_command(now, key);
                    self.on_command_event(now, key, ready);
                }
                Some(Entry::Connection(_)) => {
                    if self.go_on_connecting(now, key, ready) {
                        if let Some(entry) = self.table.connection(key.slot) {
                            entry.on_event(now, ready, &mut self.actions);
                        }
                    }
                    self.review(now, key.slot);
                }
                None => {}
            },
            Some(Owner::Credit(key)) => self.on_credit_event(now, key),
            None => {}
        }
    }
}

impl ConnectionEntry {
    /// Handles an event of a connection's stream. If several conditions are reported together,
    /// waiting bytes are written first, and what the host has sent is read before its end takes
    /// effect.
    fn on_event(&mut self, now: Tick, ready: Readiness, actions: &mut VecDeque<Action>) {
        if ready.writable && self.conn.interest().write {
            self.flush(now);
        } else if ready.writable {
            if let Some(host) = &mut self.host {
                host.note_unused_writable(actions);
            }
        }
        let Some(host) = &mut self.host else {
            return;
        };
        if ready.hangup || ready.readable && host.is_left() {
            host.note_hangup(actions);
            self.conn.on_host_readable(now);
        } else if ready.readable && host.note_readable(actions) {
            self.conn.on_host_readable(now);
        }
    }
}
