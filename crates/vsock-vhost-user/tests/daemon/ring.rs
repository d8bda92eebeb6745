// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! A split queue, as a guest's driver uses it (virtio 1.3, 2.7), with `VIRTIO_F_EVENT_IDX`.

use std::os::fd::AsRawFd;
use std::sync::atomic::{Ordering, fence};

use vhost::VringConfigData;
use virtio_queue::QueueT;
use vm_memory::{Bytes, GuestAddress, GuestMemoryBackend, GuestMemoryMmap};
use vmm_sys_util::eventfd::{EFD_CLOEXEC, EFD_NONBLOCK, EventFd};
use vsock_compliance::poll::{Deadline, PollInterest, wait_ready, wait_until};
use vsock_driver::{Descriptor, DriverQueue};

/// Entries of a queue.
pub(crate) const SIZE: u16 = 64;

/// Bytes from the beginning of one queue to the next: rings and buffers.
pub(crate) const STRIDE: u64 = 1 << 20;

/// Bytes of a buffer.
pub(crate) const BUFFER: u32 = 4096;

/// Bytes from the beginning of a queue to its buffers, and from one of them to the next: each has
/// two pages of its own, the end of one and the beginning of the other.
const BUFFERS: u64 = 0x4800;
const SPACING: u64 = 0x2000;

pub(crate) struct Ring {
    memory: GuestMemoryMmap,
    base: u64,
    ring: DriverQueue,
    pub(crate) kick: EventFd,
    pub(crate) call: EventFd,
    pub(crate) kicks: u32,
    /// Nothing can be told from the call, so the driver looks at the ring again and again.
    pub(crate) is_polled: bool,
}

impl Ring {
    pub(crate) fn new(memory: &GuestMemoryMmap, index: u64) -> Self {
        let mut ring = Self {
            memory: memory.clone(),
            base: index * STRIDE,
            ring: DriverQueue::new(index * STRIDE, SIZE),
            kick: EventFd::new(EFD_NONBLOCK | EFD_CLOEXEC).unwrap(),
            call: EventFd::new(EFD_NONBLOCK | EFD_CLOEXEC).unwrap(),
            kicks: 0,
            is_polled: false,
        };
        ring.clear();
        ring
    }

    /// The same queue in a copy of the memory, with a kick and a call of its own.
    pub(crate) fn moved(&self, memory: &GuestMemoryMmap) -> Self {
        Self {
            memory: memory.clone(),
            ring: self.ring.clone(),
            kick: EventFd::new(EFD_NONBLOCK | EFD_CLOEXEC).unwrap(),
            call: EventFd::new(EFD_NONBLOCK | EFD_CLOEXEC).unwrap(),
            ..*self
        }
    }

    /// As after a reset of the device: empty rings.
    pub(crate) fn clear(&mut self) {
        let zeroes = vec![0; usize::try_from(BUFFERS).unwrap()];
        self.memory
            .write_slice(&zeroes, GuestAddress(self.base))
            .unwrap();
        self.ring = self.ring.emptied();
    }

    /// As of another driver: empty rings at another place, the number `index` of them.
    pub(crate) fn move_to(&mut self, index: u64) {
        self.base = index * STRIDE;
        self.ring = DriverQueue::new(self.base, SIZE);
        self.clear();
    }

    pub(crate) fn config(&self) -> VringConfigData {
        let queue = self.ring.queue();
        let address = |guest| {
            let address = GuestAddress(guest);
            self.memory.get_host_address(address).unwrap() as u64
        };
        VringConfigData {
            queue_max_size: SIZE,
            queue_size: SIZE,
            flags: 0,
            desc_table_addr: address(queue.desc_table()),
            used_ring_addr: address(queue.used_ring()),
            avail_ring_addr: address(queue.avail_ring()),
            log_addr: None,
        }
    }

    /// What of the queue the driver writes, and the device does not: where it begins, and
    /// its bytes.
    pub(crate) fn of_driver(&self) -> (u64, u64) {
        (self.base, self.ring.queue().used_ring() - self.base)
    }

    /// All buffers of the queue: where they begin, and their bytes.
    pub(crate) fn buffers(&self) -> (u64, u64) {
        (self.buffer(0).0, u64::from(SIZE) * SPACING)
    }

    /// Makes a chain of these pieces available.
    pub(crate) fn offer_chain(&mut self, head: u16, pieces: &[Descriptor]) {
        self.ring.chain(&self.memory, head, pieces);
        self.ring.offer(&self.memory, head);
    }

    /// Where the buffer of an entry is.
    pub(crate) fn buffer(&self, entry: u16) -> GuestAddress {
        GuestAddress(self.base + BUFFERS + u64::from(entry) * SPACING)
    }

    /// What the driver has made available, in all.
    pub(crate) fn available(&self) -> u16 {
        self.ring.available()
    }

    /// What the device has used, in all, as far as it is in the ring.
    pub(crate) fn used(&self) -> u16 {
        self.ring.used_index(&self.memory)
    }

    /// Whether the driver holds no entry that it could use.
    pub(crate) fn is_full(&self) -> bool {
        self.available().wrapping_sub(self.ring.seen()) == SIZE
    }

    /// Whether the device holds no entry.
    pub(crate) fn is_idle(&self) -> bool {
        self.available() == self.ring.seen()
    }

    /// Makes `len` bytes of the next entry's buffer available.
    pub(crate) fn offer(&mut self, len: u32, writable: bool) {
        assert!(!self.is_full(), "the driver has no entry left");
        let entry = self.available() % SIZE;
        let buffer = self.buffer(entry).0;
        let descriptor = if writable {
            Descriptor::writable(buffer, len)
        } else {
            Descriptor::readable(buffer, len)
        };
        self.ring.describe(&self.memory, entry, descriptor);
        self.ring.offer(&self.memory, entry);
    }

    /// Kicks the device, if it has asked for one of those that were offered since `old`.
    pub(crate) fn notify(&mut self, old: u16) {
        // ORDER: SeqCst; partner: the device's fence between asking for a kick and looking at the
        // index again.
        fence(Ordering::SeqCst);
        let event = self.ring.avail_event(&self.memory);
        let passed = self.available().wrapping_sub(event).wrapping_sub(1);
        if passed < self.available().wrapping_sub(old) {
            self.kicks += 1;
            self.kick.write(1).unwrap();
        }
    }

    /// With which of its next packets the driver is to kick the device, counted from one.
    pub(crate) fn awaited(&self) -> u16 {
        let event = self.ring.avail_event(&self.memory);
        event.wrapping_sub(self.available()).wrapping_add(1)
    }

    /// Says that far more is available than there are entries, and kicks the device.
    pub(crate) fn break_index(&mut self) {
        let index = self.available().wrapping_add(SIZE * 3);
        self.ring.set_available(&self.memory, index);
        self.kick.write(1).unwrap();
    }

    /// Takes back what the device has used next: the entry and how many bytes it wrote.
    pub(crate) fn take(&mut self) -> Option<(u16, u32)> {
        let used = self.ring.used_at_most(&self.memory, 1);
        let &[(id, len)] = &used[..] else {
            return None;
        };
        Some((u16::try_from(id).unwrap(), len))
    }

    /// Whether the device has used an entry that was not taken back.
    fn has_used(&self) -> bool {
        self.ring.used_index(&self.memory) != self.ring.seen()
    }

    /// As [`take`](Self::take), and waits for the device's call.
    pub(crate) fn wait(&mut self, deadline: Deadline) -> Option<(u16, u32)> {
        loop {
            if let Some(used) = self.take() {
                return Some(used);
            }
            if self.is_polled {
                wait_until(deadline, || self.has_used()).ok()?;
            } else if self.ask() && !self.wait_for_call(deadline) {
                return None;
            }
        }
    }

    /// Asks for a call at the next one that is used; returns whether it comes, because none was
    /// used by now.
    pub(crate) fn ask(&self) -> bool {
        self.ring.set_used_event(&self.memory, self.ring.seen());
        // ORDER: SeqCst; partner: the device's fence between publishing its index and looking at
        // what was asked for.
        fence(Ordering::SeqCst);
        !self.has_used()
    }

    /// Whether the device calls.
    pub(crate) fn wait_for_call(&self, deadline: Deadline) -> bool {
        let fd = self.call.as_raw_fd();
        let calls = wait_ready(fd, PollInterest::Read, deadline).is_ok();
        if calls {
            self.call.read().unwrap();
        }
        calls
    }
}
