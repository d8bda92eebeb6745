// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! One stream of a loop: how its directions stand, what it owes, what it is watched for.

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

/// What the kernel reports of a descriptor whether it was asked or not.
const BROKEN: EventSet = EventSet::HANG_UP.union(EventSet::ERROR);

/// The incoming direction. When a stream [is closing](Entry::is_closing), it is left alone.
///
/// ```text
/// Paused ◀──▶ Open ──▶ Ending ──▶ Ended
///    └──────────┴────────────────▶
/// ```
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Incoming {
    Open,
    /// What comes is left where it is.
    Paused,
    /// The end was read, and is to be told.
    Ending,
    /// Nothing is read any more: the end was told, reading has failed, or the handler wanted no
    /// more.
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
    /// A write was refused, or the handler has asked: it is told when there is space.
    Awaited,
}

/// How far the outgoing direction is closed.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Closure {
    /// To be shut down once the backlog is written.
    Pending,
    Shut,
    /// A write has failed.
    Broken,
}

/// What follows when the outgoing direction is shut.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub(crate) enum Then {
    /// The incoming direction goes on.
    ReadOn,
    /// The stream is closed, whatever comes.
    Close,
}

/// Whether the peer of a paused stream is there.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Peer {
    Present,
    /// It is gone, which is to be told.
    Gone,
    GoneAndTold,
}

/// What has come of a turn.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Turn {
    /// What may be read until the next one.
    pub(crate) budget: usize,
    /// The last read has found nothing, or less than it could take.
    pub(crate) dry: bool,
    /// Something has come of this turn.
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

/// What a handler is to be told of a stream, or what is to become of it.
pub(crate) enum Owed {
    Failed(StreamFailure),
    Space,
    End,
    PeerGone,
    /// Nothing will ever happen again: it is to be closed.
    Close,
}

pub(crate) struct Entry<T> {
    pub(crate) stream: Contained,
    pub(crate) state: T,
    pub(crate) turn: Turn,
    /// It is in the queue of those that have news for the handler.
    pub(crate) noted: bool,
    /// It is in the queue of those that have more to read, which edges do not tell again.
    pub(crate) queued: bool,
    /// When a byte has moved.
    pub(crate) active: Instant,
    pub(crate) deadline: Option<Instant>,
    /// The moment of its one entry in the heap that counts.
    pub(crate) wake: Option<Instant>,
    backlog: VecDeque<u8>,
    incoming: Incoming,
    outgoing: Outgoing,
    peer: Peer,
    /// What it has failed with, to be told.
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

    /// Whether it takes bytes for writing.
    pub(crate) fn is_writable(&self) -> bool {
        matches!(self.outgoing, Outgoing::Open(_))
    }

    /// How many bytes wait to be written.
    pub(crate) fn waiting(&self) -> usize {
        self.backlog.len()
    }

    /// To be closed once everything is written.
    fn is_closing(&self) -> bool {
        matches!(self.outgoing, Outgoing::Closed(_, Then::Close))
    }

    fn has_ended(&self) -> bool {
        matches!(self.incoming, Incoming::Ending | Incoming::Ended)
    }

    /// The handler waits for space, and there is some: half of the backlog, so that it is not woken
    /// for every byte.
    fn has_space_to_tell(&self, limit: usize) -> bool {
        self.outgoing == Outgoing::Open(Space::Awaited) && self.backlog.len() <= limit / 2
    }

    /// Nothing will ever happen again.
    fn is_done(&self) -> bool {
        let Outgoing::Closed(closure, then) = self.outgoing else {
            return false;
        };
        // A failure is told first, and an end that was not read yet may still bring bytes.
        closure != Closure::Pending
            && !self.writing()
            && (self.has_ended() || then == Then::Close)
            && self.failure.is_none()
    }

    /// Whether something is owed to the handler.
    pub(crate) fn owes(&self, limit: usize) -> bool {
        self.failure.is_some()
            || self.has_space_to_tell(limit)
            || self.incoming == Incoming::Ending
            || self.peer == Peer::Gone
            || self.is_done()
    }

    /// Takes the next thing that is owed. A failure comes first, and the end of everything last.
    pub(crate) fn take_owed(&mut self, limit: usize) -> Option<Owed> {
        if let Some(failure) = self.failure.take() {
            return Some(Owed::Failed(failure));
        }
        if self.has_space_to_tell(limit) {
            self.outgoing = Outgoing::Open(Space::NotAwaited);
            return Some(Owed::Space);
        }
        if self.incoming == Incoming::Ending {
            self.incoming = Incoming::Ended;
            return Some(Owed::End);
        }
        if self.peer == Peer::Gone {
            self.peer = Peer::GoneAndTold;
            return Some(Owed::PeerGone);
        }
        self.is_done().then_some(Owed::Close)
    }

    /// Leaves alone what comes; says whether that is a change.
    pub(crate) fn pause(&mut self) -> bool {
        self.turn_to(Incoming::Open, Incoming::Paused)
    }

    /// Goes on reading; says whether that is a change.
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

    /// Reads no more; says whether that is a change. An end that was read before is told all the
    /// same.
    pub(crate) fn stop_reading(&mut self) -> bool {
        let changes = !self.has_ended();
        if changes {
            self.incoming = Incoming::Ended;
        }
        changes
    }

    /// Tells the handler when there is space.
    pub(crate) fn await_space(&mut self) {
        if let Outgoing::Open(space) = &mut self.outgoing {
            *space = Space::Awaited;
        }
    }

    /// It has failed, which closes it when it is told.
    pub(crate) fn fail(&mut self, failure: StreamFailure) {
        self.stop_reading();
        self.failure = Some(failure);
    }

    /// Whether an event says that the peer is gone, of a stream that has ended and says nothing
    /// else.
    pub(crate) fn is_deserted(&self, events: EventSet) -> bool {
        let waits = self.has_ended() && !self.writing() && self.is_writable();
        waits && self.peer_is_gone(events)
    }

    /// Sees, once, that the peer of a paused stream is gone.
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

    /// Watches for what there is to do, and for nothing else.
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
            // Parked: its descriptor is readable for ever, so only an edge tells that the peer
            // goes.
            Incoming::Ending | Incoming::Ended => EventSet::IN | EventSet::EDGE_TRIGGERED,
            // What comes is left alone, so here, too, only an edge tells that the peer goes. The
            // set is never that of a stream that is read, so that to go on reading looks at what
            // has come.
            Incoming::Paused => {
                let silent = self.stream.backend_type() == VsockBackendType::Inner; // it has no hang-up
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
        // One descriptor has one registration, so what both directions want is added up; a stream
        // with a descriptor of its own for writing has two.
        match &mut self.outgoing_fd {
            Some(of) if of.fd() != self.incoming_fd.fd() => {
                self.incoming_fd.set(watcher, incoming, word)?;
                of.set(watcher, outgoing, word)
            }
            _ => self.incoming_fd.set(watcher, incoming | outgoing, word),
        }
    }

    /// Watches nothing more. The kernel forgets a descriptor with its last copy, which need not be
    /// ours.
    pub(crate) fn unwatch(&mut self, watcher: &Watcher) {
        // It cannot fail for a descriptor that is registered; one that its owner has closed is
        // gone.
        self.incoming_fd.set(watcher, EventSet::empty(), 0).ok();
        if let Some(fd) = &mut self.outgoing_fd {
            fd.set(watcher, EventSet::empty(), 0).ok();
        }
    }
}
