// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Calls of streams, with their results as [`Progress`], and a buffer for streams that cannot
//! access guest memory.

use std::io::{self, ErrorKind};

use vm_memory::VolatileSlice;
use vm_memory::bitmap::BitmapSlice;
use vsock_proto::Progress;

/// Reads into a non-empty destination of `room` bytes, so a result of 0 bytes is the end of the
/// stream. Repeats an interrupted call.
pub(crate) fn read(room: usize, call: impl FnMut() -> io::Result<usize>) -> Progress {
    match uninterrupted(room, call) {
        Ok(0) => Progress::Closed,
        Ok(len) => Progress::Done(len),
        Err(error) if error.kind() == ErrorKind::WouldBlock => Progress::Pending,
        Err(_) => Progress::Failed,
    }
}

/// Writes `len` bytes. Repeats an interrupted call. Treats `Ok(0)` like `WouldBlock`.
pub(crate) fn write(len: usize, call: impl FnMut() -> io::Result<usize>) -> Progress {
    match uninterrupted(len, call) {
        Ok(0) => Progress::Pending,
        Ok(len) => Progress::Done(len),
        Err(error) => match error.kind() {
            ErrorKind::WouldBlock => Progress::Pending,
            ErrorKind::BrokenPipe => Progress::Closed,
            _ => Progress::Failed,
        },
    }
}

/// Repeats a call until it is not interrupted. A stream that claims to have moved more than
/// `offered` bytes has failed, because how many it really moved is unknown.
fn uninterrupted(offered: usize, mut call: impl FnMut() -> io::Result<usize>) -> io::Result<usize> {
    loop {
        match call() {
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Ok(moved) if moved > offered => return Err(ErrorKind::InvalidData.into()),
            result => return result,
        }
    }
}

/// Moves the `left` bytes of `pieces`, in either direction, in as few calls as the stream allows.
/// Each call receives the remaining pieces and their length. Returns how many bytes were moved, and
/// the result of the last call: `Done` if no further call was necessary.
pub(crate) fn all<'m, B: BitmapSlice>(
    pieces: &[VolatileSlice<'m, B>],
    mut left: usize,
    mut call: impl FnMut(&[VolatileSlice<'m, B>], usize) -> Progress,
) -> (usize, Progress) {
    let mut rest = pieces;
    let mut moved = 0;
    while !rest.is_empty() {
        let progress = call(rest, left);
        let Progress::Done(mut len) = progress else {
            return (moved, progress);
        };
        moved += len;
        left = left.saturating_sub(len);
        // Drop the pieces that this call has moved completely.
        while let Some((first, others)) = rest.split_first() {
            if first.len() > len {
                break;
            }
            len -= first.len();
            rest = others;
        }
        // A stream that stops within a piece has no more data or no more room. One that stops
        // between two pieces may simply take one piece for each call.
        if len > 0 {
            break;
        }
    }
    (moved, Progress::Done(0))
}

/// Combines the results of several calls. If bytes were moved, the next call will report a block or
/// the end again. A failure is returned even then, because a stream may report it only once.
pub(crate) const fn together(moved: usize, last: Progress) -> Progress {
    match (moved, last) {
        (0, last) | (_, last @ (Progress::Failed | Progress::TooLong)) => last,
        (moved, Progress::Done(len)) => Progress::Done(moved + len),
        (moved, Progress::Pending | Progress::Closed) => Progress::Done(moved),
    }
}

/// The maximum payload of a packet in bytes: the maximum that Linux sends and accepts.
pub(crate) const MAX_PAYLOAD: usize = 64 * 1024;

/// A buffer for one call of a stream, allocated on first use.
#[derive(Debug, Default)]
pub(crate) struct Scratch(Vec<u8>);

impl Scratch {
    /// Returns the first `len` bytes, at most 64 KiB. They contain data of earlier calls.
    pub(crate) fn first(&mut self, len: usize) -> &mut [u8] {
        if self.0.is_empty() {
            self.0 = vec![0; MAX_PAYLOAD];
        }
        let len = len.min(MAX_PAYLOAD);
        self.0.get_mut(..len).unwrap_or_default()
    }
}
