// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! The descriptors of a loop: its epoll, what is watched on each descriptor, its timer and its
//! waker.

use std::io;
use std::os::fd::{AsRawFd, RawFd};
use std::time::{Duration, Instant};

use vmm_sys_util::epoll::{ControlOperation, Epoll, EpollEvent, EventSet};
use vmm_sys_util::eventfd::{EFD_CLOEXEC, EFD_NONBLOCK, EventFd};
use vmm_sys_util::timerfd::TimerFd;

use crate::LoopError;

/// For descriptors that are never read, because each change is an event.
pub(crate) const EDGE: EventSet = EventSet::IN.union(EventSet::EDGE_TRIGGERED);

/// The loop's own epoll. The VMM's loop needs to poll only this descriptor.
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

    /// Creates an eventfd and watches it. Each write to it is an edge, so it is never read.
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

    /// Polls for ready descriptors without waiting.
    pub(crate) fn ready(&self, events: &mut [EpollEvent]) -> Result<usize, LoopError> {
        self.wait(0, events)
    }

    /// Waits up to `millis` milliseconds for ready descriptors; -1 waits indefinitely.
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

/// A descriptor, and what is watched on it. If nothing is watched, it is not registered, because
/// the kernel reports `HUP` and `ERR` of a registered descriptor over and over.
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

/// Wakes the loop for an event that no descriptor of a stream reports.
#[derive(Debug)]
pub(crate) struct OwnWaker {
    eventfd: EventFd,
    /// The loop has been woken, and has not looked since.
    pending: bool,
}

impl OwnWaker {
    pub(crate) fn new(watcher: &Watcher, word: u64) -> Result<Self, LoopError> {
        Ok(Self {
            eventfd: watcher.eventfd(word)?,
            pending: false,
        })
    }

    /// Wakes the loop. Costs a system call only if no wake-up is pending.
    pub(crate) fn wake(&mut self) {
        // Cannot fail: the counter is large enough for centuries of wake-ups.
        self.pending = self.pending || self.eventfd.write(1).is_ok();
    }

    /// Called when the loop has woken.
    pub(crate) fn woken(&mut self) {
        self.pending = false;
    }
}

/// One `timerfd`. It is set only if it would fire too late, so it may fire before anything is due.
/// It is watched edge-triggered: each expiry is an edge, so it is never read.
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

    /// Makes it fire at `at`, unless it fires earlier anyway.
    pub(crate) fn fire_by(&mut self, at: Instant) -> Result<(), LoopError> {
        if self.at.is_some_and(|set| set <= at) {
            return Ok(());
        }
        // A duration of zero would disarm the timer.
        let left = at.saturating_duration_since(Instant::now());
        let set = self.timer.reset(left.max(Duration::from_nanos(1)), None);
        set.map_err(|error| LoopError::Timer(error.into()))?;
        self.at = Some(at);
        Ok(())
    }

    /// Called when it has fired.
    pub(crate) fn fired(&mut self) {
        self.at = None;
    }
}
