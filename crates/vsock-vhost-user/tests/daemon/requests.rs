// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Invalid requests: truncated, of unknown kinds, not offered, without an end, or for memory that
//! does not match them.

use std::fs::File;
use std::io::{ErrorKind, Read, Write};
use std::os::fd::{AsRawFd, RawFd};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

use rustix::event::{EventfdFlags, eventfd};
use rustix::fs::SealFlags;
use vhost::vhost_user::VhostUserFrontend;
use vhost::vhost_user::message::FrontendReq;
use vhost::{VhostBackend, VhostUserMemoryRegionInfo};
use vmm_sys_util::sock_ctrl_msg::ScmSocket;
use vsock_vhost_user::SealedMemory;

use crate::guest::{GENEROUS, Guest};
use crate::host::Host;
use crate::vmm::{FEATURES, NEED_REPLY, Vmm, header, memory, shared_file};

/// The requests of a front-end until its first queue runs, each with its descriptors.
fn script(memory: RawFd, eventfd: RawFd) -> Vec<(Vec<u8>, Vec<RawFd>)> {
    let numbers = |numbers: &[u64]| numbers.iter().flat_map(|n| n.to_ne_bytes()).collect();
    let pair = |a: u32, b: u32| [a.to_ne_bytes(), b.to_ne_bytes()].concat();
    let at = 0x1000_0000;
    let requests: Vec<(FrontendReq, Vec<u8>, Vec<RawFd>)> = vec![
        (FrontendReq::SET_OWNER, vec![], vec![]),
        (FrontendReq::SET_FEATURES, numbers(&[FEATURES]), vec![]),
        (
            FrontendReq::SET_MEM_TABLE,
            [pair(1, 0), numbers(&[0, 1 << 20, at, 0])].concat(),
            vec![memory],
        ),
        (FrontendReq::SET_VRING_NUM, pair(0, 64), vec![]),
        (FrontendReq::SET_VRING_BASE, pair(0, 0), vec![]),
        (
            FrontendReq::SET_VRING_ADDR,
            [pair(0, 0), numbers(&[at, at + 0x2000, at + 0x1000, 0])].concat(),
            vec![],
        ),
        (FrontendReq::SET_VRING_KICK, numbers(&[0]), vec![eventfd]),
        (FrontendReq::SET_VRING_CALL, numbers(&[0]), vec![eventfd]),
        (FrontendReq::SET_VRING_ENABLE, pair(0, 1), vec![]),
        (FrontendReq::GET_VRING_BASE, pair(0, 0), vec![]),
    ];
    let whole = |(code, body, fds): (FrontendReq, Vec<u8>, Vec<RawFd>)| {
        let bytes = [&header(code, 0, body.len()), &body[..]].concat();
        (bytes, fds)
    };
    requests.into_iter().map(whole).collect()
}

/// Checks that a request is answered.
fn assert_answered(socket: &Path) {
    let mut stream = UnixStream::connect(socket).unwrap();
    stream.set_read_timeout(Some(GENEROUS)).unwrap();
    stream
        .write_all(&header(FrontendReq::GET_FEATURES, 0, 0))
        .unwrap();
    stream.read_exact(&mut [0; 20]).unwrap();
}

#[test]
fn t122_a_connection_that_is_cut_at_any_byte_is_followed_by_the_next() {
    let host = Host::new();
    let memory = memory(SealFlags::empty());
    let region = vm_memory::GuestMemoryBackend::iter(&memory).next().unwrap();
    let file = vm_memory::GuestMemoryRegion::file_offset(region).unwrap();
    let eventfd = eventfd(0, EventfdFlags::CLOEXEC).unwrap();
    let script = script(file.file().as_raw_fd(), eventfd.as_raw_fd());
    for (whole, (last, fds)) in script.iter().enumerate() {
        for cut in 1..=last.len() {
            let stream = UnixStream::connect(host.socket()).unwrap();
            for (bytes, fds) in &script[..whole] {
                stream.send_with_fds(&[&bytes[..]], fds).unwrap();
            }
            stream.send_with_fds(&[&last[..cut]], fds).unwrap();
            drop(stream);
        }
        assert_answered(&host.socket());
    }
    host.boot().assert_refused();
    host.device.stop().unwrap();
}

/// Requests of the specification that the device does not offer.
const NOT_OFFERED: [FrontendReq; 12] = [
    FrontendReq::SET_LOG_BASE,
    FrontendReq::SEND_RARP,
    FrontendReq::NET_SET_MTU,
    FrontendReq::SET_BACKEND_REQ_FD,
    FrontendReq::SET_VRING_ENDIAN,
    FrontendReq::POSTCOPY_ADVISE,
    FrontendReq::GET_INFLIGHT_FD,
    FrontendReq::SET_STATUS,
    FrontendReq::GET_MAX_MEM_SLOTS,
    FrontendReq::ADD_MEM_REG,
    FrontendReq::CHECK_DEVICE_STATE,
    FrontendReq::GET_SHMEM_CONFIG,
];

#[test]
fn t122_a_request_that_was_not_offered_ends_only_its_connection() {
    let host = Host::new();
    for code in NOT_OFFERED {
        let mut vmm = host.vmm();
        assert!(!vmm.request(code, &[0; 8], &[]), "{code:?}");
        let end = vmm.socket().read(&mut [0]).map_err(|error| error.kind());
        assert!(
            matches!(end, Ok(0) | Err(ErrorKind::ConnectionReset)),
            "{code:?}: {end:?}"
        );
    }
    let mut vmm = host.vmm();
    let foreign = 1_u64 << 12 | 1 << 3; // INFLIGHT_SHMFD, and REPLY_ACK
    let asked = vmm.request(
        FrontendReq::SET_PROTOCOL_FEATURES,
        &foreign.to_ne_bytes(),
        &[],
    );
    assert!(!asked);
    drop(vmm);
    host.boot().assert_refused();
}

#[test]
fn t122_a_front_end_without_protocol_features_is_served() {
    let (_host, mut guest) = Host::booted();
    for index in [0, 1] {
        guest.vmm.frontend.set_vring_enable(index, false).unwrap();
    }
    // Such a front-end does not enable its queues one by one.
    guest
        .vmm
        .frontend
        .set_features(FEATURES & !(1 << 30))
        .unwrap();
    guest.assert_refused();
}

#[test]
fn t119_a_front_end_that_takes_no_answers_does_not_delay_a_stop() {
    let host = Host::new();
    let mut stream = UnixStream::connect(host.socket()).unwrap();
    let timeout = Some(Duration::from_millis(200));
    stream.set_write_timeout(timeout).unwrap();
    let request = header(FrontendReq::GET_FEATURES, NEED_REPLY, 0);
    while stream.write_all(&request).is_ok() {}
    host.assert_stops();
}

#[test]
fn a_stop_ends_the_wait_for_the_rest_of_a_request() {
    let host = Host::new();
    assert_answered(&host.socket());
    let mut stream = UnixStream::connect(host.socket()).unwrap();
    stream
        .write_all(&header(FrontendReq::SET_FEATURES, 0, 8)[..11])
        .unwrap();
    host.assert_stops();
}

fn region(file: &File, size: u64, offset: u64) -> VhostUserMemoryRegionInfo {
    VhostUserMemoryRegionInfo {
        guest_phys_addr: 0,
        memory_size: size,
        userspace_addr: 0x1000_0000,
        mmap_offset: offset,
        mmap_handle: file.as_raw_fd(),
    }
}

#[test]
fn t120_memory_that_is_longer_than_its_file_is_refused_and_the_next_vmm_served() {
    let host = Host::new();
    for (len, size, offset) in [
        (0, 4096, 0),
        (4096, 4097, 0),
        (4096, 4096, 4096),
        (8192, 4096, 2048),
        (8192, 1 << 40, 0),
    ] {
        let vmm = host.vmm();
        vmm.frontend.set_features(FEATURES).unwrap();
        let file = shared_file(len, SealFlags::empty());
        let table = [region(&file, size, offset)];
        assert!(
            vmm.frontend.set_mem_table(&table).is_err(),
            "{size} at {offset} of {len}"
        );
    }
    host.boot().assert_refused();
    host.device.stop().unwrap();
}

#[test]
fn t120_a_queue_outside_of_memory_is_refused() {
    let host = Host::new();
    let vmm = host.vmm();
    vmm.frontend.set_features(FEATURES).unwrap();
    let config = vmm.rings[0].config();
    assert!(
        vmm.frontend.set_vring_addr(0, &config).is_err(),
        "no memory"
    );
    drop(vmm);
    let vmm = host.vmm();
    vmm.frontend.set_features(FEATURES).unwrap();
    let file = shared_file(4096, SealFlags::empty());
    vmm.frontend
        .set_mem_table(&[region(&file, 4096, 0)])
        .unwrap();
    assert!(
        vmm.frontend.set_vring_addr(0, &config).is_err(),
        "too little"
    );
    drop(vmm);
    host.boot().assert_refused();
}

#[test]
fn t120_if_memory_must_be_sealed_other_memory_is_refused() {
    let host = Host::with(|_, builder| builder.sealed_memory(SealedMemory::Required));
    for seals in [SealFlags::empty(), SealFlags::GROW | SealFlags::SEAL] {
        let mut vmm = Vmm::connect_with(&host.socket(), memory(seals));
        assert!(vmm.start(FEATURES).is_err(), "{seals:?}");
    }
    let sealed = Vmm::connect_with(&host.socket(), memory(SealFlags::SHRINK));
    Guest::boot_in(sealed, host.cid).assert_refused();
}
