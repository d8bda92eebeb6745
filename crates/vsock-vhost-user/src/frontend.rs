// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Handles the requests of a front-end.
//!
//! A front-end can make this thread block when it inspects, maps or closes its files, or reads its
//! memory. So this module does none of that while the worker is locked.

use std::fs::File;
use std::sync::Arc;

use vhost::VhostUserMemoryRegionBase;
use vhost::vhost_user::message::{
    FrontendReq, VhostTransferStateDirection, VhostTransferStatePhase, VhostUserConfigFlags,
    VhostUserInflight, VhostUserLog, VhostUserMemoryRegion, VhostUserProtocolFeatures,
    VhostUserShMemConfig, VhostUserSharedMsg, VhostUserSingleMemoryRegion, VhostUserVirtioFeatures,
    VhostUserVringAddrFlags, VhostUserVringState,
};
use vhost::vhost_user::{GpuBackend, Result as Answer, VhostUserBackendReqHandlerMut};
use vm_memory::{GuestAddress, GuestMemoryBackend};

use crate::journal::say;
use crate::memory::{MAX_REGIONS, Memory};
use crate::migration::Migration;
use crate::received_file::{close_on_exec, is_eventfd, is_kick};
use crate::refusal::Refusal;
use crate::session::QUEUES;
use crate::shared::Shared;
use crate::shared_file::Part;
use crate::vring::{Addresses, Enablement};
use crate::worker::QueueIndex;

/// The size of a used ring's header in bytes (virtio 1.3, 2.7.8).
const USED_HEADER: usize = 4;

/// Whether the device supports the request.
pub(crate) fn serves(request: FrontendReq) -> bool {
    matches!(
        request,
        FrontendReq::GET_FEATURES
            | FrontendReq::SET_FEATURES
            | FrontendReq::SET_OWNER
            | FrontendReq::RESET_OWNER
            | FrontendReq::RESET_DEVICE
            | FrontendReq::SET_MEM_TABLE
            | FrontendReq::SET_VRING_NUM
            | FrontendReq::SET_VRING_ADDR
            | FrontendReq::SET_VRING_BASE
            | FrontendReq::GET_VRING_BASE
            | FrontendReq::SET_VRING_KICK
            | FrontendReq::SET_VRING_CALL
            | FrontendReq::SET_VRING_ERR
            | FrontendReq::GET_PROTOCOL_FEATURES
            | FrontendReq::SET_PROTOCOL_FEATURES
            | FrontendReq::GET_QUEUE_NUM
            | FrontendReq::SET_VRING_ENABLE
            | FrontendReq::GET_CONFIG
            | FrontendReq::SET_CONFIG
            | FrontendReq::SET_LOG_BASE
            | FrontendReq::SET_LOG_FD
            | FrontendReq::SET_BACKEND_REQ_FD
            | FrontendReq::GET_MAX_MEM_SLOTS
            | FrontendReq::ADD_MEM_REG
            | FrontendReq::REM_MEM_REG
    )
}

/// The state of a front-end while it is connected.
pub(crate) struct Frontend {
    shared: Arc<Shared>,
    memory: Memory,
    migration: Migration,
}

impl Frontend {
    pub(crate) fn new(shared: Arc<Shared>) -> Self {
        Self {
            shared,
            memory: Memory::default(),
            migration: Migration::default(),
        }
    }

    fn protocol_features(&self) -> VhostUserProtocolFeatures {
        VhostUserProtocolFeatures::MQ
            | VhostUserProtocolFeatures::CONFIG
            | VhostUserProtocolFeatures::REPLY_ACK
            | VhostUserProtocolFeatures::RESET_DEVICE
            | VhostUserProtocolFeatures::LOG_SHMFD
            | VhostUserProtocolFeatures::CONFIGURE_MEM_SLOTS
            | self.shared.offer.access_platform.protocol_features()
    }

    /// Switches to this memory, unless the log lacks bits for some of its pages.
    fn use_memory(&mut self, memory: Memory) -> Result<(), Refusal> {
        self.migration.check_memory(memory.end())?;
        let before = self.shared.worker().set_memory(Arc::clone(memory.mapped()));
        // Without the worker's lock: unmapping can take a long time.
        drop(before);
        self.memory = memory;
        Ok(())
    }

    /// Translates a queue's addresses from the front-end's address space to guest addresses.
    fn addresses(&self, descriptors: u64, available: u64, used: u64) -> Result<Addresses, Refusal> {
        let memory = &self.memory;
        if memory.is_empty() {
            return Err(Refusal::NoMemory);
        }
        let guest = |address| {
            let found = memory.guest_address(address).map(GuestAddress);
            found.ok_or(Refusal::NoRegion(address))
        };
        let used = guest(used)?;
        // The worker reads the used index from there when it sets the addresses.
        if !memory.mapped().check_range(used, USED_HEADER) {
            return Err(Refusal::Outside);
        }
        Ok(Addresses {
            descriptors: guest(descriptors)?,
            available: guest(available)?,
            used,
        })
    }
}

fn queue(index: impl Into<u32>) -> Result<QueueIndex, Refusal> {
    let index = index.into();
    QueueIndex::new(index).ok_or(Refusal::NoQueue(index))
}

/// Defines the handlers of requests that belong to features that are not offered.
macro_rules! not_offered {
    ($($name:ident($($part:ty),*) -> $answer:ty;)+) => {$(
        fn $name(&mut self, $(_: $part),*) -> Answer<$answer> {
            Err(Refusal::NotOffered.into())
        }
    )+};
}

impl VhostUserBackendReqHandlerMut for Frontend {
    /// Each connection has its own session. libkrun sends this at each start of a driver.
    fn set_owner(&mut self) -> Answer<()> {
        Ok(())
    }

    fn reset_owner(&mut self) -> Answer<()> {
        let reset = self.shared.worker().reset_owner();
        Ok(reset.map_err(Refusal::Kick)?)
    }

    fn reset_device(&mut self) -> Answer<()> {
        let discarded = self.shared.worker().reset_device();
        drop(discarded);
        self.migration.forget(&self.shared);
        Ok(())
    }

    fn get_features(&mut self) -> Answer<u64> {
        Ok(self.shared.offer.features)
    }

    fn set_features(&mut self, features: u64) -> Answer<()> {
        let foreign = features & !self.shared.offer.features;
        if foreign != 0 {
            return Err(Refusal::Features(foreign).into());
        }
        let end = self.memory.end();
        let logged = self.migration.accept_features(features, end, &self.shared);
        logged.map_err(Refusal::Log)?;
        let mut worker = self.shared.worker();
        worker.session_mut().accept_features(features);
        // Without protocol features there is no SET_VRING_ENABLE: rings start enabled.
        if features & VhostUserVirtioFeatures::PROTOCOL_FEATURES.bits() == 0 {
            worker
                .enable_all(Enablement::Enabled)
                .map_err(Refusal::Kick)?;
        }
        Ok(())
    }

    fn set_mem_table(
        &mut self,
        table: &[VhostUserMemoryRegion],
        files: Vec<File>,
        _postcopy_listening: Option<bool>,
    ) -> Answer<Option<Vec<VhostUserMemoryRegionBase>>> {
        let (sealed, log) = (self.shared.offer.sealed_memory, self.migration.log());
        close_on_exec(&files);
        let memory = Memory::map(table, files, sealed, log).map_err(Refusal::Memory)?;
        self.use_memory(memory)?;
        Ok(None)
    }

    fn get_max_mem_slots(&mut self) -> Answer<u64> {
        Ok(MAX_REGIONS as u64)
    }

    fn add_mem_region(
        &mut self,
        region: &VhostUserSingleMemoryRegion,
        file: File,
        _postcopy_listening: Option<bool>,
    ) -> Answer<Option<VhostUserMemoryRegionBase>> {
        let (sealed, log) = (self.shared.offer.sealed_memory, self.migration.log());
        close_on_exec([&file]);
        let memory = self.memory.with(region, file, sealed, log);
        self.use_memory(memory.map_err(Refusal::Memory)?)?;
        Ok(None)
    }

    /// Refuses to remove a region that contains a running queue: that would break the queue.
    fn remove_mem_region(&mut self, region: &VhostUserSingleMemoryRegion) -> Answer<()> {
        let memory = self.memory.without(region).map_err(Refusal::Memory)?;
        let mut worker = self.shared.worker();
        if let Some(queue) = worker.cut_off(memory.mapped()) {
            return Err(Refusal::RegionInUse(queue).into());
        }
        let before = worker.set_memory(Arc::clone(memory.mapped()));
        // Unmap the region without the lock, because that can take a long time.
        drop(worker);
        drop(before);
        self.memory = memory;
        Ok(())
    }

    fn set_log_base(&mut self, log: &VhostUserLog, file: File) -> Answer<()> {
        close_on_exec([&file]);
        let part = Part {
            offset: log.mmap_offset,
            len: log.mmap_size,
        };
        let end = self.memory.end();
        let set = self.migration.set_log(file, part, end, &self.shared);
        Ok(set.map_err(Refusal::Log)?)
    }

    fn set_vring_num(&mut self, index: u32, num: u32) -> Answer<()> {
        let queue = queue(index)?;
        let refused = Refusal::Size(num, self.shared.offer.queue_size);
        let Ok(size) = u16::try_from(num) else {
            return Err(refused.into());
        };
        let set = self.shared.worker().set_size(queue, size);
        Ok(set.map_err(|_| refused)?)
    }

    fn set_vring_addr(
        &mut self,
        index: u32,
        flags: VhostUserVringAddrFlags,
        descriptor: u64,
        used: u64,
        available: u64,
        _log: u64,
    ) -> Answer<()> {
        let queue = queue(index)?;
        let addresses = self.addresses(descriptor, available, used)?;
        // The log first: the device may write to a running ring as soon as its address is set.
        let end = self.memory.end();
        let logged = self.migration.set_ring(queue, &flags, end, &self.shared);
        logged.map_err(Refusal::Log)?;
        let set = self.shared.worker().set_addresses(queue, &addresses);
        Ok(set.map_err(Refusal::Misaligned)?)
    }

    fn set_vring_base(&mut self, index: u32, base: u32) -> Answer<()> {
        let queue = queue(index)?;
        let base = u16::try_from(base).map_err(|_| Refusal::Base(base))?;
        self.shared
            .worker()
            .session_mut()
            .set_base(queue.into(), base);
        Ok(())
    }

    fn get_vring_base(&mut self, index: u32) -> Answer<VhostUserVringState> {
        let stopped = self.shared.worker().stop_queue(queue(index)?);
        drop(stopped.discarded);
        Ok(VhostUserVringState::new(index, stopped.base.into()))
    }

    fn set_vring_kick(&mut self, index: u8, kick: Option<File>) -> Answer<()> {
        let queue = queue(index)?;
        close_on_exec(&kick);
        // An unfit file is dropped at the end, without the worker's lock: closing it can block.
        let (kick, unfit) = match kick {
            Some(file) if !is_kick(&file) => (None, Some(file)),
            kick => (kick, None),
        };
        if unfit.is_some() {
            say!(
                self.shared.journal,
                Warn,
                "ignoring the kick of queue {index}: expected an eventfd or a pipe"
            );
        }
        let change = self.shared.worker().set_kick(queue, kick);
        drop(change.discarded);
        Ok(change.watched.map_err(Refusal::Kick)?)
    }

    fn set_vring_call(&mut self, index: u8, call: Option<File>) -> Answer<()> {
        let queue = queue(index)?;
        close_on_exec(&call);
        let (call, unfit) = match call {
            Some(file) if !is_eventfd(&file) => (None, Some(file)),
            call => (call, None),
        };
        if unfit.is_some() {
            say!(
                self.shared.journal,
                Warn,
                "ignoring the call of queue {index}: expected an eventfd"
            );
        }
        let discarded = self.shared.worker().set_call(queue, call);
        drop(discarded);
        Ok(())
    }

    /// The device reports no errors this way.
    fn set_vring_err(&mut self, index: u8, _err: Option<File>) -> Answer<()> {
        queue(index)?;
        Ok(())
    }

    fn get_protocol_features(&mut self) -> Answer<VhostUserProtocolFeatures> {
        Ok(self.protocol_features())
    }

    fn set_protocol_features(&mut self, features: u64) -> Answer<()> {
        let foreign = features & !self.protocol_features().bits();
        if foreign != 0 {
            return Err(Refusal::Features(foreign).into());
        }
        Ok(())
    }

    fn get_queue_num(&mut self) -> Answer<u64> {
        Ok(QUEUES as u64)
    }

    fn set_vring_enable(&mut self, index: u32, enable: bool) -> Answer<()> {
        let enablement = if enable {
            Enablement::Enabled
        } else {
            Enablement::Disabled
        };
        let mut worker = self.shared.worker();
        let set = worker.set_enablement(queue(index)?, enablement);
        Ok(set.map_err(Refusal::Kick)?)
    }

    fn get_config(
        &mut self,
        offset: u32,
        size: u32,
        _flags: VhostUserConfigFlags,
    ) -> Answer<Vec<u8>> {
        // The size is at most that of a message, 4 KiB.
        let mut data = vec![0; usize::try_from(size).unwrap_or(0)];
        self.shared.worker().config(offset, &mut data);
        Ok(data)
    }

    /// The configuration space has no writable field, but a write is not an error.
    fn set_config(
        &mut self,
        _offset: u32,
        _data: &[u8],
        _flags: VhostUserConfigFlags,
    ) -> Answer<()> {
        Ok(())
    }

    not_offered! {
        set_gpu_socket(GpuBackend) -> ();
        get_shared_object(VhostUserSharedMsg) -> File;
        get_inflight_fd(&VhostUserInflight) -> (VhostUserInflight, File);
        set_inflight_fd(&VhostUserInflight, File) -> ();
        set_device_state_fd(VhostTransferStateDirection, VhostTransferStatePhase, File)
            -> Option<File>;
        check_device_state() -> ();
        get_shmem_config() -> VhostUserShMemConfig;
    }
}
