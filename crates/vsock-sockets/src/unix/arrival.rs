// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Whether something has been sent to a socket.

use std::os::fd::OwnedFd;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::net;

/// Whether anything may be in the queue of a socket that refuses files by now.
pub(super) fn has_come(socket: &OwnedFd) -> bool {
    // A sender that was not refused has put its message into the queue before it gives the socket's
    // lock back: to ask for the peer takes it.
    let _peer = net::getpeername(socket);
    let mut fds = [PollFd::new(socket, PollFlags::IN)];
    poll(&mut fds, Some(&Timespec::default())) != Ok(0)
}
