// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

use std::io::ErrorKind;

use vsock_backend_api::{Received, Record};
use vsock_proto::{MessageFlags, Progress};

use crate::link::Link;

/// A message of the host of which the guest has a part: the rest waits for credit, buffers or its turn.
/// A connection holds at most one, and reads no other before it is gone.
#[derive(Debug)]
pub(crate) struct Held {
    rest: Box<[u8]>,
    /// Bytes of `rest` that are with the guest by now.
    sent: usize,
    /// Bytes of the whole message.
    len: usize,
    flags: MessageFlags,
}

/// A message that is on its way to the guest, wherever it lies.
#[derive(Clone, Copy)]
pub(crate) struct Message<'a> {
    /// What the guest does not have yet.
    pub(crate) rest: &'a [u8],
    /// Bytes of the whole message.
    pub(crate) len: usize,
    /// Those of its last packet.
    pub(crate) flags: MessageFlags,
}

impl Held {
    /// Keeps what the guest does not have.
    pub(crate) fn new(message: Message<'_>) -> Self {
        Self {
            rest: message.rest.into(),
            sent: 0,
            len: message.len,
            flags: message.flags,
        }
    }

    pub(crate) fn message(&self) -> Message<'_> {
        Message {
            rest: self.rest.get(self.sent..).unwrap_or_default(),
            len: self.len,
            flags: self.flags,
        }
    }

    /// So many bytes more are with the guest.
    pub(crate) const fn advance(&mut self, count: usize) {
        self.sent += count;
    }
}

/// Memory for the message that is being read. It has none before the first one is.
#[derive(Debug, Default)]
pub(crate) struct Reading(Vec<u8>);

impl Reading {
    /// Reads the next message, of at most `limit` bytes. Without one, says why.
    pub(crate) fn receive(
        &mut self,
        link: &mut Link,
        limit: usize,
    ) -> Result<Message<'_>, Progress> {
        if self.0.is_empty() {
            self.0 = vec![0; limit];
        }
        let messages = link.stream().messages().ok_or(Progress::Failed)?;
        loop {
            return match messages.receive_message(&mut self.0) {
                Ok(Received::Message { len, record }) => Ok(Message {
                    rest: self.0.get(..len).ok_or(Progress::Failed)?,
                    len,
                    flags: match record {
                        Record::Ends => MessageFlags::END_OF_RECORD,
                        Record::Continues => MessageFlags::END_OF_MESSAGE,
                    },
                }),
                Ok(Received::TooLong) => Err(Progress::TooLong),
                Ok(Received::End) => Err(Progress::Closed),
                Err(error) => match error.kind() {
                    ErrorKind::Interrupted => continue,
                    ErrorKind::WouldBlock => Err(Progress::Pending),
                    _ => Err(Progress::Failed),
                },
            };
        }
    }
}
