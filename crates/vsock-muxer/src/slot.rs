// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

/// The number of a slot of the [`Table`](crate::table::Table): small, and used again.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub(crate) struct Slot(u32);

impl Slot {
    pub(crate) const fn new(number: u32) -> Self {
        Self(number)
    }

    pub(crate) const fn number(self) -> u32 {
        self.0
    }

    /// The number, to index with.
    pub(crate) const fn index(self) -> usize {
        self.0 as usize
    }
}

/// What has a slot for the time being: the slot, and which of its users is meant.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) struct SlotKey {
    pub(crate) slot: Slot,
    pub(crate) generation: u32,
}

impl SlotKey {
    /// Generations go round after 2^30.
    pub(crate) const GENERATIONS: u32 = 1 << 30;

    /// The generation of the slot's next user.
    pub(crate) const fn next_generation(generation: u32) -> u32 {
        generation.wrapping_add(1) % Self::GENERATIONS
    }
}
