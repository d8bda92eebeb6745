// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

use std::collections::VecDeque;

use thiserror::Error;
use vsock_proto::{Cid, ConnKey, ResetReply, SocketType};

use crate::slot::Slot;

/// Decides what is put into the next buffer of the guest.
///
/// *Connections* that have something to send are in one of two [lists](Lane), which are linked
/// through an array with one node per slot. A connection is in at most one list, at most once, so
/// the lists cannot overflow and no connection can be lost. The caller takes the first connection,
/// lets it send, and appends it again if it has more; each connection is thus served once before
/// any other of its list is served twice. While both lists have connections, they alternate.
///
/// *RSTs* for packets without a connection wait in a queue of bounded length. When it is
/// [full](Self::is_full), the caller stops taking packets from the guest until the guest has
/// provided buffers for these RSTs (virtio 1.3, 5.10.6.1), so none of them is lost.
///
/// While both RSTs and connections wait, they alternate.
#[derive(Debug)]
pub(crate) struct RxQueue {
    /// The nodes by slot; `None` for a connection that is not queued.
    nodes: Vec<Option<Node>>,
    host: List,
    guests: List,
    /// The list to be served next, if both have connections.
    lane: Lane,
    resets: VecDeque<ResetReply>,
    max_resets: usize,
    turn: Turn,
}

/// Which is served next, if both RSTs and connections wait.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Turn {
    Reset,
    Connection,
}

/// The list that a connection belongs to. However many connections siblings have, the host's
/// connections receive half of the turns.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Lane {
    /// Connections with the host.
    Host,
    /// Connections with siblings.
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

/// The ends and the length of a list.
#[derive(Clone, Copy, Debug, Default)]
struct List {
    first: Option<Slot>,
    last: Option<Slot>,
    len: usize,
}

/// The list of a queued connection, and its neighbours there.
#[derive(Clone, Copy, Debug)]
struct Node {
    lane: Lane,
    before: Option<Slot>,
    after: Option<Slot>,
}

/// The result of [`RxQueue::pop`], which is removed from the queue.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Next {
    /// An RST without a connection.
    Reset(ResetReply),
    /// A connection that has something to send, and its list.
    Connection(Slot, Lane),
}

impl RxQueue {
    /// Creates an empty queue for at most `max_resets` RSTs.
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

    /// Appends a connection to its list, unless it is already queued.
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

    /// Removes a connection from its list, if it is queued.
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

    /// Queues an RST. An RST that is already queued is not queued twice.
    ///
    /// # Errors
    ///
    /// [`ResetsFull`] if there is no room. This cannot happen if the caller checks
    /// [`is_full`](Self::is_full) before it takes a packet.
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

    /// Drops a queued RST for this tuple and socket type, because the guest has begun a new
    /// connection with them, which the RST would reset. An RST of another socket type does no harm.
    pub(crate) fn cancel_reset(&mut self, key: ConnKey, socket_type: SocketType) {
        if !self.resets.is_empty() {
            let socket_type = u16::from(socket_type);
            self.resets
                .retain(|reply| reply.key != key || reply.socket_type != socket_type);
        }
    }

    /// Returns whether an RST for this tuple is queued, which would reset a new connection with the
    /// same tuple.
    pub(crate) fn owes_reset(&self, key: ConnKey) -> bool {
        self.resets.iter().any(|reply| reply.key == key)
    }

    /// Returns whether no more RSTs can be queued, so that packets of the guest must wait.
    pub(crate) fn is_full(&self) -> bool {
        self.resets.len() >= self.max_resets
    }

    /// Returns the number of queued RSTs.
    pub(crate) fn resets(&self) -> usize {
        self.resets.len()
    }

    /// Returns whether nothing is queued.
    pub(crate) fn is_empty(&self) -> bool {
        self.has_no_connection() && self.resets.is_empty()
    }

    fn has_no_connection(&self) -> bool {
        self.host.len == 0 && self.guests.len == 0
    }

    /// Returns after how many connections, each removed and appended again, every one was served.
    pub(crate) fn round(&self) -> usize {
        // The lists alternate, so the longer one is finished after twice its length.
        let (host, guests) = (self.host.len, self.guests.len);
        match host.min(guests) {
            0 => host.max(guests),
            _ => 2 * host.max(guests),
        }
    }

    /// Removes and returns what is to be sent next.
    pub(crate) fn pop(&mut self) -> Option<Next> {
        let reset_is_next = self.turn == Turn::Reset || self.has_no_connection();
        if reset_is_next {
            if let Some(reply) = self.resets.pop_front() {
                self.turn = Turn::Connection;
                return Some(Next::Reset(reply));
            }
        }
        // Whatever is returned now, RSTs have their turn afterwards.
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

    /// Removes everything and frees the memory.
    pub(crate) fn clear(&mut self) {
        *self = Self::new(self.max_resets);
    }

    fn list(&mut self, lane: Lane) -> &mut List {
        match lane {
            Lane::Host => &mut self.host,
            Lane::Guests => &mut self.guests,
        }
    }

    /// Changes the node of a queued connection.
    fn change(&mut self, slot: Slot, change: impl FnOnce(&mut Node)) {
        if let Some(Some(node)) = self.nodes.get_mut(slot.index()) {
            change(node);
        }
    }
}

/// An error returned when an RST cannot be queued.
#[derive(Clone, Copy, Debug, Eq, Error, PartialEq)]
#[error("cannot queue an RST: {limit} already wait for buffers of the guest")]
pub(crate) struct ResetsFull {
    /// The maximum number of queued RSTs.
    pub(crate) limit: usize,
}

#[cfg(test)]
mod tests;
