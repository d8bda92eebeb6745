// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Descriptors that have no copy left.
//!
//! From its `fork` to the end of its `exec`, a program that one test starts holds a copy of every
//! descriptor of all tests. A file that a test closes therefore stays open for some milliseconds,
//! or for longer on a busy machine. A test that expects an effect of the close must wait for it:
//! either for the effect itself, or with [`close`] for the last copy.
//!
//! If the *device* has to close the last copy, the test must run [`alone`](vsock_tests::alone).

use std::fs;
use std::os::fd::{AsRawFd, OwnedFd};

use vmm_sys_util::epoll::{ControlOperation, Epoll, EpollEvent, EventSet};
use vsock_compliance::poll::{Deadline, wait_until};

use crate::guest::GENEROUS;

/// Closes descriptors of sockets, pipes or FIFOs, and waits until no copy of them is left.
#[track_caller]
pub(crate) fn close(files: impl IntoIterator<Item = impl Into<OwnedFd>>) {
    let epoll = Epoll::new().unwrap();
    for file in files {
        let file = file.into();
        let event = EpollEvent::new(EventSet::empty(), 0);
        epoll
            .ctl(ControlOperation::Add, file.as_raw_fd(), event)
            .unwrap();
    }
    // The kernel removes a registration with the last copy of the descriptor.
    let registrations = format!("/proc/self/fdinfo/{}", epoll.as_raw_fd());
    let are_closed = || {
        let text = fs::read_to_string(&registrations).unwrap();
        !text.contains("tfd:")
    };
    wait_until(Deadline::after(GENEROUS), are_closed).expect("another process keeps a copy");
}
