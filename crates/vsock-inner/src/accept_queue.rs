// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Connections that wait to be accepted, at a backend or at a listener.

use std::collections::VecDeque;
use std::io;
use std::sync::PoisonError;
use std::time::{Duration, Instant};

use crate::bell::{Bell, Polled};
use crate::stream::VsockInnerStream;
use crate::sync::{Arc, Condvar, EventFd, Mutex, MutexGuard};

/// A bounded queue with a descriptor that is readable exactly while there is something to accept.
#[derive(Debug)]
pub(crate) struct AcceptQueue {
    limit: usize,
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Debug)]
struct State {
    waiting: VecDeque<VsockInnerStream>,
    /// Threads that sleep in `pop`: a notification is a system call even if there are none.
    sleepers: usize,
    bell: Bell,
    /// Whether somebody polls the descriptor. Until then nothing is spent on it.
    taken: bool,
    closed: bool,
    /// Counts changes of "waits are cancelled"; they are while it is odd.
    cancels: u64,
}

/// Why a connection was not queued. It is dropped, and so is its other end.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Refused {
    /// So many connections wait already.
    Full(usize),
    /// Nobody will accept any more.
    Closed,
}

/// Why a wait for a connection has ended without one.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum GaveUp {
    /// Nothing will come.
    Closed,
    /// The deadline came first.
    TimedOut,
    /// Somebody has cancelled.
    Cancelled,
}

/// The queue is closed: nothing will come.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) struct Closed;

impl AcceptQueue {
    /// A queue, and its descriptor, which is whoever's who accepts.
    pub(crate) fn new(limit: usize) -> io::Result<(Self, Arc<EventFd>)> {
        let mut bell = Bell::new(Polled::In);
        let fd = bell.install()?;
        let state = State {
            waiting: VecDeque::new(),
            sleepers: 0,
            bell,
            taken: false,
            closed: false,
            cancels: 0,
        };
        let queue = Self {
            limit,
            state: Mutex::new(state),
            changed: Condvar::new(),
        };
        Ok((queue, fd))
    }

    /// Whether a connection would be refused now; spares to make one in vain.
    pub(crate) fn check(&self) -> Result<(), Refused> {
        self.lock().check(self.limit)
    }

    pub(crate) fn push(&self, stream: VsockInnerStream) -> Result<(), Refused> {
        let mut state = self.lock();
        state.check(self.limit)?;
        state.waiting.push_back(stream);
        state.settle();
        let sleepers = state.sleepers;
        drop(state);
        if sleepers > 0 {
            self.changed.notify_one();
        }
        Ok(())
    }

    /// The next connection, if one waits.
    pub(crate) fn try_pop(&self) -> Result<Option<VsockInnerStream>, Closed> {
        let mut state = self.lock();
        match state.pop() {
            None if state.closed => Err(Closed),
            next => Ok(next),
        }
    }

    /// The next connection; waits for it, at most until `deadline`.
    pub(crate) fn pop(&self, deadline: Option<Instant>) -> Result<VsockInnerStream, GaveUp> {
        let mut state = self.lock();
        let since = state.cancels;
        loop {
            if let Some(stream) = state.pop() {
                return Ok(stream);
            }
            if state.closed {
                return Err(GaveUp::Closed);
            }
            if state.cancels != since || state.is_cancelled() {
                return Err(GaveUp::Cancelled);
            }
            let left = deadline.map(|deadline| deadline.saturating_duration_since(Instant::now()));
            if left.is_some_and(|left| left.is_zero()) {
                return Err(GaveUp::TimedOut);
            }
            state.sleepers += 1;
            state = self.wait(state, left);
            state.sleepers -= 1;
        }
    }

    fn wait<'a>(
        &self,
        state: MutexGuard<'a, State>,
        left: Option<Duration>,
    ) -> MutexGuard<'a, State> {
        let Some(left) = left else {
            let woken = self.changed.wait(state);
            return woken.unwrap_or_else(PoisonError::into_inner);
        };
        let woken = self.changed.wait_timeout(state, left);
        woken.unwrap_or_else(PoisonError::into_inner).0
    }

    /// Ends every wait, and every later one, until [`resume`](Self::resume).
    pub(crate) fn cancel(&self) {
        self.lock().set_cancelled(true);
        self.changed.notify_all();
    }

    /// Lets callers wait again.
    pub(crate) fn resume(&self) {
        self.lock().set_cancelled(false);
    }

    /// Resets what waits, refuses what comes, and wakes everybody.
    pub(crate) fn close(&self) {
        let mut state = self.lock();
        state.closed = true;
        let waiting = std::mem::take(&mut state.waiting);
        state.settle();
        drop(state);
        self.changed.notify_all();
        // Not under the lock: this wakes the other ends.
        for stream in waiting {
            stream.abort();
        }
    }

    /// Lets go of the descriptor: whoever polled it is being dropped.
    pub(crate) fn close_fd(&self) {
        self.lock().bell.close();
    }

    pub(crate) fn len(&self) -> usize {
        self.lock().waiting.len()
    }

    /// From now on the descriptor is kept readable exactly while there is something to accept.
    pub(crate) fn take_fd(&self) {
        let mut state = self.lock();
        state.taken = true;
        state.settle();
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn check(&self, limit: usize) -> Result<(), Refused> {
        match self.closed {
            true => Err(Refused::Closed),
            false if self.waiting.len() >= limit => Err(Refused::Full(limit)),
            false => Ok(()),
        }
    }

    fn is_cancelled(&self) -> bool {
        self.cancels % 2 == 1
    }

    fn set_cancelled(&mut self, cancelled: bool) {
        if self.is_cancelled() != cancelled {
            self.cancels += 1;
        }
    }

    fn pop(&mut self) -> Option<VsockInnerStream> {
        let next = self.waiting.pop_front()?;
        self.settle();
        Some(next)
    }

    fn settle(&mut self) {
        if self.taken {
            self.bell.show(self.closed || !self.waiting.is_empty());
        }
    }
}
