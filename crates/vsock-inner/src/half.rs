// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! What the reading and the writing half of an end have in common.
//!
//! A half holds its connection, how it waits, and whether its drop is a close or a reset.

use std::fmt;
use std::io::IoSlice;
use std::os::fd::RawFd;
use std::thread::panicking;
use std::time::Duration;

use crate::connection::{ConnectState, Connection, Side};
use crate::pipe::Pipe;
use crate::sync::Arc;
use crate::wait::Waiter;

/// The common part of a reading or writing half.
#[derive(Clone)]
pub(crate) struct Half {
    pub(crate) connection: Arc<Connection>,
    pub(crate) side: Side,
    /// The descriptor of this end, which identifies it in errors.
    pub(crate) fd: RawFd,
    pub(crate) waiter: Waiter,
    pub(crate) owner: Owner,
    on_drop: OnDrop,
}

/// What a half belongs to.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Owner {
    /// A stream. Both halves are dropped together, the reading one first.
    Stream,
    /// A separate owner, after a split.
    Alone,
}

/// The effect of dropping a half.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum OnDrop {
    /// A close, or during a panic a reset.
    Close,
    /// A reset.
    Reset,
}

impl Half {
    pub(crate) fn new(
        connection: &Arc<Connection>,
        side: Side,
        fd: RawFd,
        spin_budget: Duration,
    ) -> Self {
        Self {
            connection: Arc::clone(connection),
            side,
            fd,
            waiter: Waiter::new(spin_budget, None),
            owner: Owner::Stream,
            on_drop: OnDrop::Close,
        }
    }

    /// Makes the drop a reset.
    pub(crate) const fn reset_on_drop(&mut self) {
        self.on_drop = OnDrop::Reset;
    }

    /// Whether a drop now would be a reset, regardless of unread bytes.
    pub(crate) fn drop_resets(&self) -> bool {
        self.on_drop == OnDrop::Reset || panicking()
    }

    /// Called when the half is dropped, after it has ended its direction.
    pub(crate) fn leave(&self) {
        self.connection.leave(self.side);
    }

    /// The pipe that this end reads from.
    pub(crate) fn incoming(&self) -> &Arc<Pipe> {
        self.connection.incoming(self.side)
    }

    /// The pipe that this end writes to.
    pub(crate) fn outgoing(&self) -> &Arc<Pipe> {
        self.connection.outgoing(self.side)
    }

    pub(crate) fn connect_state(&self) -> ConnectState {
        self.connection.connect_state(self.side)
    }

    pub(crate) fn peer_gone(&self) -> bool {
        self.connection.is_gone(self.side.peer())
    }

    /// Formats the half as the type `name`, with `queued` bytes.
    pub(crate) fn show(&self, f: &mut fmt::Formatter<'_>, name: &str, queued: u64) -> fmt::Result {
        f.debug_struct(name)
            .field("side", &self.side)
            .field("fd", &self.fd)
            .field("nonblocking", &self.waiter.nonblocking)
            .field("queued", &queued)
            .finish_non_exhaustive()
    }
}

/// The total length of the buffers of a vectored call.
pub(crate) fn total(lens: impl Iterator<Item = usize>) -> usize {
    lens.fold(0, usize::saturating_add)
}

/// The first non-empty buffer of `bufs`.
pub(crate) fn first<'a>(bufs: &'a [IoSlice<'_>]) -> &'a [u8] {
    let first = bufs.iter().find(|buf| !buf.is_empty());
    first.map_or(&[], |buf| buf)
}

/// What remains of `bufs` after the first `done` bytes.
pub(crate) fn rest<'a>(bufs: &'a [IoSlice<'_>], done: usize) -> impl Iterator<Item = &'a [u8]> {
    let mut skip = done;
    bufs.iter().map(move |buf| {
        let skipped = skip.min(buf.len());
        skip -= skipped;
        &buf[skipped..]
    })
}
