// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Numbers out of bytes; after the last byte, zeros.

/// What is left of the input.
#[derive(Clone, Copy, Debug)]
pub struct Bytes<'a>(pub &'a [u8]);

impl Bytes<'_> {
    /// Whether nothing is left.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The next byte.
    pub fn byte(&mut self) -> u8 {
        let Some((first, rest)) = self.0.split_first() else {
            return 0;
        };
        self.0 = rest;
        *first
    }

    /// The next two bytes.
    pub fn short(&mut self) -> u16 {
        u16::from_le_bytes([self.byte(), self.byte()])
    }

    /// The next byte says which of some edges, or that four bytes follow.
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
