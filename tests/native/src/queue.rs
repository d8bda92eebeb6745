// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! The driver's side of a split virtqueue (virtio 1.3, 2.7), modelled on Linux (`virtio_ring.c`):
//! it decides when to kick, and when to be interrupted.

use std::io::ErrorKind;
use std::mem;
use std::sync::atomic::{Ordering, fence};

use anyhow::{Context, Result, ensure};
use vhost::VringConfigData;
use vm_memory::{Bytes, GuestAddress, GuestMemoryBackend};
use vmm_sys_util::eventfd::{EFD_CLOEXEC, EFD_NONBLOCK, EventFd};
use vsock_driver::{Descriptor, Memory};

use crate::shape::Shape;

/// The largest queue that the memory layout has room for.
pub(crate) const MAX_SIZE: u16 = 256;
/// The guest memory that a queue takes.
pub(crate) const BYTES: u64 = 0x8000;

const AVAILABLE: u64 = 0x2000;
const USED: u64 = 0x3000;
/// A table of two descriptors for each entry.
const TABLES: u64 = 0x4000;
const TABLE: u64 = 2 * Descriptor::LEN;
const NO_INTERRUPT: u16 = 1;
const NO_NOTIFY: u16 = 1;

/// A chain that the device has used.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) struct Used {
    pub(crate) head: u16,
    pub(crate) len: u32,
}

/// What was found when interrupts were enabled again.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Found {
    /// No chain: the next one will cause an interrupt.
    Nothing,
    /// A chain that was used just before, and for which no interrupt will come.
    More,
}

/// The driver's side of a queue.
pub(crate) struct Queue {
    memory: Memory,
    base: u64,
    size: u16,
    /// Whether notifications are requested by index (`VIRTIO_F_EVENT_IDX`) or by a flag.
    event_idx: bool,
    /// Whether two pieces are in an indirect table or in two entries.
    indirect: bool,
    /// Free entries. The most recently freed one is reused first.
    free: Vec<u16>,
    /// The second entry of a chain, by the chain's head.
    second: Vec<Option<u16>>,
    available: u16,
    /// Chains that were made available since the last call of [`kick`](Self::kick).
    added: u16,
    taken: u16,
    /// Whether the driver wants to be interrupted.
    interrupts_on: bool,
    pub(crate) kick: EventFd,
    pub(crate) call: EventFd,
    /// How often the driver has kicked the device.
    pub(crate) kicks: u64,
    /// How often the device has interrupted.
    pub(crate) interrupted: u64,
}

impl Queue {
    /// Creates an empty queue at `base`, where the memory must be zero.
    pub(crate) fn new(memory: &Memory, base: u64, shape: Shape) -> Result<Self> {
        let size = shape.queue_size;
        ensure!(
            size.is_power_of_two() && size <= MAX_SIZE,
            "expected a power of two up to {MAX_SIZE} as the size of a queue, not {size}"
        );
        Ok(Self {
            memory: memory.clone(),
            base,
            size,
            event_idx: shape.event_idx,
            indirect: shape.indirect,
            free: (0..size).rev().collect(),
            second: vec![None; size.into()],
            available: 0,
            added: 0,
            taken: 0,
            interrupts_on: true,
            kick: EventFd::new(EFD_NONBLOCK | EFD_CLOEXEC)?,
            call: EventFd::new(EFD_NONBLOCK | EFD_CLOEXEC)?,
            kicks: 0,
            interrupted: 0,
        })
    }

    /// Returns the addresses of the queue's parts in this process, for the front-end's request.
    pub(crate) fn config(&self) -> Result<VringConfigData> {
        let address = |offset| -> Result<u64> {
            let address = GuestAddress(self.base + offset);
            Ok(self.memory.get_host_address(address)? as u64)
        };
        Ok(VringConfigData {
            queue_max_size: self.size,
            queue_size: self.size,
            flags: 0,
            desc_table_addr: address(0)?,
            used_ring_addr: address(USED)?,
            avail_ring_addr: address(AVAILABLE)?,
            log_addr: None,
        })
    }

    /// Returns how many chains the device holds.
    pub(crate) fn in_flight(&self) -> u16 {
        self.available.wrapping_sub(self.taken)
    }

    /// Returns how many chains of this many pieces the queue holds.
    pub(crate) fn capacity(&self, pieces: usize) -> u16 {
        match pieces {
            2.. if !self.indirect => self.size / 2,
            _ => self.size,
        }
    }

    /// Returns the head of the next chain, if there is room for one of this many pieces.
    pub(crate) fn next_head(&self, pieces: usize) -> Option<u16> {
        let entries = if self.indirect { 1 } else { pieces };
        let head = self.free.last().copied();
        head.filter(|_| self.free.len() >= entries)
    }

    /// Makes a chain of one or two pieces available at [`next_head`](Self::next_head).
    pub(crate) fn add(&mut self, pieces: &[Descriptor]) -> Result<()> {
        let head = self.free.pop().context("the queue is full")?;
        let slot = Descriptor::LEN * u64::from(head);
        match pieces {
            [only] => self.describe(slot, *only)?,
            [first, second] if self.indirect => {
                let table = TABLES + TABLE * u64::from(head);
                self.describe(table, first.then(1))?;
                self.describe(table + Descriptor::LEN, *second)?;
                self.describe(slot, Descriptor::table(self.base + table, 32))?;
            }
            [first, second] => {
                let next = self.free.pop().context("the queue is full")?;
                self.second[usize::from(head)] = Some(next);
                self.describe(slot, first.then(next))?;
                self.describe(Descriptor::LEN * u64::from(next), *second)?;
            }
            _ => anyhow::bail!("expected a chain of one or two pieces"),
        }
        let place = u64::from(self.available % self.size);
        self.store(AVAILABLE + 4 + 2 * place, head)?;
        self.available = self.available.wrapping_add(1);
        self.added = self.added.wrapping_add(1);
        self.store(AVAILABLE + 2, self.available)
    }

    /// Kicks the device if it asked for a kick at one of the added chains
    /// (`virtqueue_kick_prepare`).
    pub(crate) fn kick(&mut self) -> Result<()> {
        // ORDER: SeqCst; partner: the device's fence between requesting a kick and reading the
        // available index again.
        fence(Ordering::SeqCst);
        let old = self.available.wrapping_sub(self.added);
        self.added = 0;
        let asked = if self.event_idx {
            needs_event(self.avail_event()?, self.available, old)
        } else {
            self.load(USED)? & NO_NOTIFY == 0
        };
        if asked {
            self.kicks += 1;
            self.kick.write(1)?;
        }
        Ok(())
    }

    /// Takes the next chain that the device has used (`virtqueue_get_buf`).
    pub(crate) fn take(&mut self) -> Result<Option<Used>> {
        if self.used_index()? == self.taken {
            return Ok(None);
        }
        let at = USED + 4 + 8 * u64::from(self.taken % self.size);
        let element: u64 = self.memory.read_obj(GuestAddress(self.base + at))?;
        let element = u64::from_le(element);
        let head = u16::try_from(element & 0xffff_ffff)?;
        let len = u32::try_from(element >> 32)?;
        ensure!(head < self.size, "the device gave back the entry {head}");
        self.taken = self.taken.wrapping_add(1);
        self.free.extend(self.second[usize::from(head)].take());
        self.free.push(head);
        if self.interrupts_on && self.event_idx {
            self.ask_for_interrupt()?;
        }
        Ok(Some(Used { head, len }))
    }

    /// Disables interrupts (`virtqueue_disable_cb`). With an event index, this writes one that has
    /// just passed.
    pub(crate) fn disable_interrupts(&mut self) -> Result<()> {
        if !mem::replace(&mut self.interrupts_on, false) {
            return Ok(());
        }
        if self.event_idx {
            self.store(self.used_event(), 0)
        } else {
            self.store(AVAILABLE, NO_INTERRUPT)
        }
    }

    /// Enables an interrupt at the next used chain (`virtqueue_enable_cb`).
    pub(crate) fn enable_interrupts(&mut self) -> Result<Found> {
        self.interrupts_on = true;
        if !self.event_idx {
            self.store(AVAILABLE, 0)?;
        }
        self.ask_for_interrupt()?;
        Ok(if self.used_index()? == self.taken {
            Found::Nothing
        } else {
            Found::More
        })
    }

    /// Consumes pending interrupts. Returns whether there were any.
    pub(crate) fn take_interrupts(&mut self) -> Result<bool> {
        match self.call.read() {
            Ok(count) => {
                self.interrupted += count;
                Ok(true)
            }
            Err(error) if error.kind() == ErrorKind::WouldBlock => Ok(false),
            Err(error) => Err(error.into()),
        }
    }

    fn ask_for_interrupt(&self) -> Result<()> {
        self.store(self.used_event(), self.taken)?;
        // ORDER: SeqCst; partner: the device's fence between publishing its index and reading the
        // requested one.
        fence(Ordering::SeqCst);
        Ok(())
    }

    fn avail_event(&self) -> Result<u16> {
        self.load(USED + 4 + 8 * u64::from(self.size))
    }

    fn used_event(&self) -> u64 {
        AVAILABLE + 4 + 2 * u64::from(self.size)
    }

    fn used_index(&self) -> Result<u16> {
        self.load(USED + 2)
    }

    fn describe(&self, offset: u64, descriptor: Descriptor) -> Result<()> {
        let address = GuestAddress(self.base + offset);
        Ok(self.memory.write_slice(&descriptor.encode(), address)?)
    }

    fn store(&self, offset: u64, value: u16) -> Result<()> {
        let address = GuestAddress(self.base + offset);
        // ORDER: Release; partner: the device's acquire of the index.
        let order = Ordering::Release;
        Ok(self.memory.store(value.to_le(), address, order)?)
    }

    fn load(&self, offset: u64) -> Result<u16> {
        let address = GuestAddress(self.base + offset);
        // ORDER: Acquire; partner: the device's release of the index.
        let order = Ordering::Acquire;
        Ok(u16::from_le(self.memory.load(address, order)?))
    }
}

/// Returns whether an index went past `event` on its way from `old` to `new` (`vring_need_event`).
fn needs_event(event: u16, new: u16, old: u16) -> bool {
    new.wrapping_sub(event).wrapping_sub(1) < new.wrapping_sub(old)
}

#[cfg(test)]
mod tests {
    use virtio_queue::{Queue as Device, QueueT};
    use vm_memory::{Bytes, GuestAddress};
    use vsock_driver::{Descriptor, Memory, memory};

    use super::{AVAILABLE, BYTES, Found, Queue, USED, Used, needs_event};
    use crate::shape::Shape;

    const SIZE: u16 = 8;
    const BY_ENTRY: Shape = Shape {
        queue_size: SIZE,
        indirect: false,
        ..Shape::USUAL
    };
    const BY_FLAG: Shape = Shape {
        queue_size: SIZE,
        ..Shape::PLAIN
    };
    const INDIRECT: Shape = Shape {
        queue_size: SIZE,
        ..Shape::USUAL
    };

    /// The driver's and the device's view of the same queue.
    struct Both {
        memory: Memory,
        driver: Queue,
        device: Device,
    }

    impl Both {
        fn new(shape: Shape) -> Self {
            let memory = memory(&[(0, usize::try_from(BYTES).unwrap())]);
            let driver = Queue::new(&memory, 0, shape).unwrap();
            let mut device = Device::new(SIZE).unwrap();
            let low = |addr: u64| u32::try_from(addr).unwrap();
            device.set_avail_ring_address(Some(low(AVAILABLE)), Some(0));
            device.set_used_ring_address(Some(low(USED)), Some(0));
            device.set_event_idx(shape.event_idx);
            device.set_ready(true);
            Self {
                memory,
                driver,
                device,
            }
        }

        /// Adds chains and kicks if necessary. Returns the kicks so far.
        fn add(&mut self, chains: u16) -> u64 {
            for _ in 0..chains {
                self.driver
                    .add(&[Descriptor::writable(0x7000, 16)])
                    .unwrap();
            }
            self.driver.kick().unwrap();
            self.driver.kicks
        }

        /// The device uses one chain. Returns whether it interrupts.
        fn use_one(&mut self) -> bool {
            let chain = self.device.pop_descriptor_chain(&self.memory).unwrap();
            let head = chain.head_index();
            self.device.add_used(&self.memory, head, 7).unwrap();
            // virtio-queue's device does not check the flag.
            let flag: u16 = self.memory.read_obj(GuestAddress(AVAILABLE)).unwrap();
            flag == 0 && self.device.needs_notification(&self.memory).unwrap()
        }
    }

    #[test]
    fn an_event_index_is_passed_across_the_wrap() {
        assert!(needs_event(4, 5, 4));
        assert!(!needs_event(5, 5, 4), "not yet");
        assert!(!needs_event(3, 5, 4), "before");
        assert!(needs_event(u16::MAX, 1, u16::MAX - 1));
    }

    #[test]
    fn the_device_is_kicked_when_it_asked_for_one_of_the_chains() {
        let mut both = Both::new(BY_ENTRY);
        assert_eq!(both.add(1), 1, "the first one");
        assert_eq!(both.add(2), 1, "the device has not asked for these");
        let asked = both.device.enable_notification(&both.memory).unwrap();
        assert!(asked, "the device has not taken all chains");
        for _ in 0..3 {
            both.use_one();
        }
        assert!(!both.device.enable_notification(&both.memory).unwrap());
        assert_eq!(both.add(2), 2, "a batch is one kick");
    }

    #[test]
    fn without_event_idx_the_devices_flag_decides() {
        let mut both = Both::new(BY_FLAG);
        assert_eq!(both.add(1), 1);
        both.device.disable_notification(&both.memory).unwrap();
        assert_eq!(both.add(1), 1);
        both.device.enable_notification(&both.memory).unwrap();
        assert_eq!(both.add(1), 2);
    }

    #[test]
    fn interrupts_come_only_while_they_are_wanted() {
        for shape in [BY_ENTRY, BY_FLAG] {
            let mut both = Both::new(shape);
            both.add(SIZE);
            assert!(both.use_one(), "{shape:?}: the first one");
            both.driver.disable_interrupts().unwrap();
            assert!(both.driver.take().unwrap().is_some());
            assert!(!both.use_one(), "{shape:?}: switched off");
            assert_eq!(both.driver.enable_interrupts().unwrap(), Found::More);
            assert!(both.driver.take().unwrap().is_some());
            assert_eq!(both.driver.enable_interrupts().unwrap(), Found::Nothing);
            assert!(both.use_one(), "{shape:?}: switched on again");
        }
    }

    #[test]
    fn chains_of_two_pieces_arrive_and_their_entries_are_reused() {
        let pieces = [
            Descriptor::readable(0x7000, 44),
            Descriptor::readable(0x7100, 5),
        ];
        for (shape, fit) in [(BY_ENTRY, SIZE / 2), (INDIRECT, SIZE)] {
            let mut both = Both::new(shape);
            assert_eq!(both.driver.capacity(2), fit);
            for round in 0..3 {
                for _ in 0..fit {
                    assert!(both.driver.next_head(2).is_some());
                    both.driver.add(&pieces).unwrap();
                }
                assert_eq!(both.driver.next_head(2), None, "{shape:?}, {round}");
                for _ in 0..fit {
                    let chain = both.device.pop_descriptor_chain(&both.memory).unwrap();
                    let head = chain.head_index();
                    let lens: Vec<u32> = chain.map(|piece| piece.len()).collect();
                    assert_eq!(lens, [44, 5]);
                    both.device.add_used(&both.memory, head, 0).unwrap();
                    assert_eq!(both.driver.take().unwrap(), Some(Used { head, len: 0 }));
                }
                assert_eq!(both.driver.take().unwrap(), None);
                assert_eq!(both.driver.in_flight(), 0);
            }
        }
    }

    #[test]
    fn a_used_entry_out_of_range_is_an_error() {
        let mut both = Both::new(BY_ENTRY);
        both.add(1);
        let used = |offset| GuestAddress(USED + offset);
        both.memory.write_obj(9_u32, used(4)).unwrap();
        both.memory.write_obj(1_u16, used(2)).unwrap();
        both.driver.take().unwrap_err();
    }

    #[test]
    fn every_interrupt_of_the_device_is_counted() {
        let mut both = Both::new(BY_ENTRY);
        assert!(!both.driver.take_interrupts().unwrap());
        both.driver.call.write(1).unwrap();
        both.driver.call.write(1).unwrap();
        assert!(both.driver.take_interrupts().unwrap());
        assert_eq!(both.driver.interrupted, 2);
    }
}
