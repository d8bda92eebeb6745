// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! The descriptors of a loop: its epoll, what it watches of each, its timer and its waker.

use std::io;
use std::os::fd::{AsRawFd, RawFd};
use std::time::{Duration, Instant};

use vmm_sys_util::epoll::{ControlOperation, Epoll, EpollEvent, EventSet};
use vmm_sys_util::eventfd::{EFD_CLOEXEC, EFD_NONBLOCK, EventFd};
use vmm_sys_util::timerfd::TimerFd;

use crate::LoopError;

/// What never has to be read: each change is an event.
pub(crate) const EDGE: EventSet = EventSet::IN.union(EventSet::EDGE_TRIGGERED);

/// An epoll of a loop's own. Only this one descriptor is known to the VMM's loop.
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

    /// An eventfd that is watched. Each write to it is an edge, so it is never read.
    pub(crate) fn eventfd(&self, word: u64) -> Result<EventFd, LoopError> {
        let made = EventFd::new(EFD_NONBLOCK | EFD_CLOEXEC).and_then(|eventfd| {
            self.add(eventfd.as_raw_fd(), EDGE, word)?;
            Ok(eventfd)
        });
        made.map_err(|source| LoopError::Descriptor {
            what: "eventfd",
            source,
        })
    }

    pub(crate) fn change(&self, fd: RawFd, events: EventSet, word: u64) -> io::Result<()> {
        let event = EpollEvent::new(events, word);
        self.0.ctl(ControlOperation::Modify, fd, event)
    }

    pub(crate) fn remove(&self, fd: RawFd) -> io::Result<()> {
        let event = EpollEvent::default();
        self.0.ctl(ControlOperation::Delete, fd, event)
    }

    /// What is ready now, without waiting.
    pub(crate) fn ready(&self, events: &mut [EpollEvent]) -> Result<usize, LoopError> {
        self.wait(0, events)
    }

    /// Waits for something to be ready, for `millis` milliseconds at most; -1 waits for ever.
    pub(crate) fn wait(&self, millis: i32, events: &mut [EpollEvent]) -> Result<usize, LoopError> {
        match self.0.wait(millis, events) {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => Ok(0),
            result => result.map_err(LoopError::Wait),
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
        match (self.events.is_empty(), events.is_empty()) {
            (true, _) => to.add(self.fd, events, word)?,
            (_, true) => to.remove(self.fd)?,
            _ => to.change(self.fd, events, word)?,
        }
        self.events = events;
        Ok(())
    }
}

/// Wakes the loop for what no descriptor of a stream tells.
#[derive(Debug)]
pub(crate) struct OwnWaker {
    eventfd: EventFd,
    /// The loop was woken, and has not looked since.
    pending: bool,
}

impl OwnWaker {
    pub(crate) fn new(watcher: &Watcher, word: u64) -> Result<Self, LoopError> {
        Ok(Self {
            eventfd: watcher.eventfd(word)?,
            pending: false,
        })
    }

    /// Makes the loop wake. Only the first call until it does costs a system call.
    pub(crate) fn wake(&mut self) {
        // It cannot fail: the counter has a place for each wake-up of the next centuries.
        self.pending = self.pending || self.eventfd.write(1).is_ok();
    }

    /// The loop has woken for it.
    pub(crate) fn woken(&mut self) {
        self.pending = false;
    }
}

/// One `timerfd`, which is set only where it would fire too late, so it may fire before anything is
/// due. It is watched edge-triggered: each firing is an edge, so it is never read.
#[derive(Debug)]
pub(crate) struct Timer {
    timer: TimerFd,
    /// When it fires.
    at: Option<Instant>,
}

impl Timer {
    pub(crate) fn new(watcher: &Watcher, word: u64) -> Result<Self, LoopError> {
        let made = TimerFd::new().map_err(io::Error::from).and_then(|timer| {
            watcher.add(timer.as_raw_fd(), EDGE, word)?;
            Ok(Self { timer, at: None })
        });
        made.map_err(|source| LoopError::Descriptor {
            what: "timerfd",
            source,
        })
    }

    /// Lets it fire at that moment, if it would not fire before anyway.
    pub(crate) fn fire_by(&mut self, at: Instant) -> Result<(), LoopError> {
        if self.at.is_some_and(|set| set <= at) {
            return Ok(());
        }
        // A time of zero would disarm it.
        let left = at.saturating_duration_since(Instant::now());
        let set = self.timer.reset(left.max(Duration::from_nanos(1)), None);
        set.map_err(|error| LoopError::Timer(error.into()))?;
        self.at = Some(at);
        Ok(())
    }

    /// It has fired.
    pub(crate) fn fired(&mut self) {
        self.at = None;
    }
}
