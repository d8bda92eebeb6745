// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! What a sleeping side is woken by: a condition variable for a blocked thread, an eventfd for a
//! polling one.

use std::io;
use std::os::fd::{AsRawFd, RawFd};

use crate::sync::{Arc, EventFd};

/// For which event a descriptor is polled.
///
/// An eventfd is readable while its counter is above zero, and writable while it is below its
/// maximum. So one that nobody else touches can stand for either.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Polled {
    /// `EPOLLIN`: ready means a counter above zero.
    In,
    /// `EPOLLOUT`: ready means a counter of zero.
    Out,
}

/// An eventfd that shows whether its owner would make progress.
///
/// It lives under the lock of its gate: two threads never change the counter at the same time. The
/// descriptor is shared with its owner alone, who lends it to those that poll it.
#[derive(Debug)]
pub(crate) struct Bell {
    polled: Polled,
    fd: Option<Arc<EventFd>>,
    shows_ready: bool,
}

impl Bell {
    pub(crate) const fn new(polled: Polled) -> Self {
        Self {
            polled,
            fd: None,
            shows_ready: matches!(polled, Polled::Out),
        }
    }

    /// Makes the descriptor, unless it is there.
    pub(crate) fn install(&mut self) -> io::Result<Arc<EventFd>> {
        if let Some(fd) = &self.fd {
            return Ok(Arc::clone(fd));
        }
        let fd = Arc::new(EventFd::new()?);
        Ok(Arc::clone(self.fd.insert(fd)))
    }

    pub(crate) fn raw_fd(&self) -> Option<RawFd> {
        self.fd.as_ref().map(|fd| fd.as_raw_fd())
    }

    /// Uses the descriptor no more: it is closed when its owner lets go of it.
    pub(crate) fn close(&mut self) {
        self.fd = None;
    }

    /// Makes the descriptor show `ready`; a change to ready is a new edge for an edge-triggered poll.
    pub(crate) fn show(&mut self, ready: bool) {
        if self.shows_ready != ready {
            self.shows_ready = ready;
            self.count(matches!(self.polled, Polled::In) == ready);
        }
    }

    /// Makes a new edge, also where the descriptor shows ready already.
    pub(crate) fn strike(&mut self) {
        match self.polled {
            Polled::In => {
                self.shows_ready = true;
                self.count(true);
            }
            Polled::Out => self.show(true),
        }
    }

    /// Raises the counter, or takes it to zero.
    ///
    /// An error can only be that the counter is there already, because the owner has read or written
    /// its descriptor by hand; for that there is no remedy but the next change.
    fn count(&self, up: bool) {
        let Some(fd) = &self.fd else { return };
        drop(match (up, self.polled) {
            (true, Polled::In) => fd.write(1),
            (true, Polled::Out) => fd.write(u64::MAX - 1),
            (false, _) => fd.read(),
        });
    }

    /// What a poll would say.
    #[cfg(loom)]
    pub(crate) fn polls_ready(&self) -> bool {
        self.fd.as_ref().is_some_and(|fd| match self.polled {
            Polled::In => fd.is_readable(),
            Polled::Out => fd.is_writable(),
        })
    }

    /// How often an edge-triggered poll for `EPOLLIN` was woken.
    #[cfg(loom)]
    pub(crate) fn edges(&self) -> usize {
        self.fd.as_ref().map_or(0, |fd| fd.edges())
    }
}
