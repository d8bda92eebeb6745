// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Checks as data: what is done with a pair, step by step, and what must come of it.

pub(crate) mod words;

use std::io::ErrorKind;
use std::net::Shutdown;
use std::time::Duration;

use crate::poll::PollInterest;
use crate::source::Mode;

/// Which end does something.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Side {
    Near,
    Far,
}

/// What a call must return.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Want {
    /// A read or write of exactly that many bytes, the next ones of the direction.
    Count(usize),
    Fails(ErrorKind),
}

/// One step of a check. Every byte that is written is the next one of its direction's pattern, and
/// every byte that is read is compared with it.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Step {
    /// A write of that many bytes, or of as many as the direction promises to hold, which must be
    /// accepted whole.
    Write(Side, usize),
    /// A write of one byte, and what it returns.
    WriteReturns(Side, Want),
    /// Writes until one is refused.
    Fill(Side),
    /// A read into eight bytes, and what it returns.
    Read(Side, Want),
    /// As `Read`, by a peek; left out where the transport has none.
    Peek(Side, Want),
    /// Reads until one would block, or the end or a reset: all that was written must arrive.
    Drain(Side),
    /// Every call that transfers nothing, and every write alone that does.
    EmptyCalls(Side),
    EmptyWrites(Side),
    /// A byte passes from this side to the other.
    Carry(Side),
    Shutdown(Side, Shutdown),
    Drop(Side),
    Abort(Side),
    SetMode(Side, Mode),
    ReadTimeout(Side, Option<Duration>),
    WriteTimeout(Side, Option<Duration>),
    /// Timeouts of zero must be refused, for reads and for writes.
    ZeroTimeoutsRefused(Side),
    /// Time passes: for what must not happen until then.
    Pace(Duration),
    /// A read on a thread of its own, or a write of one byte, which must wait.
    BlockedRead(Side),
    BlockedWrite(Side),
    /// The blocked call must be waiting still.
    StillBlocked,
    /// A signal interrupts the blocked call, which must go on waiting.
    Interrupt,
    /// The blocked call must return this.
    Returned(Want),
    /// From here on the edges of the side's descriptor are counted; those before are forgotten.
    Watch(Side, PollInterest),
    /// The side's descriptor is registered anew, and edges are counted from the first.
    Register(Side, PollInterest),
    Edge(Side, PollInterest),
    NoEdge(Side, PollInterest),
    Ready(Side, PollInterest),
    Unready(Side, PollInterest),
    /// From here on the side's descriptor is looked at for HUP, RDHUP and ERR.
    NoHangup(Side),
    /// The side must know that its peer was dropped, or that it was not.
    PeerGone(Side),
    PeerAlive(Side),
    /// A message of the next that many bytes, which must be taken, or refused in this way.
    Send(Side, usize),
    SendFails(Side, ErrorKind),
    /// The next message, which must have the next that many bytes, or why there is none.
    Receive(Side, usize),
    ReceiveFails(Side, ErrorKind),
    EndOfMessages(Side),
    /// These steps, that many times.
    Repeat(usize, &'static [Self]),
}
