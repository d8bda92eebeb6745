// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Pieces of guest memory as if they were one.

use std::iter;

use smallvec::SmallVec;
use vm_memory::bitmap::{BS, BitmapSlice};
use vm_memory::{GuestMemory, VolatileSlice};

/// A contiguous piece of guest memory, in this process.
pub(crate) type Slice<'m, M> = VolatileSlice<'m, BS<'m, <M as GuestMemory>::Bitmap>>;

/// The pieces of one or several chains. As many as here for 64 KiB in buffers of 4 KiB, each with a
/// descriptor of its own for the header, cost no allocation.
pub(crate) type Slices<'m, M> = SmallVec<[Slice<'m, M>; 36]>;

/// A position in a row of pieces.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Cursor {
    index: usize,
    offset: usize,
}

impl Cursor {
    /// The next bytes that lie together, at most `limit` of them. Never empty.
    pub(crate) fn piece<'m, B: BitmapSlice>(
        &self,
        slices: &[VolatileSlice<'m, B>],
        limit: usize,
    ) -> Option<VolatileSlice<'m, B>> {
        let slice = slices.get(self.index)?;
        let len = slice.len().saturating_sub(self.offset).min(limit);
        if len == 0 {
            return None;
        }
        slice.subslice(self.offset, len).ok()
    }

    /// Goes on by `len` bytes.
    pub(crate) fn skip<B: BitmapSlice>(&mut self, slices: &[VolatileSlice<'_, B>], len: usize) {
        self.offset += len;
        while let Some(slice) = slices.get(self.index) {
            if self.offset < slice.len() {
                break;
            }
            self.offset -= slice.len();
            self.index += 1;
        }
    }

    /// The next bytes, at most `limit` of them, in pieces.
    pub(crate) fn pieces<'s, 'm, B: BitmapSlice>(
        mut self,
        slices: &'s [VolatileSlice<'m, B>],
        mut limit: usize,
    ) -> impl Iterator<Item = VolatileSlice<'m, B>> + 's {
        iter::from_fn(move || {
            let piece = self.piece(slices, limit)?;
            limit -= piece.len();
            self.skip(slices, piece.len());
            Some(piece)
        })
    }

    /// Copies the next bytes out of guest memory; returns how many there were.
    pub(crate) fn copy_to<B: BitmapSlice>(
        &mut self,
        slices: &[VolatileSlice<'_, B>],
        dst: &mut [u8],
    ) -> usize {
        let mut done = 0;
        while let Some(rest) = dst.get_mut(done..) {
            let Some(piece) = self.piece(slices, rest.len()) else {
                break;
            };
            done += piece.copy_to(rest);
            self.skip(slices, piece.len());
        }
        done
    }

    /// Copies bytes into guest memory; returns how many there was space for.
    pub(crate) fn copy_from<B: BitmapSlice>(
        &mut self,
        slices: &[VolatileSlice<'_, B>],
        src: &[u8],
    ) -> usize {
        let mut done = 0;
        while let Some(rest) = src.get(done..) {
            let Some(piece) = self.piece(slices, rest.len()) else {
                break;
            };
            piece.copy_from(rest);
            done += piece.len();
            self.skip(slices, piece.len());
        }
        done
    }

    /// Pieces from here on.
    pub(crate) const fn pieces_left(&self, pieces: usize) -> usize {
        pieces.saturating_sub(self.index)
    }
}
