// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Events of descriptors.

use std::collections::VecDeque;

use vsock_proto::Tick;

use crate::entry::{Entry, Open};
use crate::token::Belongs;
use crate::{Action, Muxer, Readiness, Token};

impl Muxer {
    /// An event loop reports readiness of what belongs to the token. An unknown or outdated token is
    /// ignored.
    pub fn on_event(&mut self, now: Tick, token: Token, ready: Readiness) {
        self.unwinding(|muxer| muxer.take_event(now, token, ready));
    }

    fn take_event(&mut self, now: Tick, token: Token, ready: Readiness) {
        match token.belongs() {
            Some(Belongs::Backend(id)) => self.on_backend_event(now, id),
            Some(Belongs::Stream(place)) => match self.table.tenant(place) {
                Some(Entry::Handshake(_)) => {
                    self.on_command(now, place);
                    self.on_command_event(now, place, ready);
                }
                Some(Entry::Open(open)) => {
                    open.on_event(now, ready, &mut self.actions);
                    self.review(now, place.slot);
                }
                None => {}
            },
            None => {}
        }
    }
}

impl Open {
    /// Several things may be reported at once: what waits for the host is written first, and what
    /// the host has left behind is read before its end counts.
    fn on_event(&mut self, now: Tick, ready: Readiness, actions: &mut VecDeque<Action>) {
        if ready.writable && self.conn.interest().write {
            self.flush(now);
        } else if ready.writable
            && let Some(link) = &mut self.link
        {
            link.rest_writing(true, actions);
        }
        let Some(link) = &mut self.link else {
            return;
        };
        if ready.hangup || ready.readable && link.is_left() {
            link.note_hangup(actions);
            self.conn.on_host_readable(now);
        } else if ready.readable && link.note_readable(actions) {
            self.conn.on_host_readable(now);
        }
    }
}
