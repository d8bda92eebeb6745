// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! What one device tells the other of its guest's buffer, where both ends of a connection are
//! guests.
//!
//! The newest word counts, so it is a cell and not a queue. Telling and looking cost an atomic
//! access. Who wants to hear of a change says what it knows, under a lock that is held for no
//! longer than a system call which does not wait. The teller stores before it takes the lock, and
//! the one that waits looks under it: whichever comes first, either the new word is seen or the
//! wait.

use std::io;
use std::mem;
use std::os::fd::{AsRawFd, RawFd};
use std::sync::PoisonError;

use vsock_backend_api::VsockCredit;

use crate::sync::{AtomicU64, EventFd, Mutex, MutexGuard, Ordering};

/// See the documentation of the module.
#[derive(Debug)]
pub(crate) struct CreditCell {
    word: AtomicU64,
    wait: Mutex<Wait>,
}

/// The end that is told, and its descriptor.
#[derive(Debug, Default)]
struct Wait {
    /// From its first use to the drop of the end.
    fd: Option<EventFd>,
    state: State,
    /// The end that tells has left, which is news once.
    left: bool,
}

#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
enum State {
    /// It hears of nothing.
    #[default]
    Idle,
    /// The descriptor is not ready, and the next word makes it so.
    Waiting,
    /// The descriptor is ready.
    Ready,
}

/// Nothing was told. As a credit it would be a buffer of four gigabytes, which is told as one byte
/// less.
const NOTHING: u64 = u64::MAX;

impl CreditCell {
    pub(crate) fn new() -> Self {
        Self {
            word: AtomicU64::new(NOTHING),
            wait: Mutex::new(Wait::default()),
        }
    }

    /// Stores the newest word, and makes the descriptor of the other end ready if it waits for one.
    pub(crate) fn tell(&self, credit: VsockCredit) {
        let word = to_word(credit);
        // ORDER: AcqRel; partner: the acquire in `look`. What the device did before it told is seen
        // by who sees the word.
        if self.word.swap(word, Ordering::AcqRel) == word {
            return;
        }
        let mut wait = self.lock();
        if wait.state == State::Waiting {
            wait.make_ready();
        }
    }

    /// The newest word.
    pub(crate) fn look(&self) -> Option<VsockCredit> {
        // ORDER: Acquire; partner: the release in `tell`.
        from_word(self.word.load(Ordering::Acquire))
    }

    /// The descriptor, which is ready once the newest word is not `known`.
    pub(crate) fn await_change(&self, known: Option<VsockCredit>) -> io::Result<RawFd> {
        let mut wait = self.lock();
        if wait.fd.is_none() {
            wait.fd = Some(EventFd::new()?);
        }
        if mem::take(&mut wait.left) || self.look() != known {
            wait.make_ready();
        } else if wait.state == State::Ready {
            wait.make_unready();
        } else {
            wait.state = State::Waiting;
        }
        let fd = wait.fd.as_ref().map(AsRawFd::as_raw_fd);
        fd.ok_or_else(|| io::ErrorKind::NotConnected.into())
    }

    /// The end that tells has been dropped: who waits for its word has an event.
    pub(crate) fn leave(&self) {
        let mut wait = self.lock();
        if wait.state == State::Waiting {
            wait.make_ready();
        } else {
            wait.left = true;
        }
    }

    /// The end that is told is being dropped: closes its descriptor.
    pub(crate) fn close(&self) {
        *self.lock() = Wait::default();
    }

    /// What a poll of the descriptor would say.
    #[cfg(all(test, loom))]
    pub(crate) fn polls_ready(&self) -> bool {
        let wait = self.lock();
        wait.fd.as_ref().is_some_and(EventFd::is_readable)
    }

    fn lock(&self) -> MutexGuard<'_, Wait> {
        self.wait.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Wait {
    /// An error of the descriptor can only be that its owner has read or written it by hand.
    fn make_ready(&mut self) {
        if self.state != State::Ready {
            if let Some(fd) = &self.fd {
                drop(fd.write(1));
            }
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
    fn the_newest_word_counts_and_the_greatest_buffer_is_told_as_one_less() {
        let cell = CreditCell::new();
        assert_eq!(cell.look(), None);
        cell.tell(credit(1));
        cell.tell(credit(7));
        assert_eq!(cell.look(), Some(credit(7)));
        let (buf_alloc, fwd_cnt) = (u32::MAX, u32::MAX);
        cell.tell(VsockCredit { buf_alloc, fwd_cnt });
        let buf_alloc = u32::MAX - 1;
        assert_eq!(cell.look(), Some(VsockCredit { buf_alloc, fwd_cnt }));
    }

    #[test]
    fn the_descriptor_is_ready_while_there_is_something_that_is_not_known() {
        let cell = CreditCell::new();
        let fd = cell.await_change(None).ok();
        assert!(!is_ready(&cell));
        cell.tell(credit(1));
        assert!(is_ready(&cell));
        for known in [None, Some(credit(1)), Some(credit(1))] {
            assert_eq!(cell.await_change(known).ok(), fd);
            assert_eq!(is_ready(&cell), known.is_none());
        }
        cell.tell(credit(1));
        assert!(!is_ready(&cell), "it is no news");
        cell.tell(credit(2));
        cell.tell(credit(3));
        assert!(is_ready(&cell));
        assert_eq!(cell.look(), Some(credit(3)));
    }

    #[test]
    fn who_has_left_is_told_nothing_and_has_no_descriptor() {
        let cell = CreditCell::new();
        assert_ne!(cell.await_change(None).ok(), None);
        cell.close();
        cell.tell(credit(1));
        assert!(cell.lock().fd.is_none());
    }
}
