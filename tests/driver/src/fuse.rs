// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! A dirty bitmap that panics in a call of one's choice.

use std::cell::Cell;
use std::thread;

use vm_memory::bitmap::{Bitmap, BitmapSlice, NewBitmap, WithBitmapSlice};

thread_local! {
    /// How many calls are left until one panics; none while it is zero.
    static LEFT: Cell<usize> = const { Cell::new(0) };
}

/// The bitmap, and every slice of it. What burns it is counted by thread.
#[derive(Debug, Default)]
pub struct Fuse;

impl Fuse {
    /// Lets the `calls`-th call from here on panic: of whatever method, a clone and a drop
    /// included.
    pub fn light(calls: usize) {
        LEFT.set(calls);
    }

    /// Lets no call panic any more.
    pub fn put_out() {
        LEFT.set(0);
    }

    fn burn() {
        match LEFT.get() {
            0 => {}
            1 => {
                LEFT.set(0);
                panic!("this bitmap panics on purpose");
            }
            left => LEFT.set(left - 1),
        }
    }
}

impl Clone for Fuse {
    fn clone(&self) -> Self {
        Self::burn();
        Self
    }
}

impl Drop for Fuse {
    fn drop(&mut self) {
        if !thread::panicking() {
            Self::burn();
        }
    }
}

impl WithBitmapSlice<'_> for Fuse {
    type S = Self;
}

impl BitmapSlice for Fuse {}

impl Bitmap for Fuse {
    fn mark_dirty(&self, _offset: usize, _len: usize) {
        Self::burn();
    }

    fn dirty_at(&self, _offset: usize) -> bool {
        false
    }

    fn slice_at(&self, _offset: usize) -> Self {
        Self::burn();
        Self
    }
}

impl NewBitmap for Fuse {
    fn with_len(_len: usize) -> Self {
        Self
    }
}
