// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! A descriptor chain becomes pieces of guest memory (virtio 1.3, 2.7.5).

use virtio_queue::desc::split::Descriptor;
use vm_memory::{Address, GuestMemory, Permissions};

use crate::fields::{DESCRIPTOR, Fields, Span};
use crate::scatter::Slices;

/// Which part of a chain is asked for.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Part {
    /// What the device may read; it must come before anything that it may write.
    Readable,
    /// What the device may write; nothing else may be in the chain.
    Writable,
}

/// A chain that is not what it should be. It concerns its sender alone.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) struct BadChain;

/// What a descriptor costs at least, of the budget of a call: so a chain of many is no cheap way to
/// keep the thread busy, and one of a few costs what its bytes do.
pub(crate) const DESCRIPTOR_COST: usize = 64;

/// A chain that was looked at.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Gathered {
    /// How many bytes it has.
    pub(crate) len: Result<usize, BadChain>,
    /// What it cost to look at its descriptors, also if it is bad.
    pub(crate) cost: usize,
}

/// A chain of a queue.
pub(crate) struct Chain<'t, 'm, M: GuestMemory> {
    pub(crate) mem: &'m M,
    pub(crate) queue: &'t Fields<'m, M>,
    pub(crate) head: u16,
}

impl<'m, M: GuestMemory> Chain<'_, 'm, M> {
    /// Appends the pieces of the chain to `slices`. Those of a bad one are of no use.
    ///
    /// A range may lie in several regions, whose pieces need not be neighbours in this process; a
    /// byte outside of all regions spoils the chain. So does a loop, an index outside of its table,
    /// a table within a table or of a length that is no multiple of 16, a chain that is longer than
    /// the queue (virtio 1.3, 2.7.5.3.1) or than 2^32 bytes (2.7.5.2), or a descriptor of the wrong
    /// direction.
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
        let (mut total, mut room) = (0, u32::MAX);
        let mut writable_seen = false;
        let mut walk = Walk::new(self.queue, self.head);
        for _ in 0..self.queue.size() {
            *cost += DESCRIPTOR_COST;
            let descriptor = walk.step(self.mem)?;
            room = room.checked_sub(descriptor.len()).ok_or(BadChain)?;
            let access = match (part, descriptor.is_write_only()) {
                (Part::Readable, false) if !writable_seen => Some(Permissions::Read),
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

/// Appends the pieces of a descriptor's range.
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
    addr.checked_add(last.into()).ok_or(BadChain)?;
    let pieces = mem.get_slices(addr, len, access).map_err(|_| BadChain)?;
    for piece in pieces {
        slices.push(piece.map_err(|_| BadChain)?);
    }
    Ok(len)
}

/// From descriptor to descriptor: through the queue's table, and from there at most once into a
/// table of the chain's own (virtio 1.3, 2.7.5.3).
struct Walk<'t, 'm, M: GuestMemory> {
    queue: &'t Span<'m, M>,
    /// How many descriptors the table has in which the walk is.
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

    /// The next descriptor. Whether another follows, it says itself.
    fn step(&mut self, mem: &'m M) -> Result<Descriptor, BadChain> {
        let mut descriptor = self.read()?;
        if descriptor.refers_to_indirect_table() {
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

    /// Goes into the table that a descriptor refers to.
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
