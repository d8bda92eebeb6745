// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Refuses clients that have not sent their command: in time, or before there were too many.
//!
//! A client whose command has arrived is not refused. If the device has accepted no client for a
//! while, because its guest was paused, the event of that command may come last.

use std::time::Instant;

use vsock_backend_api::VsockStream;

use super::PassFdBackend;
use crate::journal::say;
use crate::passed::waiting::{Outcome, Stage, Waiting};

/// The result of the last look at a client.
enum LastLook {
    /// The client is to be refused.
    Silent,
    /// The client's command has arrived. There may be a stream.
    Settled(Option<Box<dyn VsockStream>>),
}

impl PassFdBackend {
    /// Refuses the oldest client that has not sent its command, if there are too many of them.
    /// Returns a stream if the command of a client has arrived by now.
    pub(super) fn make_room(&mut self) -> Option<Box<dyn VsockStream>> {
        let is_asking = |waiting: &Waiting| matches!(waiting.stage, Stage::Asking(_));
        loop {
            let mut asking = self.clients.iter().filter(|(_, one)| is_asking(one));
            let oldest = asking.next().map(|(number, _)| *number);
            let number = oldest.filter(|_| asking.count() >= self.config.max_waiting)?;
            match self.look_again(number) {
                LastLook::Settled(None) => {}
                LastLook::Settled(stream) => return stream,
                LastLook::Silent => say!(
                    self.journal(),
                    Debug,
                    "too many clients have not sent their command: refusing the oldest"
                ),
            }
        }
    }

    /// Refuses the clients that are late. Returns a stream if the command of a client has arrived
    /// by now.
    pub(super) fn refuse_late(&mut self) -> Option<Box<dyn VsockStream>> {
        let now = Instant::now();
        let mut stream = None;
        while let (None, Some((number, oldest))) = (&stream, self.clients.first_key_value()) {
            if oldest.until.is_none_or(|until| until > now) {
                break;
            }
            match self.look_again(*number) {
                LastLook::Settled(settled) => stream = settled,
                LastLook::Silent => say!(
                    self.journal(),
                    Debug,
                    "refusing a client that has not sent its command in time"
                ),
            }
        }
        self.timer.has_fired();
        self.set_timer();
        stream
    }

    /// Removes a client and looks whether its command has arrived. If so, continues with it.
    fn look_again(&mut self, number: u64) -> LastLook {
        let stage = self.clients.remove(&number).map(|client| client.stage);
        let outcome = match stage {
            None => return LastLook::Settled(None),
            Some(Stage::Looking(looking)) => match self.look(looking) {
                Outcome::Waits(_) => return LastLook::Silent,
                outcome => outcome,
            },
            Some(Stage::Asking(client)) => match self.ask(client, false) {
                Outcome::Waits(Stage::Asking(_)) => return LastLook::Silent,
                outcome => outcome,
            },
        };
        // The examination of its descriptor has as much time as the client had.
        let until = Instant::now().checked_add(self.config.command_timeout);
        let number = self.next;
        self.next = number.saturating_add(1);
        LastLook::Settled(self.settle(number, until, outcome))
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
