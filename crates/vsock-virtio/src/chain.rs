// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! A descriptor chain becomes pieces of guest memory (virtio 1.3, 2.7.5).

use virtio_queue::desc::split::Descriptor;
use vm_memory::{Address, GuestMemory, Permissions};

use crate::parts::{DESCRIPTOR, Parts, Span};
use crate::scatter::Slices;

/// Which part of a chain is asked for.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Part {
    /// What the device may read; it must come before anything that it may write.
    Readable,
    /// What the device may write; nothing else may be in the chain.
    Writable,
}

/// A chain that is not what it should be. It concerns nobody but its sender.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) struct BadChain;

/// What a descriptor costs at least, of the budget of a call: so a chain of many is no cheap way to keep
/// the thread busy, and one of a few costs what its bytes do.
pub(crate) const DESCRIPTOR_COST: usize = 64;

/// Appends the pieces of the chain that begins at `head` to `slices`; returns how many bytes they have. In
/// `cost` is what it cost to look at its descriptors, also if the chain is bad.
///
/// A range may lie in several regions, whose pieces need not be neighbours in this process; a byte
/// outside of all regions spoils the chain. So does a loop, an index outside of its table, a table
/// within a table or of a length that is no multiple of 16, a chain that is longer than the queue
/// (virtio 1.3, 2.7.5.3.1) or than 2^32 bytes (2.7.5.2), or a descriptor of the wrong direction.
pub(crate) fn gather<'m, M: GuestMemory>(
    mem: &'m M,
    (parts, head): (&Parts<'m, M>, u16),
    part: Part,
    slices: &mut Slices<'m, M>,
    cost: &mut usize,
) -> Result<usize, BadChain> {
    *cost = 0;
    let (mut total, mut room) = (0, u32::MAX);
    let mut writable_seen = false;
    let mut walk = Walk::new(parts, head);
    for _ in 0..parts.size() {
        *cost += DESCRIPTOR_COST;
        let descriptor = walk.step(mem)?;
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
            total += append(mem, &descriptor, access, slices)?;
        }
        if !descriptor.has_next() {
            return Ok(total);
        }
    }
    Err(BadChain)
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

/// From descriptor to descriptor: through the queue's table, and from there at most once into a table of
/// the chain's own (virtio 1.3, 2.7.5.3).
struct Walk<'t, 'm, M: GuestMemory> {
    queue: &'t Span<'m, M>,
    /// How many descriptors the table has in which the walk is.
    entries: u16,
    indirect: Option<Span<'m, M>>,
    next: u16,
}

impl<'t, 'm, M: GuestMemory> Walk<'t, 'm, M> {
    const fn new(queue: &'t Parts<'m, M>, head: u16) -> Self {
        Self {
            queue: queue.descriptors(),
            entries: queue.size(),
            indirect: None,
            next: head,
        }
    }

    /// The next descriptor. Whether there is another behind it, it says itself.
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
        if self.indirect.is_some() || !len.is_multiple_of(DESCRIPTOR) {
            return Err(BadChain);
        }
        self.entries = u16::try_from(len / DESCRIPTOR).map_err(|_| BadChain)?;
        let table = Span::new(mem, descriptor.addr().0, len, Permissions::Read);
        self.indirect = Some(table);
        self.next = 0;
        Ok(())
    }
}
