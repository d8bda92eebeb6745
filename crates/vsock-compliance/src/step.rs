// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Checks as data: what is done with a pair, step by step, and what must happen.

pub(crate) mod words;

use std::io::ErrorKind;
use std::net::Shutdown;
use std::time::Duration;

use crate::poll::PollInterest;
use crate::source::Mode;

/// The end that takes a step.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Side {
    Near,
    Far,
}

/// What a call must return.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Want {
    /// A read or write of exactly this many bytes, the next ones of the direction.
    Count(usize),
    Fails(ErrorKind),
}

/// One step of a check. Written bytes are the next ones of the direction's pattern, and bytes that
/// are read are compared with it.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Step {
    /// A write of this many bytes, or of the promised capacity if that is less, which must be
    /// accepted as a whole.
    Write(Side, usize),
    /// A write of one byte, and the expected result.
    WriteReturns(Side, Want),
    /// Writes until a write is refused.
    Fill(Side),
    /// A read into eight bytes, and the expected result.
    Read(Side, Want),
    /// A peek, like `Read`; skipped if the transport has none.
    Peek(Side, Want),
    /// Reads until a read would block, or the end or a reset. Everything that was written must have
    /// arrived.
    Drain(Side),
    /// Every kind of empty call, and every kind of empty write.
    EmptyCalls(Side),
    EmptyWrites(Side),
    /// Transfers a byte from this side to the other.
    Carry(Side),
    Shutdown(Side, Shutdown),
    Drop(Side),
    Abort(Side),
    SetMode(Side, Mode),
    ReadTimeout(Side, Option<Duration>),
    WriteTimeout(Side, Option<Duration>),
    /// Timeouts of zero, which must be rejected for reads and writes.
    ZeroTimeoutsRefused(Side),
    /// A pause, during which something must not happen.
    Pace(Duration),
    /// A read on a separate thread, or a write of one byte, which must block.
    BlockedRead(Side),
    BlockedWrite(Side),
    /// The blocked call must still be waiting.
    StillBlocked,
    /// A signal interrupts the blocked call, which must continue to wait.
    Interrupt,
    /// The blocked call must return this result.
    Returned(Want),
    /// Starts to count edges of the side's descriptor. Earlier edges are discarded.
    Watch(Side, PollInterest),
    /// Registers the side's descriptor again, and counts edges from the first one.
    Register(Side, PollInterest),
    Edge(Side, PollInterest),
    NoEdge(Side, PollInterest),
    Ready(Side, PollInterest),
    Unready(Side, PollInterest),
    /// Checks the side's descriptor for HUP, RDHUP and ERR from here on.
    NoHangup(Side),
    /// The side must report whether its peer was dropped.
    PeerGone(Side),
    PeerAlive(Side),
    /// Sends the next bytes as a message of this length, which must be accepted or refused in this
    /// way.
    Send(Side, usize),
    SendFails(Side, ErrorKind),
    /// The next message must have the next bytes in this length, or be missing for this reason.
    Receive(Side, usize),
    ReceiveFails(Side, ErrorKind),
    EndOfMessages(Side),
    /// These steps, this many times.
    Repeat(usize, &'static [Self]),
}
