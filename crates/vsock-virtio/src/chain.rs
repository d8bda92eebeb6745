// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! A descriptor chain becomes pieces of guest memory (virtio 1.3, 2.7.5).

use virtio_queue::desc::split::Descriptor;
use vm_memory::{Address, GuestMemory, Permissions};

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
const DESCRIPTOR_COST: usize = 64;

/// Appends the pieces of a chain to `slices`; returns how many bytes they have. In `cost` is what it cost
/// to look at its descriptors, also if the chain is bad.
///
/// A range may lie in several regions, whose pieces need not be neighbours in this process; a byte
/// outside of all regions spoils the chain. So does a loop, an index outside of its table, a table
/// within a table or of a length that is no multiple of 16, a chain that is longer than the queue
/// (virtio 1.3, 2.7.5.3.1), or a descriptor of the wrong direction.
pub(crate) fn gather<'m, M: GuestMemory>(
    mem: &'m M,
    chain: impl Iterator<Item = Descriptor>,
    (part, queue_size): (Part, u16),
    slices: &mut Slices<'m, M>,
    cost: &mut usize,
) -> Result<usize, BadChain> {
    let mut total = 0;
    let mut count = 0;
    *cost = 0;
    let mut complete = false;
    let mut writable_seen = false;
    // The iterator stops at whatever is wrong with the chain. A chain that stops at a descriptor
    // which promises another is not whole.
    for descriptor in chain {
        count += 1;
        *cost += DESCRIPTOR_COST;
        if count > queue_size {
            return Err(BadChain);
        }
        complete = !descriptor.has_next();
        let writable = descriptor.is_write_only();
        let access = match (part, writable) {
            (Part::Readable, false) if !writable_seen => Permissions::Read,
            (Part::Readable, true) => {
                writable_seen = true;
                continue;
            }
            (Part::Writable, true) => Permissions::Write,
            (Part::Readable | Part::Writable, false) => return Err(BadChain),
        };
        let len = descriptor.len() as usize;
        if len == 0 {
            continue;
        }
        let last = u64::from(descriptor.len()) - 1;
        descriptor.addr().checked_add(last).ok_or(BadChain)?;
        let pieces = mem
            .get_slices(descriptor.addr(), len, access)
            .map_err(|_| BadChain)?;
        for piece in pieces {
            slices.push(piece.map_err(|_| BadChain)?);
        }
        total += len;
    }
    if complete { Ok(total) } else { Err(BadChain) }
}
