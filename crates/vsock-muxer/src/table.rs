// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

use std::collections::HashMap;

use vsock_proto::{ConnKey, Slot};

use crate::entry::{Entry, Handshake, Open};
use crate::token::Place;

/// Every stream and every connection, by place and by ports.
///
/// Places are used again, and each new tenant has another generation. The guest chooses ports, so
/// the map hashes with a secret.
#[derive(Default)]
pub(crate) struct Table {
    places: Vec<Tenancy>,
    free: Vec<Slot>,
    by_ports: HashMap<ConnKey, Slot>,
    /// The last that was found: packets come in runs.
    last: Option<(ConnKey, Slot)>,
    connections: usize,
    handshakes: usize,
}

#[derive(Default)]
struct Tenancy {
    generation: u32,
    entry: Option<Entry>,
}

impl Table {
    /// Takes a place. It must be filled with [`put`](Self::put), or given back with
    /// [`remove`](Self::remove).
    pub(crate) fn reserve(&mut self) -> Option<Place> {
        if let Some(slot) = self.free.pop() {
            return self.place(slot);
        }
        let slot = Slot::new(u32::try_from(self.places.len()).ok()?);
        self.places.push(Tenancy::default());
        self.place(slot)
    }

    /// Fills a place. A connection is from now on found by its ports.
    pub(crate) fn put(&mut self, place: Place, entry: Entry) {
        match &entry {
            Entry::Handshake(_) => self.handshakes += 1,
            Entry::Open(open) => {
                self.connections += 1;
                self.by_ports.insert(open.conn.key(), place.slot);
                self.last = None;
            }
        }
        if let Some(tenancy) = self.places.get_mut(place.slot.index()) {
            tenancy.entry = Some(entry);
        }
    }

    /// Takes out whatever has the place; the place keeps its generation until it is
    /// [`put`](Self::put) again or [freed](Self::free).
    pub(crate) fn take(&mut self, slot: Slot) -> Option<Entry> {
        let entry = self.places.get_mut(slot.index())?.entry.take()?;
        match &entry {
            Entry::Handshake(_) => self.handshakes -= 1,
            Entry::Open(open) => {
                self.connections -= 1;
                if open.has_key {
                    self.forget_key(open.conn.key());
                }
            }
        }
        Some(entry)
    }

    /// Takes everything out, and gives every place back, also one that was reserved and not filled.
    pub(crate) fn clear(&mut self) -> Vec<Entry> {
        let places = std::mem::take(&mut self.places);
        let (mut entries, mut vacant) = (Vec::new(), Vec::new());
        for Tenancy { generation, entry } in places {
            entries.extend(entry);
            vacant.push(Tenancy {
                generation: Place::next_generation(generation),
                entry: None,
            });
        }
        let slots = (0..).map(Slot::new).take(vacant.len());
        *self = Self {
            free: slots.collect(),
            places: vacant,
            ..Self::default()
        };
        entries
    }

    /// Gives a place back that is empty; its tokens mean nothing from now on.
    pub(crate) fn free(&mut self, slot: Slot) {
        if let Some(tenancy) = self.places.get_mut(slot.index()) {
            tenancy.generation = Place::next_generation(tenancy.generation);
            self.free.push(slot);
        }
    }

    /// The connection is not found by its ports any more: they belong to the next.
    pub(crate) fn forget_key(&mut self, key: ConnKey) {
        self.by_ports.remove(&key);
        self.last = None;
    }

    /// Where the connection with these ports is.
    pub(crate) fn find(&mut self, key: ConnKey) -> Option<Slot> {
        if let Some((last, slot)) = self.last
            && last == key
        {
            return Some(slot);
        }
        let slot = *self.by_ports.get(&key)?;
        self.last = Some((key, slot));
        Some(slot)
    }

    /// Whether a connection has these ports.
    pub(crate) fn contains(&self, key: ConnKey) -> bool {
        self.by_ports.contains_key(&key)
    }

    pub(crate) fn entry(&mut self, slot: Slot) -> Option<&mut Entry> {
        self.places.get_mut(slot.index())?.entry.as_mut()
    }

    /// What a token means, if it is still there.
    pub(crate) fn tenant(&mut self, place: Place) -> Option<&mut Entry> {
        let tenancy = self.places.get_mut(place.slot.index())?;
        tenancy
            .entry
            .as_mut()
            .filter(|_| tenancy.generation == place.generation)
    }

    pub(crate) fn open(&mut self, slot: Slot) -> Option<&mut Open> {
        match self.entry(slot)? {
            Entry::Open(open) => Some(open),
            Entry::Handshake(_) => None,
        }
    }

    pub(crate) fn handshake(&mut self, slot: Slot) -> Option<&mut Handshake> {
        match self.entry(slot)? {
            Entry::Handshake(handshake) => Some(handshake),
            Entry::Open(_) => None,
        }
    }

    /// The place of an entry that is there.
    pub(crate) fn place(&self, slot: Slot) -> Option<Place> {
        let generation = self.places.get(slot.index())?.generation;
        Some(Place { slot, generation })
    }

    /// Every place that is taken.
    pub(crate) fn slots(&self) -> Vec<Slot> {
        (0..)
            .map(Slot::new)
            .zip(&self.places)
            .filter(|(_, tenancy)| tenancy.entry.is_some())
            .map(|(slot, _)| slot)
            .collect()
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = &Entry> {
        self.places
            .iter()
            .filter_map(|tenancy| tenancy.entry.as_ref())
    }

    pub(crate) const fn connections(&self) -> usize {
        self.connections
    }

    pub(crate) const fn handshakes(&self) -> usize {
        self.handshakes
    }
}
