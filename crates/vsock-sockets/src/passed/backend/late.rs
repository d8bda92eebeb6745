// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Clients that have not sent their command in time.

use std::time::Instant;

use vsock_backend_api::VsockStream;

use super::PassFdBackend;
use crate::journal::say;
use crate::passed::waiting::{Outcome, Stage};

impl PassFdBackend {
    /// Refuses the clients that are late, except those whose commands have arrived by now. If the
    /// device has accepted no client for a while, because its guest was paused, the timer's event
    /// can come before theirs. Returns the next stream, if there is one.
    pub(super) fn refuse_late(&mut self) -> Option<Box<dyn VsockStream>> {
        let now = Instant::now();
        let mut stream = None;
        while let (None, Some(oldest)) = (&stream, self.clients.first_entry()) {
            if oldest.get().until.is_none_or(|until| until > now) {
                break;
            }
            let (outcome, was_asking) = match oldest.remove().stage {
                Stage::Asking(client) => (self.ask(client, false), true),
                Stage::Looking(looking) => (self.look(looking), false),
            };
            stream = match outcome {
                // The descriptor has as much time for its examination as the client had.
                Outcome::Waits(Stage::Looking(_)) if was_asking => {
                    let (number, until) = (self.next, now.checked_add(self.config.command_timeout));
                    self.next = number.saturating_add(1);
                    self.settle(number, until, outcome)
                }
                Outcome::Waits(_) => {
                    say!(
                        self.journal(),
                        Debug,
                        "refusing a client that has not sent its command in time"
                    );
                    None
                }
                Outcome::Stream(stream) => Some(stream),
                Outcome::Refused => None,
            };
        }
        self.timer.has_fired();
        self.set_timer();
        stream
    }

    /// Sets the timer for the oldest client, if it is not set. Later clients have later deadlines.
    pub(super) fn set_timer(&mut self) {
        if let Some((_, oldest)) = self.clients.first_key_value() {
            if let Some(until) = oldest.until {
                if let Err(error) = self.timer.set(until) {
                    say!(
                        self.journal(),
                        Debug,
                        "cannot set the timer for waiting clients: {error}"
                    );
                }
            }
        }
    }
}
