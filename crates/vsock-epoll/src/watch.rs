// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! The descriptors of a loop: its epoll, what it watches of whom, its timer and its kick.

use std::io;
use std::os::fd::{AsRawFd, RawFd};
use std::time::{Duration, Instant};

use vmm_sys_util::epoll::{ControlOperation, Epoll, EpollEvent, EventSet};
use vmm_sys_util::eventfd::{EFD_NONBLOCK, EventFd};
use vmm_sys_util::timerfd::TimerFd;

use crate::LoopError;

/// The word of the kick in the epoll. No id has generation zero.
pub(crate) const KICK: u64 = 0;
/// The word of the timer in the epoll.
pub(crate) const TIMER: u64 = 1;

/// An epoll of a subscriber's own. Only this one descriptor is known to the VMM's loop.
#[derive(Debug)]
pub(crate) struct Watcher(Epoll);

impl Watcher {
    pub(crate) fn new() -> Result<Self, LoopError> {
        let made = Epoll::new();
        made.map(Self).map_err(|source| LoopError::Descriptor {
            what: "epoll",
            source,
        })
    }

    pub(crate) fn add(&self, fd: RawFd, events: EventSet, word: u64) -> io::Result<()> {
        let event = EpollEvent::new(events, word);
        self.0.ctl(ControlOperation::Add, fd, event)
    }

    /// What is ready now, without waiting.
    pub(crate) fn ready(&self, events: &mut [EpollEvent]) -> io::Result<usize> {
        match self.0.wait(0, events) {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => Ok(0),
            result => result,
        }
    }
}

impl AsRawFd for Watcher {
    fn as_raw_fd(&self) -> RawFd {
        self.0.as_raw_fd()
    }
}

/// A descriptor, and what is watched of it. Nothing watched is nothing registered: of a registered
/// descriptor the kernel always reports `HUP` and `ERR`, again and again.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Watched {
    fd: RawFd,
    events: EventSet,
}

impl Watched {
    pub(crate) fn nothing_of(fd: RawFd) -> Self {
        Self {
            fd,
            events: EventSet::empty(),
        }
    }

    pub(crate) fn fd(&self) -> RawFd {
        self.fd
    }

    pub(crate) fn set(&mut self, to: &Watcher, events: EventSet, word: u64) -> io::Result<()> {
        if events == self.events {
            return Ok(());
        }
        let operation = match (self.events.is_empty(), events.is_empty()) {
            (true, _) => ControlOperation::Add,
            (_, true) => ControlOperation::Delete,
            _ => ControlOperation::Modify,
        };
        to.0.ctl(operation, self.fd, EpollEvent::new(events, word))?;
        self.events = events;
        Ok(())
    }
}

/// Wakes the loop for what no descriptor of a stream tells.
#[derive(Debug)]
pub(crate) struct Kick {
    eventfd: EventFd,
    given: bool,
}

impl Kick {
    pub(crate) fn new(watcher: &Watcher) -> Result<Self, LoopError> {
        let cannot = |source| LoopError::Descriptor {
            what: "eventfd",
            source,
        };
        let eventfd = EventFd::new(EFD_NONBLOCK).map_err(cannot)?;
        let fd = eventfd.as_raw_fd();
        watcher.add(fd, EventSet::IN, KICK).map_err(cannot)?;
        Ok(Self {
            eventfd,
            given: false,
        })
    }

    /// Makes the loop wake, or not. It costs a system call only where that is a change.
    pub(crate) fn set(&mut self, given: bool) {
        if given == self.given {
            return;
        }
        // Neither can fail: the count is zero or one.
        let done = if given {
            self.eventfd.write(1)
        } else {
            self.eventfd.read().map(drop)
        };
        if done.is_ok() {
            self.given = given;
        }
    }
}

/// One `timerfd`, which is set only when the moment changes. It is never read: setting it again takes
/// back its readiness, and reading one that has not fired would wait.
#[derive(Debug)]
pub(crate) struct Timer {
    timer: TimerFd,
    at: Option<Instant>,
    fired: bool,
}

impl Timer {
    pub(crate) fn new(watcher: &Watcher) -> Result<Self, LoopError> {
        let cannot = |source| LoopError::Descriptor {
            what: "timerfd",
            source,
        };
        let timer = TimerFd::new().map_err(|error| cannot(error.into()))?;
        let fd = timer.as_raw_fd();
        watcher.add(fd, EventSet::IN, TIMER).map_err(cannot)?;
        Ok(Self {
            timer,
            at: None,
            fired: false,
        })
    }

    /// To fire at that moment, or never.
    pub(crate) fn set(&mut self, at: Option<Instant>) -> Result<(), LoopError> {
        if at == self.at && !self.fired {
            return Ok(());
        }
        let set = match at {
            // A time of zero would disarm it.
            Some(at) => {
                let left = at.saturating_duration_since(Instant::now());
                self.timer.reset(left.max(Duration::from_nanos(1)), None)
            }
            None => self.timer.clear(),
        };
        set.map_err(|error| LoopError::Timer(error.into()))?;
        self.at = at;
        self.fired = false;
        Ok(())
    }

    /// It has fired: it stays ready until it is set anew, be it to nothing.
    pub(crate) fn fired(&mut self) {
        self.fired = true;
    }

    /// When it fires.
    pub(crate) fn at(&self) -> Option<Instant> {
        self.at
    }
}
