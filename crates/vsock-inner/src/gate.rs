// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! One side publishes its position, the other waits for it: the doorbell.
//!
//! A channel has two gates: the writer publishes in the *data* gate and the reader waits there; the
//! reader publishes in the *space* gate and the writer waits there. `docs/concurrency.md` has the
//! argument; in short:
//!
//! - A side that finds nothing to do puts a request into the word ([`PARKED`] for its thread, [`FD`]
//!   for its descriptor) by an atomic change that fails if the position has come meanwhile.
//! - Publishing is one atomic addition to the same word. It returns the requests that came before,
//!   and only then costs more than that.
//! - Everything else happens under the lock of the gate: making a descriptor ready or not, going to
//!   sleep, cancelling that, closing the descriptor. So a ring in flight can neither be lost nor come
//!   too late.
//!
//! All orderings are acquire-release, at one location each. There is no fence, and none is missing.

use std::io;
use std::os::fd::RawFd;
use std::sync::PoisonError;
use std::time::Instant;

use crate::bell::{Bell, Polled};
use crate::sync::{Arc, AtomicBool, AtomicU64, Condvar, EventFd, Mutex, MutexGuard, Ordering};
use crate::word::{ARMED, FD, HELD, PARKED, Position, Word};

/// See the documentation of the module.
#[derive(Debug)]
pub(crate) struct Gate {
    word: Line<AtomicU64>,
    /// The position that the waiting side waits for, of use while a request is in the word.
    want: AtomicU64,
    /// Whether the waiting side has taken its descriptor: set under the lock, by that side alone.
    taken: AtomicBool,
    /// Counts changes of "waits are cancelled", under the lock; they are while it is odd.
    cancels: AtomicU64,
    bell: Mutex<Bell>,
    parked: Condvar,
}

/// How a wait has ended.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Waited {
    /// The position is there, or the direction has ended.
    Ready,
    /// The deadline came first.
    Late,
    /// A cancellation came first.
    Cancelled,
}

/// When a call began, as cancellations count.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Cancels(u64);

/// Keeps what one thread writes all the time off the cache lines of everything else. Two lines,
/// because processors fetch them in pairs.
#[derive(Debug)]
#[repr(align(128))]
struct Line<T>(T);

impl Gate {
    pub(crate) fn new(polled: Polled) -> Self {
        Self {
            word: Line(AtomicU64::new(0)),
            want: AtomicU64::new(0),
            taken: AtomicBool::new(false),
            cancels: AtomicU64::new(0),
            bell: Mutex::new(Bell::new(polled)),
            parked: Condvar::new(),
        }
    }

    /// The published position and the flags.
    #[inline]
    pub(crate) fn load(&self) -> Word {
        // ORDER: Acquire; partner: the release in `publish` and `end`. What was written before the
        // position was published is seen by whoever sees the position.
        Word(self.word.0.load(Ordering::Acquire))
    }

    /// The flags as the publishing side sees them, who knows the position anyway.
    #[inline]
    pub(crate) fn peek(&self) -> Word {
        // ORDER: Relaxed; partner: none. Only flags are looked at, which guard no memory: one that
        // was set in a call that has ended is seen by coherence.
        Word(self.word.0.load(Ordering::Relaxed))
    }

    /// Advances the position by `bytes`, and wakes whoever waits for it.
    #[inline]
    pub(crate) fn publish(&self, bytes: u64) {
        // ORDER: AcqRel; partners: the release makes the bytes (or the space) visible to `load`; the
        // acquire makes `want` visible, which `arm` released with the request.
        let before = Word(self.word.0.fetch_add(Word::step(bytes), Ordering::AcqRel));
        if before.has(ARMED) {
            self.published_while_armed(before.position().advanced_by(bytes));
        }
    }

    #[cold]
    fn published_while_armed(&self, position: Position) {
        // A glance without the lock: a reader that takes little by little would otherwise lock for
        // each piece until there is enough space. The request was seen, so at least its `want` is; a
        // newer one is followed by a change of the word that sees our position.
        if position.reached(self.wanted()) {
            self.ring();
        }
    }

    /// Marks an end of the direction, and wakes whoever waits. Which end it is, `reason` derives from
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
            self.ring();
        }
        (before, reason(before))
    }

    /// Makes no position count for the waiting side, until [`release`](Self::release); before it shares
    /// the gate.
    pub(crate) fn hold(&self) {
        // ORDER: Relaxed; partner: none, nobody else has the gate yet.
        self.word.0.fetch_or(HELD, Ordering::Relaxed);
    }

    /// Makes positions count, and wakes whoever waits for one that is there.
    pub(crate) fn release(&self) {
        // ORDER: AcqRel; partners: as in `publish`; what was done before is seen by whoever is released.
        let before = Word(self.word.0.fetch_and(!HELD, Ordering::AcqRel));
        if before.has(ARMED) {
            self.ring();
        }
    }

    /// Answers the requests in the word, if what they wait for is there. Afterwards they are answered,
    /// whoever did it.
    pub(crate) fn ring(&self) {
        let mut bell = self.lock();
        if !self.load().is_ready(self.wanted()) {
            return;
        }
        let before = self.disarm(ARMED);
        if before.has(FD) {
            bell.show(true);
        }
        drop(bell);
        if before.has(PARKED) {
            self.parked.notify_one();
        }
    }

    /// Makes a new edge at the descriptor, if it was taken: something has happened that its owner
    /// may want to know although the descriptor was ready before.
    pub(crate) fn strike(&self) {
        let mut bell = self.lock();
        if self.is_taken() {
            self.disarm(FD);
            bell.strike();
        }
    }

    /// Sleeps until the position is `want`, or the direction ends, or the deadline comes, or somebody
    /// cancels after `since`, or has done so.
    pub(crate) fn wait(&self, want: Position, deadline: Option<Instant>, since: Cancels) -> Waited {
        let mut bell = self.lock();
        self.set_wanted(want);
        while self.arm(PARKED, want) {
            if self.is_cancelled(since) {
                return self.stop_waiting(want, Waited::Cancelled);
            }
            bell = match deadline {
                None => self
                    .parked
                    .wait(bell)
                    .unwrap_or_else(PoisonError::into_inner),
                Some(deadline) => {
                    let left = deadline.saturating_duration_since(Instant::now());
                    if left.is_zero() {
                        return self.stop_waiting(want, Waited::Late);
                    }
                    let woken = self.parked.wait_timeout(bell, left);
                    woken.unwrap_or_else(PoisonError::into_inner).0
                }
            };
        }
        Waited::Ready
    }

    /// Under the lock: the thread sleeps no more, for this reason, unless the position came meanwhile.
    fn stop_waiting(&self, want: Position, why: Waited) -> Waited {
        if self.disarm(PARKED).is_ready(want) {
            Waited::Ready
        } else {
            why
        }
    }

    /// Ends the wait of this side, and every later one, until [`resume`](Self::resume).
    pub(crate) fn cancel(&self) {
        self.set_cancelled(true);
        // After the change, which was made under the lock: whoever waits has seen it, or sleeps.
        self.parked.notify_one();
    }

    /// Lets this side wait again.
    pub(crate) fn resume(&self) {
        self.set_cancelled(false);
    }

    fn set_cancelled(&self, cancelled: bool) {
        let _bell = self.lock();
        let Cancels(count) = self.cancels();
        if (count % 2 == 1) != cancelled {
            // ORDER: Relaxed; partner: `cancels` in `wait`, under the same lock. Who polls looks again.
            self.cancels.store(count + 1, Ordering::Relaxed);
        }
    }

    /// Now, as cancellations count: for a call that begins.
    pub(crate) fn cancels(&self) -> Cancels {
        // ORDER: Relaxed; partner: `set_cancelled`, before in the lock. What was cancelled and resumed
        // before a call, in an order that the caller has made, is seen by coherence; else the call may
        // end too early, as if it had begun then.
        Cancels(self.cancels.load(Ordering::Relaxed))
    }

    /// Whether a wait of a call that began at `since` is to end.
    pub(crate) fn is_cancelled(&self, since: Cancels) -> bool {
        let Cancels(now) = self.cancels();
        now != since.0 || now % 2 == 1
    }

    /// Makes the descriptor on which this side polls, without any readiness yet.
    pub(crate) fn install_fd(&self) -> io::Result<Arc<EventFd>> {
        self.lock().install()
    }

    /// The descriptor, from now on kept ready exactly while the position is `want` or the direction
    /// has ended. To be called again, as [`settle`](Self::settle), whenever `want` changes.
    pub(crate) fn take_fd(&self, want: Position) -> io::Result<Arc<EventFd>> {
        let mut bell = self.lock();
        let fd = bell.install()?;
        // ORDER: Relaxed; partner: `is_taken`, on this side or under the lock.
        if !self.taken.swap(true, Ordering::Relaxed) {
            self.settle_locked(&mut bell, want);
        }
        Ok(fd)
    }

    /// The number of a descriptor that was installed.
    pub(crate) fn raw_fd(&self) -> Option<RawFd> {
        self.lock().raw_fd()
    }

    #[inline]
    pub(crate) fn is_taken(&self) -> bool {
        // ORDER: Relaxed; partner: `take_fd`, on the same side or before in the lock.
        self.taken.load(Ordering::Relaxed)
    }

    /// Brings the descriptor in line, after this side has made `want` its next position.
    pub(crate) fn settle(&self, want: Position) {
        // Look before the lock: what the other side publishes meanwhile spares two system calls.
        if self.is_taken() && !self.load().is_ready(want) {
            self.settle_locked(&mut self.lock(), want);
        }
    }

    /// Under the lock no ring is in flight: the descriptor shows what the last one left, and whoever
    /// answers a new request has to wait until it shows what it should.
    fn settle_locked(&self, bell: &mut Bell, want: Position) {
        self.set_wanted(want);
        let waits = self.arm(FD, want);
        if !waits {
            self.disarm(FD);
        }
        bell.show(!waits);
    }

    /// Lets go of the descriptor, to be closed; a ring in flight either was before or finds none.
    pub(crate) fn close_fd(&self) {
        self.lock().close();
    }

    /// Puts a request into the word, unless there is nothing to wait for.
    fn arm(&self, request: u64, want: Position) -> bool {
        let request = |word: u64| (!Word(word).is_ready(want)).then_some(word | request);
        // ORDER: AcqRel; partners: the release publishes `want` to the acquire in `publish`; the
        // acquire, also of the failure, sees what a position that has come published.
        self.word
            .0
            .fetch_update(Ordering::AcqRel, Ordering::Acquire, request)
            .is_ok()
    }

    /// Takes requests back; returns the word with what was there.
    fn disarm(&self, requests: u64) -> Word {
        // ORDER: AcqRel; partners: as in `arm`.
        Word(self.word.0.fetch_and(!requests, Ordering::AcqRel))
    }

    fn wanted(&self) -> Position {
        // ORDER: Relaxed; partner: the word, by which `want` is published, or the lock.
        Position::from_bits(self.want.load(Ordering::Relaxed))
    }

    fn set_wanted(&self, want: Position) {
        // ORDER: Relaxed; partner: the word, by which `want` is published, or the lock.
        self.want.store(want.to_bits(), Ordering::Relaxed);
    }

    fn lock(&self) -> MutexGuard<'_, Bell> {
        self.bell.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What a poll of the descriptor would say.
    #[cfg(loom)]
    pub(crate) fn polls_ready(&self) -> bool {
        self.lock().polls_ready()
    }

    /// How often an edge-triggered poll for `EPOLLIN` was woken.
    #[cfg(loom)]
    pub(crate) fn edges(&self) -> usize {
        self.lock().edges()
    }
}
