// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

use std::io::{self, IoSlice};

/// What [`VsockMessages::receive_message`] has found.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Received {
    /// A whole message is in the buffer.
    Message {
        /// Its bytes; an empty message is a message.
        len: usize,
        /// Whether a record ends with it.
        record: Record,
    },
    /// The next message was longer than the buffer, and is lost. What is in the buffer means
    /// nothing.
    TooLong,
    /// The peer will send no more.
    End,
}

/// Whether a record ends with a message (`MSG_EOR`): a mark of the sender's, which changes nothing
/// for the message.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub enum Record {
    /// It goes on with the next message, or records are not marked.
    Continues,
    /// It ends.
    Ends,
}

/// Whole messages, by a stream that keeps their boundaries: the host's end of a seqpacket socket of
/// the guest (virtio 1.3, section 5.10.6.6).
///
/// A message passes whole or not at all, in one call. The descriptors of the stream tell of
/// messages as those of other streams tell of bytes, and its mode, its timeouts and its ends are
/// what [`VsockStream`](crate::VsockStream) says. `Read` and `Write` of such a stream are of little
/// use: they cannot tell an empty message from the end.
pub trait VsockMessages {
    /// Sends one message, which lies in these pieces one after the other. A stream that knows no
    /// records leaves the mark out.
    ///
    /// # Errors
    ///
    /// - `WouldBlock`: there is no room for all of it now; nothing was sent.
    /// - `InvalidInput`: the stream never takes so long a message; nothing was sent.
    /// - `BrokenPipe`: the peer does not receive any more, or this end has shut down its sending.
    /// - Anything else: the stream is broken.
    fn send_message(&mut self, message: &[IoSlice<'_>], record: Record) -> io::Result<()>;

    /// Receives the next message.
    ///
    /// # Errors
    ///
    /// - `WouldBlock`: no message is there.
    /// - `ConnectionReset`: the peer has left without an end, after the messages that it had sent.
    /// - Anything else: the stream is broken.
    fn receive_message(&mut self, buffer: &mut [u8]) -> io::Result<Received>;
}
