// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! What a connection of a scenario has to send and to receive where it keeps messages apart: the same
//! bytes as any other, with their boundaries.

use std::collections::VecDeque;

use super::link::Link;
use crate::guest::Guest;
use crate::pattern::Pattern;
use crate::sim::Failure;

/// Messages on their way, in each direction.
#[derive(Debug, Default)]
pub(crate) struct Messages {
    to_host: Boundaries,
    to_guest: Boundaries,
    /// Bytes that the guest's buffer holds, and that a message of the host may have.
    longest: usize,
}

/// The length of each message that was sent and has not arrived, and whether a record ends with it.
#[derive(Debug, Default)]
struct Boundaries(VecDeque<(usize, bool)>);

impl Boundaries {
    /// What arrives is what was sent first.
    fn arrived(&mut self, len: usize, record: bool) -> Result<(), Failure> {
        match self.0.pop_front() {
            Some(sent) if sent == (len, record) => Ok(()),
            sent => Err(Failure::new(format!(
                "a message of {len} bytes, record {record}, where {sent:?} was sent"
            ))),
        }
    }
}

impl Messages {
    pub(super) fn new(longest: usize) -> Self {
        Self {
            longest,
            ..Self::default()
        }
    }

    /// Messages on their way to the host, and to the guest.
    pub(super) fn missing(&self) -> (usize, usize) {
        (self.to_host.0.len(), self.to_guest.0.len())
    }
}

/// Some messages end a record.
const fn ends_record(len: usize) -> bool {
    len.is_multiple_of(3)
}

impl Link {
    pub(super) fn guest_sends_message(&mut self, guest: &mut Guest, len: usize) {
        let (Some(id), Some(messages)) = (self.socket, &mut self.messages) else {
            return;
        };
        let record = ends_record(len);
        if guest.send(id, &self.guest_sent.peek(len), record) == Ok(true) {
            self.guest_sent.advance(len);
            messages.to_host.0.push_back((len, record));
        }
    }

    pub(super) fn host_sends_message(&mut self, len: usize) {
        let (Some(host), Some(messages)) = (&self.host, &mut self.messages) else {
            return;
        };
        let (len, record) = (len.min(messages.longest), ends_record(len));
        if let Ok(true) = host.send(&self.host_sent.peek(len), record) {
            self.host_sent.advance(len);
            messages.to_guest.0.push_back((len, record));
        }
    }

    pub(super) fn guest_receives_messages(&mut self, guest: &mut Guest) -> Result<bool, Failure> {
        let Some(id) = self.socket else {
            return Ok(false);
        };
        // A kernel whose buffer was too small for the packets of a message has said so.
        self.spoilt |= guest.overran(id);
        let mut any = false;
        while let Some((bytes, record)) = guest.receive_message(id) {
            any = true;
            let got = self.guest_got.verify(&bytes);
            got.map_err(|at| self.wrong("guest", at))?;
            if let Some(messages) = &mut self.messages {
                messages.to_guest.arrived(bytes.len(), record)?;
            }
        }
        Ok(any)
    }

    pub(super) fn host_receives_messages(&mut self) -> Result<bool, Failure> {
        let mut any = false;
        while let Some(host) = &self.host
            && let Some((bytes, record)) = host.receive()
        {
            any = true;
            if self.forged {
                continue;
            }
            if self.answer.take().is_some() {
                if !bytes.starts_with(b"OK ") || record {
                    return Err(Failure::new(format!("no answer but {bytes:?}")));
                }
                continue;
            }
            let got = self.host_got.verify(&bytes);
            got.map_err(|at| self.wrong("host", at))?;
            if let Some(messages) = &mut self.messages {
                messages.to_host.arrived(bytes.len(), record)?;
            }
        }
        Ok(any)
    }

    /// Bytes that a message of the host may have.
    pub(super) fn longest(&self) -> usize {
        self.messages
            .as_ref()
            .map_or(0, |messages| messages.longest)
    }

    /// The guest ends its sending: a message that is not yet with the peer will never be.
    pub(super) fn give_up_message(&mut self, guest: &Guest) {
        let (Some(id), Some(messages)) = (self.socket, &mut self.messages) else {
            return;
        };
        if guest.is_sending(id)
            && let Some((len, _)) = messages.to_host.0.pop_back()
        {
            let sent = self.guest_sent.position() - len as u64;
            self.guest_sent = Pattern::starting_at(sent);
        }
    }
}
