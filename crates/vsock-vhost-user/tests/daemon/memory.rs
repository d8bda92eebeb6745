// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Memory that a front-end shares and that is not what it says.

use std::fs::File;
use std::os::fd::AsRawFd;

use rustix::fs::{MemfdFlags, SealFlags, ftruncate, memfd_create};
use vhost::{VhostBackend, VhostUserMemoryRegionInfo};
use vsock_vhost_user::SealedMemory;

use crate::guest::Guest;
use crate::host::Host;
use crate::vmm::{FEATURES, Vmm, memory};

fn file(len: u64) -> File {
    let file = memfd_create("short", MemfdFlags::CLOEXEC).unwrap();
    ftruncate(&file, len).unwrap();
    file.into()
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
        let file = file(len);
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
    let file = file(4096);
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
fn t120_where_memory_must_be_sealed_no_other_is_served() {
    let host = Host::with(|_, builder| builder.sealed_memory(SealedMemory::Required));
    for seals in [SealFlags::empty(), SealFlags::GROW | SealFlags::SEAL] {
        let mut vmm = Vmm::connect_with(&host.socket(), memory(seals));
        assert!(vmm.start(FEATURES).is_err(), "{seals:?}");
    }
    let sealed = Vmm::connect_with(&host.socket(), memory(SealFlags::SHRINK));
    Guest::boot_in(sealed, host.cid).assert_refused();
}
