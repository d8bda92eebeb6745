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

/// The number of entries of a queue.
pub(crate) const SIZE: u16 = 64;

/// The distance between two queues in bytes, for rings and buffers.
pub(crate) const STRIDE: u64 = 1 << 20;

/// The size of a buffer in bytes.
pub(crate) const BUFFER: u32 = 4096;

/// The distance in bytes from the beginning of a queue to its buffers, and between two buffers.
/// Each buffer has two pages of its own, and crosses from one to the other.
const BUFFERS: u64 = 0x4800;
const SPACING: u64 = 0x2000;

pub(crate) struct Ring {
    memory: GuestMemoryMmap,
    base: u64,
    ring: DriverQueue,
    pub(crate) kick: EventFd,
    pub(crate) call: EventFd,
    pub(crate) kicks: u32,
    /// Whether the call says nothing, so that the driver has to poll the ring.
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

    /// Returns the same queue in a copy of the memory, with its own kick and call.
    pub(crate) fn moved(&self, memory: &GuestMemoryMmap) -> Self {
        Self {
            memory: memory.clone(),
            ring: self.ring.clone(),
            kick: EventFd::new(EFD_NONBLOCK | EFD_CLOEXEC).unwrap(),
            call: EventFd::new(EFD_NONBLOCK | EFD_CLOEXEC).unwrap(),
            ..*self
        }
    }

    /// Empties the rings, as after a reset of the device.
    pub(crate) fn clear(&mut self) {
        let zeroes = vec![0; usize::try_from(BUFFERS).unwrap()];
        self.memory
            .write_slice(&zeroes, GuestAddress(self.base))
            .unwrap();
        self.ring = self.ring.emptied();
    }

    /// Moves to empty rings at place number `index`, like another driver.
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

    /// Returns the address and length of the part of the queue that only the driver writes.
    pub(crate) fn of_driver(&self) -> (u64, u64) {
        (self.base, self.ring.queue().used_ring() - self.base)
    }

    /// Returns the address and length of all buffers of the queue.
    pub(crate) fn buffers(&self) -> (u64, u64) {
        (self.buffer(0).0, u64::from(SIZE) * SPACING)
    }

    /// Makes a chain of these pieces available.
    pub(crate) fn offer_chain(&mut self, head: u16, pieces: &[Descriptor]) {
        self.ring.chain(&self.memory, head, pieces);
        self.ring.offer(&self.memory, head);
    }

    /// Returns the address of an entry's buffer.
    pub(crate) fn buffer(&self, entry: u16) -> GuestAddress {
        GuestAddress(self.base + BUFFERS + u64::from(entry) * SPACING)
    }

    /// Returns how many chains the driver has made available in total.
    pub(crate) fn available(&self) -> u16 {
        self.ring.available()
    }

    /// Returns how many chains the device has used in total, according to the ring.
    pub(crate) fn used(&self) -> u16 {
        self.ring.used_index(&self.memory)
    }

    /// Returns whether the driver has no free entry.
    pub(crate) fn is_full(&self) -> bool {
        self.available().wrapping_sub(self.ring.seen()) == SIZE
    }

    /// Returns whether the device has no entry.
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

    /// Kicks the device, if it has asked for a chain that was offered since `old`.
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

    /// Returns for which of its next packets the driver must kick, counted from one.
    pub(crate) fn awaited(&self) -> u16 {
        let event = self.ring.avail_event(&self.memory);
        event.wrapping_sub(self.available()).wrapping_add(1)
    }

    /// Sets an available index far ahead of the ring's size, and kicks the device.
    pub(crate) fn break_index(&mut self) {
        let index = self.available().wrapping_add(SIZE * 3);
        self.ring.set_available(&self.memory, index);
        self.kick.write(1).unwrap();
    }

    /// Takes the next used entry, and returns it with the number of bytes that the device wrote.
    pub(crate) fn take(&mut self) -> Option<(u16, u32)> {
        let used = self.ring.used_at_most(&self.memory, 1);
        let &[(id, len)] = &used[..] else {
            return None;
        };
        Some((u16::try_from(id).unwrap(), len))
    }

    /// Returns whether there is a used entry to take.
    fn has_used(&self) -> bool {
        self.ring.used_index(&self.memory) != self.ring.seen()
    }

    /// Like [`take`](Self::take), but waits for the device's call.
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

    /// Asks for a call for the next used entry. Returns whether to wait for it, because no entry
    /// has been used by now.
    pub(crate) fn ask(&self) -> bool {
        self.ring.set_used_event(&self.memory, self.ring.seen());
        // ORDER: SeqCst; partner: the device's fence between publishing its index and looking at
        // what was asked for.
        fence(Ordering::SeqCst);
        !self.has_used()
    }

    /// Waits for a call of the device; returns whether it came.
    pub(crate) fn wait_for_call(&self, deadline: Deadline) -> bool {
        let fd = self.call.as_raw_fd();
        let calls = wait_ready(fd, PollInterest::Read, deadline).is_ok();
        if calls {
            self.call.read().unwrap();
        }
        calls
    }
}
