// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Scattered pieces of guest memory, read and written as one sequence of bytes.

use std::iter;

use smallvec::SmallVec;
use vm_memory::bitmap::{BS, BitmapSlice};
use vm_memory::{GuestMemory, VolatileSlice};

/// A contiguous piece of guest memory, in this process.
pub(crate) type Slice<'m, M> = VolatileSlice<'m, BS<'m, <M as GuestMemory>::Bitmap>>;

/// The pieces of one or several chains. The inline capacity is enough for 64 KiB in buffers of
/// 4 KiB with a separate descriptor for each header, so those need no allocation.
pub(crate) type Slices<'m, M> = SmallVec<[Slice<'m, M>; 36]>;

/// A position in a sequence of pieces.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Cursor {
    index: usize,
    offset: usize,
}

impl Cursor {
    /// Returns the next contiguous bytes, at most `limit` of them, or `None` if there are none.
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

    /// Advances by `len` bytes, past the end of a piece if necessary.
    pub(crate) fn skip<B: BitmapSlice>(&mut self, slices: &[VolatileSlice<'_, B>], len: usize) {
        // After this the offset is within the piece, so `piece` returns bytes, unless the cursor is
        // at the end. That also skips empty pieces.
        self.offset += len;
        while let Some(slice) = slices.get(self.index) {
            if self.offset < slice.len() {
                break;
            }
            self.offset -= slice.len();
            self.index += 1;
        }
    }

    /// Iterates over the pieces of the next bytes, at most `limit` bytes in total.
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

    /// Copies bytes into guest memory; returns how many fitted.
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

    /// How many of `pieces` pieces are left, including the current one.
    pub(crate) const fn pieces_left(&self, pieces: usize) -> usize {
        pieces.saturating_sub(self.index)
    }
}
