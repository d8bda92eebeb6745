// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! A queue as the device uses it: every failure of a ring is a [`Fault`].

use std::num::Wrapping;
use std::sync::atomic::{Ordering, fence};

use virtio_queue::{Error, Queue, QueueOwnedT, QueueT};
use vm_memory::{Address, Bytes, GuestAddress, GuestMemory};

use crate::chain::{BadChain, Part, gather};
use crate::scatter::Slices;
use crate::translated::Translated;
use crate::{Fault, FaultCause, QueueName};

/// `VIRTQ_AVAIL_F_NO_INTERRUPT` (virtio 1.3, 2.7.6).
const NO_INTERRUPT: u16 = 1;

/// A queue and the memory that it lies in, for one call of the device.
pub(crate) struct Ring<'q, 'm, M: GuestMemory> {
    mem: &'m M,
    /// The same memory, for the queue's own parts.
    parts: Translated<'m, M>,
    queue: &'q mut Queue,
    name: QueueName,
    /// Whether chains were used, so that the guest may want to know.
    used: bool,
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

impl<'q, 'm, M: GuestMemory> Ring<'q, 'm, M> {
    pub(crate) fn new(mem: &'m M, queue: &'q mut Queue, name: QueueName) -> Self {
        Self {
            mem,
            parts: Translated::new(mem, queue),
            queue,
            name,
            used: false,
        }
    }

    /// Takes the next chain that the guest has made available, and appends its pieces to `slices`. Those of
    /// a bad one are of no use.
    pub(crate) fn take(
        &mut self,
        part: Part,
        slices: &mut Slices<'m, M>,
    ) -> Result<Option<Taken>, Fault> {
        if !self.ready() {
            return Ok(None);
        }
        // The guest may add a chain between the two looks at its index, but only once.
        for _ in 0..2 {
            let next = match self.queue.iter(&self.parts) {
                Ok(mut available) => available.next(),
                Err(error) => return Err(self.fault(&error)),
            };
            if let Some(chain) = next {
                let (head, size) = (chain.head_index(), self.queue.size());
                if head >= size {
                    return Err(self.because(FaultCause::HeadIndex));
                }
                let mut cost = 0;
                let len = gather(self.mem, chain, (part, size), slices, &mut cost);
                return Ok(Some(Taken { head, len, cost }));
            }
            if self.available()?.0 == self.queue.next_avail() {
                return Ok(None);
            }
        }
        Err(self.because(FaultCause::Memory))
    }

    /// Puts the last `count` chains back that were taken and not used.
    pub(crate) fn put_back(&mut self, count: u16) {
        let next = self.queue.next_avail().wrapping_sub(count);
        self.queue.set_next_avail(next);
    }

    /// Gives a chain back to the guest, with `len` bytes written to it.
    pub(crate) fn give_back(&mut self, head: u16, len: u32) -> Result<(), Fault> {
        self.queue
            .add_used(&self.parts, head, len)
            .map_err(|error| self.fault(&error))?;
        self.used = true;
        Ok(())
    }

    /// Whether the guest is to be notified of what was used: once for a whole batch, after the used
    /// index of the last chain has been published.
    pub(crate) fn notification(&mut self) -> Result<bool, Fault> {
        if !std::mem::take(&mut self.used) {
            return Ok(false);
        }
        let wanted = self.queue.needs_notification(&self.parts);
        let wanted = wanted.map_err(|error| self.fault(&error))?;
        if !wanted || self.queue.event_idx_enabled() {
            return Ok(wanted);
        }
        // ORDER: Relaxed; partner: the driver's store, which is a hint. The fence before it, in
        // `needs_notification`, puts this load behind the store of the used index.
        let flags = self.load(self.queue.avail_ring(), Ordering::Relaxed)?;
        Ok(flags & NO_INTERRUPT == 0)
    }

    /// Asks to be notified of the next chain. `true` if there is one by now, of which no notification
    /// may come.
    pub(crate) fn enable_notification(&mut self) -> Result<bool, Fault> {
        if !self.ready() {
            return Ok(false);
        }
        self.queue
            .enable_notification(&self.parts)
            .map_err(|error| self.fault(&error))
    }

    /// Asks not to be notified; with `VIRTIO_F_EVENT_IDX` that is so until it is asked for.
    pub(crate) fn disable_notification(&mut self) -> Result<(), Fault> {
        if !self.ready() {
            return Ok(());
        }
        self.queue
            .disable_notification(&self.parts)
            .map_err(|error| self.fault(&error))
    }

    /// Asks to be notified when the guest adds a chain to those that it has made available, of which
    /// the device has not taken all. Returns how many it has made available, in wrapping counting.
    pub(crate) fn watch_available(&mut self) -> Result<Wrapping<u16>, Fault> {
        let available = self.available()?;
        if self.queue.event_idx_enabled() {
            // `avail_event` lies behind the used ring's elements (virtio 1.3, 2.7.8).
            let offset = 4 + 8 * u64::from(self.queue.size());
            let address = GuestAddress(self.queue.used_ring())
                .checked_add(offset)
                .ok_or_else(|| self.because(FaultCause::Memory))?;
            // ORDER: Relaxed; the fence orders it; partner: the driver's load of `avail_event`
            // behind its own barrier, after it has published the new index.
            self.parts
                .store(available.0.to_le(), address, Ordering::Relaxed)
                .map_err(|_| self.because(FaultCause::Memory))?;
            // ORDER: SeqCst; partner: the driver's full barrier between publishing its index and
            // looking at `avail_event`. One of the two sees the other's store.
            fence(Ordering::SeqCst);
        } else {
            self.enable_notification()?;
        }
        self.available()
    }

    /// How many chains the guest has made available, in wrapping counting.
    pub(crate) fn available(&self) -> Result<Wrapping<u16>, Fault> {
        // ORDER: Acquire; partner: the driver's release of its index. Who sees the index sees the
        // entries.
        self.queue
            .avail_idx(&self.parts, Ordering::Acquire)
            .map_err(|error| self.fault(&error))
    }

    /// The chain that is taken next, in wrapping counting.
    pub(crate) fn next_available(&self) -> u16 {
        self.queue.next_avail()
    }

    /// Entries of the queue.
    pub(crate) fn size(&self) -> u16 {
        self.queue.size()
    }

    /// Whether the driver has set the queue up.
    pub(crate) fn ready(&self) -> bool {
        self.queue.ready() && self.queue.avail_ring() != 0
    }

    fn load(&self, address: u64, order: Ordering) -> Result<u16, Fault> {
        self.parts
            .load(GuestAddress(address), order)
            .map(u16::from_le)
            .map_err(|_| self.because(FaultCause::Memory))
    }

    fn fault(&self, error: &Error) -> Fault {
        self.because(match error {
            Error::InvalidAvailRingIndex => FaultCause::AvailIndex,
            Error::InvalidDescriptorIndex => FaultCause::HeadIndex,
            _ => FaultCause::Memory,
        })
    }

    const fn because(&self, cause: FaultCause) -> Fault {
        Fault {
            queue: self.name,
            cause,
        }
    }
}
