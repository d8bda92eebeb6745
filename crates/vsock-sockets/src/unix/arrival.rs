// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Detects whether anything was sent to a socket before it began to refuse files.

use std::os::fd::OwnedFd;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::net;

/// Returns whether anything is in the queue of a socket that now refuses files.
pub(super) fn has_come(socket: &OwnedFd) -> bool {
    // A sender holds the socket's lock while it checks whether files are refused and then queues
    // its message. Asking for the peer takes the same lock, so after this call a message that was
    // not refused is in the queue, and the poll below sees it.
    let _peer = net::getpeername(socket);
    let mut fds = [PollFd::new(socket, PollFlags::IN)];
    poll(&mut fds, Some(&Timespec::default())) != Ok(0)
}
