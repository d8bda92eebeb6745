// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Reads numbers from the input. After the last byte, every number is zero.

/// The rest of the input.
#[derive(Clone, Copy, Debug)]
pub struct Bytes<'a>(pub &'a [u8]);

impl Bytes<'_> {
    /// Returns whether no bytes are left.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Returns the next byte.
    pub fn byte(&mut self) -> u8 {
        let Some((first, rest)) = self.0.split_first() else {
            return 0;
        };
        self.0 = rest;
        *first
    }

    /// Returns the next two bytes as a number.
    pub fn short(&mut self) -> u16 {
        u16::from_le_bytes([self.byte(), self.byte()])
    }

    /// Returns an edge case that the next byte selects, or the four bytes after it.
    pub fn number(&mut self) -> u32 {
        const EDGES: [u32; 10] = [
            0,
            1,
            2,
            44,
            4096,
            65_536,
            262_144,
            i32::MAX as u32,
            1 << 31,
            u32::MAX,
        ];
        match EDGES.get(usize::from(self.byte())) {
            Some(edge) => *edge,
            None => u32::from(self.short()) << 16 | u32::from(self.short()),
        }
    }
}
