// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Ends waits from another thread.

use std::fmt;

use crate::backlog::Backlog;
use crate::doorbell::Doorbell;
use crate::listener::VsockInnerListener;
use crate::pipe::Pipe;
use crate::reader::VsockInnerReader;
use crate::stream::VsockInnerStream;
use crate::sync::{Weak, downgrade};
use crate::writer::VsockInnerWriter;

/// Ends the waits of a stream, of a half or of a listener, from any thread.
///
/// [`cancel`](Self::cancel) makes the call that waits fail with `Interrupted`, and so every later
/// one that would wait, until [`resume`](Self::resume). It costs no byte: a call that can make
/// progress does so as ever, and a blocking write that has moved a part returns how much. Calls in
/// non-blocking mode do not wait, and go on as ever. A waiting task is woken, and its next poll
/// fails with `Interrupted`.
///
/// A stream or half has this one state, which all of its cancellers set; the last one to do so
/// counts. The canceller of a stream goes on to work for its halves after
/// [`into_split`](crate::VsockInnerStream::into_split). It does not keep alive what it was made
/// from, and afterwards does nothing.
///
/// The helpers of `std` that call again after `Interrupted` (`read_exact`, `read_to_end`,
/// `write_all`, `io::copy`) do so without a pause while a wait is cancelled. A thread that is to be
/// ended in this way calls `read` and `write`, or shuts its direction down for good.
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

/// Whose waits; weak, so that a canceller keeps no memory of theirs.
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
    /// Ends the wait that is going on, and every later one, until [`resume`](Self::resume).
    pub fn cancel(&self) {
        self.each(Doorbell::cancel, Backlog::cancel);
    }

    /// Lets calls wait again. A wait that was cancelled before is ended all the same.
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
    /// Ends the waits of this half, from any thread.
    #[must_use]
    pub fn canceller(&self) -> Canceller {
        Canceller(Waits::Reads(downgrade(self.half.incoming())))
    }
}

impl VsockInnerWriter {
    /// Ends the waits of this half, from any thread.
    #[must_use]
    pub fn canceller(&self) -> Canceller {
        Canceller(Waits::Writes(downgrade(self.half.outgoing())))
    }
}

impl VsockInnerStream {
    /// Ends the waits of this end, and of its halves later, from any thread.
    #[must_use]
    pub fn canceller(&self) -> Canceller {
        Canceller(Waits::Both {
            incoming: downgrade(self.reader.half.incoming()),
            outgoing: downgrade(self.writer.half.outgoing()),
        })
    }
}

impl VsockInnerListener {
    /// Ends the waits of all threads that accept here, from any thread.
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
