// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! The names that the tables of rules use.

pub(crate) use std::net::Shutdown as Shut;

use std::io::ErrorKind;

pub(crate) use super::Side::{Far, Near};
pub(crate) use super::Step::{
    Abort, BlockedRead, BlockedWrite, Carry, Drain, Drop, Edge, EmptyCalls, EmptyWrites,
    EndOfMessages, Fill, Interrupt, NoEdge, NoHangup, Pace, Peek, PeerAlive, PeerGone, Read,
    ReadTimeout, Ready, Receive, ReceiveFails, Register, Repeat, Returned, Send, SendFails,
    SetMode, Shutdown, StillBlocked, Unready, Watch, Write, WriteReturns, WriteTimeout,
    ZeroTimeoutsRefused,
};
use super::Want;
pub(crate) use crate::poll::PollInterest::{Read as In, Write as Out};
pub(crate) use crate::source::Mode::{Blocking, Nonblocking};
/// The end of a direction, as reported by a read.
pub(crate) const END: Want = Want::Count(0);
pub(crate) const ONE: Want = Want::Count(1);
pub(crate) const WOULD_BLOCK: Want = Want::Fails(ErrorKind::WouldBlock);
pub(crate) const TIMED_OUT: Want = Want::Fails(ErrorKind::TimedOut);
pub(crate) const BROKEN: Want = Want::Fails(ErrorKind::BrokenPipe);
pub(crate) const RESET: Want = Want::Fails(ErrorKind::ConnectionReset);
