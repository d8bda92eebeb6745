// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! The log messages of a device, and those of captures, with a limit for each message.

use std::sync::LazyLock;

use vsock_epoll::Waker;
use vsock_proto::GuestCid;
pub(crate) use vsock_sockets::journal::{Journal, Line, say};

/// The log of all captures of the process: a program can let others start any number of them.
pub(crate) static CAPTURES: LazyLock<Journal> = LazyLock::new(Journal::default);

/// Creates the log of one device. Each message begins with the guest's CID. The device thread
/// reports what was left out, and `waker` wakes it.
///
/// Each device has its own journal, so no guest can suppress the messages of another.
pub(crate) fn of_guest(guest: GuestCid, waker: Waker) -> Journal {
    Journal::new(format!("guest {guest}: "), move || waker.wake())
}
