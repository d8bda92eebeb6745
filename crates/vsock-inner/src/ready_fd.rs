// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! An eventfd that shows whether its owner could make progress.

use crate::sync::{Arc, EventFd};

/// The event for which a descriptor is polled.
///
/// An eventfd is readable while its counter is above zero, and writable while the counter is below
/// its maximum. So one that only this crate touches can represent either.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Interest {
    /// `EPOLLIN`: ready means a counter above zero.
    Readable,
    /// `EPOLLOUT`: ready means a counter of zero.
    Writable,
}

/// A polled descriptor, and what it shows.
///
/// It is kept under a lock, so two threads never change the counter at the same time. The
/// descriptor is shared only with its owner, and is closed when both have dropped it.
#[derive(Debug)]
pub(crate) struct ReadyFd {
    fd: Arc<EventFd>,
    interest: Interest,
    shows_ready: bool,
}

impl ReadyFd {
    /// Creates one to poll for `EPOLLIN`. It does not show ready.
    pub(crate) fn readable(fd: &Arc<EventFd>) -> Self {
        Self {
            fd: Arc::clone(fd),
            interest: Interest::Readable,
            shows_ready: false,
        }
    }

    /// Creates one to poll for `EPOLLOUT`. It shows ready.
    pub(crate) fn writable(fd: &Arc<EventFd>) -> Self {
        Self {
            fd: Arc::clone(fd),
            interest: Interest::Writable,
            shows_ready: true,
        }
    }

    /// Makes the descriptor show ready or not. A change to ready is a new edge for an
    /// edge-triggered poll.
    pub(crate) fn set_ready(&mut self, ready: bool) {
        if self.shows_ready != ready {
            self.change(ready);
        }
    }

    /// Makes the descriptor show ready, with a new edge for `EPOLLIN` even if it already did.
    pub(crate) fn new_edge(&mut self) {
        self.change(true);
    }

    /// Raises the counter, or resets it to zero.
    ///
    /// This fails only if the counter already has the new value, because the owner has read or
    /// written the descriptor itself. The next change repairs that.
    fn change(&mut self, ready: bool) {
        self.shows_ready = ready;
        drop(match (self.interest, ready) {
            (Interest::Readable, true) => self.fd.write(1),
            (Interest::Writable, false) => self.fd.write(u64::MAX - 1),
            (Interest::Readable, false) | (Interest::Writable, true) => self.fd.read(),
        });
    }

    /// What a poll would report.
    #[cfg(all(test, loom))]
    pub(crate) fn polls_ready(&self) -> bool {
        match self.interest {
            Interest::Readable => self.fd.is_readable(),
            Interest::Writable => self.fd.is_writable(),
        }
    }

    /// How often an edge-triggered poll was woken.
    #[cfg(all(test, loom))]
    pub(crate) fn edges(&self) -> usize {
        match self.interest {
            Interest::Readable => self.fd.edges(),
            Interest::Writable => self.fd.edges_out(),
        }
    }
}
