// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

use std::io::{self, IoSlice};

/// The result of [`VsockMessages::receive_message`].
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Received {
    /// The buffer contains a whole message.
    Message {
        /// Its length in bytes. An empty message is a message.
        len: usize,
        /// Whether this message ends a record.
        record: Record,
    },
    /// The next message was longer than the buffer and has been discarded. The content of the
    /// buffer is unspecified.
    TooLong,
    /// The peer will send no more messages.
    End,
}

/// Whether a message ends a record (`MSG_EOR`). The sender sets this mark; it does not affect how
/// the message is delivered.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub enum Record {
    /// The record continues with the next message, or records are not marked.
    Continues,
    /// The record ends with this message.
    Ends,
}

/// Sends and receives whole messages, on a stream that preserves their boundaries: the host end of
/// a guest's seqpacket connection (virtio 1.3, section 5.10.6.6).
///
/// One call transfers one message, whole or not at all. The stream's descriptors report readiness
/// for messages as those of other streams do for bytes. Its mode, timeouts and ends follow
/// [`VsockStream`](crate::VsockStream). `Read` and `Write` on such a stream are of limited use,
/// because they cannot distinguish an empty message from the end.
pub trait VsockMessages {
    /// Sends one message, the concatenation of the given pieces. A stream that does not support
    /// records ignores the mark.
    ///
    /// # Errors
    ///
    /// - `WouldBlock`: there is no room for the whole message now; nothing was sent.
    /// - `InvalidInput`: the message is longer than the stream can ever send; nothing was sent.
    /// - `BrokenPipe`: the peer no longer receives, or this end has shut down sending.
    /// - Any other error: the stream is broken.
    fn send_message(&mut self, message: &[IoSlice<'_>], record: Record) -> io::Result<()>;

    /// Receives the next message.
    ///
    /// # Errors
    ///
    /// - `WouldBlock`: no message is available.
    /// - `ConnectionReset`: the peer has closed abruptly. Returned after the messages that it had
    ///   sent.
    /// - Any other error: the stream is broken.
    fn receive_message(&mut self, buffer: &mut [u8]) -> io::Result<Received>;
}
