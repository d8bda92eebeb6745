// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

use std::io::{self, ErrorKind};
use std::mem;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::event::{EventfdFlags, PollFd, PollFlags, Timespec, eventfd, poll};
use rustix::io::Errno;

use super::guarded_socket::GuardedSocket;

/// The maximum number of clients that one call refuses for lack of descriptors before it yields to
/// other streams. The next call refuses the rest.
const REFUSALS: usize = 64;

/// A listening socket for host processes that connect to the guest. It never blocks.
#[derive(Debug)]
pub(crate) struct Acceptor {
    /// A spare descriptor. When no other descriptor is left, it is closed to make room: for
    /// accepting and refusing waiting clients, and later for removing the socket's file.
    spare: Option<OwnedFd>,
    listener: GuardedSocket,
    /// Whether the last call accepted a client, so that probably no other is waiting.
    has_accepted: bool,
}

impl Acceptor {
    /// Creates an acceptor from a listening, non-blocking socket.
    pub(crate) fn new(listener: GuardedSocket) -> io::Result<Self> {
        let spare = Some(eventfd(0, EventfdFlags::CLOEXEC)?);
        Ok(Self {
            spare,
            listener,
            has_accepted: false,
        })
    }

    /// Accepts the next client. Its socket is non-blocking too.
    pub(crate) fn accept(&mut self) -> io::Result<GuardedSocket> {
        // Each client that comes alone is followed by a call that finds none. `accept4` creates a
        // socket before it finds that out, so it takes ten times as long as this query.
        if mem::take(&mut self.has_accepted) && self.is_quiet() {
            return Err(ErrorKind::WouldBlock.into());
        }
        loop {
            match self.listener.accept() {
                // This client has gone; another one may be waiting.
                Err(Errno::INTR | Errno::CONNABORTED) => {}
                Err(error @ (Errno::MFILE | Errno::NFILE)) => {
                    self.refuse_waiting();
                    return Err(error.into());
                }
                Err(error) => return Err(error.into()),
                Ok(socket) => {
                    self.has_accepted = true;
                    return Ok(socket);
                }
            }
        }
    }

    /// Returns whether the listener has neither a client nor an error to report.
    fn is_quiet(&self) -> bool {
        let mut fds = [PollFd::new(&self.listener, PollFlags::IN)];
        poll(&mut fds, Some(&Timespec::default())) == Ok(0)
    }

    /// Refuses waiting clients: accepts each in the place of the spare descriptor and closes it.
    /// Otherwise the clients would wait indefinitely, and the listener would stay readable.
    fn refuse_waiting(&mut self) {
        self.spare = None;
        for _ in 0..REFUSALS {
            match self.listener.accept() {
                Err(Errno::INTR | Errno::CONNABORTED) => {}
                Err(_) => break,
                Ok(client) => drop(client),
            }
        }
        // If another thread has taken the place, the next failure tries again.
        self.spare = eventfd(0, EventfdFlags::CLOEXEC).ok();
    }
}

impl AsFd for Acceptor {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.listener.as_fd()
    }
}
