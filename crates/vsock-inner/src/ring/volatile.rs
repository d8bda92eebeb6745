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
                let mut at = 0;
                this.take(fits, |bytes| {
                    // The range lies in `piece`, because `fits` is no more than its length.
                    if let Ok(place) = piece.subslice(at, bytes.len()) {
                        place.copy_from(bytes);
                    }
                    at += bytes.len();
                });
            }
        })
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
                let mut from = done.min(piece.len());
                done -= from;
                let end = from + left.min(piece.len() - from);
                left -= end - from;
                while from < end {
                    let (space, at, fits) = this.reserve(end - from);
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
        })
    }
}
