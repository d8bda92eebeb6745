// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

use std::collections::VecDeque;

use thiserror::Error;
use vsock_proto::{Cid, ConnKey, ResetReply, SocketType};

use crate::slot::Slot;

/// What is next to fill a buffer of the guest.
///
/// *Connections* that have something to send stand in two [lists](Lane), threaded through an array
/// with one node for each slot. A connection stands in one of them once or not at all; there is
/// nothing that could overflow, so none is ever lost, and there is nothing to synchronise again.
/// The caller takes the first, lets it send, and puts it at the end if it has more: each is served
/// once before any of its list is served twice. The lists take turns while both have connections.
///
/// *RSTs* to packets that belong to no connection wait in a queue of bounded length. When it is
/// [full](Self::is_full) the caller stops to take packets from the guest, until the guest has
/// provided buffers for those RSTs (virtio 1.3, 5.10.6.1). So none is lost either.
///
/// While both wait, they take turns.
#[derive(Debug)]
pub(crate) struct RxQueue {
    /// By slot; `None` for a connection that is not queued.
    nodes: Vec<Option<Node>>,
    host: List,
    guests: List,
    /// Which list is served next, if both have connections.
    lane: Lane,
    resets: VecDeque<ResetReply>,
    max_resets: usize,
    turn: Turn,
}

/// Which kind is served next, if both wait.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Turn {
    Reset,
    Connection,
}

/// The list in which a connection stands. However many connections other guests have, the host has
/// half of the turns.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Lane {
    /// With the host.
    Host,
    /// With other guests.
    Guests,
}

impl Lane {
    pub(crate) fn of(key: ConnKey) -> Self {
        if key.host_cid == Cid::HOST {
            Self::Host
        } else {
            Self::Guests
        }
    }
}

/// The ends of a list.
#[derive(Clone, Copy, Debug, Default)]
struct List {
    first: Option<Slot>,
    last: Option<Slot>,
    len: usize,
}

/// A queued connection's list, and its neighbours there.
#[derive(Clone, Copy, Debug)]
struct Node {
    lane: Lane,
    before: Option<Slot>,
    after: Option<Slot>,
}

/// What [`RxQueue::pop`] gives.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Next {
    /// An RST for which there is no connection; it is not in the queue any more.
    Reset(ResetReply),
    /// A connection that has something to send, and the list in which it stood; it is not in the
    /// queue any more.
    Connection(Slot, Lane),
}

impl RxQueue {
    /// An empty queue, in which at most `max_resets` RSTs may wait.
    pub(crate) fn new(max_resets: usize) -> Self {
        Self {
            nodes: Vec::new(),
            host: List::default(),
            guests: List::default(),
            lane: Lane::Host,
            resets: VecDeque::new(),
            max_resets,
            turn: Turn::Reset,
        }
    }

    /// Puts a connection at the end of its list, if it does not stand in the queue already.
    pub(crate) fn push(&mut self, slot: Slot, lane: Lane) {
        if slot.index() >= self.nodes.len() {
            self.nodes.resize(slot.index() + 1, None);
        }
        let Some(node @ None) = self.nodes.get_mut(slot.index()) else {
            return;
        };
        let list = match lane {
            Lane::Host => &mut self.host,
            Lane::Guests => &mut self.guests,
        };
        let before = list.last.replace(slot);
        list.len += 1;
        *node = Some(Node {
            lane,
            before,
            after: None,
        });
        match before {
            Some(before) => self.change(before, |node| node.after = Some(slot)),
            None => list.first = Some(slot),
        }
    }

    /// Takes a connection out, wherever it stands.
    pub(crate) fn remove(&mut self, slot: Slot) {
        let Some(node) = self.nodes.get_mut(slot.index()).and_then(Option::take) else {
            return;
        };
        let Node {
            lane,
            before,
            after,
        } = node;
        let list = self.list(lane);
        list.len -= 1;
        if before.is_none() {
            list.first = after;
        }
        if after.is_none() {
            list.last = before;
        }
        if let Some(before) = before {
            self.change(before, |node| node.after = after);
        }
        if let Some(after) = after {
            self.change(after, |node| node.before = before);
        }
    }

    /// Owes the guest an RST. Owing the same one twice is owing it once.
    ///
    /// # Errors
    ///
    /// [`ResetsFull`]: it could not be kept. A caller that looks at [`is_full`](Self::is_full)
    /// before it takes a packet never sees this.
    pub(crate) fn owe_reset(&mut self, reply: ResetReply) -> Result<(), ResetsFull> {
        if self.resets.contains(&reply) {
            return Ok(());
        }
        if self.is_full() {
            return Err(ResetsFull {
                limit: self.max_resets,
            });
        }
        self.resets.push_back(reply);
        Ok(())
    }

    /// Forgets an RST that is owed to this tuple and type of socket: the guest has begun a new
    /// connection with it, which the RST would kill. One of another type would not.
    pub(crate) fn forgive_reset(&mut self, key: ConnKey, socket_type: SocketType) {
        if !self.resets.is_empty() {
            let socket_type = u16::from(socket_type);
            self.resets
                .retain(|reply| reply.key != key || reply.socket_type != socket_type);
        }
    }

    /// Whether an RST is owed to this tuple, which would kill a connection that is begun with it
    /// now.
    pub(crate) fn owes_reset(&self, key: ConnKey) -> bool {
        self.resets.iter().any(|reply| reply.key == key)
    }

    /// Whether no other RST can be owed: the guest's packets must wait.
    pub(crate) fn is_full(&self) -> bool {
        self.resets.len() >= self.max_resets
    }

    /// RSTs that wait.
    pub(crate) fn resets(&self) -> usize {
        self.resets.len()
    }

    /// Whether nothing waits.
    pub(crate) fn is_empty(&self) -> bool {
        self.has_no_connection() && self.resets.is_empty()
    }

    fn has_no_connection(&self) -> bool {
        self.host.len == 0 && self.guests.len == 0
    }

    /// After so many connections that were taken out and put back, each has been served.
    pub(crate) fn round(&self) -> usize {
        let (host, guests) = (self.host.len, self.guests.len);
        match host.min(guests) {
            0 => host.max(guests),
            _ => 2 * host.max(guests),
        }
    }

    /// Takes out what is next.
    pub(crate) fn pop(&mut self) -> Option<Next> {
        let reset_is_next = self.turn == Turn::Reset || self.has_no_connection();
        if reset_is_next {
            if let Some(reply) = self.resets.pop_front() {
                self.turn = Turn::Connection;
                return Some(Next::Reset(reply));
            }
        }
        self.turn = Turn::Reset;
        let (slot, lane) = match (self.host.first, self.guests.first, self.lane) {
            (Some(slot), _, Lane::Host) | (Some(slot), None, _) => (slot, Lane::Host),
            (_, Some(slot), _) => (slot, Lane::Guests),
            (None, None, _) => return None,
        };
        self.lane = match lane {
            Lane::Host => Lane::Guests,
            Lane::Guests => Lane::Host,
        };
        self.remove(slot);
        Some(Next::Connection(slot, lane))
    }

    /// Forgets all, and gives the memory back.
    pub(crate) fn clear(&mut self) {
        *self = Self::new(self.max_resets);
    }

    fn list(&mut self, lane: Lane) -> &mut List {
        match lane {
            Lane::Host => &mut self.host,
            Lane::Guests => &mut self.guests,
        }
    }

    fn change(&mut self, slot: Slot, change: impl FnOnce(&mut Node)) {
        if let Some(Some(node)) = self.nodes.get_mut(slot.index()) {
            change(node);
        }
    }
}

/// An RST that cannot be kept: too many wait for buffers of the guest.
#[derive(Clone, Copy, Debug, Eq, Error, PartialEq)]
#[error("{limit} RSTs wait already")]
pub(crate) struct ResetsFull {
    /// How many may wait.
    pub(crate) limit: usize,
}

#[cfg(test)]
mod tests;
