// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Memory regions that are added and removed while the queues run.

use std::fs::File;
use std::os::fd::AsRawFd;

use rustix::fs::SealFlags;
use vhost::vhost_user::message::FrontendReq;
use vhost::vhost_user::{VhostUserFrontend, VhostUserProtocolFeatures};
use vhost::{VhostBackend, VhostUserMemoryRegionInfo};
use vm_memory::{Bytes, FileOffset, GuestAddress, GuestMemoryBackend, GuestMemoryMmap};
use vsock_compliance::poll::Deadline;
use vsock_driver::Descriptor;
use vsock_proto::{Header, Op};
use vsock_vhost_user::AccessPlatform;

use crate::guest::{GENEROUS, Guest};
use crate::host::Host;
use crate::program::Program;
use crate::vmm::{FEATURES, MEMORY, RX, Vmm, memory, shared_file};

/// The size of an added region in bytes.
const LEN: u64 = 0x4000;
/// The address of the first added region.
const ADDED: u64 = 1 << 32;

/// A region added to the guest's initial memory.
struct Added {
    file: File,
    index: u64,
}

impl Added {
    fn new(index: u64) -> Self {
        let file = shared_file(LEN, SealFlags::empty());
        Self { file, index }
    }

    /// The region's address, with a hole before the next one.
    fn address(&self) -> u64 {
        ADDED + 2 * LEN * self.index
    }

    fn info(&self) -> VhostUserMemoryRegionInfo {
        VhostUserMemoryRegionInfo {
            guest_phys_addr: self.address(),
            memory_size: LEN,
            userspace_addr: (1 << 46) + self.address(),
            mmap_offset: 0,
            mmap_handle: self.file.as_raw_fd(),
        }
    }

    fn memory(&self) -> GuestMemoryMmap {
        let part = FileOffset::new(self.file.try_clone().unwrap(), 0);
        let len = usize::try_from(LEN).unwrap();
        GuestMemoryMmap::from_ranges_with_files([(GuestAddress(self.address()), len, Some(part))])
            .unwrap()
    }
}

fn first_region(vmm: &Vmm) -> VhostUserMemoryRegionInfo {
    let region = vmm.memory().iter().next().unwrap();
    VhostUserMemoryRegionInfo::from_guest_region(region).unwrap()
}

fn with_slots(host: &Host) -> Vmm {
    let mut vmm = host.vmm();
    vmm.agree_on_more(VhostUserProtocolFeatures::CONFIGURE_MEM_SLOTS);
    vmm
}

/// Offers a buffer in a region, and sends a packet that is answered with an RST. Returns the header
/// that was written to the region.
fn refusal_in(guest: &mut Guest, added: &Added) -> Option<Header> {
    let ring = &mut guest.vmm.rings[RX];
    let old = ring.available();
    let buffer = Descriptor::writable(added.address() + LEN - 100, 100);
    ring.offer_chain(old % crate::ring::SIZE, &[buffer]);
    ring.notify(old);
    guest.request(1000, 1);
    let ring = &mut guest.vmm.rings[RX];
    let (_, len) = ring.wait(Deadline::after(GENEROUS)).unwrap();
    (len == 44).then(|| {
        let mut header = [0; 44];
        let at = GuestAddress(added.address() + LEN - 100);
        added.memory().read_slice(&mut header, at).unwrap();
        Header::decode(&header)
    })
}

#[test]
fn t121_regions_are_added_and_removed_one_by_one_while_the_queues_run() {
    let host = Host::new();
    let mut vmm = with_slots(&host);
    assert_eq!(vmm.frontend.get_max_mem_slots().unwrap(), 509);
    vmm.start(FEATURES).unwrap();
    let mut guest = Guest::of(vmm, host.cid);
    let mut added: Vec<_> = (0..40).map(Added::new).collect();
    for region in &added {
        guest.vmm.frontend.add_mem_region(&region.info()).unwrap();
        let header = refusal_in(&mut guest, region).unwrap();
        assert_eq!(header.op, u16::from(Op::Reset));
    }
    while added.len() > 1 {
        let gone = added.swap_remove(added.len() / 2);
        let info = gone.info();
        guest.vmm.frontend.remove_mem_region(&info).unwrap();
        // A buffer in a removed region is unusable, and the device takes the next one.
        let left = &added[0];
        let ring = &mut guest.vmm.rings[RX];
        let buffer = Descriptor::writable(gone.address(), 100);
        ring.offer_chain(ring.available() % crate::ring::SIZE, &[buffer]);
        assert!(refusal_in(&mut guest, left).is_none());
        let (_, len) = guest.vmm.rings[RX].wait(Deadline::after(GENEROUS)).unwrap();
        assert_eq!(len, 44);
    }
    host.device.stop().unwrap();
}

#[test]
fn t121_a_vmm_that_adds_its_memory_region_by_region_is_served() {
    let host = Host::new();
    let mut vmm = with_slots(&host);
    vmm.frontend.set_features(FEATURES).unwrap();
    let info = first_region(&vmm);
    vmm.frontend.add_mem_region(&info).unwrap();
    for (index, ring) in vmm.rings.iter().enumerate() {
        vmm.frontend
            .set_vring_num(index, crate::ring::SIZE)
            .unwrap();
        vmm.frontend.set_vring_base(index, 0).unwrap();
        vmm.frontend.set_vring_addr(index, &ring.config()).unwrap();
        vmm.frontend.set_vring_call(index, &ring.call).unwrap();
        vmm.frontend.set_vring_kick(index, &ring.kick).unwrap();
        vmm.frontend.set_vring_enable(index, true).unwrap();
    }
    let added = Added::new(0);
    vmm.frontend.add_mem_region(&added.info()).unwrap();
    let mut guest = Guest::of(vmm, host.cid);
    assert!(refusal_in(&mut guest, &added).is_some());
}

#[test]
fn t121_only_a_region_without_a_running_queue_can_be_removed() {
    let host = Host::new();
    let mut vmm = with_slots(&host);
    vmm.start(FEATURES).unwrap();
    let info = first_region(&vmm);
    let mut guest = Guest::of(vmm, host.cid);
    guest.vmm.stop();
    guest.vmm.frontend.remove_mem_region(&info).unwrap();
    guest.vmm.frontend.add_mem_region(&info).unwrap();
    guest.start();
    guest.assert_refused();
    guest.vmm.frontend.remove_mem_region(&info).unwrap_err();
    drop(guest);
    host.boot().assert_refused();
}

#[test]
fn t121_overlapping_unknown_or_too_many_regions_end_only_their_connection() {
    type Bad = fn(&mut Vmm, &Added) -> bool;
    let cases: [Bad; 6] = [
        |vmm, added| vmm.frontend.add_mem_region(&added.info()).is_ok(),
        |vmm, added| {
            let guest_phys_addr = added.address() + LEN - 1;
            let info = VhostUserMemoryRegionInfo {
                guest_phys_addr,
                ..added.info()
            };
            vmm.frontend.add_mem_region(&info).is_ok()
        },
        |vmm, added| {
            let info = VhostUserMemoryRegionInfo {
                guest_phys_addr: u64::MAX - 100,
                ..added.info()
            };
            vmm.frontend.add_mem_region(&info).is_ok()
        },
        |vmm, added| {
            let info = VhostUserMemoryRegionInfo {
                memory_size: LEN / 2,
                ..added.info()
            };
            vmm.frontend.remove_mem_region(&info).is_ok()
        },
        |vmm, _| {
            let info = Added::new(7).info();
            vmm.frontend.remove_mem_region(&info).is_ok()
        },
        |vmm, _| {
            let mut added = (1..=509).map(Added::new);
            added.all(|region| vmm.frontend.add_mem_region(&region.info()).is_ok())
        },
    ];
    let host = Host::new();
    for bad in cases {
        let mut vmm = with_slots(&host);
        vmm.start(FEATURES).unwrap();
        let added = Added::new(0);
        vmm.frontend.add_mem_region(&added.info()).unwrap();
        assert!(!bad(&mut vmm, &added));
        drop(vmm);
    }
    host.boot().assert_refused();
    host.device.stop().unwrap();
}

#[test]
fn t123_memory_beyond_the_log_is_refused_while_pages_are_marked() {
    const LOG_ALL: u64 = 1 << 26;
    let host = Host::new();
    for features in [FEATURES, FEATURES | LOG_ALL] {
        let mut vmm = host.vmm();
        let features_of_protocol =
            VhostUserProtocolFeatures::CONFIGURE_MEM_SLOTS | VhostUserProtocolFeatures::LOG_SHMFD;
        vmm.agree_on_more(features_of_protocol);
        vmm.start(features).unwrap();
        let log = shared_file(4096, SealFlags::empty());
        let region = vhost::VhostUserDirtyLogRegion {
            mmap_size: MEMORY / 4096 / 8,
            mmap_offset: 0,
            mmap_handle: log.as_raw_fd(),
        };
        vmm.frontend.set_log_base(0, Some(region)).unwrap();
        let added = vmm.frontend.add_mem_region(&Added::new(0).info());
        assert_eq!(added.is_ok(), features == FEATURES);
        // The existing memory must not become too large for an existing log either.
        let asked = added.and_then(|_| vmm.frontend.set_features(FEATURES | LOG_ALL));
        asked.unwrap_err();
    }
    host.boot().assert_refused();
}

/// `VIRTIO_F_ACCESS_PLATFORM`
const ACCESS_PLATFORM: u64 = 1 << 33;

#[test]
fn t24_access_platform_is_offered_on_request_and_served_without_translation() {
    let host = Host::new();
    let vmm = host.vmm();
    assert_eq!(vmm.features() & ACCESS_PLATFORM, 0);
    vmm.frontend
        .set_features(FEATURES | ACCESS_PLATFORM)
        .unwrap_err();
    drop(vmm);

    let host = Host::with(|_, builder| builder.access_platform(AccessPlatform::Offered));
    let mut vmm = host.vmm();
    assert_ne!(vmm.features() & ACCESS_PLATFORM, 0);
    let protocol = vmm.frontend.get_protocol_features().unwrap();
    let channel = VhostUserProtocolFeatures::BACKEND_REQ;
    assert!(protocol.contains(channel), "QEMU requires it");
    vmm.agree_on_more(channel);
    let (ours, _theirs) = std::os::unix::net::UnixStream::pair().unwrap();
    vmm.frontend.set_backend_request_fd(&ours).unwrap();
    vmm.start(FEATURES | ACCESS_PLATFORM).unwrap();
    let mut guest = Guest::of(vmm, host.cid);
    while !guest.vmm.rings[RX].is_full() {
        guest.vmm.rings[RX].offer(4096, true);
    }
    host.assert_serves(&mut guest, 1);
    // Translation requests are refused, and the log names them.
    assert!(!guest.vmm.request(FrontendReq::IOTLB_MSG, &[0; 40], &[]));
    drop(guest);
    host.vmm();
}

#[test]
fn t24_the_program_offers_access_platform_by_an_option_and_names_the_request_that_it_refuses() {
    let program = Program::start(&["--access-platform"]);
    let mut vmm = Vmm::connect_with(&program.socket(3), memory(SealFlags::empty()));
    assert_ne!(vmm.features() & ACCESS_PLATFORM, 0);
    assert!(!vmm.request(FrontendReq::IOTLB_MSG, &[0; 40], &[]));
    drop(vmm);
    let said = program.said();
    assert!(
        said.contains("connection after its request (IOTLB_MSG): "),
        "{said}"
    );
}
