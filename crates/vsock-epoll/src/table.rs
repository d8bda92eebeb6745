// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! A table of streams: slots with generations.

/// Identifies a stream of a loop.
///
/// It stays unique after the stream is closed: a later stream in the same slot, even with the same
/// descriptor, has a different id.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct StreamId {
    index: u32,
    generation: u32,
}

impl StreamId {
    /// The id as one word, for the user data of an epoll event.
    pub(crate) fn word(self) -> u64 {
        u64::from(self.index) | u64::from(self.generation) << 32
    }

    pub(crate) fn from_word(word: u64) -> Self {
        let [.., i0, i1, i2, i3] = word.to_be_bytes();
        let [g0, g1, g2, g3, ..] = word.to_be_bytes();
        Self {
            index: u32::from_be_bytes([i0, i1, i2, i3]),
            generation: u32::from_be_bytes([g0, g1, g2, g3]),
        }
    }
}

#[derive(Debug)]
struct Slot<V> {
    /// The generation of the current value, or of the next one.
    generation: u32,
    value: Option<V>,
}

/// Values by id.
#[derive(Debug)]
pub(crate) struct Table<V> {
    slots: Vec<Slot<V>>,
    free: Vec<u32>,
    len: usize,
}

impl<V> Table<V> {
    pub(crate) fn new() -> Self {
        Self {
            slots: Vec::new(),
            free: Vec::new(),
            len: 0,
        }
    }

    /// Reserves a slot. Returns `None` if all 2^32 slots are taken or used up.
    pub(crate) fn reserve(&mut self) -> Option<StreamId> {
        let index = match self.free.pop() {
            Some(index) => index,
            None => {
                let index = u32::try_from(self.slots.len()).ok()?;
                self.slots.push(Slot {
                    generation: 1, // so that no id has a word of the loop's own descriptors
                    value: None,
                });
                index
            }
        };
        let generation = self.slots.get(index as usize)?.generation;
        Some(StreamId { index, generation })
    }

    /// Frees a slot that was reserved but not filled.
    pub(crate) fn release(&mut self, id: StreamId) {
        self.free.push(id.index);
    }

    /// Stores a value in its reserved slot.
    pub(crate) fn fill(&mut self, id: StreamId, value: V) {
        if let Some(slot) = self.slots.get_mut(id.index as usize) {
            slot.value = Some(value);
            self.len += 1;
        }
    }

    pub(crate) fn remove(&mut self, id: StreamId) -> Option<V> {
        let slot = self.slots.get_mut(id.index as usize)?;
        if slot.generation != id.generation {
            return None;
        }
        let value = slot.value.take()?;
        self.len -= 1;
        // A slot that has used all its generations stays empty, so that no id is used twice.
        if let Some(next) = slot.generation.checked_add(1) {
            slot.generation = next;
            self.free.push(id.index);
        }
        Some(value)
    }

    pub(crate) fn get_mut(&mut self, id: StreamId) -> Option<&mut V> {
        let slot = self.slots.get_mut(id.index as usize)?;
        (slot.generation == id.generation)
            .then_some(slot.value.as_mut())
            .flatten()
    }

    pub(crate) fn get(&self, id: StreamId) -> Option<&V> {
        let slot = self.slots.get(id.index as usize)?;
        (slot.generation == id.generation)
            .then_some(slot.value.as_ref())
            .flatten()
    }

    pub(crate) fn ids(&self) -> impl Iterator<Item = StreamId> {
        let numbered = (0..).zip(&self.slots);
        numbered.filter_map(|(index, slot)| {
            let generation = slot.generation;
            slot.value
                .is_some()
                .then_some(StreamId { index, generation })
        })
    }

    pub(crate) fn len(&self) -> usize {
        self.len
    }
}

#[cfg(test)]
mod tests {
    use super::{StreamId, Table};

    impl<V> Table<V> {
        pub(crate) fn insert(&mut self, value: V) -> Option<StreamId> {
            let id = self.reserve()?;
            self.fill(id, value);
            Some(id)
        }
    }

    #[test]
    fn an_id_survives_its_word() {
        let id = StreamId {
            index: 0x0102_0304,
            generation: 0xfffe_fdfc,
        };
        assert_eq!(StreamId::from_word(id.word()), id);
    }

    #[test]
    fn a_successor_in_the_same_slot_has_a_different_id() {
        let mut table = Table::new();
        let first = table.insert('a').unwrap();
        assert_eq!(table.remove(first), Some('a'));
        let second = table.insert('b').unwrap();
        assert_eq!(first.index, second.index);
        assert_eq!(table.get_mut(first), None);
        assert_eq!(table.get(first), None);
        assert_eq!(table.remove(first), None);
        assert_eq!(table.remove(second), Some('b'));
        assert_eq!((table.remove(second), table.len()), (None, 0));
    }

    #[test]
    fn a_slot_without_generations_left_is_not_reused() {
        let mut table = Table::new();
        let first = table.insert(1).unwrap();
        table.remove(first);
        table.slots[0].generation = u32::MAX;
        let last = table.insert(2).unwrap();
        assert_eq!(last.generation, u32::MAX);
        table.remove(last);
        let next = table.insert(3).unwrap();
        assert_eq!(next.index, 1);
        assert_eq!(table.ids().collect::<Vec<_>>(), [next]);
    }
}
