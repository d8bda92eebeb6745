// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! The message boundaries of a seqpacket connection. Its bytes are checked like those of any other.

use std::collections::VecDeque;

use vsock_proto::MessageFlags;

use crate::sim::SimFailure;

/// The messages in flight, in each direction.
#[derive(Debug, Default)]
pub(super) struct Messages {
    pub(super) to_host: Boundaries,
    pub(super) to_guest: Boundaries,
    /// The maximum length of a message from the host, in bytes, which the guest's buffer can hold.
    pub(super) longest: usize,
}

/// The length and the end of each message that was sent and has not arrived.
#[derive(Debug, Default)]
pub(super) struct Boundaries(VecDeque<(usize, MessageFlags)>);

impl Boundaries {
    pub(super) fn sent(&mut self, len: usize, end: MessageFlags) {
        self.0.push_back((len, end));
    }

    /// Checks that an arriving message is the oldest one in flight.
    pub(super) fn arrived(&mut self, len: usize, end: MessageFlags) -> Result<(), SimFailure> {
        match self.0.pop_front() {
            Some(sent) if sent == (len, end) => Ok(()),
            sent => Err(SimFailure::new(format!(
                "a message of {len} bytes with {end:?} arrived, but {sent:?} was sent"
            ))),
        }
    }

    /// Drops the message that was sent last, which will never arrive. Returns its length.
    pub(super) fn give_up_last(&mut self) -> Option<usize> {
        self.0.pop_back().map(|(len, _)| len)
    }

    /// Returns the number of messages that have not arrived.
    pub(super) fn missing(&self) -> usize {
        self.0.len()
    }
}

/// Returns the end of a message of this length, which for some messages ends a record as well.
pub(super) const fn end_of(len: usize) -> MessageFlags {
    if len % 3 == 0 {
        MessageFlags::END_OF_RECORD
    } else {
        MessageFlags::END_OF_MESSAGE
    }
}
