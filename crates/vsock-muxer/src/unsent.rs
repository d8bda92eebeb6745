// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

use std::io::ErrorKind;

use vsock_backend_api::{Received, Record};
use vsock_proto::{MessageFlags, Progress};

use crate::host_stream::HostStream;

/// Data that was read from a host's stream and not yet sent to the guest: bytes that came with a
/// client's command, bytes that a client left when it went, or the rest of a message that waits for
/// credit, for buffers or for its turn. Nothing else is read before this data has been sent.
#[derive(Debug)]
pub(crate) struct Unsent {
    bytes: Box<[u8]>,
    /// How many of `bytes` were already sent.
    sent: usize,
    /// The length of the complete message in bytes.
    len: usize,
    flags: MessageFlags,
}

/// A message on its way to the guest, wherever it is stored.
#[derive(Clone, Copy)]
pub(crate) struct Message<'a> {
    /// The bytes that were not yet sent.
    pub(crate) rest: &'a [u8],
    /// The length of the complete message in bytes.
    pub(crate) len: usize,
    /// The flags of its last packet.
    pub(crate) flags: MessageFlags,
}

impl Unsent {
    /// Keeps bytes of a stream. Returns `None` if there are none.
    pub(crate) fn bytes(bytes: &[u8]) -> Option<Self> {
        let whole = Message {
            rest: bytes,
            len: bytes.len(),
            flags: MessageFlags::NONE,
        };
        (!bytes.is_empty()).then(|| Self::message(whole))
    }

    /// Keeps the unsent rest of a message, which may be empty.
    pub(crate) fn message(message: Message<'_>) -> Self {
        Self {
            bytes: message.rest.into(),
            sent: 0,
            len: message.len,
            flags: message.flags,
        }
    }

    /// Returns the data that is still to be sent.
    pub(crate) fn rest(&self) -> Message<'_> {
        Message {
            rest: self.bytes.get(self.sent..).unwrap_or_default(),
            len: self.len,
            flags: self.flags,
        }
    }

    /// Records that `count` more bytes were sent. Returns whether that was all.
    pub(crate) const fn advance(&mut self, count: usize) -> bool {
        self.sent += count;
        self.sent >= self.bytes.len()
    }
}

/// A buffer for the message that is being read. Allocated when the first message is.
#[derive(Debug, Default)]
pub(crate) struct MessageBuffer(Vec<u8>);

impl MessageBuffer {
    /// Reads the next message, of at most `limit` bytes. Returns the reason if there is none.
    pub(crate) fn receive(
        &mut self,
        host: &mut HostStream,
        limit: usize,
    ) -> Result<Message<'_>, Progress> {
        if self.0.is_empty() {
            self.0 = vec![0; limit];
        }
        let messages = host.stream().messages().ok_or(Progress::Failed)?;
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

#[cfg(test)]
mod tests {
    use super::Unsent;

    #[test]
    fn bytes_are_sent_in_order() {
        let mut unsent = Unsent::bytes(b"hello").unwrap();
        assert_eq!(unsent.rest().rest, b"hello");
        assert!(!unsent.advance(2));
        assert_eq!(unsent.rest().rest, b"llo");
        assert!(unsent.advance(3));
        assert_eq!(unsent.rest().rest, b"");
    }

    #[test]
    fn an_empty_write_keeps_no_block() {
        assert!(Unsent::bytes(b"").is_none());
    }
}
