// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

use crate::MessageFlags;

/// What came of trying to read from the host's stream, or to write to it.
///
/// "Would block" is one of the things that happen, so it is a value and not an error. The
/// caller of the operating system translates:
///
/// | | read | write |
/// |---|---|---|
/// | `Ok(n)` | `Done(n)`, or `Closed` for the 0 bytes of an end | `Done(n)` |
/// | `WouldBlock` | `Pending` | `Pending` |
/// | `BrokenPipe` | `Failed` | `Closed` |
/// | another error | `Failed` | `Failed` |
///
/// Of messages, `TooLong` says that one cannot pass: the stream never takes so long a one, or more
/// came than may be kept.
///
/// An interrupted call is repeated first. A read into an empty buffer is not made at all: its
/// `Ok(0)` would look like an end.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Progress {
    /// That many bytes were moved.
    Done(usize),
    /// Not now; the stream will become ready.
    Pending,
    /// This direction of the stream has ended in an orderly way.
    Closed,
    /// The stream is broken: a reset, or an error of the operating system.
    Failed,
    /// A message is longer than its receiver can ever hold. On a stream of bytes it is a failure.
    TooLong,
}

/// The payload of one packet from the guest, wherever it lies, and the stream it goes to.
///
/// The core decides what becomes of the bytes, and never holds those that the stream takes: they
/// go from guest memory to the stream with no buffer in between. What the stream refuses is copied
/// to the backlog. A panic in it passes through, and ends the connection as a broken stream does. A
/// count of more bytes than there were is taken for all of them.
pub trait Payload {
    /// Offers the payload that is left to the host's stream, in one call.
    ///
    /// On a seqpacket socket `message` has the flags of a message that is whole: the stream takes
    /// all of it or nothing, and an empty message is a message. On a stream socket it is none, and
    /// there are bytes to offer.
    fn forward(&mut self, message: Option<MessageFlags>) -> Progress;

    /// Fills `dst` with the next bytes of the payload.
    fn copy_to(&mut self, dst: &mut [u8]);
}

/// A payload in plain memory, and a function that writes to the stream: for a caller that has
/// copied the packet out of guest memory already.
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
    /// These bytes, and what writes them.
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
