// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

use std::collections::HashMap;

use vsock_proto::ConnKey;

use crate::connection_info::ConnectionId;
use crate::entry::{ConnectionEntry, Entry, Handshake};
use crate::slot::{Slot, SlotKey};

/// All streams and connections, by slot and by ports.
///
/// Slots are reused, each time with a new generation. The guest chooses ports, so the map uses a
/// keyed hash against deliberate collisions.
#[derive(Default)]
pub(crate) struct Table {
    cells: Vec<Cell>,
    free: Vec<Slot>,
    by_ports: HashMap<ConnKey, Slot>,
    /// The result of the last lookup: consecutive packets often belong to the same connection.
    last: Option<(ConnKey, Slot)>,
    connections: usize,
    /// How many of the connections were initiated by siblings.
    begun_by_guests: usize,
    handshakes: usize,
}

#[derive(Default)]
struct Cell {
    generation: u32,
    entry: Option<Entry>,
}

impl Table {
    /// Reserves a slot, which the caller must fill with [`put`](Self::put) or release with
    /// [`free`](Self::free).
    pub(crate) fn reserve(&mut self) -> Option<SlotKey> {
        if let Some(slot) = self.free.pop() {
            return self.key(slot);
        }
        let slot = Slot::new(u32::try_from(self.cells.len()).ok()?);
        self.cells.push(Cell::default());
        self.key(slot)
    }

    /// Fills a slot. From now on, a connection can be found by its ports.
    pub(crate) fn put(&mut self, key: SlotKey, entry: Entry) {
        match &entry {
            Entry::Handshake(_) => self.handshakes += 1,
            Entry::Connection(entry) => {
                self.connections += 1;
                self.begun_by_guests += usize::from(entry.is_begun_by_guest());
                self.by_ports.insert(entry.conn.key(), key.slot);
                self.last = None;
            }
        }
        if let Some(cell) = self.cells.get_mut(key.slot.index()) {
            cell.entry = Some(entry);
        }
    }

    /// Takes the entry out of a slot. The slot keeps its generation until it is filled again with
    /// [`put`](Self::put) or [released](Self::free).
    pub(crate) fn take(&mut self, slot: Slot) -> Option<Entry> {
        let entry = self.cells.get_mut(slot.index())?.entry.take()?;
        match &entry {
            Entry::Handshake(_) => self.handshakes -= 1,
            Entry::Connection(entry) => {
                self.connections -= 1;
                self.begun_by_guests -= usize::from(entry.is_begun_by_guest());
                let ports = entry.conn.key();
                self.release_ports(ports, slot);
            }
        }
        Some(entry)
    }

    /// Takes all entries and releases every slot, including reserved ones.
    pub(crate) fn clear(&mut self) -> Vec<Entry> {
        let cells = std::mem::take(&mut self.cells);
        let (mut entries, mut vacant) = (Vec::new(), Vec::new());
        for Cell { generation, entry } in cells {
            entries.extend(entry);
            vacant.push(Cell {
                generation: SlotKey::next_generation(generation),
                entry: None,
            });
        }
        let slots = (0..).map(Slot::new).take(vacant.len());
        *self = Self {
            free: slots.collect(),
            cells: vacant,
            ..Self::default()
        };
        entries
    }

    /// Releases an empty slot, which invalidates its tokens.
    pub(crate) fn free(&mut self, slot: Slot) {
        if let Some(cell) = self.cells.get_mut(slot.index()) {
            cell.generation = SlotKey::next_generation(cell.generation);
            self.free.push(slot);
        }
    }

    /// Makes the ports of the connection in this slot available to another connection, which may
    /// already use them.
    pub(crate) fn release_ports(&mut self, ports: ConnKey, slot: Slot) {
        if self.by_ports.get(&ports) == Some(&slot) {
            self.by_ports.remove(&ports);
            self.last = None;
        }
    }

    /// Returns the slot of the connection with these ports.
    pub(crate) fn find(&mut self, ports: ConnKey) -> Option<Slot> {
        match self.last {
            Some((last, slot)) if last == ports => return Some(slot),
            _ => {}
        }
        let slot = *self.by_ports.get(&ports)?;
        self.last = Some((ports, slot));
        Some(slot)
    }

    /// Returns whether a connection has these ports.
    pub(crate) fn contains(&self, ports: ConnKey) -> bool {
        self.by_ports.contains_key(&ports)
    }

    pub(crate) fn entry(&mut self, slot: Slot) -> Option<&mut Entry> {
        self.cells.get_mut(slot.index())?.entry.as_mut()
    }

    /// Returns the entry that a token refers to, if it still exists.
    pub(crate) fn get(&mut self, key: SlotKey) -> Option<&mut Entry> {
        let cell = self.cells.get_mut(key.slot.index())?;
        cell.entry
            .as_mut()
            .filter(|_| cell.generation == key.generation)
    }

    pub(crate) fn connection(&mut self, slot: Slot) -> Option<&mut ConnectionEntry> {
        match self.entry(slot)? {
            Entry::Connection(entry) => Some(entry),
            Entry::Handshake(_) => None,
        }
    }

    pub(crate) fn handshake(&mut self, slot: Slot) -> Option<&mut Handshake> {
        match self.entry(slot)? {
            Entry::Handshake(handshake) => Some(handshake),
            Entry::Connection(_) => None,
        }
    }

    /// Returns the key of the current entry of a slot.
    pub(crate) fn key(&self, slot: Slot) -> Option<SlotKey> {
        let generation = self.cells.get(slot.index())?.generation;
        Some(SlotKey { slot, generation })
    }

    /// Returns all occupied slots.
    pub(crate) fn slots(&self) -> Vec<Slot> {
        (0..)
            .map(Slot::new)
            .zip(&self.cells)
            .filter(|(_, cell)| cell.entry.is_some())
            .map(|(slot, _)| slot)
            .collect()
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = &Entry> {
        self.cells.iter().filter_map(|cell| cell.entry.as_ref())
    }

    /// Returns the contents of all places, starting with `place`.
    pub(crate) fn iter_from(&self, place: usize) -> impl Iterator<Item = Option<&Entry>> {
        let cells = self.cells.get(place..).unwrap_or_default();
        cells.iter().map(|cell| cell.entry.as_ref())
    }

    /// Returns the number of places, occupied or not.
    pub(crate) fn places(&self) -> usize {
        self.cells.len()
    }

    /// Returns the slot of the connection with this number. Searches all slots.
    pub(crate) fn slot_of(&self, id: ConnectionId) -> Option<Slot> {
        let is_it =
            |entry: &Entry| matches!(entry, Entry::Connection(entry) if entry.birth.id == id);
        let mut cells = (0..).map(Slot::new).zip(&self.cells);
        let found = cells.find(|(_, cell)| cell.entry.as_ref().is_some_and(is_it));
        found.map(|(slot, _)| slot)
    }

    pub(crate) const fn connections(&self) -> usize {
        self.connections
    }

    pub(crate) const fn begun_by_guests(&self) -> usize {
        self.begun_by_guests
    }

    pub(crate) const fn handshakes(&self) -> usize {
        self.handshakes
    }
}
