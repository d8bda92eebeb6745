// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! One stream of a loop: the state of its two directions, what its handler must be told, and what
//! is watched on it.
//!
//! The incoming and the outgoing direction are separate state machines. They meet in
//! [`Entry::has_pending`], which says whether the handler has a call pending, and in
//! [`Entry::watch`], which derives the registration from both.

mod bytes;

pub(crate) use self::bytes::Written;

use std::collections::VecDeque;
use std::io;
use std::time::Instant;

use vmm_sys_util::epoll::EventSet;
use vsock_backend_api::VsockBackendType;

use crate::contain::Contained;
use crate::watch::{Watched, Watcher};
use crate::{StreamFailure, StreamId, Trigger};

/// What the kernel reports about a descriptor even without being asked.
const BROKEN: EventSet = EventSet::HANG_UP.union(EventSet::ERROR);

/// The incoming direction. It is ignored once a stream [is closing](Entry::is_closing).
///
/// ```text
/// Paused ◀──▶ Open ──▶ Ending ──▶ Ended
///    └──────────┴────────────────▶
/// ```
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Incoming {
    Open,
    /// Data is left in the transport.
    Paused,
    /// The end has been read, and the handler must be told.
    Ending,
    /// Nothing is read any more: the handler has been told of the end, reading has failed, or the
    /// handler has stopped reading.
    Ended,
}

/// The outgoing direction.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Outgoing {
    Open(Space),
    Closed(Closure, Then),
}

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Space {
    NotAwaited,
    /// A write was refused, or the handler has asked: it is called when there is space.
    Awaited,
}

/// How far the outgoing direction has been closed.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Closure {
    /// To be shut down once the backlog has been written.
    Pending,
    Shut,
    /// A write has failed.
    Broken,
}

/// What follows once the outgoing direction is shut down.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub(crate) enum Then {
    /// The incoming direction continues.
    ReadOn,
    /// The stream is closed, whatever the peer does.
    Close,
}

/// Whether the peer of a paused stream still exists.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Peer {
    Present,
    /// It has gone, and the handler must be told.
    Gone,
    GoneAndReported,
}

/// The state of a stream's turn.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Turn {
    /// How many bytes may still be read.
    pub(crate) budget: usize,
    /// The last read found nothing, or less than it could have taken.
    pub(crate) dry: bool,
    /// The turn has had some result.
    pub(crate) moved: bool,
}

impl Turn {
    const fn new(budget: usize) -> Self {
        Self {
            budget,
            dry: false,
            moved: false,
        }
    }
}

/// A pending call of the handler, or a pending close.
pub(crate) enum Pending {
    Failed(StreamFailure),
    Space,
    End,
    PeerGone,
    /// Nothing more can happen: close the stream.
    Close,
}

pub(crate) struct Entry<T> {
    pub(crate) stream: Contained,
    pub(crate) state: T,
    pub(crate) turn: Turn,
    /// It is in the queue of streams with news for the handler.
    pub(crate) noted: bool,
    /// It is in the queue of streams with more to read, which no edge will report.
    pub(crate) queued: bool,
    /// When a byte was last transferred.
    pub(crate) active: Instant,
    pub(crate) deadline: Option<Instant>,
    /// The time of its only valid entry in the heap of deadlines.
    pub(crate) wake: Option<Instant>,
    backlog: VecDeque<u8>,
    incoming: Incoming,
    outgoing: Outgoing,
    peer: Peer,
    /// Its failure, until the handler is told.
    failure: Option<StreamFailure>,
    incoming_fd: Watched,
    outgoing_fd: Option<Watched>,
}

impl<T> Entry<T> {
    pub(crate) fn new(stream: Contained, state: T, budget: usize, now: Instant) -> Self {
        let incoming_fd = Watched::nothing_of(stream.fd());
        Self {
            stream,
            state,
            turn: Turn::new(budget),
            noted: false,
            queued: false,
            active: now,
            deadline: None,
            wake: None,
            backlog: VecDeque::new(),
            incoming: Incoming::Open,
            outgoing: Outgoing::Open(Space::NotAwaited),
            peer: Peer::Present,
            failure: None,
            incoming_fd,
            outgoing_fd: None,
        }
    }

    pub(crate) fn begin_turn(&mut self, budget: usize) {
        self.turn = Turn::new(budget);
    }

    pub(crate) fn reading(&self) -> bool {
        self.incoming == Incoming::Open && !self.is_closing()
    }

    pub(crate) fn writing(&self) -> bool {
        !self.backlog.is_empty()
    }

    /// Whether it accepts bytes for writing.
    pub(crate) fn is_writable(&self) -> bool {
        matches!(self.outgoing, Outgoing::Open(_))
    }

    /// How many bytes wait to be written.
    pub(crate) fn waiting(&self) -> usize {
        self.backlog.len()
    }

    /// Whether it is closed as soon as everything is written.
    fn is_closing(&self) -> bool {
        matches!(self.outgoing, Outgoing::Closed(_, Then::Close))
    }

    fn has_ended(&self) -> bool {
        matches!(self.incoming, Incoming::Ending | Incoming::Ended)
    }

    /// Whether to tell the handler, which waits for space, that there is some: only when half of
    /// the backlog is free, so that the handler is not called for every byte.
    fn has_space_to_report(&self, limit: usize) -> bool {
        self.outgoing == Outgoing::Open(Space::Awaited) && self.backlog.len() <= limit / 2
    }

    /// Whether nothing more can happen.
    fn is_done(&self) -> bool {
        let Outgoing::Closed(closure, then) = self.outgoing else {
            return false;
        };
        // A failure is reported first, and as long as the end has not been read, more bytes may
        // arrive.
        closure != Closure::Pending
            && !self.writing()
            && (self.has_ended() || then == Then::Close)
            && self.failure.is_none()
    }

    /// Whether a call of the handler, or the close, is pending.
    pub(crate) fn has_pending(&self, limit: usize) -> bool {
        self.failure.is_some()
            || self.has_space_to_report(limit)
            || self.incoming == Incoming::Ending
            || self.peer == Peer::Gone
            || self.is_done()
    }

    /// Takes the next pending call. A failure comes first, the close last.
    pub(crate) fn take_pending(&mut self, limit: usize) -> Option<Pending> {
        if let Some(failure) = self.failure.take() {
            return Some(Pending::Failed(failure));
        }
        if self.has_space_to_report(limit) {
            self.outgoing = Outgoing::Open(Space::NotAwaited);
            return Some(Pending::Space);
        }
        if self.incoming == Incoming::Ending {
            self.incoming = Incoming::Ended;
            return Some(Pending::End);
        }
        if self.peer == Peer::Gone {
            self.peer = Peer::GoneAndReported;
            return Some(Pending::PeerGone);
        }
        self.is_done().then_some(Pending::Close)
    }

    /// Stops reading for now. Returns whether that is a change.
    pub(crate) fn pause(&mut self) -> bool {
        self.turn_to(Incoming::Open, Incoming::Paused)
    }

    /// Continues reading. Returns whether that is a change.
    pub(crate) fn resume(&mut self) -> bool {
        self.turn_to(Incoming::Paused, Incoming::Open)
    }

    fn turn_to(&mut self, from: Incoming, to: Incoming) -> bool {
        let changes = self.incoming == from;
        if changes {
            self.incoming = to;
            self.turn.dry = false;
        }
        changes
    }

    /// Stops reading for good. Returns whether that is a change. An end that was already read is
    /// still reported.
    pub(crate) fn stop_reading(&mut self) -> bool {
        let changes = !self.has_ended();
        if changes {
            self.incoming = Incoming::Ended;
        }
        changes
    }

    /// Makes the handler be called when there is space.
    pub(crate) fn await_space(&mut self) {
        if let Outgoing::Open(space) = &mut self.outgoing {
            *space = Space::Awaited;
        }
    }

    /// Records a failure. The stream is closed when the handler has been told.
    pub(crate) fn fail(&mut self, failure: StreamFailure) {
        self.stop_reading();
        self.failure = Some(failure);
    }

    /// Whether an event means that the peer has gone, on a stream whose incoming direction has
    /// ended and that could still write.
    pub(crate) fn is_deserted(&self, events: EventSet) -> bool {
        let waits = self.has_ended() && !self.writing() && self.is_writable();
        waits && self.peer_is_gone(events)
    }

    /// Notices, once, that the peer of a paused stream has gone.
    pub(crate) fn see_gone(&mut self, events: EventSet) -> bool {
        let waits = self.incoming == Incoming::Paused && !self.is_closing();
        let gone = waits && self.peer == Peer::Present && self.peer_is_gone(events);
        if gone {
            self.peer = Peer::Gone;
        }
        gone
    }

    fn peer_is_gone(&self, events: EventSet) -> bool {
        events.intersects(BROKEN) || self.stream.peer_gone()
    }

    pub(crate) fn may_read(events: EventSet) -> bool {
        events.intersects(EventSet::IN | EventSet::READ_HANG_UP | BROKEN)
    }

    pub(crate) fn may_write(events: EventSet) -> bool {
        events.intersects(EventSet::OUT | BROKEN)
    }

    /// Watches the stream for exactly what it waits for.
    pub(crate) fn watch(
        &mut self,
        watcher: &Watcher,
        id: StreamId,
        trigger: Trigger,
    ) -> io::Result<()> {
        let edge = match trigger {
            Trigger::Level => EventSet::empty(),
            Trigger::Edge => EventSet::EDGE_TRIGGERED,
        };
        let incoming = match self.incoming {
            _ if self.is_closing() => EventSet::empty(),
            Incoming::Open => EventSet::IN | edge,
            // Its descriptor stays readable, so only an edge can report that the peer goes.
            Incoming::Ending | Incoming::Ended => EventSet::IN | EventSet::EDGE_TRIGGERED,
            // Data is left in the transport, so again only an edge can report that the peer goes.
            // This set always differs from that of a stream that is read; so on resume the
            // registration changes, and the kernel reports the data that has arrived.
            Incoming::Paused => {
                // An in-process stream has no hang-up; its peer's drop is an edge of `IN`.
                let silent = self.stream.backend_type() == VsockBackendType::Inner;
                let data = if silent {
                    EventSet::IN
                } else {
                    EventSet::empty()
                };
                data | EventSet::READ_HANG_UP | EventSet::EDGE_TRIGGERED
            }
        };
        let outgoing = if self.writing() {
            EventSet::OUT | edge
        } else {
            EventSet::empty()
        };
        let word = id.word();
        if self.outgoing_fd.is_none() && self.writing() {
            let fd = self.stream.write_ready_fd()?;
            self.outgoing_fd = Some(Watched::nothing_of(fd));
        }
        // A descriptor can be registered only once, so a socket watches for both directions
        // together. A stream with a separate descriptor for writing has two registrations.
        match &mut self.outgoing_fd {
            Some(of) if of.fd() != self.incoming_fd.fd() => {
                self.incoming_fd.set(watcher, incoming, word)?;
                of.set(watcher, outgoing, word)
            }
            _ => self.incoming_fd.set(watcher, incoming | outgoing, word),
        }
    }

    /// Stops watching. The kernel forgets a descriptor only with its last copy, which need not be
    /// ours.
    pub(crate) fn unwatch(&mut self, watcher: &Watcher) {
        // This cannot fail for a registered descriptor. If its owner has closed it, it is already
        // gone.
        self.incoming_fd.set(watcher, EventSet::empty(), 0).ok();
        if let Some(fd) = &mut self.outgoing_fd {
            fd.set(watcher, EventSet::empty(), 0).ok();
        }
    }
}
