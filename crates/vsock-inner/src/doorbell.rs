// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! The doorbell: one side publishes its position, the other waits for it.
//!
//! A pipe has two. The writer publishes in the *data* doorbell, where the reader waits; the reader
//! publishes in the *space* doorbell, where the writer waits. This file is the publishing side and
//! the [`Word`] that both sides change; `waiting` is for the calls and tasks that wait, and
//! `descriptor` for a poll of the waiting side's descriptor. `docs/concurrency.md` argues why no
//! wake-up is lost. In short:
//!
//! - A side that cannot make progress arms the word ([`PARKED`] for its thread, [`FD`] for its
//!   descriptor, [`TASK`] for its task). Arming is an atomic change that fails if the position has
//!   been reached in the meantime.
//! - Publishing is one atomic addition to the same word. The addition returns the flags that were
//!   set before, so publishing costs more only if the word was armed.
//! - A task's waker is kept in a [slot](TaskSlot), which belongs to the side that clears the flag.
//!   A publication clears it in the same change of the word, so tasks that wake each other take no
//!   lock.
//! - Everything else happens under the lock: changing what a descriptor shows, going to sleep,
//!   cancelling a sleep, closing the descriptor. So a wake-up in flight is neither lost nor late.
//! - Wakers run a caller's code. They are cloned, woken and dropped outside the lock.
//!
//! All orderings are acquire and release on a single location, so no fence is needed.

use std::sync::PoisonError;

use crate::cancels::Cancels;
use crate::ready_fd::ReadyFd;
use crate::sync::{AtomicBool, AtomicU64, Condvar, Mutex, MutexGuard, Ordering};
use crate::task_slot::TaskSlot;
use crate::word::{ARMED, CONNECTING, FD, PARKED, Position, TASK, Word};

mod descriptor;
pub(crate) mod waiting;

/// One side's published position, and everything that the other side needs to wait for it.
#[derive(Debug)]
pub(crate) struct Doorbell {
    word: CachePadded<AtomicU64>,
    /// The position that the waiting side waits for. Meaningful while the word is armed.
    want: AtomicU64,
    /// Whether the waiting side has taken its descriptor. Set under the lock, and only by the
    /// waiting side, which can then read it without the lock.
    taken: AtomicBool,
    /// Changed under the lock.
    cancels: AtomicU64,
    /// The task of the waiting side that is to be woken.
    task: TaskSlot,
    /// The descriptor that the waiting side polls, from the moment it is taken until it is closed.
    fd: Mutex<Option<ReadyFd>>,
    parked: Condvar,
}

/// Keeps what one thread writes constantly off the cache lines of everything else. Two lines,
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
        // ORDER: Acquire; partner: the release in `publish` and `end`. A thread that sees a
        // position also sees what was written before it was published.
        Word(self.word.0.load(Ordering::Acquire))
    }

    /// The flags, for the publishing side, which tracks the position itself.
    #[inline]
    pub(crate) fn peek(&self) -> Word {
        // ORDER: Relaxed; partner: none. Only the flags are examined, and they guard no memory. A
        // flag that was set in a call that has returned is seen by coherence.
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

    /// Advances the position and wakes the task that waits for it, in one change of the word.
    /// Returns `false`, having changed nothing, if no task waits for this position or if something
    /// else needs to be woken too.
    fn published_to_task(&self, bytes: u64) -> bool {
        let before = self.load();
        let after = Word(before.0.wrapping_add(Word::step(bytes)));
        if before.has(PARKED | FD) || !before.has(TASK) || !after.is_ready(self.wanted()) {
            return false;
        }
        // `want` is at least as recent as the flag that was seen. If the word has changed and
        // changed back since `load`, the task may now be waiting for more. Waking it too early
        // only makes it look again.
        self.task.wake_and_change(&self.word.0, before.0, after.0)
    }

    #[cold]
    fn published_while_armed(&self, before: Word, after: Word) {
        // Compare without the lock first. Otherwise a reader that takes small pieces would lock
        // for each of them until there is enough space. `want` is at least as recent as the flag
        // that was seen. If it becomes newer, the waiting side changes the word again after
        // storing it, and that change sees the position published here.
        if after.is_ready(self.wanted()) {
            self.wake_armed(before);
        }
    }

    /// Marks an end of the direction, and wakes the side that waits.
    ///
    /// `reason` chooses the flags of the end by the word that precedes it. Returns that word and
    /// those flags; nothing is published between the two.
    pub(crate) fn end(&self, reason: impl Fn(Word) -> u64) -> (Word, u64) {
        let ended = |word| Some(word | reason(Word(word)));
        // ORDER: AcqRel; partners: as in `publish`. Acquire on failure is for the next attempt.
        let before = self
            .word
            .0
            .fetch_update(Ordering::AcqRel, Ordering::Acquire, ended);
        let before = Word(before.unwrap_or_else(|word| word)); // `ended` never returns `None`
        self.wake_armed(before);
        (before, reason(before))
    }

    /// Makes no position count for the waiting side until it is
    /// [connected](Self::set_connected). Called before the doorbell is shared.
    pub(crate) fn set_connecting(&self) {
        // ORDER: Relaxed; partner: none, the doorbell is not shared yet.
        self.word.0.fetch_or(CONNECTING, Ordering::Relaxed);
    }

    /// Makes positions count, and wakes the side that waits for one that has been reached.
    pub(crate) fn set_connected(&self) {
        // ORDER: AcqRel; partners: as in `publish`; the side that waited sees what was done before.
        let before = Word(self.word.0.fetch_and(!CONNECTING, Ordering::AcqRel));
        // Wakes a task even if there is no space: it may be waiting only for the connection.
        self.wake_armed(before);
    }

    /// Wakes whatever had armed the word. A task is woken unconditionally, and looks again.
    fn wake_armed(&self, before: Word) {
        if before.has(TASK) {
            self.task.wake(&self.word.0);
        }
        if before.has(PARKED | FD) {
            self.wake();
        }
    }

    /// Wakes the thread and makes the descriptor ready, if the position that the side waits for
    /// has been reached. On return this has been done, by this thread or by another.
    pub(crate) fn wake(&self) {
        let mut fd = self.lock();
        // The flag that led here may be out of date: that wait may be over, and the next one may
        // want more.
        if !self.load().is_ready(self.wanted()) {
            return;
        }
        let before = self.disarm(PARKED | FD);
        if let Some(fd) = fd.as_mut().filter(|_| before.has(FD)) {
            fd.set_ready(true);
        }
        // Notify after unlocking: the woken thread would otherwise wait for the lock.
        drop(fd);
        if before.has(PARKED) {
            self.parked.notify_one();
        }
    }

    /// Closes the descriptor, and drops the task without waking it.
    ///
    /// A wake-up in flight either came before this or finds no descriptor. One that already has
    /// the task wakes and drops it.
    pub(crate) fn close(&self) {
        let fd = self.lock().take();
        drop(fd); // not under the lock
        drop(self.task.reclaim(&self.word.0));
    }

    /// Sets a flag that arms the word, unless there is nothing to wait for.
    fn arm(&self, flag: u64, want: Position) -> bool {
        let armed = |word: u64| (!Word(word).is_ready(want)).then_some(word | flag);
        // ORDER: AcqRel; partners: the release publishes `want` to the acquire in `publish`. The
        // acquire, also on failure, sees what was published together with a reached position.
        self.word
            .0
            .fetch_update(Ordering::AcqRel, Ordering::Acquire, armed)
            .is_ok()
    }

    /// Clears flags that arm the word. Returns the word as it was.
    fn disarm(&self, flags: u64) -> Word {
        // ORDER: AcqRel; partners: as in `arm`.
        Word(self.word.0.fetch_and(!flags, Ordering::AcqRel))
    }

    fn wanted(&self) -> Position {
        // ORDER: Relaxed; partner: the word, through which `want` is published, or the lock.
        Position::from_bits(self.want.load(Ordering::Relaxed))
    }

    fn set_wanted(&self, want: Position) {
        // ORDER: Relaxed; partner: the word, through which `want` is published, or the lock.
        self.want.store(want.to_bits(), Ordering::Relaxed);
    }

    fn lock(&self) -> MutexGuard<'_, Option<ReadyFd>> {
        self.fd.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
