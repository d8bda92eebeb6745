// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! One stream of a loop: what it owes, what it is watched for.

use std::collections::VecDeque;
use std::io::{self, ErrorKind, IoSlice};
use std::net::Shutdown;
use std::time::Instant;

use vmm_sys_util::epoll::EventSet;
use vsock_backend_api::VsockBackendType;

use crate::contain::Contained;
use crate::watch::{Watched, Watcher};
use crate::{StreamFailure, StreamId, Trigger};

/// A backlog that was larger than this gives its memory back when it is empty.
const KEPT: usize = 4096;

/// What the kernel reports of a descriptor whether it was asked or not.
const BROKEN: EventSet = EventSet::HANG_UP.union(EventSet::ERROR);

/// The outgoing direction.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Outgoing {
    Open,
    /// To be shut down once the backlog is written.
    Finishing,
    Shut,
    /// A write has failed.
    Broken,
}

pub(crate) struct Entry<T> {
    pub(crate) stream: Contained,
    pub(crate) state: T,
    pub(crate) backlog: VecDeque<u8>,
    pub(crate) outgoing: Outgoing,
    /// The incoming direction has ended, or reading it has failed.
    pub(crate) ended: bool,
    pub(crate) paused: bool,
    /// To be closed once everything is written.
    pub(crate) closing: bool,
    /// A write was refused, so the handler waits for space.
    pub(crate) wants_space: bool,
    /// What may be read until the next turn.
    pub(crate) budget: usize,
    /// The last read has found nothing, or less than it could take.
    pub(crate) dry: bool,
    /// Something has come of this turn.
    pub(crate) moved: bool,
    /// It is in the queue of those that have news for the handler.
    pub(crate) noted: bool,
    /// It is in the queue of those that have more to read, which edges do not tell again.
    pub(crate) queued: bool,
    pub(crate) end_to_tell: bool,
    /// The peer was found to be gone while this was paused: to be told, and told.
    pub(crate) gone_to_tell: bool,
    gone_seen: bool,
    pub(crate) failure: Option<StreamFailure>,
    pub(crate) active: Instant,
    pub(crate) deadline: Option<Instant>,
    /// The moment of its one entry in the heap that counts.
    pub(crate) wake: Option<Instant>,
    incoming_fd: Watched,
    outgoing_fd: Option<Watched>,
}

impl<T> Entry<T> {
    pub(crate) fn new(stream: Contained, state: T, budget: usize, now: Instant) -> Self {
        let incoming_fd = Watched::nothing_of(stream.fd());
        Self {
            stream,
            state,
            backlog: VecDeque::new(),
            outgoing: Outgoing::Open,
            ended: false,
            paused: false,
            closing: false,
            wants_space: false,
            budget,
            dry: false,
            moved: false,
            noted: false,
            queued: false,
            end_to_tell: false,
            gone_to_tell: false,
            gone_seen: false,
            failure: None,
            active: now,
            deadline: None,
            wake: None,
            incoming_fd,
            outgoing_fd: None,
        }
    }

    pub(crate) fn reading(&self) -> bool {
        !self.ended && !self.paused && !self.closing
    }

    pub(crate) fn writing(&self) -> bool {
        !self.backlog.is_empty()
    }

    /// The handler waits for space, and there is some: half of the backlog, so that it is not woken for
    /// every byte.
    pub(crate) fn has_space_to_tell(&self, limit: usize) -> bool {
        self.wants_space && self.outgoing == Outgoing::Open && self.backlog.len() <= limit / 2
    }

    /// Nothing will ever happen again.
    pub(crate) fn is_done(&self) -> bool {
        let written = matches!(self.outgoing, Outgoing::Shut | Outgoing::Broken);
        written && !self.writing() && (self.ended || self.closing) && self.failure.is_none()
    }

    /// Reads once. `Ok(None)` if nothing is there.
    pub(crate) fn read(&mut self, buf: &mut [u8], trigger: Trigger) -> io::Result<Option<usize>> {
        let most = buf.len();
        loop {
            match self.stream.read(buf) {
                Ok(read) => {
                    // Less than there was room for is all that there was. Levels come again if that
                    // is wrong; for edges only `WouldBlock` will do.
                    self.dry = read < most && trigger == Trigger::Level;
                    self.budget = self.budget.saturating_sub(read);
                    self.moved = true;
                    return Ok(Some(read));
                }
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) if error.kind() == ErrorKind::WouldBlock => {
                    self.dry = true;
                    return Ok(None);
                }
                Err(error) => {
                    self.moved = true;
                    return Err(error);
                }
            }
        }
    }

    /// Writes as much of `bytes` as the stream takes, and keeps of the rest as much as the backlog may
    /// hold. Returns how many of them the stream took, and how many are kept.
    pub(crate) fn write(&mut self, bytes: &[u8], limit: usize) -> io::Result<(usize, usize)> {
        let mut taken = 0;
        while !self.writing() && taken < bytes.len() {
            match self.stream.write(&bytes[taken..]) {
                Ok(0) => return Err(ErrorKind::WriteZero.into()),
                Ok(written) => taken += written,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                Err(error) => return Err(error),
            }
        }
        let rest = &bytes[taken..];
        let kept = rest.len().min(limit.saturating_sub(self.backlog.len()));
        self.backlog.extend(&rest[..kept]);
        self.wants_space |= kept < rest.len();
        Ok((taken, kept))
    }

    /// Writes the backlog as far as the stream takes it; returns how much that was.
    pub(crate) fn flush(&mut self) -> (usize, io::Result<()>) {
        let mut taken = 0;
        while self.writing() {
            let (first, second) = self.backlog.as_slices();
            let slices = [IoSlice::new(first), IoSlice::new(second)];
            match self.stream.write_vectored(&slices) {
                Ok(0) => return (taken, Err(ErrorKind::WriteZero.into())),
                Ok(written) => {
                    drop(self.backlog.drain(..written));
                    taken += written;
                    self.moved = true;
                }
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                Err(error) => return (taken, Err(error)),
            }
        }
        if !self.writing() && self.backlog.capacity() > KEPT {
            self.backlog = VecDeque::new();
        }
        (taken, Ok(()))
    }

    /// Ends the outgoing direction if everything is written.
    pub(crate) fn finish(&mut self) {
        if self.outgoing != Outgoing::Finishing || self.writing() {
            return;
        }
        self.outgoing = Outgoing::Shut;
        // Where there is no half-close, the only end is the whole one. Any other error says that there
        // is no peer any more, which reading will tell.
        if let Err(error) = self.stream.shutdown(Shutdown::Write) {
            self.closing |= error.kind() == ErrorKind::Unsupported;
        }
    }

    /// A write has failed: what is left is lost, and returned as a number.
    pub(crate) fn broken(&mut self, failure: StreamFailure) -> usize {
        let lost = self.backlog.len();
        self.backlog = VecDeque::new();
        self.outgoing = Outgoing::Broken;
        self.wants_space = false;
        self.moved = true;
        self.failure.get_or_insert(failure);
        lost
    }

    /// Whether an event says that the peer is gone, of a stream that has ended and says nothing else.
    pub(crate) fn is_deserted(&self, events: EventSet) -> bool {
        let waits = self.ended && !self.writing() && self.outgoing == Outgoing::Open;
        waits && (events.intersects(BROKEN) || self.stream.peer_gone())
    }

    /// Sees, once, that the peer of a paused stream is gone.
    pub(crate) fn see_gone(&mut self, events: EventSet) -> bool {
        let waits = self.paused && !self.ended && !self.closing && !self.gone_seen;
        let gone = waits && (events.intersects(BROKEN) || self.stream.peer_gone());
        self.gone_seen |= gone;
        self.gone_to_tell |= gone;
        gone
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
        let incoming = if self.reading() {
            EventSet::IN | edge
        } else if self.ended && !self.closing {
            // Parked: its descriptor is readable for ever, so only an edge tells that the peer goes.
            EventSet::IN | EventSet::EDGE_TRIGGERED
        } else if self.paused && !self.closing {
            // What comes is left alone, so here, too, only an edge tells that the peer goes. The set is
            // never that of a stream that is read, so that to go on reading looks at what has come.
            let silent = self.stream.backend_type() == VsockBackendType::Inner; // it has no hang-up
            let data = if silent {
                EventSet::IN
            } else {
                EventSet::empty()
            };
            data | EventSet::READ_HANG_UP | EventSet::EDGE_TRIGGERED
        } else {
            EventSet::empty()
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
        // It cannot fail for a descriptor that is registered; one that its owner has closed is gone.
        self.incoming_fd.set(watcher, EventSet::empty(), 0).ok();
        if let Some(fd) = &mut self.outgoing_fd {
            fd.set(watcher, EventSet::empty(), 0).ok();
        }
    }
}
