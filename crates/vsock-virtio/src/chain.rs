// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Turns a descriptor chain into pieces of guest memory (virtio 1.3, 2.7.5).
//!
//! [`Chain::gather`] visits the descriptors with [`Walk`], checks each, and appends the memory that
//! it describes to a list. The driver can change descriptors at any time, so each is copied once
//! and only the copy is checked and used.

use virtio_queue::desc::split::Descriptor;
use vm_memory::{Address, GuestMemory, Permissions};

use crate::fields::{DESCRIPTOR, Fields, Span};
use crate::scatter::Slices;

/// The part of a chain that the device uses.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Part {
    /// The device-readable descriptors, which must precede all device-writable ones.
    Readable,
    /// The device-writable descriptors. The chain must not contain any others.
    Writable,
}

/// A malformed chain. It affects only the guest that made it available.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) struct BadChain;

/// The minimum cost of a descriptor, charged to the budget of a call. It limits how long a guest
/// can keep the thread busy with many empty descriptors, and is less than the bytes of ordinary
/// chains cost.
pub(crate) const DESCRIPTOR_COST: usize = 64;

/// The result of a walk through a chain.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Gathered {
    /// How many bytes the chain has.
    pub(crate) len: Result<usize, BadChain>,
    /// The cost of the walk, also for a malformed chain.
    pub(crate) cost: usize,
}

/// A chain of a queue, not walked yet.
pub(crate) struct Chain<'t, 'm, M: GuestMemory> {
    pub(crate) mem: &'m M,
    pub(crate) queue: &'t Fields<'m, M>,
    pub(crate) head: u16,
}

impl<'m, M: GuestMemory> Chain<'_, 'm, M> {
    /// Appends the pieces of the chain to `slices`. For a malformed chain, the caller must ignore
    /// the appended pieces.
    ///
    /// A descriptor's range may span memory regions that are not adjacent in this process. A chain
    /// is malformed if it contains:
    ///
    /// - a byte outside all memory regions;
    /// - a loop, or more descriptors than the queue has entries (virtio 1.3, 2.7.5.3.1);
    /// - 2^32 bytes or more (2.7.5.2);
    /// - an index outside its table;
    /// - an indirect table within an indirect table, or one whose length is not a multiple of 16;
    /// - a descriptor in the wrong direction.
    pub(crate) fn gather(&self, part: Part, slices: &mut Slices<'m, M>) -> Gathered {
        let mut cost = 0;
        let len = self.walk(part, slices, &mut cost);
        Gathered { len, cost }
    }

    fn walk(
        &self,
        part: Part,
        slices: &mut Slices<'m, M>,
        cost: &mut usize,
    ) -> Result<usize, BadChain> {
        // `room` counts all descriptors, also those that the device skips; `total` only its part.
        let (mut total, mut room) = (0, u32::MAX);
        let mut writable_seen = false;
        let mut walk = Walk::new(self.queue, self.head);
        // A chain has at most as many descriptors as the queue has entries, so a loop runs out.
        for _ in 0..self.queue.size() {
            *cost += DESCRIPTOR_COST;
            let descriptor = walk.step(self.mem)?;
            room = room.checked_sub(descriptor.len()).ok_or(BadChain)?;
            let access = match (part, descriptor.is_write_only()) {
                (Part::Readable, false) if !writable_seen => Some(Permissions::Read),
                // A packet's chain may end in writable descriptors: the device ignores them.
                (Part::Readable, true) => {
                    writable_seen = true;
                    None
                }
                (Part::Writable, true) => Some(Permissions::Write),
                (Part::Readable | Part::Writable, false) => return Err(BadChain),
            };
            if let Some(access) = access {
                total += append(self.mem, &descriptor, access, slices)?;
            }
            if !descriptor.has_next() {
                return Ok(total);
            }
        }
        Err(BadChain)
    }
}

/// Appends the pieces of a descriptor's range, and returns its length.
fn append<'m, M: GuestMemory>(
    mem: &'m M,
    descriptor: &Descriptor,
    access: Permissions,
    slices: &mut Slices<'m, M>,
) -> Result<usize, BadChain> {
    let len = descriptor.len() as usize;
    let Some(last) = descriptor.len().checked_sub(1) else {
        return Ok(0);
    };
    let addr = descriptor.addr();
    // A range may end at the last address, but must not wrap around it.
    addr.checked_add(last.into()).ok_or(BadChain)?;
    let pieces = mem.get_slices(addr, len, access).map_err(|_| BadChain)?;
    for piece in pieces {
        slices.push(piece.map_err(|_| BadChain)?);
    }
    Ok(len)
}

/// A walk from descriptor to descriptor: through the queue's table, and at most once from there
/// into an indirect table (virtio 1.3, 2.7.5.3).
struct Walk<'t, 'm, M: GuestMemory> {
    queue: &'t Span<'m, M>,
    /// The number of descriptors in the current table.
    entries: u16,
    indirect: Option<Span<'m, M>>,
    next: u16,
}

impl<'t, 'm, M: GuestMemory> Walk<'t, 'm, M> {
    const fn new(queue: &'t Fields<'m, M>, head: u16) -> Self {
        Self {
            queue: queue.descriptors(),
            entries: queue.size(),
            indirect: None,
            next: head,
        }
    }

    /// Returns the next descriptor. The caller must stop after one that has no successor.
    fn step(&mut self, mem: &'m M) -> Result<Descriptor, BadChain> {
        let mut descriptor = self.read()?;
        if descriptor.refers_to_indirect_table() {
            // The chain continues in the indirect table and ends there, so whatever follows the
            // referring descriptor in the queue's table is ignored.
            self.enter(mem, &descriptor)?;
            descriptor = self.read()?;
            if descriptor.refers_to_indirect_table() {
                return Err(BadChain);
            }
        }
        self.next = descriptor.next();
        Ok(descriptor)
    }

    fn read(&self) -> Result<Descriptor, BadChain> {
        if self.next >= self.entries {
            return Err(BadChain);
        }
        let table = self.indirect.as_ref().unwrap_or(self.queue);
        table.descriptor(self.next).map_err(|_| BadChain)
    }

    /// Enters the table that a descriptor refers to.
    fn enter(&mut self, mem: &'m M, descriptor: &Descriptor) -> Result<(), BadChain> {
        let len = descriptor.len() as usize;
        if self.indirect.is_some() || len % DESCRIPTOR != 0 {
            return Err(BadChain);
        }
        self.entries = u16::try_from(len / DESCRIPTOR).map_err(|_| BadChain)?;
        let table = Span::new(mem, descriptor.addr().0, len, Permissions::Read);
        self.indirect = Some(table);
        self.next = 0;
        Ok(())
    }
}
