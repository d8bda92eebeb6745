// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

/// The number of a slot in the [`Table`](crate::table::Table). Numbers are small and reused.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub(crate) struct Slot(u32);

impl Slot {
    pub(crate) const fn new(number: u32) -> Self {
        Self(number)
    }

    pub(crate) const fn number(self) -> u32 {
        self.0
    }

    /// Returns the number as an index.
    pub(crate) const fn index(self) -> usize {
        self.0 as usize
    }
}

/// The identity of an entry: its slot, and a generation that distinguishes it from other entries in
/// the same slot.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) struct SlotKey {
    pub(crate) slot: Slot,
    pub(crate) generation: u32,
}

impl SlotKey {
    /// The number of generations, after which they wrap around.
    pub(crate) const GENERATIONS: u32 = 1 << 30;

    /// Returns the generation of the slot's next entry.
    pub(crate) const fn next_generation(generation: u32) -> u32 {
        generation.wrapping_add(1) % Self::GENERATIONS
    }
}
