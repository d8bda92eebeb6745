// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! The doorbell: one side publishes its position, the other waits for it.
//!
//! A pipe has two: the writer publishes in the *data* doorbell and the reader waits there; the
//! reader publishes in the *space* doorbell and the writer waits there. `docs/concurrency.md` has
//! the argument; in short:
//!
//! - A side that finds nothing to do arms the word ([`PARKED`] for its thread, [`FD`] for its
//!   descriptor, [`TASK`] for its task) by an atomic change that fails if the position has been
//!   reached in the meantime.
//! - Publishing is one atomic addition to the same word. It returns the flags that were set before,
//!   and only if the word was armed it costs more than that.
//! - A task's waker lies in a [slot](TaskSlot) that belongs to the side that clears its flag. A
//!   publication clears it in the same change of the word: tasks that wake each other take no lock.
//! - Everything else happens under the lock: making a descriptor ready or not, going to sleep,
//!   cancelling that, closing the descriptor. So no wake-up in flight is lost or comes too late.
//! - Wakers run a caller's code. They are cloned, woken and dropped outside the lock.
//!
//! All orderings are acquire-release, at one location each. There is no fence, and none is missing.

use std::sync::PoisonError;
use std::task::{Poll, Waker};
use std::time::Instant;

use crate::cancels::Cancels;
use crate::ready_fd::ReadyFd;
use crate::sync::{AtomicBool, AtomicU64, Condvar, Mutex, MutexGuard, Ordering};
use crate::task::Task;
use crate::task_slot::{InFlight, TaskSlot};
use crate::word::{ARMED, CONNECTING, FD, PARKED, Position, TASK, Word};

/// See the documentation of the module.
#[derive(Debug)]
pub(crate) struct Doorbell {
    word: CachePadded<AtomicU64>,
    /// The position that the waiting side waits for, of use while the word is armed.
    want: AtomicU64,
    /// Whether the waiting side has taken its descriptor, for a look without the lock: set under
    /// it, by that side alone.
    taken: AtomicBool,
    /// Changed under the lock.
    cancels: AtomicU64,
    /// The task that the waiting side has left to be woken.
    task: TaskSlot,
    /// The descriptor on which the waiting side polls, from its taking to its closing.
    fd: Mutex<Option<ReadyFd>>,
    parked: Condvar,
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
            task: TaskSlot::new(),
            fd: Mutex::new(None),
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
        if self.peek().has(TASK) && self.published_to_task(bytes) {
            return;
        }
        // ORDER: AcqRel; partners: the release makes the bytes (or the space) visible to `load`;
        // the acquire makes `want` visible, which `arm` released with its flag.
        let before = Word(self.word.0.fetch_add(Word::step(bytes), Ordering::AcqRel));
        if before.has(ARMED) {
            self.published_while_armed(before, Word(before.0.wrapping_add(Word::step(bytes))));
        }
    }

    /// Advances the position and wakes the task that waits for it, in one change of the word. Does
    /// nothing if more or less than that is needed.
    fn published_to_task(&self, bytes: u64) -> bool {
        let before = self.load();
        let after = Word(before.0.wrapping_add(Word::step(bytes)));
        if before.has(PARKED | FD) || !before.has(TASK) || !after.is_ready(self.wanted()) {
            return false;
        }
        // The flag was seen, so at least its `want` is. If the word has changed and changed back, a
        // task sleeps that may wait for more: waking it too early costs it a look.
        self.task.wake_and_change(&self.word.0, before.0, after.0)
    }

    #[cold]
    fn published_while_armed(&self, before: Word, after: Word) {
        // A glance without the lock: a reader that takes little by little would otherwise lock for
        // each piece until there is enough space. The flag was seen, so at least its `want` is; a
        // newer one is followed by a change of the word that sees our position.
        if after.is_ready(self.wanted()) {
            self.wake_armed(before);
        }
    }

    /// Marks an end of the direction, and wakes the side that waits. Which end it is, `reason`
    /// derives from the word before; that one is returned, with the flags of the end. Nothing is
    /// published between the two.
    pub(crate) fn end(&self, reason: impl Fn(Word) -> u64) -> (Word, u64) {
        let ended = |word| Some(word | reason(Word(word)));
        // ORDER: AcqRel; partners: as in `publish`. Acquire of the failure is for the next attempt.
        let before = self
            .word
            .0
            .fetch_update(Ordering::AcqRel, Ordering::Acquire, ended);
        let before = Word(before.unwrap_or_else(|word| word)); // it never refuses
        self.wake_armed(before);
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
        // ORDER: AcqRel; partners: as in `publish`; what was done before is seen by the side that
        // waited.
        let before = Word(self.word.0.fetch_and(!CONNECTING, Ordering::AcqRel));
        self.wake_armed(before); // a task may wait for the connection, and not for space
    }

    /// Wakes those that have armed the word as it was before: the task in any case, which looks
    /// again.
    fn wake_armed(&self, before: Word) {
        if before.has(TASK) {
            self.task.wake(&self.word.0);
        }
        if before.has(PARKED | FD) {
            self.wake();
        }
    }

    /// Wakes the thread, and makes the descriptor ready, if what the side waits for is there.
    /// Afterwards it is so, whichever thread did it.
    pub(crate) fn wake(&self) {
        let mut fd = self.lock();
        // The flag that was seen may be an old one: its wait can be over, and the next one want
        // more.
        if !self.load().is_ready(self.wanted()) {
            return;
        }
        let before = self.disarm(PARKED | FD);
        if let Some(fd) = fd.as_mut().filter(|_| before.has(FD)) {
            fd.set_ready(true);
        }
        // Not under the lock, for which the thread that wakes would have to wait.
        drop(fd);
        if before.has(PARKED) {
            self.parked.notify_one();
        }
    }

    /// Makes a new edge at the descriptor, if it was taken: something has happened that its owner
    /// may want to know although the descriptor was ready before.
    pub(crate) fn new_edge(&self) {
        if let Some(fd) = &mut *self.lock() {
            self.disarm(FD);
            fd.new_edge();
        }
    }

    /// Sleeps until the position is `want`, or the direction ends, or the deadline comes, or a
    /// canceller cancels after `since`, or has done so.
    pub(crate) fn wait(&self, want: Position, deadline: Option<Instant>, since: Cancels) -> Waited {
        let mut fd = self.lock();
        self.set_wanted(want);
        // `arm` refuses once the position is there, so no wake-up between the look and the sleep is
        // lost. It is repeated after each wake-up, which may be spurious.
        while self.arm(PARKED, want) {
            if self.cancels().end(since) {
                return self.stop_waiting(PARKED, want, Waited::Cancelled);
            }
            fd = match deadline {
                None => {
                    let woken = self.parked.wait(fd);
                    woken.unwrap_or_else(PoisonError::into_inner)
                }
                Some(deadline) => {
                    let left = deadline.saturating_duration_since(Instant::now());
                    if left.is_zero() {
                        return self.stop_waiting(PARKED, want, Waited::TimedOut);
                    }
                    let woken = self.parked.wait_timeout(fd, left);
                    woken.unwrap_or_else(PoisonError::into_inner).0
                }
            };
        }
        Waited::Ready
    }

    /// Leaves the waker of a task, to be woken once when [`wait`](Self::wait) would end, unless
    /// that would be immediately. Replaces a waker that was left before.
    pub(crate) fn poll_wait(&self, waker: &Waker, want: Position, since: Cancels) -> Poll<Waited> {
        let left = match self.task.reclaim(&self.word.0) {
            Ok(left) => left,
            Err(InFlight) => {
                // It will wake the waker from before, and there is no place for this one: ask
                // again.
                waker.wake_by_ref();
                return Poll::Pending;
            }
        };
        // One that is replaced is dropped at the end, when this side's turn is over.
        let (task, _replaced) = match left {
            Some(task) if task.is(waker) => (task, None),
            other => (Task::new(waker), other),
        };
        self.task.lend(task);
        // A descriptor waits for the same position. A wake-up under the lock is to see one or the
        // other.
        let locked = self.is_taken().then(|| self.lock());
        self.set_wanted(want);
        let armed = self.arm(TASK, want);
        drop(locked);
        if !armed {
            drop(self.task.withdraw());
            return Poll::Ready(Waited::Ready);
        }
        if !self.cancels().end(since) {
            return Poll::Pending; // a cancellation from now on finds the flag
        }
        // A wake-up in flight is spurious.
        drop(self.task.reclaim(&self.word.0));
        Poll::Ready(if self.load().is_ready(want) {
            Waited::Ready
        } else {
            Waited::Cancelled
        })
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
        self.task.wake(&self.word.0);
    }

    /// Lets this side wait again.
    pub(crate) fn resume(&self) {
        self.change_cancels(Cancels::resumed);
    }

    fn change_cancels(&self, change: impl Fn(Cancels) -> Cancels) {
        let _locked = self.lock();
        let cancels = change(self.cancels()).to_bits();
        // ORDER: Relaxed; partners: `cancels` in `wait`, under the same lock; in `poll_wait`, by
        // the word, from which `cancel` then takes the flag of the task. A side that spins looks
        // again.
        self.cancels.store(cancels, Ordering::Relaxed);
    }

    /// Now, as cancellations count: for a call that begins.
    pub(crate) fn cancels(&self) -> Cancels {
        // ORDER: Relaxed; partner: `change_cancels`, before in the lock. What was cancelled and
        // resumed before a call, in an order that the caller has made, is seen by coherence; else
        // the call may end immediately, as if it had begun then.
        Cancels::from_bits(self.cancels.load(Ordering::Relaxed))
    }

    /// Keeps the descriptor that `make` makes ready exactly while the position is `want` or the
    /// direction has ended, unless this side has taken one before. To be followed by
    /// [`settle`](Self::settle) whenever `want` changes.
    pub(crate) fn take_fd(&self, want: Position, make: impl FnOnce() -> ReadyFd) {
        let fd = &mut *self.lock();
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
        if self.is_taken() && !self.load().is_ready(want) {
            if let Some(fd) = &mut *self.lock() {
                self.settle_locked(fd, want);
            }
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

    /// Lets go of the descriptor, to be closed, and of the task, which is not woken; a wake-up in
    /// flight either was before or finds none. One that has the task already wakes and drops it.
    pub(crate) fn close(&self) {
        let fd = self.lock().take();
        drop(fd); // not under the lock
        drop(self.task.reclaim(&self.word.0));
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

    fn lock(&self) -> MutexGuard<'_, Option<ReadyFd>> {
        self.fd.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What a poll of the descriptor would say.
    #[cfg(all(test, loom))]
    pub(crate) fn polls_ready(&self) -> bool {
        self.lock().as_ref().is_some_and(ReadyFd::polls_ready)
    }

    /// How often an edge-triggered poll for `EPOLLIN` was woken.
    #[cfg(all(test, loom))]
    pub(crate) fn edges(&self) -> usize {
        self.lock().as_ref().map_or(0, ReadyFd::edges)
    }
}
