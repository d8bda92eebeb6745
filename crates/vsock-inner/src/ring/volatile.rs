// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Copying between the ring and guest memory, with nothing in between.

use vm_memory::VolatileSlice;
use vm_memory::bitmap::BitmapSlice;

use super::{Consumer, Producer, Progress};

impl Consumer {
    /// Takes what is there into `memory`, which is not empty.
    pub(crate) fn read_volatile<B: BitmapSlice>(
        &mut self,
        memory: &VolatileSlice<'_, B>,
    ) -> Progress {
        self.transfer(memory.len(), |this, there| {
            let mut at = 0;
            this.take(there, |bytes| {
                // The range lies in `memory`, because `there` is no more than its length.
                if let Ok(place) = memory.subslice(at, bytes.len()) {
                    place.copy_from(bytes);
                }
                at += bytes.len();
            });
        })
    }
}

impl Producer {
    /// Queues as much of `memory` from `done` on as there is space for; not all of it is done.
    pub(crate) fn write_volatile<B: BitmapSlice>(
        &mut self,
        memory: &VolatileSlice<'_, B>,
        done: usize,
    ) -> Progress {
        self.transfer(memory.len() - done, |this, room| {
            let (mut from, end) = (done, done + room);
            while from < end {
                let (space, at, fits) = this.reserve(end - from);
                // SAFETY: `reserve` returns a place in the block.
                let place = unsafe { space.at(at) };
                // SAFETY: the range is reserved for this side alone until it is published.
                let place = unsafe { VolatileSlice::new(place, fits) };
                // The range lies in `memory`, because `room` is no more than what is left of it.
                if let Ok(bytes) = memory.subslice(from, fits) {
                    bytes.copy_to_volatile_slice(place);
                }
                from += fits;
            }
        })
    }
}
