// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! A VMM: it connects to the device and shares a guest's memory with it.

use std::fs::File;
use std::os::unix::net::UnixStream;
use std::path::Path;

use rustix::fs::{MemfdFlags, ftruncate, memfd_create};
use vhost::vhost_user::message::{VhostUserConfigFlags, VhostUserHeaderFlag};
use vhost::vhost_user::{Frontend, VhostUserFrontend, VhostUserProtocolFeatures};
use vhost::{Error, VhostBackend, VhostUserMemoryRegionInfo};
use vm_memory::{FileOffset, GuestAddress, GuestMemoryBackend, GuestMemoryMmap};

use crate::ring::{Ring, STRIDE};

/// `VIRTIO_F_VERSION_1`, `VIRTIO_F_EVENT_IDX` and the bit by which both ends agree on protocol
/// features: what QEMU takes at least.
pub(crate) const FEATURES: u64 = 1 << 32 | 1 << 30 | 1 << 29;

/// `VIRTIO_F_RING_PACKED`, which the device does not offer.
pub(crate) const PACKED: u64 = 1 << 34;

pub(crate) const RX: usize = 0;
pub(crate) const TX: usize = 1;

pub(crate) struct Vmm {
    pub(crate) frontend: Frontend,
    memory: GuestMemoryMmap,
    pub(crate) rings: [Ring; 2],
}

impl Vmm {
    /// Connects, and says what QEMU says before its guest runs.
    pub(crate) fn connect(socket: &Path) -> Self {
        let stream = UnixStream::connect(socket).unwrap();
        let mut frontend = Frontend::from_stream(stream, 3);
        frontend.set_owner().unwrap();
        let features = frontend.get_features().unwrap();
        assert_eq!(features & FEATURES, FEATURES);
        let protocol = frontend.get_protocol_features().unwrap();
        let wanted = VhostUserProtocolFeatures::MQ
            | VhostUserProtocolFeatures::CONFIG
            | VhostUserProtocolFeatures::REPLY_ACK;
        assert!(protocol.contains(wanted), "{protocol:?}");
        frontend.set_protocol_features(wanted).unwrap();
        // Each request waits for its answer.
        frontend.set_hdr_flags(VhostUserHeaderFlag::NEED_REPLY);
        assert_eq!(frontend.get_queue_num().unwrap(), 3);
        let memory = memory();
        let rings = [Ring::new(&memory, 0), Ring::new(&memory, 1)];
        Self {
            frontend,
            memory,
            rings,
        }
    }

    /// What the device offers.
    pub(crate) fn features(&self) -> u64 {
        self.frontend.get_features().unwrap()
    }

    /// The guest's driver starts.
    pub(crate) fn start(&mut self, features: u64) -> Result<(), Error> {
        self.frontend.set_features(features)?;
        let regions: Vec<_> = self
            .memory
            .iter()
            .map(|region| VhostUserMemoryRegionInfo::from_guest_region(region).unwrap())
            .collect();
        self.frontend.set_mem_table(&regions)?;
        for (index, ring) in self.rings.iter_mut().enumerate() {
            ring.clear();
            self.frontend.set_vring_num(index, crate::ring::SIZE)?;
            self.frontend.set_vring_base(index, 0)?;
            self.frontend.set_vring_addr(index, &ring.config())?;
            self.frontend.set_vring_kick(index, &ring.kick)?;
            self.frontend.set_vring_call(index, &ring.call)?;
            self.frontend.set_vring_enable(index, true)?;
        }
        Ok(())
    }

    /// The guest's driver is reset: QEMU takes the queues back. Returns where each was.
    pub(crate) fn stop(&mut self) -> [u32; 2] {
        [RX, TX].map(|index| {
            self.frontend.set_vring_enable(index, false).unwrap();
            self.frontend.get_vring_base(index).unwrap()
        })
    }

    /// The guest goes on where it was stopped: QEMU's `cont`. It knows nothing of it.
    pub(crate) fn go_on(&mut self, features: u64, bases: [u32; 2]) {
        self.frontend.set_features(features).unwrap();
        let regions: Vec<_> = self
            .memory
            .iter()
            .map(|region| VhostUserMemoryRegionInfo::from_guest_region(region).unwrap())
            .collect();
        self.frontend.set_mem_table(&regions).unwrap();
        for (index, ring) in self.rings.iter().enumerate() {
            let base = u16::try_from(bases[index]).unwrap();
            self.frontend
                .set_vring_num(index, crate::ring::SIZE)
                .unwrap();
            self.frontend.set_vring_base(index, base).unwrap();
            self.frontend.set_vring_addr(index, &ring.config()).unwrap();
            self.frontend.set_vring_kick(index, &ring.kick).unwrap();
            self.frontend.set_vring_call(index, &ring.call).unwrap();
            self.frontend.set_vring_enable(index, true).unwrap();
        }
    }

    /// The device's configuration space, from `offset` on.
    pub(crate) fn config(&mut self, offset: u32, size: u32) -> Vec<u8> {
        let buf = vec![0; usize::try_from(size).unwrap()];
        let flags = VhostUserConfigFlags::empty();
        let (_, bytes) = self.frontend.get_config(offset, size, flags, &buf).unwrap();
        bytes
    }

    pub(crate) fn memory(&self) -> &GuestMemoryMmap {
        &self.memory
    }
}

/// Memory of a guest that can be shared.
fn memory() -> GuestMemoryMmap {
    let size = usize::try_from(2 * STRIDE).unwrap();
    let file = memfd_create("guest", MemfdFlags::CLOEXEC).unwrap();
    ftruncate(&file, 2 * STRIDE).unwrap();
    let file = FileOffset::new(File::from(file), 0);
    GuestMemoryMmap::from_ranges_with_files([(GuestAddress(0), size, Some(file))]).unwrap()
}
