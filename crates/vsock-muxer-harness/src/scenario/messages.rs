// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! The boundaries of a connection that keeps messages apart: its bytes are those of any other.

use std::collections::VecDeque;

use vsock_proto::MessageFlags;

use crate::sim::SimFailure;

/// Messages on their way, in each direction.
#[derive(Debug, Default)]
pub(super) struct Messages {
    pub(super) to_host: Boundaries,
    pub(super) to_guest: Boundaries,
    /// Bytes that the guest's buffer holds, and that a message of the host may have.
    pub(super) longest: usize,
}

/// The length of each message that was sent and has not arrived, and how it ends.
#[derive(Debug, Default)]
pub(super) struct Boundaries(VecDeque<(usize, MessageFlags)>);

impl Boundaries {
    pub(super) fn sent(&mut self, len: usize, end: MessageFlags) {
        self.0.push_back((len, end));
    }

    /// What arrives is what was sent first.
    pub(super) fn arrived(&mut self, len: usize, end: MessageFlags) -> Result<(), SimFailure> {
        match self.0.pop_front() {
            Some(sent) if sent == (len, end) => Ok(()),
            sent => Err(SimFailure::new(format!(
                "a message of {len} bytes with {end:?} came, where {sent:?} was sent"
            ))),
        }
    }

    /// The message that was sent last will never arrive; returns its length.
    pub(super) fn give_up_last(&mut self) -> Option<usize> {
        self.0.pop_back().map(|(len, _)| len)
    }

    /// Messages that have not arrived.
    pub(super) fn missing(&self) -> usize {
        self.0.len()
    }
}

/// Some messages end a record.
pub(super) const fn end_of(len: usize) -> MessageFlags {
    if len % 3 == 0 {
        MessageFlags::END_OF_RECORD
    } else {
        MessageFlags::END_OF_MESSAGE
    }
}
