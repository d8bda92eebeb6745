// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! The credit that one device reports to the other, if both ends of a connection are guests.
//!
//! Only the newest credit matters, so this is a cell rather than a queue. Reporting and reading
//! cost one atomic access each. The end that waits for a change states what it already knows, under
//! a lock that is held for at most one non-blocking system call. The reporting end stores the
//! credit before it takes the lock, and the waiting end reads it under the lock. So either the
//! waiting end sees the new credit, or the reporting end sees that it waits.

use std::io;
use std::mem;
use std::os::fd::{AsRawFd, RawFd};
use std::sync::PoisonError;

use vsock_backend_api::VsockCredit;

use crate::sync::{AtomicU64, EventFd, Mutex, MutexGuard, Ordering};

/// The newest credit reported to one end.
#[derive(Debug)]
pub(crate) struct CreditCell {
    word: AtomicU64,
    wait: Mutex<Wait>,
}

/// The end that receives the reports, and its descriptor.
#[derive(Debug, Default)]
struct Wait {
    /// From its first use until the end is dropped.
    fd: Option<EventFd>,
    state: State,
    /// The reporting end has left. Makes the descriptor ready once.
    left: bool,
}

#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
enum State {
    /// Not waiting for a change.
    #[default]
    Idle,
    /// The descriptor is not ready, and the next report makes it ready.
    Waiting,
    /// The descriptor is ready.
    Ready,
}

/// The value while nothing has been reported. A real credit with a buffer of 2^32 - 1 bytes could
/// collide with it, so such a buffer is reported as one byte smaller.
const NOTHING: u64 = u64::MAX;

impl CreditCell {
    pub(crate) fn new() -> Self {
        Self {
            word: AtomicU64::new(NOTHING),
            wait: Mutex::new(Wait::default()),
        }
    }

    /// Stores the newest credit, and makes the other end's descriptor ready if it waits for a
    /// change.
    pub(crate) fn report(&self, credit: VsockCredit) {
        let word = to_word(credit);
        // ORDER: AcqRel; partner: the acquire in `newest`. An end that sees the credit also sees
        // what the device did before it reported it.
        if self.word.swap(word, Ordering::AcqRel) == word {
            return;
        }
        let mut wait = self.lock();
        if wait.state == State::Waiting {
            wait.make_ready();
        }
    }

    /// Returns the newest credit.
    pub(crate) fn newest(&self) -> Option<VsockCredit> {
        // ORDER: Acquire; partner: the release in `report`.
        from_word(self.word.load(Ordering::Acquire))
    }

    /// Returns the descriptor, which is ready once the newest credit is not `known`.
    pub(crate) fn await_change(&self, known: Option<VsockCredit>) -> io::Result<RawFd> {
        let mut wait = self.lock();
        if wait.fd.is_none() {
            wait.fd = Some(EventFd::new()?);
        }
        // `report` stores before it locks. So a report either is seen by `newest` here, or finds
        // `Waiting`.
        if mem::take(&mut wait.left) || self.newest() != known {
            wait.make_ready();
        } else if wait.state == State::Ready {
            wait.make_unready();
        } else {
            wait.state = State::Waiting;
        }
        let fd = wait.fd.as_ref().map(AsRawFd::as_raw_fd);
        fd.ok_or_else(|| io::ErrorKind::NotConnected.into())
    }

    /// The reporting end has been dropped: makes the descriptor ready if the other end waits.
    pub(crate) fn leave(&self) {
        let mut wait = self.lock();
        if wait.state == State::Waiting {
            wait.make_ready();
        } else {
            wait.left = true;
        }
    }

    /// The receiving end is being dropped: closes its descriptor.
    pub(crate) fn close(&self) {
        *self.lock() = Wait::default();
    }

    /// What a poll of the descriptor would report.
    #[cfg(all(test, loom))]
    pub(crate) fn polls_ready(&self) -> bool {
        let wait = self.lock();
        wait.fd.as_ref().is_some_and(EventFd::is_readable)
    }

    /// How often an edge-triggered poll was woken.
    #[cfg(all(test, loom))]
    pub(crate) fn edges(&self) -> usize {
        self.lock().fd.as_ref().map_or(0, EventFd::edges)
    }

    fn lock(&self) -> MutexGuard<'_, Wait> {
        self.wait.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Wait {
    /// Makes a new edge even if the descriptor was ready: an edge-triggered loop has already used
    /// the last one.
    ///
    /// Writing or reading fails only if the owner has accessed its descriptor itself.
    fn make_ready(&mut self) {
        if let Some(fd) = &self.fd {
            drop(fd.write(1));
        }
        self.state = State::Ready;
    }

    fn make_unready(&mut self) {
        if let Some(fd) = &self.fd {
            drop(fd.read());
        }
        self.state = State::Waiting;
    }
}

fn to_word(credit: VsockCredit) -> u64 {
    let buf_alloc = credit.buf_alloc.min(u32::MAX - 1);
    u64::from(buf_alloc) << 32 | u64::from(credit.fwd_cnt)
}

fn from_word(word: u64) -> Option<VsockCredit> {
    let half = |bits: u64| u32::try_from(bits & u64::from(u32::MAX)).ok();
    Some(VsockCredit {
        buf_alloc: half(word >> 32).filter(|_| word != NOTHING)?,
        fwd_cnt: half(word)?,
    })
}

#[cfg(all(test, not(loom)))]
mod tests {
    use rustix::event::{PollFd, PollFlags, Timespec, poll};
    use vsock_backend_api::VsockCredit;

    use super::CreditCell;

    fn credit(fwd_cnt: u32) -> VsockCredit {
        VsockCredit {
            buf_alloc: 4096,
            fwd_cnt,
        }
    }

    fn is_ready(cell: &CreditCell) -> bool {
        let wait = cell.lock();
        let polls = |fd| {
            poll(
                &mut [PollFd::new(fd, PollFlags::IN)],
                Some(&Timespec::default()),
            )
        };
        wait.fd.as_ref().is_some_and(|fd| polls(fd) == Ok(1))
    }

    #[test]
    fn the_newest_credit_counts_and_the_largest_buffer_is_reported_minus_one() {
        let cell = CreditCell::new();
        assert_eq!(cell.newest(), None);
        cell.report(credit(1));
        cell.report(credit(7));
        assert_eq!(cell.newest(), Some(credit(7)));
        let (buf_alloc, fwd_cnt) = (u32::MAX, u32::MAX);
        cell.report(VsockCredit { buf_alloc, fwd_cnt });
        let buf_alloc = u32::MAX - 1;
        assert_eq!(cell.newest(), Some(VsockCredit { buf_alloc, fwd_cnt }));
    }

    #[test]
    fn the_descriptor_is_ready_while_the_credit_has_changed() {
        let cell = CreditCell::new();
        let fd = cell.await_change(None).ok();
        assert!(!is_ready(&cell));
        cell.report(credit(1));
        assert!(is_ready(&cell));
        for known in [None, Some(credit(1)), Some(credit(1))] {
            assert_eq!(cell.await_change(known).ok(), fd);
            assert_eq!(is_ready(&cell), known.is_none());
        }
        cell.report(credit(1));
        assert!(!is_ready(&cell), "nothing has changed");
        cell.report(credit(2));
        cell.report(credit(3));
        assert!(is_ready(&cell));
        assert_eq!(cell.newest(), Some(credit(3)));
    }

    #[test]
    fn a_closed_end_receives_no_bytes_and_has_no_descriptor() {
        let cell = CreditCell::new();
        assert_ne!(cell.await_change(None).ok(), None);
        cell.close();
        cell.report(credit(1));
        assert!(cell.lock().fd.is_none());
    }
}
