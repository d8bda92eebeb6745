// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Ends waits from another thread.

use std::fmt;

use crate::accept_queue::AcceptQueue;
use crate::gate::Gate;
use crate::ring::Ring;
use crate::sync::{Arc, Weak, downgrade};

/// Ends the waits of a stream, of a half or of a listener, from any thread.
///
/// [`cancel`](Self::cancel) makes the call that waits fail with `Interrupted`, and so every later one
/// that would wait, until [`resume`](Self::resume). It costs no byte: a call that can make progress
/// does so as ever, and a blocking write that has moved a part returns how much. Calls in non-blocking
/// mode do not wait, and go on as ever.
///
/// A stream or half has this one state, which all of its cancellers set; the last one to do so counts.
/// The canceller of a stream goes on to work for its halves after
/// [`into_split`](crate::VsockInnerStream::into_split). It does not keep alive what it was made from,
/// and afterwards does nothing.
///
/// The helpers of `std` that call again after `Interrupted` (`read_exact`, `read_to_end`, `write_all`,
/// `io::copy`) do so without a pause while a wait is cancelled. A thread that is to be ended in this
/// way calls `read` and `write`, or shuts its direction down for good.
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
    Reads(Weak<Ring>),
    Writes(Weak<Ring>),
    Both {
        incoming: Weak<Ring>,
        outgoing: Weak<Ring>,
    },
    Accepts(Weak<AcceptQueue>),
}

impl Canceller {
    pub(crate) fn of_reads(incoming: &Arc<Ring>) -> Self {
        Self(Waits::Reads(downgrade(incoming)))
    }

    pub(crate) fn of_writes(outgoing: &Arc<Ring>) -> Self {
        Self(Waits::Writes(downgrade(outgoing)))
    }

    pub(crate) fn of_both(incoming: &Arc<Ring>, outgoing: &Arc<Ring>) -> Self {
        Self(Waits::Both {
            incoming: downgrade(incoming),
            outgoing: downgrade(outgoing),
        })
    }

    pub(crate) fn of_accepts(queue: &Arc<AcceptQueue>) -> Self {
        Self(Waits::Accepts(downgrade(queue)))
    }

    /// Ends the wait that is going on, and every later one, until [`resume`](Self::resume).
    pub fn cancel(&self) {
        self.each(Gate::cancel, AcceptQueue::cancel);
    }

    /// Lets calls wait again. A wait that was cancelled before is ended all the same.
    pub fn resume(&self) {
        self.each(Gate::resume, AcceptQueue::resume);
    }

    fn each(&self, gate: impl Fn(&Gate), queue: impl Fn(&AcceptQueue)) {
        let reads = |ring: &Weak<Ring>| ring.upgrade().iter().for_each(|ring| gate(&ring.data));
        let writes = |ring: &Weak<Ring>| ring.upgrade().iter().for_each(|ring| gate(&ring.space));
        match &self.0 {
            Waits::Reads(ring) => reads(ring),
            Waits::Writes(ring) => writes(ring),
            Waits::Both { incoming, outgoing } => {
                reads(incoming);
                writes(outgoing);
            }
            Waits::Accepts(waiting) => waiting.upgrade().iter().for_each(|waiting| queue(waiting)),
        }
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
