// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

use std::io;
use std::os::fd::RawFd;

use vmm_sys_util::epoll::{ControlOperation, Epoll, EpollEvent, EventSet};

/// A level-triggered epoll on one descriptor, as in an event loop with one connection.
pub(crate) struct Wait(Epoll);

impl Wait {
    /// Waits for `EPOLLIN` on `fd`.
    pub(crate) fn readable(fd: RawFd) -> io::Result<Self> {
        Self::on(fd, EventSet::IN)
    }

    /// Waits for `EPOLLOUT` on `fd`.
    pub(crate) fn writable(fd: RawFd) -> io::Result<Self> {
        Self::on(fd, EventSet::OUT)
    }

    fn on(fd: RawFd, events: EventSet) -> io::Result<Self> {
        let wait = Self(Epoll::new()?);
        wait.0
            .ctl(ControlOperation::Add, fd, EpollEvent::new(events, 0))?;
        Ok(wait)
    }

    /// Registers another descriptor, for `EPOLLIN`.
    pub(crate) fn also(&self, fd: RawFd) -> io::Result<()> {
        let event = EpollEvent::new(EventSet::IN, 1);
        self.0.ctl(ControlOperation::Add, fd, event)
    }

    /// Waits until a descriptor is ready.
    pub(crate) fn wait(&self) -> io::Result<()> {
        let mut events = [EpollEvent::default(); 4];
        while self.0.wait(-1, &mut events)? == 0 {}
        Ok(())
    }
}
