// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! The operations of the device on a queue.
//!
//! The device takes a chain, uses it, and gives it back. Everything it reads from the queue is
//! checked here, and a violation of the rules is a [`DeviceFault`]. [`Fields`] accesses the queue's
//! memory, [`Chain`] walks the descriptors, and [`Suppression`] decides about notifications.

use std::num::Wrapping;
use std::sync::atomic::Ordering;

use virtio_queue::{Queue, QueueT};
use vm_memory::GuestMemory;

use crate::chain::{BadChain, Chain, Gathered, Part};
use crate::fields::{Fields, Inaccessible, SharedFields};
use crate::scatter::Slices;
use crate::suppression::{Kicks, Suppression};
use crate::{DeviceFault, FaultCause, QueueName};

/// A queue and its memory, for one call of the device.
///
/// The positions in both rings outlive the call. They are stored in the `Queue` and always up to
/// date there.
pub(crate) struct Virtqueue<'q, 'm, M: GuestMemory> {
    mem: &'m M,
    fields: Fields<'m, M>,
    queue: &'q mut Queue,
    name: QueueName,
    /// The available index at the last look, if there was one.
    available: Option<Wrapping<u16>>,
    /// How many chains this call has given back; saturates.
    used: u16,
}

/// A chain that the device has taken.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Taken {
    pub(crate) head: u16,
    /// How many bytes the chain has.
    pub(crate) len: Result<usize, BadChain>,
    /// The cost of the walk through its descriptors.
    pub(crate) cost: usize,
}

impl<'q, 'm, M: GuestMemory> Virtqueue<'q, 'm, M> {
    pub(crate) fn new(mem: &'m M, queue: &'q mut Queue, name: QueueName) -> Self {
        Self {
            mem,
            fields: Fields::new(mem, queue),
            queue,
            name,
            available: None,
            used: 0,
        }
    }

    /// Takes the next available chain, and appends its pieces to `slices`. The caller must ignore
    /// the pieces of a malformed chain.
    pub(crate) fn take(
        &mut self,
        part: Part,
        slices: &mut Slices<'m, M>,
    ) -> Result<Option<Taken>, DeviceFault> {
        if !self.ready() {
            return Ok(None);
        }
        let next = Wrapping(self.queue.next_avail());
        // Read the index again only after taking all chains of the last look.
        if self.available.is_none_or(|available| available == next) {
            let available = self.available()?;
            // The difference is correct even if the 16-bit counters have wrapped around.
            if (available - next).0 > self.queue.size() {
                return Err(self.because(FaultCause::AvailIndex));
            }
            self.available = Some(available);
            if available == next {
                return Ok(None);
            }
        }
        let head = self.checked(self.fields.available_head(next.0))?;
        if head >= self.queue.size() {
            return Err(self.because(FaultCause::HeadIndex));
        }
        self.queue.set_next_avail((next + Wrapping(1)).0);
        let chain = Chain {
            mem: self.mem,
            queue: &self.fields,
            head,
        };
        let Gathered { len, cost } = chain.gather(part, slices);
        Ok(Some(Taken { head, len, cost }))
    }

    /// Whether chains of the last look are left to take. Reads no guest memory.
    pub(crate) fn has_seen_more(&self) -> bool {
        let next = Wrapping(self.queue.next_avail());
        self.available.is_some_and(|available| available != next)
    }

    /// Puts back the last `count` chains, which were taken but not used.
    pub(crate) fn put_back(&mut self, count: u16) {
        // The driver reuses entries of the available ring only after their chains have been used,
        // so the same chains are found again.
        let next = self.queue.next_avail().wrapping_sub(count);
        self.queue.set_next_avail(next);
    }

    /// Gives a chain back to the driver, with `len` bytes written to it.
    pub(crate) fn give_back(&mut self, head: u16, len: u32) -> Result<(), DeviceFault> {
        let count = self.queue.next_used();
        self.checked(self.fields.set_used(count, head, len))?;
        let count = count.wrapping_add(1);
        self.queue.set_next_used(count);
        self.used = self.used.saturating_add(1);
        // ORDER: Release; partner: the driver's acquire of the used index. A driver that sees the
        // index also sees the element and the contents of the chain.
        self.checked(self.fields.set_used_index(count, Ordering::Release))
    }

    /// How many chains this call has given back; saturates.
    pub(crate) const fn used(&self) -> u16 {
        self.used
    }

    /// Whether to send the driver one interrupt for the last `count` chains that were given back.
    pub(crate) fn wants_interrupt(&self, count: u16) -> Result<bool, DeviceFault> {
        let used = self.queue.next_used();
        let wants = self
            .suppression()
            .wants_interrupt(&self.fields, used, count);
        self.checked(wants)
    }

    /// Before the device sleeps: asks for a kick for the next chain, and returns whether that chain
    /// is available by now.
    pub(crate) fn turn_kicks_on(&self, kicks: &mut Kicks) -> Result<bool, DeviceFault> {
        if !self.ready() {
            return Ok(false);
        }
        let next = self.queue.next_avail();
        self.checked(kicks.turn_on(self.suppression(), &self.fields, next))
    }

    /// Turns kicks off, because the device is awake or needs nothing from this queue.
    pub(crate) fn turn_kicks_off(&self, kicks: &mut Kicks) -> Result<(), DeviceFault> {
        if !self.ready() {
            return Ok(());
        }
        self.checked(kicks.turn_off(self.suppression(), &self.fields))
    }

    /// Asks for a kick when the driver makes a further chain available, even if the device has not
    /// taken all current ones. Returns the available index.
    pub(crate) fn watch_available(&self) -> Result<Wrapping<u16>, DeviceFault> {
        let available = self.available()?;
        self.checked(self.suppression().ask_for_kick(&self.fields, available.0))?;
        self.available()
    }

    /// Reads the available index: how many chains the driver has made available, wrapping around.
    pub(crate) fn available(&self) -> Result<Wrapping<u16>, DeviceFault> {
        // ORDER: Acquire; partner: the driver's release of its index. A device that sees the index
        // also sees the entries before it.
        let available = self.fields.available_index(Ordering::Acquire);
        self.checked(available).map(Wrapping)
    }

    /// How many chains wait to be taken, if the queue is ready and its index is valid.
    pub(crate) fn depth(&self) -> Option<u16> {
        if !self.ready() {
            return None;
        }
        let available = self.available().ok()?;
        let depth = (available - Wrapping(self.queue.next_avail())).0;
        (depth <= self.queue.size()).then_some(depth)
    }

    /// The count of the chain to take next; wraps around.
    pub(crate) fn next_available(&self) -> u16 {
        self.queue.next_avail()
    }

    fn suppression(&self) -> Suppression {
        if self.queue.event_idx_enabled() {
            Suppression::EventIdx
        } else {
            Suppression::Flags
        }
    }

    pub(crate) fn size(&self) -> u16 {
        self.queue.size()
    }

    /// Whether the driver has set the queue up.
    pub(crate) fn ready(&self) -> bool {
        self.queue.ready() && self.queue.avail_ring() != 0
    }

    fn checked<T>(&self, result: Result<T, Inaccessible>) -> Result<T, DeviceFault> {
        result.map_err(|Inaccessible| self.because(FaultCause::Memory))
    }

    const fn because(&self, cause: FaultCause) -> DeviceFault {
        DeviceFault {
            queue: self.name,
            cause,
        }
    }
}
