// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! The limit that memory sets: one core copies every byte in, and out again.

use std::hint::black_box;
use std::io;

use crate::sample::{Sample, alone};
use crate::workload::stream;

/// Copies messages of `size` bytes into a buffer of `capacity` bytes until it is full, then copies
/// it out into a buffer of the reader's size, until `bytes` have passed.
pub(crate) fn twice(capacity: usize, size: usize, bytes: u64) -> io::Result<Sample> {
    let message = vec![0x5a; size];
    let mut middle = vec![0; capacity];
    let mut out = vec![0; stream::READ_SIZE];
    let fills = bytes.div_ceil(capacity as u64).max(1);
    alone(fills * capacity as u64, || {
        for _ in 0..fills {
            for slot in middle.chunks_mut(size) {
                slot.copy_from_slice(&black_box(&message)[..slot.len()]);
            }
            for part in black_box(&mut middle).chunks(stream::READ_SIZE) {
                out[..part.len()].copy_from_slice(part);
                black_box(&mut out);
            }
        }
        Ok(())
    })
}
