// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Ending waits from another thread.

use std::fmt;

use crate::backlog::Backlog;
use crate::doorbell::Doorbell;
use crate::listener::VsockInnerListener;
use crate::pipe::Pipe;
use crate::reader::VsockInnerReader;
use crate::stream::VsockInnerStream;
use crate::sync::{Weak, downgrade};
use crate::writer::VsockInnerWriter;

/// Ends waits on a stream, a half or a listener, from any thread.
///
/// [`cancel`](Self::cancel) makes a waiting call fail with `Interrupted`, and every later call that
/// would have to wait, until [`resume`](Self::resume). No data is lost: a call that can make
/// progress does so as usual, and a blocking write that has written a part returns its length.
/// Non-blocking calls do not wait, so they are not affected. A waiting task is woken, and its next
/// poll fails with `Interrupted`.
///
/// A stream or half has one such state, shared by all its cancellers; the most recent call
/// determines it. After [`into_split`](crate::VsockInnerStream::into_split), the canceller of a
/// stream applies to both halves. A canceller does not keep its target alive, and has no effect
/// after the target is dropped.
///
/// The helpers of `std` that retry after `Interrupted` (`read_exact`, `read_to_end`, `write_all`,
/// `io::copy`) loop without a pause while waits are cancelled. A thread that should stop when
/// cancelled must use `read` and `write`, or its direction must be shut down.
///
/// ```
/// use std::io::{ErrorKind, Read, Write};
/// use vsock_inner::VsockInnerStream;
///
/// let (mut near, mut far) = VsockInnerStream::pair()?;
/// let canceller = near.canceller();
/// let reading = std::thread::spawn(move || (near.read(&mut [0; 8]), near));
///
/// canceller.cancel();
/// let (read, mut near) = reading.join().unwrap();
/// assert_eq!(read.unwrap_err().kind(), ErrorKind::Interrupted);
///
/// canceller.resume();
/// far.write_all(b"hello")?;
/// assert_eq!(near.read(&mut [0; 8])?, 5);
/// # Ok::<(), std::io::Error>(())
/// ```
#[derive(Clone)]
pub struct Canceller(Waits);

/// What is cancelled. Weak references, so that a canceller keeps no memory alive.
#[derive(Clone)]
enum Waits {
    Reads(Weak<Pipe>),
    Writes(Weak<Pipe>),
    Both {
        incoming: Weak<Pipe>,
        outgoing: Weak<Pipe>,
    },
    Accepts(Weak<Backlog>),
}

impl Canceller {
    /// Ends the current wait, and every later one until [`resume`](Self::resume).
    pub fn cancel(&self) {
        self.each(Doorbell::cancel, Backlog::cancel);
    }

    /// Lets calls wait again. A wait that was already cancelled still ends, with one exception:
    /// [`poll_accept`](crate::VsockInnerListener::poll_accept) cannot recognise a task that passes
    /// a new waker, with data of its own, to each poll. Such a task continues to wait unless it
    /// polls between `cancel` and `resume`.
    pub fn resume(&self) {
        self.each(Doorbell::resume, Backlog::resume);
    }

    fn each(&self, doorbell: impl Fn(&Doorbell), backlog: impl Fn(&Backlog)) {
        let reads = |pipe: &Weak<Pipe>| pipe.upgrade().iter().for_each(|pipe| doorbell(&pipe.data));
        let writes =
            |pipe: &Weak<Pipe>| pipe.upgrade().iter().for_each(|pipe| doorbell(&pipe.space));
        match &self.0 {
            Waits::Reads(pipe) => reads(pipe),
            Waits::Writes(pipe) => writes(pipe),
            Waits::Both { incoming, outgoing } => {
                reads(incoming);
                writes(outgoing);
            }
            Waits::Accepts(waiting) => waiting
                .upgrade()
                .iter()
                .for_each(|waiting| backlog(waiting)),
        }
    }
}

impl VsockInnerReader {
    /// Returns a handle that ends the waits of this half, from any thread.
    #[must_use]
    pub fn canceller(&self) -> Canceller {
        Canceller(Waits::Reads(downgrade(self.half.incoming())))
    }
}

impl VsockInnerWriter {
    /// Returns a handle that ends the waits of this half, from any thread.
    #[must_use]
    pub fn canceller(&self) -> Canceller {
        Canceller(Waits::Writes(downgrade(self.half.outgoing())))
    }
}

impl VsockInnerStream {
    /// Returns a handle that ends the waits of this end, and later of its halves, from any thread.
    #[must_use]
    pub fn canceller(&self) -> Canceller {
        Canceller(Waits::Both {
            incoming: downgrade(self.reader.half.incoming()),
            outgoing: downgrade(self.writer.half.outgoing()),
        })
    }
}

impl VsockInnerListener {
    /// Returns a handle that ends the waits of all threads that accept here, from any thread.
    #[must_use]
    pub fn canceller(&self) -> Canceller {
        Canceller(Waits::Accepts(downgrade(&self.backlog)))
    }
}

impl fmt::Debug for Canceller {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let whose = match self.0 {
            Waits::Reads(_) => "reads",
            Waits::Writes(_) => "writes",
            Waits::Both { .. } => "reads and writes",
            Waits::Accepts(_) => "accepts",
        };
        f.debug_tuple("Canceller").field(&whose).finish()
    }
}
