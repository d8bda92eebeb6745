// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Copying between the pipe and guest memory, with nothing in between.
//!
//! The bitmap of guest memory is the caller's code, and may panic. So it is called where a panic changes
//! nothing: never while a write has reserved what it has not published, and before a read takes what it
//! has shown. Bytes are copied by slices without a bitmap.

use vm_memory::VolatileSlice;
use vm_memory::bitmap::BitmapSlice;

use super::{Consumer, Producer, Progress};

impl Consumer {
    /// Takes what is there into `pieces`, which are `len` bytes in all, and not none.
    pub(crate) fn read_volatile<B: BitmapSlice>(
        &mut self,
        pieces: &[VolatileSlice<'_, B>],
        len: usize,
    ) -> Progress {
        let there = match self.available(len) {
            Progress::Done(there) => there,
            nothing => return nothing,
        };
        let mut places = Places::of(pieces);
        self.view(there, |bytes| places.fill(bytes));
        mark_dirty(pieces, there);
        self.transfer(there, |this, there| this.take(there, |_| {}))
    }
}

/// What is left to be filled of pieces of guest memory.
struct Places<'p, 'm, B> {
    pieces: &'p [VolatileSlice<'m, B>],
    /// Where in the first of them the next byte goes.
    at: usize,
}

impl<'p, 'm, B: BitmapSlice> Places<'p, 'm, B> {
    const fn of(pieces: &'p [VolatileSlice<'m, B>]) -> Self {
        Self { pieces, at: 0 }
    }

    /// Puts `bytes` to the next places.
    fn fill(&mut self, mut bytes: &[u8]) {
        while let Some((piece, others)) = self.pieces.split_first() {
            let fits = bytes.len().min(piece.len() - self.at);
            let (now, later) = bytes.split_at(fits);
            copy_to(piece, self.at, now);
            self.at += fits;
            bytes = later;
            if bytes.is_empty() {
                return;
            }
            self.pieces = others;
            self.at = 0;
        }
    }
}

/// Copies `bytes` to the place from byte `at` of `piece` on. Runs no code of the caller's.
fn copy_to<B: BitmapSlice>(piece: &VolatileSlice<'_, B>, at: usize, bytes: &[u8]) {
    let guard = piece.ptr_guard_mut();
    // SAFETY: the guard knows where the piece is and how long, and keeps it mapped for as long as the
    // slice is used. The maker of the piece has promised the rest.
    let plain = unsafe { VolatileSlice::new(guard.as_ptr(), guard.len()) };
    if let Ok(place) = plain.offset(at) {
        place.copy_from(bytes);
    }
}

/// Tells the bitmaps of the first `len` bytes of `pieces`.
fn mark_dirty<B: BitmapSlice>(pieces: &[VolatileSlice<'_, B>], mut len: usize) {
    for piece in pieces {
        let filled = piece.len().min(len);
        if filled > 0 {
            piece.bitmap().mark_dirty(0, filled);
        }
        len -= filled;
    }
}

impl Producer {
    /// Queues as much of `pieces` from byte `done` on as there is space for; `len` bytes are left in
    /// them, and not none.
    pub(crate) fn write_volatile<B: BitmapSlice>(
        &mut self,
        pieces: &[VolatileSlice<'_, B>],
        mut done: usize,
        len: usize,
    ) -> Progress {
        self.transfer(len, |this, mut left| {
            for piece in pieces {
                let from = done.min(piece.len());
                done -= from;
                let fits = left.min(piece.len() - from);
                left -= fits;
                this.append_from(piece, from, fits);
            }
        })
    }

    /// Queues the `len` bytes of `piece` from `from` on, for which there is space. Runs no code of the
    /// caller's: a range that is reserved is filled.
    fn append_from<B: BitmapSlice>(
        &mut self,
        piece: &VolatileSlice<'_, B>,
        from: usize,
        len: usize,
    ) {
        let guard = piece.ptr_guard();
        // SAFETY: as in `copy_to`; it is only read from.
        let plain = unsafe { VolatileSlice::new(guard.as_ptr().cast_mut(), guard.len()) };
        // The range lies in `piece`.
        let mut rest = plain.subslice(from, len);
        while let Ok(bytes) = rest {
            if bytes.is_empty() {
                break;
            }
            let range = self.reserve(bytes.len());
            // SAFETY: `reserve` returns a place in the block.
            let place = unsafe { range.bytes.at(range.at) };
            // SAFETY: the range is reserved for this side alone until it is published.
            let place = unsafe { VolatileSlice::new(place, range.len) };
            bytes.copy_to_volatile_slice(place);
            rest = bytes.offset(range.len);
        }
    }
}
