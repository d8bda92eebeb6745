// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! The VMM's part: guest memory in a memfd, and the vhost-user requests that set up a device.

use std::fs::File;
use std::path::Path;

use anyhow::{Context, Result, ensure};
use rustix::fs::{MemfdFlags, ftruncate, memfd_create};
use vhost::vhost_user::message::VhostUserHeaderFlag;
use vhost::vhost_user::{Frontend, VhostUserFrontend, VhostUserProtocolFeatures};
use vhost::{VhostBackend, VhostUserMemoryRegionInfo};
use vm_memory::{FileOffset, GuestAddress, GuestMemoryBackend};
use vsock_driver::Memory;

use crate::queue::{self, Queue};
use crate::shape::Shape;

const VERSION_1: u64 = 1 << 32;
const PROTOCOL_FEATURES: u64 = 1 << 30;
const EVENT_IDX: u64 = 1 << 29;
const INDIRECT: u64 = 1 << 28;
/// The device's queues: to the guest, to the host, and events.
const QUEUES: u64 = 3;

/// A negotiated session with a device.
pub(crate) struct Session {
    /// The connection. The device stops when it is closed.
    pub(crate) frontend: Frontend,
    pub(crate) memory: Memory,
    /// The queue to the guest.
    pub(crate) rx: Queue,
    /// The queue to the host.
    pub(crate) tx: Queue,
}

impl Session {
    /// Connects to a device and makes the requests of a VMM whose guest's driver starts. The queues
    /// are at the start of the memory, which has `bytes` bytes.
    pub(crate) fn start(socket: &Path, shape: Shape, bytes: u64) -> Result<Self> {
        let frontend = Frontend::connect(socket, QUEUES)
            .with_context(|| format!("cannot connect to {}", socket.display()))?;
        frontend.set_owner()?;
        let offered = frontend.get_features()?;
        let features = wanted(shape) & offered;
        let needed = VERSION_1 | PROTOCOL_FEATURES;
        ensure!(
            features & needed == needed,
            "expected a device that offers virtio 1 and vhost-user, found features {offered:#x}"
        );
        agree_on_protocol(frontend.clone())?;
        frontend.set_features(features)?;
        let memory = share(&frontend, bytes)?;
        let agreed = Shape {
            event_idx: features & EVENT_IDX != 0,
            indirect: features & INDIRECT != 0,
            ..shape
        };
        let new = |base| Queue::new(&memory, base, agreed);
        let (rx, tx) = (new(0)?, new(queue::BYTES)?);
        for (index, queue) in [&rx, &tx].into_iter().enumerate() {
            frontend.set_vring_num(index, shape.queue_size)?;
            frontend.set_vring_base(index, 0)?;
            frontend.set_vring_addr(index, &queue.config()?)?;
            frontend.set_vring_kick(index, &queue.kick)?;
            frontend.set_vring_call(index, &queue.call)?;
        }
        Ok(Self {
            frontend,
            memory,
            rx,
            tx,
        })
    }

    /// Lets the device use the queues.
    pub(crate) fn enable(&mut self) -> Result<()> {
        for index in 0..2 {
            self.frontend.set_vring_enable(index, true)?;
        }
        Ok(())
    }
}

fn wanted(shape: Shape) -> u64 {
    let event_idx = if shape.event_idx { EVENT_IDX } else { 0 };
    let indirect = if shape.indirect { INDIRECT } else { 0 };
    VERSION_1 | PROTOCOL_FEATURES | event_idx | indirect
}

/// Has the device acknowledge each request, if it can.
fn agree_on_protocol(mut frontend: Frontend) -> Result<()> {
    let wanted = VhostUserProtocolFeatures::MQ | VhostUserProtocolFeatures::REPLY_ACK;
    let features = frontend.get_protocol_features()? & wanted;
    frontend.set_protocol_features(features)?;
    if features.contains(VhostUserProtocolFeatures::REPLY_ACK) {
        frontend.set_hdr_flags(VhostUserHeaderFlag::NEED_REPLY);
    }
    Ok(())
}

/// Creates guest memory and shares it with the device.
fn share(frontend: &Frontend, bytes: u64) -> Result<Memory> {
    let file = memfd_create("guest", MemfdFlags::CLOEXEC)?;
    ftruncate(&file, bytes)?;
    let file = FileOffset::new(File::from(file), 0);
    let range = (GuestAddress(0), usize::try_from(bytes)?, Some(file));
    let memory = Memory::from_ranges_with_files([range])?;
    let regions: Result<Vec<_>, _> = memory
        .iter()
        .map(VhostUserMemoryRegionInfo::from_guest_region)
        .collect();
    frontend.set_mem_table(&regions?)?;
    Ok(memory)
}
