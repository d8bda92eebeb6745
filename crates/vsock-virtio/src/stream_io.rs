// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Calls of a stream, what came of them as a value, and ordinary memory for those that know nothing
//! else.

use std::io::{self, ErrorKind};

use vm_memory::VolatileSlice;
use vm_memory::bitmap::BitmapSlice;
use vsock_proto::Progress;

/// Reads into places for `room` bytes, and not for none: so 0 bytes are the end. Again if
/// interrupted.
pub(crate) fn read(room: usize, call: impl FnMut() -> io::Result<usize>) -> Progress {
    match uninterrupted(room, call) {
        Ok(0) => Progress::Closed,
        Ok(len) => Progress::Done(len),
        Err(error) if error.kind() == ErrorKind::WouldBlock => Progress::Pending,
        Err(_) => Progress::Failed,
    }
}

/// Writes `len` bytes, again if interrupted. A stream that takes nothing and says so with `Ok(0)`
/// blocks.
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

/// A stream that counts more than it was offered has failed: what it has moved is unknown.
fn uninterrupted(offered: usize, mut call: impl FnMut() -> io::Result<usize>) -> io::Result<usize> {
    loop {
        match call() {
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Ok(moved) if moved > offered => return Err(ErrorKind::InvalidData.into()),
            result => return result,
        }
    }
}

/// Moves what is in `pieces`, or what fits, which are `left` bytes, in as few calls as the stream
/// needs for it, each of which is told how many are left. Returns how many bytes that were, and
/// what the last call came to; `Done` if there was no reason for another.
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
        while let Some((first, others)) = rest.split_first() {
            if first.len() > len {
                break;
            }
            len -= first.len();
            rest = others;
        }
        // Within a piece a stream stops because there is no more.
        if len > 0 {
            break;
        }
    }
    (moved, Progress::Done(0))
}

/// What several calls have come to: once bytes were moved, nothing else is said but a failure,
/// which a stream may tell only once.
pub(crate) const fn together(moved: usize, last: Progress) -> Progress {
    match (moved, last) {
        (0, last) | (_, last @ (Progress::Failed | Progress::TooLong)) => last,
        (moved, Progress::Done(len)) => Progress::Done(moved + len),
        (moved, Progress::Pending | Progress::Closed) => Progress::Done(moved),
    }
}

/// Bytes of payload that a packet may have: as many as Linux sends and accepts in one.
pub(crate) const MAX_PAYLOAD: usize = 64 * 1024;

/// A buffer for one call of a stream. It has no memory before it is used.
#[derive(Debug, Default)]
pub(crate) struct Scratch(Vec<u8>);

impl Scratch {
    /// The first `len` bytes, of whatever value, and at most 64 KiB.
    pub(crate) fn first(&mut self, len: usize) -> &mut [u8] {
        if self.0.is_empty() {
            self.0 = vec![0; MAX_PAYLOAD];
        }
        let len = len.min(MAX_PAYLOAD);
        self.0.get_mut(..len).unwrap_or_default()
    }
}
