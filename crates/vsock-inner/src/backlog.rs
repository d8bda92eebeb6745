// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Connections that wait to be accepted, at a backend or at a listener.
//!
//! Threads, a descriptor and tasks can wait for the next connection, all under one lock. Wakers,
//! and anything else that can wake a peer, are dropped or called after the lock is released.

use std::collections::VecDeque;
use std::mem;
use std::sync::PoisonError;
use std::task::{Poll, Waker};
use std::time::{Duration, Instant};

use crate::cancels::Cancels;
use crate::ready_fd::ReadyFd;
use crate::stream::VsockInnerStream;
use crate::sync::{Arc, Condvar, EventFd, Mutex, MutexGuard};
use crate::task::Task;
use crate::tasks::Tasks;

/// With fewer connections than this, abandoned requests are not searched for.
const FEW: usize = 16;

/// A bounded queue with a descriptor that is readable exactly while an accept would not wait.
#[derive(Debug)]
pub(crate) struct Backlog {
    limit: usize,
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Debug)]
struct State {
    waiting: Waiting,
    /// The queue length at which abandoned requests are searched for again.
    look_at: usize,
    /// Number of threads that sleep in `pop`. A notification costs a system call even if it is
    /// zero.
    sleepers: usize,
    tasks: Tasks,
    /// The descriptor, once it is polled. Until then it costs nothing.
    fd: Option<ReadyFd>,
    cancels: Cancels,
}

#[derive(Debug)]
enum Waiting {
    Open(VecDeque<VsockInnerStream>),
    /// No more connections can be accepted.
    Closed,
}

/// Why a connection was not queued. The connection and its other end are dropped.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum PushError {
    /// The backlog already contains this many connections, its limit.
    Full(usize),
    /// No more connections can be accepted.
    Closed,
}

/// Why no connection was returned.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum PopError {
    /// No connection waits.
    Empty,
    /// No connection will ever arrive.
    Closed,
    /// The deadline came first.
    TimedOut,
    /// The wait was cancelled.
    Cancelled,
}

impl Backlog {
    pub(crate) fn new(limit: usize) -> Self {
        Self {
            limit,
            state: Mutex::new(State {
                waiting: Waiting::Open(VecDeque::new()),
                look_at: FEW,
                sleepers: 0,
                tasks: Tasks::default(),
                fd: None,
                cancels: Cancels::default(),
            }),
            changed: Condvar::new(),
        }
    }

    /// Whether a connection would be refused now, so that it need not be created.
    pub(crate) fn check(&self) -> Result<(), PushError> {
        self.lock().room(self.limit).map(drop)
    }

    /// Drops requests whose openers have left, if there may be many. Each occupies a descriptor and
    /// a place, and it may be long before a device takes them.
    pub(crate) fn drop_given_up(&self) {
        let given_up = self.lock().take_given_up(self.limit);
        // Not under the lock: this wakes the other ends.
        drop(given_up);
    }

    pub(crate) fn push(&self, stream: VsockInnerStream) -> Result<(), PushError> {
        let mut state = self.lock();
        state.room(self.limit)?.push_back(stream);
        state.settle();
        let sleepers = state.sleepers;
        let tasks = state.tasks.wake_all();
        drop(state);
        if sleepers > 0 {
            self.changed.notify_one();
        }
        tasks.into_iter().for_each(Task::wake);
        Ok(())
    }

    /// Returns the next connection, if one waits.
    pub(crate) fn try_pop(&self) -> Result<VsockInnerStream, PopError> {
        self.lock().pop()
    }

    /// Returns the next connection. Waits for it until `deadline`.
    pub(crate) fn pop(&self, deadline: Option<Instant>) -> Result<VsockInnerStream, PopError> {
        let mut state = self.lock();
        let since = state.cancels;
        loop {
            // A connection that waits is returned even if waits are cancelled.
            match state.pop() {
                Err(PopError::Empty) => {}
                popped => return popped,
            }
            if state.cancels.end(since) {
                return Err(PopError::Cancelled);
            }
            // The condition variable may wake spuriously, so the remaining time is computed again.
            let left = deadline.map(|deadline| deadline.saturating_duration_since(Instant::now()));
            if left.is_some_and(|left| left.is_zero()) {
                return Err(PopError::TimedOut);
            }
            state.sleepers += 1;
            state = self.wait(state, left);
            state.sleepers -= 1;
        }
    }

    /// Returns the next connection, or leaves a waker that is woken when one arrives.
    pub(crate) fn poll_pop(&self, waker: &Waker) -> Poll<Result<VsockInnerStream, PopError>> {
        let mut fresh: Option<Task> = None;
        loop {
            // Declared before the lock, so that removed tasks are dropped after the lock is
            // released.
            let cancelled;
            let mut state = self.lock();
            cancelled = state.tasks.take_cancelled(waker);
            match state.pop() {
                Err(PopError::Empty) => {}
                popped => return Poll::Ready(popped),
            }
            if !cancelled.is_empty() || state.cancels.end(state.cancels) {
                return Poll::Ready(Err(PopError::Cancelled));
            }
            // What is kept are clones, which can differ from their originals but not from each
            // other. So also compare the clone.
            let own = fresh.as_ref().and_then(Task::waker);
            if state.tasks.has(waker) || own.is_some_and(|own| state.tasks.has(own)) {
                return Poll::Pending;
            }
            if let Some(task) = fresh.take() {
                // The waker was cloned without the lock, and nothing arrived in the meantime.
                let others = state.tasks.push(task);
                drop(state);
                others.into_iter().for_each(Task::wake);
                return Poll::Pending;
            }
            // Cloning a waker runs a caller's code: unlock, clone it, and look again.
            drop(state);
            fresh = Some(Task::new(waker));
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

    /// Ends all current waits, and every later one until [`resume`](Self::resume).
    pub(crate) fn cancel(&self) {
        let mut state = self.lock();
        state.cancels = state.cancels.cancelled();
        let tasks = state.tasks.cancel_all();
        drop(state);
        self.changed.notify_all();
        tasks.iter().for_each(|task| task.wake_by_ref());
    }

    /// Lets callers wait again.
    pub(crate) fn resume(&self) {
        let mut state = self.lock();
        state.cancels = state.cancels.resumed();
    }

    /// Resets the waiting connections, refuses further ones, and wakes all waiters.
    pub(crate) fn close(&self) {
        let mut state = self.lock();
        let waiting = mem::replace(&mut state.waiting, Waiting::Closed);
        state.settle();
        let tasks = state.tasks.wake_all();
        let cancelled = state.tasks.forget_cancelled();
        drop(state);
        self.changed.notify_all();
        tasks.into_iter().for_each(Task::wake);
        drop(cancelled); // not under the lock: this drops wakers
        // Not under the lock: this wakes the other ends.
        if let Waiting::Open(waiting) = waiting {
            waiting.into_iter().for_each(VsockInnerStream::abort);
        }
    }

    pub(crate) fn len(&self) -> usize {
        match &self.lock().waiting {
            Waiting::Open(waiting) => waiting.len(),
            Waiting::Closed => 0,
        }
    }

    /// Keeps `fd` readable exactly while an accept would not wait, from now on.
    pub(crate) fn take_fd(&self, fd: &Arc<EventFd>) {
        let mut state = self.lock();
        state.fd.get_or_insert_with(|| ReadyFd::readable(fd));
        state.settle();
    }

    /// Closes the descriptor: the end that polled it is being dropped.
    pub(crate) fn close_fd(&self) {
        self.lock().fd = None;
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    /// The queue, if it has room for another connection.
    fn room(&mut self, limit: usize) -> Result<&mut VecDeque<VsockInnerStream>, PushError> {
        match &mut self.waiting {
            Waiting::Closed => Err(PushError::Closed),
            Waiting::Open(waiting) if waiting.len() >= limit => Err(PushError::Full(limit)),
            Waiting::Open(waiting) => Ok(waiting),
        }
    }

    /// Removes the requests whose openers have left. Searches only if the queue is full or has
    /// doubled since the last search, so the cost per connection does not depend on the queue's
    /// length.
    fn take_given_up(&mut self, limit: usize) -> VecDeque<VsockInnerStream> {
        let mut given_up = VecDeque::new();
        let Waiting::Open(waiting) = &mut self.waiting else {
            return given_up;
        };
        if waiting.len() < self.look_at.min(limit) {
            return given_up;
        }
        if waiting.iter().any(VsockInnerStream::is_given_up) {
            (given_up, *waiting) = mem::take(waiting)
                .into_iter()
                .partition(VsockInnerStream::is_given_up);
        }
        self.look_at = FEW.max(waiting.len().saturating_mul(2));
        self.settle();
        given_up
    }

    fn pop(&mut self) -> Result<VsockInnerStream, PopError> {
        let Waiting::Open(waiting) = &mut self.waiting else {
            return Err(PopError::Closed);
        };
        let next = waiting.pop_front().ok_or(PopError::Empty)?;
        self.settle();
        Ok(next)
    }

    /// Makes the descriptor show whether an accept would return without waiting.
    fn settle(&mut self) {
        let ready = match &self.waiting {
            Waiting::Open(waiting) => !waiting.is_empty(),
            Waiting::Closed => true,
        };
        if let Some(fd) = &mut self.fd {
            fd.set_ready(ready);
        }
    }
}
