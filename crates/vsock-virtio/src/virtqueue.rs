// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! A queue as the device uses it: what is wrong with it is a [`DeviceFault`].

use std::num::Wrapping;
use std::sync::atomic::Ordering;

use virtio_queue::{Queue, QueueT};
use vm_memory::GuestMemory;

use crate::chain::{BadChain, Chain, Gathered, Part};
use crate::fields::{Fields, Inaccessible, SharedFields};
use crate::scatter::Slices;
use crate::suppression::{Kicks, Suppression};
use crate::{DeviceFault, FaultCause, QueueName};

/// A queue and the memory that it lies in, for one call of the device.
///
/// What outlives the call, the position in both of its rings, is the `Queue`'s, and is always up to
/// date there.
pub(crate) struct Virtqueue<'q, 'm, M: GuestMemory> {
    mem: &'m M,
    fields: Fields<'m, M>,
    queue: &'q mut Queue,
    name: QueueName,
    /// How many chains had been made available when this was last looked at.
    available: Option<Wrapping<u16>>,
    /// How many chains were given back in this call, at least.
    used: u16,
}

/// A chain that was taken.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Taken {
    pub(crate) head: u16,
    /// How many bytes it has.
    pub(crate) len: Result<usize, BadChain>,
    /// What it cost to look at its descriptors.
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

    /// Takes the next chain that the guest has made available, and appends its pieces to `slices`.
    /// Those of a bad one are of no use.
    pub(crate) fn take(
        &mut self,
        part: Part,
        slices: &mut Slices<'m, M>,
    ) -> Result<Option<Taken>, DeviceFault> {
        if !self.ready() {
            return Ok(None);
        }
        let next = Wrapping(self.queue.next_avail());
        if self.available.is_none_or(|available| available == next) {
            let available = self.available()?;
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

    /// Whether the guest had made more chains available at the last look. Reads no guest memory.
    pub(crate) fn has_seen_more(&self) -> bool {
        let next = Wrapping(self.queue.next_avail());
        self.available.is_some_and(|available| available != next)
    }

    /// Puts the last `count` chains back that were taken and not used.
    pub(crate) fn put_back(&mut self, count: u16) {
        let next = self.queue.next_avail().wrapping_sub(count);
        self.queue.set_next_avail(next);
    }

    /// Gives a chain back to the guest, with `len` bytes written to it.
    pub(crate) fn give_back(&mut self, head: u16, len: u32) -> Result<(), DeviceFault> {
        let count = self.queue.next_used();
        self.checked(self.fields.set_used(count, head, len))?;
        let count = count.wrapping_add(1);
        self.queue.set_next_used(count);
        self.used = self.used.saturating_add(1);
        // ORDER: Release; partner: the driver's acquire of the used index. Who sees it sees the
        // element, and what was written to the chain.
        self.checked(self.fields.set_used_index(count, Ordering::Release))
    }

    /// How many chains were given back in this call, or more.
    pub(crate) const fn used(&self) -> u16 {
        self.used
    }

    /// Whether the guest is to be interrupted for the last `count` chains that were given back:
    /// once for all of them.
    pub(crate) fn wants_interrupt(&self, count: u16) -> Result<bool, DeviceFault> {
        let used = self.queue.next_used();
        let wants = self
            .suppression()
            .wants_interrupt(&self.fields, used, count);
        self.checked(wants)
    }

    /// The device is about to sleep: asks for a kick with the next chain, and returns whether it is
    /// there by now.
    pub(crate) fn turn_kicks_on(&self, kicks: &mut Kicks) -> Result<bool, DeviceFault> {
        if !self.ready() {
            return Ok(false);
        }
        let next = self.queue.next_avail();
        self.checked(kicks.turn_on(self.suppression(), &self.fields, next))
    }

    /// The device is awake, or needs nothing of this queue: kicks are of no use.
    pub(crate) fn turn_kicks_off(&self, kicks: &mut Kicks) -> Result<(), DeviceFault> {
        if !self.ready() {
            return Ok(());
        }
        self.checked(kicks.turn_off(self.suppression(), &self.fields))
    }

    /// Asks for a kick when the guest adds a chain to those that it has made available, of which
    /// the device has not taken all. Returns how many it has made available, in wrapping counting.
    pub(crate) fn watch_available(&self) -> Result<Wrapping<u16>, DeviceFault> {
        let available = self.available()?;
        self.checked(self.suppression().ask_for_kick(&self.fields, available.0))?;
        self.available()
    }

    /// How many chains the guest has made available, in wrapping counting.
    pub(crate) fn available(&self) -> Result<Wrapping<u16>, DeviceFault> {
        // ORDER: Acquire; partner: the driver's release of its index. Who sees the index sees the
        // entries.
        let available = self.fields.available_index(Ordering::Acquire);
        self.checked(available).map(Wrapping)
    }

    /// How many chains wait to be taken, if the queue is served and its index makes sense.
    pub(crate) fn depth(&self) -> Option<u16> {
        if !self.ready() {
            return None;
        }
        let available = self.available().ok()?;
        let depth = (available - Wrapping(self.queue.next_avail())).0;
        (depth <= self.queue.size()).then_some(depth)
    }

    /// The chain that is taken next, in wrapping counting.
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
