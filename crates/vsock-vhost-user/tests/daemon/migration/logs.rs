// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! The logs that a front-end offers: which are used and which are refused.

use super::*;

#[test]
fn t123_pages_are_marked_while_it_is_requested_and_there_is_a_log() {
    let host = Host::new();
    let mut vmm = host.vmm();
    vmm.agree_on_more(VhostUserProtocolFeatures::LOG_SHMFD);
    let mut guest = Guest::boot_in(vmm, host.cid);
    let log = Log::new();
    // Accepting the feature without a log is not an error.
    guest.vmm.frontend.set_features(FEATURES | LOG_ALL).unwrap();
    guest.assert_refused();
    let set = guest.vmm.frontend.set_log_base(0, Some(log.region()));
    set.unwrap();
    guest.assert_refused();
    guest.settle();
    assert!(!log.take().is_empty());
    stop_logging(&guest.vmm);
    log.take();
    guest.assert_refused();
    guest.settle();
    assert_eq!(log.take(), [0; 0], "marking was not requested");
    // Only the flag of a queue.
    set_rings(&guest.vmm, 1);
    guest.assert_refused();
    guest.settle();
    assert!(!log.take().is_empty());
}

#[test]
fn t123_a_log_descriptor_is_accepted_and_a_request_without_one_ends_the_connection() {
    let (host, mut guest) = Host::booted();
    let event = EventFd::new(EFD_CLOEXEC).unwrap();
    guest.vmm.frontend.set_log_fd(event.as_raw_fd()).unwrap();
    guest.assert_refused();
    let (code, fd) = (FrontendReq::SET_LOG_FD, event.as_raw_fd());
    assert!(guest.vmm.request(code, &[], &[fd]));
    drop(guest);
    for (body, fds) in [(&[][..], &[][..]), (&[0; 8], &[fd]), (&[], &[fd, fd])] {
        let mut vmm = host.boot().vmm;
        assert!(!vmm.request(code, body, fds));
    }
    host.boot().assert_refused();
}

/// Checks that a front-end that passes such a log loses its connection, and nothing else happens.
fn assert_log_is_refused(host: &Host, log: &Log, region: &VhostUserDirtyLogRegion) {
    let mut vmm = host.vmm();
    vmm.agree_on_more(VhostUserProtocolFeatures::LOG_SHMFD);
    let guest = Guest::boot_in(vmm, host.cid);
    let set = guest.vmm.frontend.set_log_base(0, Some(*region));
    set.unwrap_err();
    assert_eq!(log.take(), [0; 0]);
    drop(guest);
    host.boot().assert_refused();
}

#[test]
fn t120_t123_a_log_that_is_too_short_for_memory_or_its_file_is_refused() {
    let host = Host::new();
    let whole = MEMORY / PAGE / 8;
    for (len, mmap_size, mmap_offset) in [
        (whole - 1, whole - 1, 0),
        (whole - 1, whole, 0),
        (whole, whole, 4096),
        (4096 + whole, whole, 8),
        (0x10_0000, u64::MAX - 4096, 4096),
    ] {
        let log = Log::of(len, SealFlags::empty());
        let region = VhostUserDirtyLogRegion {
            mmap_size,
            mmap_offset,
            ..log.region()
        };
        assert_log_is_refused(&host, &log, &region);
    }
}

#[test]
fn t120_t123_if_memory_must_be_sealed_so_must_the_log() {
    let host = Host::with(|_, builder| builder.sealed_memory(SealedMemory::Required));
    let open = Log::of(MEMORY / PAGE / 8, SealFlags::GROW);
    for (log, is_taken) in [(Log::new(), true), (open, false)] {
        let mut vmm = Vmm::connect_with(&host.socket(), memory(SealFlags::SHRINK));
        vmm.agree_on_more(VhostUserProtocolFeatures::LOG_SHMFD);
        let guest = Guest::boot_in(vmm, host.cid);
        let set = guest.vmm.frontend.set_log_base(0, Some(log.region()));
        assert_eq!(set.is_ok(), is_taken);
    }
}
