// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! A simulated VMM, which connects to the device and shares a guest's memory with it.

use std::fs::File;
use std::io::{ErrorKind, Read};
use std::os::fd::{AsRawFd, RawFd};
use std::os::unix::net::UnixStream;
use std::path::Path;

use rustix::fs::{MemfdFlags, SealFlags, fcntl_add_seals, ftruncate, memfd_create};
use vhost::vhost_user::message::{FrontendReq, VhostUserConfigFlags, VhostUserHeaderFlag};
use vhost::vhost_user::{Frontend, VhostUserFrontend, VhostUserProtocolFeatures};
use vhost::{Error, VhostBackend, VhostUserMemoryRegionInfo};
use vm_memory::{FileOffset, GuestAddress, GuestMemoryBackend, GuestMemoryMmap};
use vmm_sys_util::sock_ctrl_msg::ScmSocket;

use crate::guest::GENEROUS;
use crate::ring::{Ring, STRIDE};

/// `VIRTIO_F_VERSION_1`, `VIRTIO_F_EVENT_IDX` and the bit for protocol features: the minimum that
/// QEMU accepts.
pub(crate) const FEATURES: u64 = 1 << 32 | 1 << 30 | 1 << 29;

/// `VIRTIO_F_RING_PACKED`, which the device does not offer.
pub(crate) const PACKED: u64 = 1 << 34;

pub(crate) const RX: usize = 0;
pub(crate) const TX: usize = 1;
pub(crate) const EVENT: usize = 2;

pub(crate) struct Vmm {
    pub(crate) frontend: Frontend,
    /// The same connection, for messages that `frontend` would not send.
    socket: UnixStream,
    memory: GuestMemoryMmap,
    pub(crate) rings: [Ring; 3],
}

impl Vmm {
    /// Connects, and sends what QEMU sends before its guest runs.
    pub(crate) fn connect(socket: &Path) -> Self {
        Self::connect_with(socket, memory(SealFlags::empty()))
    }

    /// Like [`connect`](Self::connect), with other memory.
    pub(crate) fn connect_with(socket: &Path, memory: GuestMemoryMmap) -> Self {
        let mut vmm = Self::open(socket, memory);
        vmm.introduce();
        vmm
    }

    /// Like [`connect`](Self::connect), for an existing guest.
    pub(crate) fn connect_over(socket: &Path, memory: GuestMemoryMmap, rings: [Ring; 3]) -> Self {
        let (socket, frontend) = connection(socket);
        let mut vmm = Self {
            frontend,
            socket,
            memory,
            rings,
        };
        vmm.introduce();
        vmm
    }

    /// Sends the first requests of a front-end.
    fn introduce(&mut self) {
        self.frontend.set_owner().unwrap();
        let features = self.frontend.get_features().unwrap();
        assert_eq!(features & FEATURES, FEATURES);
        self.agree_on_more(VhostUserProtocolFeatures::empty());
        assert_eq!(self.frontend.get_queue_num().unwrap(), 3);
    }

    /// Connects without sending anything.
    pub(crate) fn open(socket: &Path, memory: GuestMemoryMmap) -> Self {
        let (socket, frontend) = connection(socket);
        let rings = [0, 1, 2].map(|index| Ring::new(&memory, index));
        Self {
            frontend,
            socket,
            memory,
            rings,
        }
    }

    /// Hangs up and connects to this socket, while the guest continues.
    pub(crate) fn reconnect(&mut self, socket: &Path) {
        (self.socket, self.frontend) = connection(socket);
    }

    /// Hangs up, while the guest continues.
    pub(crate) fn hang_up(&mut self) {
        let (socket, _peer) = UnixStream::pair().unwrap();
        self.frontend = Frontend::from_stream(socket.try_clone().unwrap(), 3);
        self.socket = socket;
    }

    /// Accepts these protocol features, all of which the device must offer.
    pub(crate) fn agree_on(&mut self, wanted: VhostUserProtocolFeatures) {
        let offered = self.frontend.get_protocol_features().unwrap();
        assert!(offered.contains(wanted), "{offered:?}");
        self.frontend.set_protocol_features(wanted).unwrap();
        if wanted.contains(VhostUserProtocolFeatures::REPLY_ACK) {
            // Each request waits for its reply.
            self.frontend.set_hdr_flags(VhostUserHeaderFlag::NEED_REPLY);
        }
    }

    /// Sends a raw request, and waits for its reply or the end of the connection. Returns whether
    /// it succeeded.
    #[track_caller]
    pub(crate) fn request(&mut self, code: FrontendReq, body: &[u8], fds: &[RawFd]) -> bool {
        let header = header(code, NEED_REPLY, body.len());
        let parts = [&header[..], body];
        self.socket.send_with_fds(&parts, fds).unwrap();
        let mut answer = [0; 20];
        let answered = self.socket.read_exact(&mut answer);
        let error = answered.as_ref().err().map(|error| error.kind());
        assert_ne!(error, Some(ErrorKind::WouldBlock), "there is no reply");
        answered.is_ok() && answer[12..] == [0; 8]
    }

    /// Sets a queue's kick, of any kind of file.
    pub(crate) fn set_kick(&mut self, index: usize, kick: &impl AsRawFd) -> bool {
        let body = (index as u64).to_ne_bytes();
        self.request(FrontendReq::SET_VRING_KICK, &body, &[kick.as_raw_fd()])
    }

    /// Sets a queue's call, of any kind of file.
    pub(crate) fn set_call(&mut self, index: usize, call: &impl AsRawFd) -> bool {
        let body = (index as u64).to_ne_bytes();
        self.request(FrontendReq::SET_VRING_CALL, &body, &[call.as_raw_fd()])
    }

    /// Accepts more protocol features than every front-end does.
    pub(crate) fn agree_on_more(&mut self, more: VhostUserProtocolFeatures) {
        let usual = VhostUserProtocolFeatures::MQ
            | VhostUserProtocolFeatures::CONFIG
            | VhostUserProtocolFeatures::REPLY_ACK;
        self.agree_on(usual | more);
    }

    /// Returns the features that the device offers.
    pub(crate) fn features(&self) -> u64 {
        self.frontend.get_features().unwrap()
    }

    /// Starts the guest's driver.
    pub(crate) fn start(&mut self, features: u64) -> Result<(), Error> {
        self.rings.iter_mut().for_each(Ring::clear);
        self.set_up(features, [0; 2])
    }

    /// Shares the memory, and starts the queues at these bases.
    fn set_up(&mut self, features: u64, bases: [u32; 2]) -> Result<(), Error> {
        self.frontend.set_features(features)?;
        self.share_memory()?;
        for (index, base) in bases.into_iter().enumerate() {
            let ring = &self.rings[index];
            let base = u16::try_from(base).unwrap();
            self.frontend.set_vring_num(index, crate::ring::SIZE)?;
            self.frontend.set_vring_base(index, base)?;
            self.frontend.set_vring_addr(index, &ring.config())?;
            self.frontend.set_vring_kick(index, &ring.kick)?;
            self.frontend.set_vring_call(index, &ring.call)?;
            self.frontend.set_vring_enable(index, true)?;
        }
        Ok(())
    }

    /// Shares the guest's memory.
    pub(crate) fn share_memory(&self) -> Result<(), Error> {
        let regions: Vec<_> = self
            .memory
            .iter()
            .map(|region| VhostUserMemoryRegionInfo::from_guest_region(region).unwrap())
            .collect();
        self.frontend.set_mem_table(&regions).map(drop)
    }

    /// Resets the guest's driver: stops the queues as QEMU does, and returns their bases.
    pub(crate) fn stop(&mut self) -> [u32; 2] {
        [RX, TX].map(|index| {
            self.frontend.set_vring_enable(index, false).unwrap();
            self.frontend.get_vring_base(index).unwrap()
        })
    }

    /// Continues where the guest was stopped, like QEMU's `cont`. The guest does not notice.
    pub(crate) fn go_on(&mut self, features: u64, bases: [u32; 2]) {
        self.set_up(features, bases).unwrap();
    }

    /// Reads the device's configuration space, from `offset` on.
    pub(crate) fn config(&mut self, offset: u32, size: u32) -> Vec<u8> {
        let buf = vec![0; usize::try_from(size).unwrap()];
        let flags = VhostUserConfigFlags::empty();
        let (_, bytes) = self.frontend.get_config(offset, size, flags, &buf).unwrap();
        bytes
    }

    /// Returns the connection, to hang up or to send anything.
    pub(crate) fn socket(&self) -> &UnixStream {
        &self.socket
    }

    pub(crate) fn memory(&self) -> &GuestMemoryMmap {
        &self.memory
    }
}

fn connection(socket: &Path) -> (UnixStream, Frontend) {
    let socket = UnixStream::connect(socket).unwrap();
    socket.set_read_timeout(Some(GENEROUS)).unwrap();
    let frontend = Frontend::from_stream(socket.try_clone().unwrap(), 3);
    (socket, frontend)
}

/// The size of a guest's memory in bytes: room for its queues and those of another driver.
pub(crate) const MEMORY: u64 = 6 * STRIDE;

/// Creates sharable guest memory with these seals.
pub(crate) fn memory(seals: SealFlags) -> GuestMemoryMmap {
    let size = usize::try_from(MEMORY).unwrap();
    let file = FileOffset::new(shared_file(MEMORY, seals), 0);
    GuestMemoryMmap::from_ranges_with_files([(GuestAddress(0), size, Some(file))]).unwrap()
}

/// Creates a sharable file of this many bytes, with these seals.
pub(crate) fn shared_file(len: u64, seals: SealFlags) -> File {
    let flags = MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING;
    let file = memfd_create("shared", flags).unwrap();
    ftruncate(&file, len).unwrap();
    fcntl_add_seals(&file, seals).unwrap();
    file.into()
}

/// Version 1 of the protocol, and the flag for a request that needs a reply.
const VERSION: u32 = 1;
pub(crate) const NEED_REPLY: u32 = 1 << 3;

/// Creates the header of a request.
pub(crate) fn header(code: FrontendReq, flags: u32, len: usize) -> [u8; 12] {
    let fields = [
        u32::from(code),
        VERSION | flags,
        u32::try_from(len).unwrap(),
    ];
    let mut bytes = [0; 12];
    for (at, field) in bytes.chunks_mut(4).zip(fields) {
        at.copy_from_slice(&field.to_ne_bytes());
    }
    bytes
}
