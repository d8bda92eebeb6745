// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! A dirty bitmap that panics in a chosen call.

use std::cell::Cell;
use std::thread;

use vm_memory::bitmap::{Bitmap, BitmapSlice, NewBitmap, WithBitmapSlice};

thread_local! {
    /// How many calls are left until one panics. With zero, none panics.
    static LEFT: Cell<usize> = const { Cell::new(0) };
}

/// The bitmap and every slice of it. The calls are counted per thread.
#[derive(Debug, Default)]
pub struct Fuse;

impl Fuse {
    /// Lets the `calls`-th call from now panic. Every method counts, and so do clones and drops.
    pub fn light(calls: usize) {
        LEFT.set(calls);
    }

    /// Lets no call panic.
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
