// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Copying directly between the pipe and guest memory.
//!
//! The bitmap of guest memory is a caller's code and may panic. So it is called only where a panic
//! changes nothing: never while a write has reserved bytes that it has not published, and before a
//! read consumes the bytes that it has copied. The bytes are copied through slices without a
//! bitmap.

use vm_memory::VolatileSlice;
use vm_memory::bitmap::BitmapSlice;

use super::{Consumer, Producer, Progress};

impl Consumer {
    /// Moves available bytes into `pieces`, whose total length is `len` and not zero.
    pub(crate) fn read_volatile<B: BitmapSlice>(
        &mut self,
        pieces: &[VolatileSlice<'_, B>],
        len: usize,
    ) -> Progress {
        let there = match self.available(len) {
            Progress::Done(there) => there,
            nothing => return nothing,
        };
        // Copy, mark, and only then consume: if the bitmap panics, the bytes can be read again.
        let mut places = Places::of(pieces);
        self.view(there, |bytes| places.fill(bytes));
        mark_dirty(pieces, there);
        self.transfer(there, |this, there| this.take(there, |_| {}))
    }
}

/// The part of some pieces of guest memory that is still to be filled.
struct Places<'p, 'm, B> {
    pieces: &'p [VolatileSlice<'m, B>],
    /// The offset of the next byte in the first piece.
    at: usize,
}

impl<'p, 'm, B: BitmapSlice> Places<'p, 'm, B> {
    const fn of(pieces: &'p [VolatileSlice<'m, B>]) -> Self {
        Self { pieces, at: 0 }
    }

    /// Copies `bytes` to the next places.
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

/// Copies `bytes` into `piece` from offset `at` on. Does not run a caller's code.
fn copy_to<B: BitmapSlice>(piece: &VolatileSlice<'_, B>, at: usize, bytes: &[u8]) {
    let guard = piece.ptr_guard_mut();
    // SAFETY: the guard has the location and length of the piece, and keeps it mapped while the
    // slice is used. The creator of the piece has promised the rest.
    let plain = unsafe { VolatileSlice::new(guard.as_ptr(), guard.len()) };
    if let Ok(place) = plain.offset(at) {
        place.copy_from(bytes);
    }
}

/// Marks the first `len` bytes of `pieces` in their bitmaps.
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
    /// Queues as much of `pieces`, starting at byte `done`, as there is space for. The remaining
    /// length is `len` and not zero.
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

    /// Queues `len` bytes of `piece`, starting at `from`; there must be space for them. Does not
    /// run a caller's code, so every reserved range is filled.
    fn append_from<B: BitmapSlice>(
        &mut self,
        piece: &VolatileSlice<'_, B>,
        from: usize,
        len: usize,
    ) {
        let guard = piece.ptr_guard();
        debug_assert!(from + len <= guard.len());
        let (mut at, end) = (from, from + len);
        while at < end {
            let range = self.reserve(end - at);
            let filled = range.len();
            // SAFETY: `at` is within the piece.
            let source = unsafe { guard.as_ptr().add(at) };
            // SAFETY: the range was reserved just now. The rest of the piece is at least as long,
            // and the guard keeps it mapped. The guest may write to it meanwhile, as the creator of
            // the piece allows.
            unsafe { self.fill(range, source) };
            at += filled;
        }
    }
}
