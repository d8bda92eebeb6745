// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! A guest whose memory a front-end shares with the device.

use std::fs::File;
use std::os::fd::OwnedFd;

use rustix::event::{EventfdFlags, eventfd};
use rustix::fs::{MemfdFlags, ftruncate, memfd_create};
use rustix::io::write;
use vhost::vhost_user::message::FrontendReq;
use virtio_queue::QueueT;
use vm_memory::{FileOffset, GuestAddress};
use vsock_driver::{DriverQueue, Memory};

use super::message::{self, Message, longs, words};
use crate::rig::RINGS;

/// The size of the guest's memory.
const SIZE: u64 = 0x4_0000;
/// The address of the guest's memory in the front-end.
pub(super) const USER: u64 = 0x7f00_0000_0000;
/// The entries of a queue.
const ENTRIES: u16 = 16;
/// `VIRTIO_F_VERSION_1` and `VHOST_USER_F_PROTOCOL_FEATURES`.
pub(super) const FEATURES: u64 = 1 << 32 | 1 << 30;
/// Protocol features: multiqueue, log in shared memory, reply on request, back-end requests,
/// configuration space, and configurable memory slots.
const PROTOCOL: u64 = 1 | 1 << 1 | 1 << 3 | 1 << 5 | 1 << 9 | 1 << 15;

/// The guest's memory, its rings, and their notification descriptors.
pub(super) struct Guest {
    file: File,
    pub(super) memory: Memory,
    pub(super) rings: [DriverQueue; 3],
    kicks: [OwnedFd; 3],
    pub(super) calls: [OwnedFd; 3],
}

impl Guest {
    /// Returns `None` if the process has no descriptors or memory left.
    pub(super) fn new() -> Option<Self> {
        let file = File::from(memfd_create("guest", MemfdFlags::CLOEXEC).ok()?);
        ftruncate(&file, SIZE).ok()?;
        let shared = FileOffset::new(file.try_clone().ok()?, 0);
        let len = usize::try_from(SIZE).ok()?;
        let ranges = [(GuestAddress(0), len, Some(shared))];
        let event = || eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK).ok();
        Some(Self {
            file,
            memory: Memory::from_ranges_with_files(ranges).ok()?,
            rings: RINGS.map(|base| DriverQueue::new(base, ENTRIES)),
            kicks: [event()?, event()?, event()?],
            calls: [event()?, event()?, event()?],
        })
    }

    /// Returns a duplicate of the memory's descriptor.
    pub(super) fn file(&self) -> Option<OwnedFd> {
        Some(self.file.try_clone().ok()?.into())
    }

    /// Returns the addresses of a queue's parts in the front-end: descriptor table, used and
    /// available ring.
    pub(super) fn parts(&self, index: usize) -> [u64; 3] {
        let queue = self.rings[index].queue();
        [queue.desc_table(), queue.used_ring(), queue.avail_ring()].map(|part| USER + part)
    }

    pub(super) fn kick(&self, index: usize) {
        // It is full only if nothing reads it.
        let _ = write(&self.kicks[index], &1_u64.to_ne_bytes());
    }

    /// Returns the messages of a regular session, up to the start of the driver.
    pub(super) fn set_up(&self) -> impl Iterator<Item = Message> + '_ {
        let table = [words(&[1, 0]), message::region(0, SIZE, 0)].concat();
        let begin = [
            Message::new(FrontendReq::SET_OWNER, Vec::new()),
            Message::new(FrontendReq::GET_FEATURES, Vec::new()),
            Message::new(FrontendReq::GET_PROTOCOL_FEATURES, Vec::new()),
            Message::new(FrontendReq::SET_PROTOCOL_FEATURES, longs(&[PROTOCOL])),
            Message::new(FrontendReq::SET_FEATURES, longs(&[FEATURES])),
            Message::new(FrontendReq::SET_MEM_TABLE, table).with(self.file()),
        ];
        begin
            .into_iter()
            .chain([0, 1].into_iter().flat_map(|index| self.queue(index)))
    }

    fn queue(&self, index: usize) -> [Message; 6] {
        let number = u32::from(index == 1);
        let state = |request, value| Message::new(request, words(&[number, value]));
        let event = |request, event: &OwnedFd| {
            Message::new(request, longs(&[number.into()])).with(event.try_clone().ok())
        };
        let parts = [words(&[number, 0]), longs(&self.parts(index)), longs(&[0])].concat();
        [
            state(FrontendReq::SET_VRING_NUM, ENTRIES.into()),
            state(FrontendReq::SET_VRING_BASE, 0),
            Message::new(FrontendReq::SET_VRING_ADDR, parts),
            event(FrontendReq::SET_VRING_KICK, &self.kicks[index]),
            event(FrontendReq::SET_VRING_CALL, &self.calls[index]),
            state(FrontendReq::SET_VRING_ENABLE, 1),
        ]
    }
}
