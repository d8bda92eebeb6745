// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! The doorbell: one side publishes its position, the other waits for it.
//!
//! A pipe has two: the writer publishes in the *data* doorbell and the reader waits there; the reader
//! publishes in the *space* doorbell and the writer waits there. `docs/concurrency.md` has the
//! argument; in short:
//!
//! - A side that finds nothing to do arms the word ([`PARKED`] for its thread, [`FD`] for its
//!   descriptor, [`TASK`] for its task) by an atomic change that fails if the position has been
//!   reached in the meantime.
//! - Publishing is one atomic addition to the same word. It returns the flags that were set before,
//!   and only if the word was armed it costs more than that.
//! - Everything else happens under the lock of the doorbell: making a descriptor ready or not, going to
//!   sleep, leaving a waker or taking it out, cancelling that, closing the descriptor. So a wake-up
//!   in flight can neither be lost nor come too late.
//! - Wakers run a caller's code. They are cloned, woken and dropped outside the lock.
//!
//! All orderings are acquire-release, at one location each. There is no fence, and none is missing.

use std::mem;
use std::sync::PoisonError;
use std::task::{Poll, Waker};
use std::time::Instant;

use crate::cancels::Cancels;
use crate::ready_fd::ReadyFd;
use crate::sync::{AtomicBool, AtomicU64, Condvar, Mutex, MutexGuard, Ordering};
use crate::task::Task;
use crate::word::{ARMED, CONNECTING, FD, PARKED, Position, TASK, Word};

/// See the documentation of the module.
#[derive(Debug)]
pub(crate) struct Doorbell {
    word: CachePadded<AtomicU64>,
    /// The position that the waiting side waits for, of use while the word is armed.
    want: AtomicU64,
    /// Whether the waiting side has taken its descriptor, for a look without the lock: set under it, by
    /// that side alone.
    taken: AtomicBool,
    /// Changed under the lock.
    cancels: AtomicU64,
    sleepers: Mutex<Sleepers>,
    parked: Condvar,
}

/// What the waiting side has left to be woken by, other than its own thread.
#[derive(Debug, Default)]
struct Sleepers {
    /// The descriptor that it polls, from when it is taken until it is closed.
    fd: Option<ReadyFd>,
    /// Its task, stored exactly while the word has the flag [`TASK`].
    task: Option<Task>,
}

/// How a wait has ended.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Waited {
    /// The position is there, or the direction has ended.
    Ready,
    /// The deadline came first.
    TimedOut,
    /// A cancellation came first.
    Cancelled,
}

/// Keeps what one thread writes all the time off the cache lines of everything else. Two lines,
/// because processors fetch them in pairs.
#[derive(Debug)]
#[repr(align(128))]
struct CachePadded<T>(T);

impl Doorbell {
    pub(crate) fn new() -> Self {
        Self {
            word: CachePadded(AtomicU64::new(0)),
            want: AtomicU64::new(0),
            taken: AtomicBool::new(false),
            cancels: AtomicU64::new(Cancels::default().to_bits()),
            sleepers: Mutex::new(Sleepers::default()),
            parked: Condvar::new(),
        }
    }

    /// The published position and the flags.
    #[inline]
    pub(crate) fn load(&self) -> Word {
        // ORDER: Acquire; partner: the release in `publish` and `end`. What was written before the
        // position was published is seen by a thread that sees the position.
        Word(self.word.0.load(Ordering::Acquire))
    }

    /// The flags as the publishing side sees them; it knows the position anyway.
    #[inline]
    pub(crate) fn peek(&self) -> Word {
        // ORDER: Relaxed; partner: none. Only flags are looked at, which guard no memory: one that
        // was set in a call that has ended is seen by coherence.
        Word(self.word.0.load(Ordering::Relaxed))
    }

    /// Advances the position by `bytes`, and wakes the side that waits for it.
    #[inline]
    pub(crate) fn publish(&self, bytes: u64) {
        // ORDER: AcqRel; partners: the release makes the bytes (or the space) visible to `load`; the
        // acquire makes `want` visible, which `arm` released with its flag.
        let before = Word(self.word.0.fetch_add(Word::step(bytes), Ordering::AcqRel));
        if before.has(ARMED) {
            self.published_while_armed(before.position().advanced_by(bytes));
        }
    }

    #[cold]
    fn published_while_armed(&self, position: Position) {
        // A glance without the lock: a reader that takes little by little would otherwise lock for
        // each piece until there is enough space. The flag was seen, so at least its `want` is; a
        // newer one is followed by a change of the word that sees our position.
        if position.reached(self.wanted()) {
            self.wake();
        }
    }

    /// Marks an end of the direction, and wakes the side that waits. Which end it is, `reason` derives from
    /// the word before; that one is returned, with the flags of the end. Nothing is published between
    /// the two.
    pub(crate) fn end(&self, reason: impl Fn(Word) -> u64) -> (Word, u64) {
        let ended = |word| Some(word | reason(Word(word)));
        // ORDER: AcqRel; partners: as in `publish`. Acquire of the failure is for the next attempt.
        let before = self
            .word
            .0
            .fetch_update(Ordering::AcqRel, Ordering::Acquire, ended);
        let before = Word(before.unwrap_or_else(|word| word)); // it never refuses
        if before.has(ARMED) {
            self.wake();
        }
        (before, reason(before))
    }

    /// Makes no position count for the waiting side, until it is [connected](Self::set_connected);
    /// before it shares the doorbell.
    pub(crate) fn set_connecting(&self) {
        // ORDER: Relaxed; partner: none, the doorbell is not shared yet.
        self.word.0.fetch_or(CONNECTING, Ordering::Relaxed);
    }

    /// Makes positions count, and wakes the side that waits for one that is there.
    pub(crate) fn set_connected(&self) {
        // ORDER: AcqRel; partners: as in `publish`; what was done before is seen by the side that waited.
        let before = Word(self.word.0.fetch_and(!CONNECTING, Ordering::AcqRel));
        if before.has(TASK) {
            self.wake_task(); // it may wait for the connection, and not for space
        }
        if before.has(ARMED) {
            self.wake();
        }
    }

    /// Wakes the side that has armed the word, if what it waits for is there. Afterwards it is awake, whichever
    /// thread did it.
    pub(crate) fn wake(&self) {
        let mut sleepers = self.lock();
        // The flag that was seen may be an old one: its wait can be over, and the next one want more.
        if !self.load().is_ready(self.wanted()) {
            return;
        }
        let before = self.disarm(ARMED);
        if let Some(fd) = &mut sleepers.fd
            && before.has(FD)
        {
            fd.set_ready(true);
        }
        let task = sleepers.task.take();
        // Not under the lock, for which the thread that wakes would have to wait.
        drop(sleepers);
        if before.has(PARKED) {
            self.parked.notify_one();
        }
        if let Some(task) = task {
            task.wake();
        }
    }

    /// Wakes the task, if one sleeps, even if the task would still have to wait.
    #[cold]
    fn wake_task(&self) {
        let mut sleepers = self.lock();
        self.disarm(TASK);
        let task = sleepers.task.take();
        drop(sleepers);
        if let Some(task) = task {
            task.wake();
        }
    }

    /// Makes a new edge at the descriptor, if it was taken: something has happened that its owner
    /// may want to know although the descriptor was ready before.
    pub(crate) fn new_edge(&self) {
        if let Some(fd) = &mut self.lock().fd {
            self.disarm(FD);
            fd.new_edge();
        }
    }

    /// Sleeps until the position is `want`, or the direction ends, or the deadline comes, or a canceller
    /// cancels after `since`, or has done so.
    pub(crate) fn wait(&self, want: Position, deadline: Option<Instant>, since: Cancels) -> Waited {
        let mut sleepers = self.lock();
        self.set_wanted(want);
        // `arm` refuses once the position is there, so no wake-up between the look and the sleep is lost. It is
        // repeated after each wake-up, which may be spurious.
        while self.arm(PARKED, want) {
            if self.cancels().end(since) {
                return self.stop_waiting(PARKED, want, Waited::Cancelled);
            }
            sleepers = match deadline {
                None => {
                    let woken = self.parked.wait(sleepers);
                    woken.unwrap_or_else(PoisonError::into_inner)
                }
                Some(deadline) => {
                    let left = deadline.saturating_duration_since(Instant::now());
                    if left.is_zero() {
                        return self.stop_waiting(PARKED, want, Waited::TimedOut);
                    }
                    let woken = self.parked.wait_timeout(sleepers, left);
                    woken.unwrap_or_else(PoisonError::into_inner).0
                }
            };
        }
        Waited::Ready
    }

    /// Leaves the waker of a task, to be woken once when [`wait`](Self::wait) would end, unless
    /// that would be immediately. Replaces a waker that was left before.
    pub(crate) fn poll_wait(&self, waker: &Waker, want: Position, since: Cancels) -> Poll<Waited> {
        // A look without the lock: only this side leaves a task, and the flag changes with it.
        // After a wake-up, the usual case, there is no task, and the lock is taken only once.
        let mut fresh = (!self.load().has(TASK)).then(|| Task::new(waker));
        // Declared before the lock, so that a task taken out is dropped after the lock is released.
        let _old;
        let mut sleepers = self.lock();
        let stays = |sleepers: &Sleepers| sleepers.task.as_ref().is_some_and(|task| task.is(waker));
        if fresh.is_none() && !stays(&sleepers) {
            drop(sleepers);
            fresh = Some(Task::new(waker));
            sleepers = self.lock();
        }
        self.set_wanted(want);
        let waited = if !self.arm(TASK, want) {
            Waited::Ready
        } else if self.cancels().end(since) {
            self.stop_waiting(TASK, want, Waited::Cancelled)
        } else {
            // The word has changed before this: a wake-up that has seen it waits for the lock.
            _old = fresh.take().and_then(|fresh| sleepers.task.replace(fresh));
            return Poll::Pending;
        };
        self.disarm(TASK);
        _old = sleepers.task.take();
        Poll::Ready(waited)
    }

    /// Under the lock: ends the sleep of this flag's sleeper, for the reason `why` unless the
    /// position has been reached in the meantime.
    fn stop_waiting(&self, sleeper: u64, want: Position, why: Waited) -> Waited {
        if self.disarm(sleeper).is_ready(want) {
            Waited::Ready
        } else {
            why
        }
    }

    /// Ends the wait of this side, and every later one, until [`resume`](Self::resume).
    pub(crate) fn cancel(&self) {
        self.change_cancels(Cancels::cancelled);
        // The change was made under the lock before this: a side that waits has seen it, or is
        // asleep.
        self.parked.notify_one();
        self.wake_task();
    }

    /// Lets this side wait again.
    pub(crate) fn resume(&self) {
        self.change_cancels(Cancels::resumed);
    }

    fn change_cancels(&self, change: impl Fn(Cancels) -> Cancels) {
        let _locked = self.lock();
        let cancels = change(self.cancels()).to_bits();
        // ORDER: Relaxed; partner: `cancels` in `wait`, under the same lock. A side that polls looks again.
        self.cancels.store(cancels, Ordering::Relaxed);
    }

    /// Now, as cancellations count: for a call that begins.
    pub(crate) fn cancels(&self) -> Cancels {
        // ORDER: Relaxed; partner: `change_cancels`, before in the lock. What was cancelled and resumed
        // before a call, in an order that the caller has made, is seen by coherence; else the call may
        // end immediately, as if it had begun then.
        Cancels::from_bits(self.cancels.load(Ordering::Relaxed))
    }

    /// Keeps the descriptor that `make` makes ready exactly while the position is `want` or the
    /// direction has ended, unless this side has taken one before. To be followed by
    /// [`settle`](Self::settle) whenever `want` changes.
    pub(crate) fn take_fd(&self, want: Position, make: impl FnOnce() -> ReadyFd) {
        let fd = &mut self.lock().fd;
        if fd.is_none() {
            // ORDER: Relaxed; partner: `is_taken`, on this side.
            self.taken.store(true, Ordering::Relaxed);
            self.settle_locked(fd.insert(make()), want);
        }
    }

    #[inline]
    pub(crate) fn is_taken(&self) -> bool {
        // ORDER: Relaxed; partner: `take_fd`, on the same side.
        self.taken.load(Ordering::Relaxed)
    }

    /// Brings the descriptor in line, after this side has made `want` its next position.
    pub(crate) fn settle(&self, want: Position) {
        // Look before the lock: what the other side publishes meanwhile spares two system calls.
        if self.is_taken()
            && !self.load().is_ready(want)
            && let Some(fd) = &mut self.lock().fd
        {
            self.settle_locked(fd, want);
        }
    }

    /// Under the lock no wake-up is in flight: the descriptor shows what the last one left, and a
    /// side that sees the word armed anew has to wait until it shows what it should.
    fn settle_locked(&self, fd: &mut ReadyFd, want: Position) {
        self.set_wanted(want);
        let waits = self.arm(FD, want);
        if !waits {
            self.disarm(FD);
        }
        fd.set_ready(!waits);
    }

    /// Closes the descriptor and drops the task without waking it. A wake-up in flight has either
    /// happened before, or finds neither.
    pub(crate) fn close(&self) {
        let sleepers = mem::take(&mut *self.lock());
        drop(sleepers); // not under the lock
    }

    /// Sets a flag of those that arm the word, unless there is nothing to wait for.
    fn arm(&self, flag: u64, want: Position) -> bool {
        let armed = |word: u64| (!Word(word).is_ready(want)).then_some(word | flag);
        // ORDER: AcqRel; partners: the release publishes `want` to the acquire in `publish`; the
        // acquire, also of the failure, sees what a position that has come published.
        self.word
            .0
            .fetch_update(Ordering::AcqRel, Ordering::Acquire, armed)
            .is_ok()
    }

    /// Takes flags back that arm the word; returns it as it was.
    fn disarm(&self, flags: u64) -> Word {
        // ORDER: AcqRel; partners: as in `arm`.
        Word(self.word.0.fetch_and(!flags, Ordering::AcqRel))
    }

    fn wanted(&self) -> Position {
        // ORDER: Relaxed; partner: the word, by which `want` is published, or the lock.
        Position::from_bits(self.want.load(Ordering::Relaxed))
    }

    fn set_wanted(&self, want: Position) {
        // ORDER: Relaxed; partner: the word, by which `want` is published, or the lock.
        self.want.store(want.to_bits(), Ordering::Relaxed);
    }

    fn lock(&self) -> MutexGuard<'_, Sleepers> {
        self.sleepers.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What a poll of the descriptor would say.
    #[cfg(loom)]
    pub(crate) fn polls_ready(&self) -> bool {
        self.lock().fd.as_ref().is_some_and(ReadyFd::polls_ready)
    }

    /// How often an edge-triggered poll for `EPOLLIN` was woken.
    #[cfg(loom)]
    pub(crate) fn edges(&self) -> usize {
        self.lock().fd.as_ref().map_or(0, ReadyFd::edges)
    }
}
