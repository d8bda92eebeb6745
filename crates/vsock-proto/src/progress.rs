// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

use crate::MessageFlags;

/// The result of an attempt to read from or write to the host's stream.
///
/// "Would block" is a normal result, so it is a value and not an error. The code that calls the
/// operating system translates results as follows:
///
/// | Result | Read | Write |
/// |---|---|---|
/// | `Ok(n)` | `Done(n)`, or `Closed` if `n` is 0 | `Done(n)` |
/// | `WouldBlock` | `Pending` | `Pending` |
/// | `BrokenPipe` | `Failed` | `Closed` |
/// | any other error | `Failed` | `Failed` |
///
/// On a seqpacket socket, `TooLong` reports a message that can never pass: the stream does not
/// accept messages of that length, or the message exceeds the limit.
///
/// An interrupted call must be repeated first. Never read into an empty buffer: the resulting
/// `Ok(0)` would look like the end of the stream.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Progress {
    /// This many bytes were transferred.
    Done(usize),
    /// The stream is not ready now, but will become ready.
    Pending,
    /// This direction of the stream has ended in an orderly way.
    Closed,
    /// The stream is broken: it was reset, or the operating system reported an error.
    Failed,
    /// A message is longer than its receiver can ever hold. On a byte stream, this is a failure.
    TooLong,
}

/// The payload of one packet from the guest, wherever it is stored, together with the stream that
/// receives it.
///
/// The connection decides what happens to the bytes, but never holds those that the stream accepts:
/// they pass from guest memory to the stream without a buffer in between. Bytes that the stream
/// does not accept are copied to the backlog.
///
/// If an implementation panics, the panic propagates and the connection ends as it does with a
/// broken stream. A returned count that exceeds the number of bytes offered is treated as that
/// number.
pub trait Payload {
    /// Offers the remaining payload to the host's stream, in one call.
    ///
    /// On a seqpacket socket, `message` contains the flags of a complete message, which the stream
    /// must accept as a whole or not at all; an empty message counts as a message. On a stream
    /// socket, `message` is `None` and there is at least one byte.
    fn forward(&mut self, message: Option<MessageFlags>) -> Progress;

    /// Fills `dst` with the next bytes of the payload.
    fn copy_to(&mut self, dst: &mut [u8]);
}

/// A payload in ordinary memory with a function that writes to the stream, for callers that have
/// already copied the packet out of guest memory.
///
/// ```
/// use vsock_proto::{Payload, Progress, SlicePayload};
///
/// let mut taken = Vec::new();
/// let mut payload = SlicePayload::new(b"hello", |bytes: &[u8], _| {
///     taken.extend_from_slice(&bytes[..2]);
///     Progress::Done(2)
/// });
/// assert_eq!(payload.forward(None), Progress::Done(2));
/// let mut rest = [0; 3];
/// payload.copy_to(&mut rest);
/// assert_eq!((taken.as_slice(), &rest), (&b"he"[..], b"llo"));
/// ```
#[derive(Debug)]
pub struct SlicePayload<'a, W> {
    rest: &'a [u8],
    write: W,
}

impl<'a, W> SlicePayload<'a, W>
where
    W: FnMut(&[u8], Option<MessageFlags>) -> Progress,
{
    /// Creates a payload of these bytes, which `write` passes to the stream.
    pub const fn new(bytes: &'a [u8], write: W) -> Self {
        Self { rest: bytes, write }
    }
}

impl<W> Payload for SlicePayload<'_, W>
where
    W: FnMut(&[u8], Option<MessageFlags>) -> Progress,
{
    fn forward(&mut self, message: Option<MessageFlags>) -> Progress {
        let progress = (self.write)(self.rest, message);
        if let Progress::Done(taken) = progress {
            self.rest = self.rest.get(taken..).unwrap_or_default();
        }
        progress
    }

    fn copy_to(&mut self, dst: &mut [u8]) {
        let (next, rest) = self.rest.split_at(dst.len().min(self.rest.len()));
        if let Some(dst) = dst.get_mut(..next.len()) {
            dst.copy_from_slice(next);
        }
        self.rest = rest;
    }
}
