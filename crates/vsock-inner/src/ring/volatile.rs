// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Copying between the ring and guest memory, with nothing in between.

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
        self.transfer(len, |this, mut left| {
            for piece in pieces {
                let fits = piece.len().min(left);
                left -= fits;
                this.take_into(piece, fits);
            }
        })
    }

    /// Takes the next `len` bytes, which are there, to the beginning of `piece`, which is not shorter.
    fn take_into<B: BitmapSlice>(&mut self, piece: &VolatileSlice<'_, B>, len: usize) {
        let mut at = 0;
        self.take(len, |bytes| {
            if let Ok(place) = piece.subslice(at, bytes.len()) {
                place.copy_from(bytes);
            }
            at += bytes.len();
        });
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
                this.append_from(piece, from, from + fits);
            }
        })
    }

    /// Queues the bytes of `piece` between `from` and `end`, for which there is space.
    fn append_from<B: BitmapSlice>(
        &mut self,
        piece: &VolatileSlice<'_, B>,
        mut from: usize,
        end: usize,
    ) {
        while from < end {
            let (space, at, fits) = self.reserve(end - from);
            // SAFETY: `reserve` returns a place in the block.
            let place = unsafe { space.at(at) };
            // SAFETY: the range is reserved for this side alone until it is published.
            let place = unsafe { VolatileSlice::new(place, fits) };
            // The range lies in `piece`, because `end` does.
            if let Ok(bytes) = piece.subslice(from, fits) {
                bytes.copy_to_volatile_slice(place);
            }
            from += fits;
        }
    }
}
