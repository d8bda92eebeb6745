// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::event::{EventfdFlags, eventfd};
use rustix::io::Errno;

use super::guarded_socket::GuardedSocket;

/// The most clients that one call refuses when there is no descriptor for them, before it yields to
/// other streams. The next call refuses the rest.
pub(super) const REFUSALS: usize = 64;

/// A listening socket for host processes that connect to the guest. It never waits.
#[derive(Debug)]
pub(crate) struct Acceptor {
    /// A descriptor in reserve. When no other is left, it is given up to accept and refuse the
    /// clients that wait, and later to remove the socket's file.
    spare: Option<OwnedFd>,
    listener: GuardedSocket,
}

impl Acceptor {
    /// Over a socket that listens, and does not block.
    pub(crate) fn new(listener: GuardedSocket) -> io::Result<Self> {
        let spare = Some(eventfd(0, EventfdFlags::CLOEXEC)?);
        Ok(Self { spare, listener })
    }

    /// Takes in the next client, whose socket does not block either.
    pub(crate) fn accept(&mut self) -> io::Result<GuardedSocket> {
        loop {
            match self.listener.accept() {
                // The one client is gone; there may be others.
                Err(Errno::INTR | Errno::CONNABORTED) => {}
                Err(error @ (Errno::MFILE | Errno::NFILE)) => {
                    self.refuse_waiting();
                    return Err(error.into());
                }
                Err(error) => return Err(error.into()),
                Ok(socket) => return Ok(socket),
            }
        }
    }

    /// Accepts in the place of the spare descriptor, and hangs up.
    fn refuse_waiting(&mut self) {
        self.spare = None;
        for _ in 0..REFUSALS {
            match self.listener.accept() {
                Err(Errno::INTR | Errno::CONNABORTED) => {}
                Err(_) => break,
                Ok(client) => drop(client),
            }
        }
        // If the place is taken by now, the next failure tries again.
        self.spare = eventfd(0, EventfdFlags::CLOEXEC).ok();
    }
}

impl AsFd for Acceptor {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.listener.as_fd()
    }
}
