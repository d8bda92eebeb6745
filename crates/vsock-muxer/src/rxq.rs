// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

use std::collections::VecDeque;

use thiserror::Error;
use vsock_proto::{ConnKey, ResetReply, SocketType};

use crate::slot::Slot;

/// What is next to fill a buffer of the guest.
///
/// *Connections* that have something to send stand in a list that is threaded through an array with
/// one node for each slot. A connection stands in it once or not at all; there is nothing that could
/// overflow, so none is ever lost, and there is nothing to synchronise again. The caller takes the
/// first, lets it send, and puts it at the end if it has more: each is served once before any is
/// served twice.
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
    first: Option<Slot>,
    last: Option<Slot>,
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

/// A queued connection's neighbours.
#[derive(Clone, Copy, Debug, Default)]
struct Node {
    before: Option<Slot>,
    after: Option<Slot>,
}

/// What [`RxQueue::pop`] gives.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Next {
    /// An RST for which there is no connection; it is not in the queue any more.
    Reset(ResetReply),
    /// A connection that has something to send; it is not in the queue any more.
    Connection(Slot),
}

impl RxQueue {
    /// An empty queue, in which at most `max_resets` RSTs may wait.
    pub(crate) const fn new(max_resets: usize) -> Self {
        Self {
            nodes: Vec::new(),
            first: None,
            last: None,
            resets: VecDeque::new(),
            max_resets,
            turn: Turn::Reset,
        }
    }

    /// Puts a connection at the end, if it does not stand in the queue already.
    pub(crate) fn push(&mut self, slot: Slot) {
        if slot.index() >= self.nodes.len() {
            self.nodes.resize(slot.index() + 1, None);
        }
        let Some(node @ None) = self.nodes.get_mut(slot.index()) else {
            return;
        };
        let before = self.last.replace(slot);
        *node = Some(Node {
            before,
            after: None,
        });
        match before {
            Some(before) => self.change(before, |node| node.after = Some(slot)),
            None => self.first = Some(slot),
        }
    }

    /// Takes a connection out, wherever it stands.
    pub(crate) fn remove(&mut self, slot: Slot) {
        let Some(Node { before, after }) = self.nodes.get_mut(slot.index()).and_then(Option::take)
        else {
            return;
        };
        match before {
            Some(before) => self.change(before, |node| node.after = after),
            None => self.first = after,
        }
        match after {
            Some(after) => self.change(after, |node| node.before = before),
            None => self.last = before,
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

    /// Whether an RST is owed to this tuple, which would kill a connection that is begun with it now.
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
        self.first.is_none() && self.resets.is_empty()
    }

    /// Takes out what is next.
    pub(crate) fn pop(&mut self) -> Option<Next> {
        let reset_is_next = self.turn == Turn::Reset || self.first.is_none();
        if reset_is_next {
            if let Some(reply) = self.resets.pop_front() {
                self.turn = Turn::Connection;
                return Some(Next::Reset(reply));
            }
        }
        self.turn = Turn::Reset;
        let slot = self.first?;
        self.remove(slot);
        Some(Next::Connection(slot))
    }

    /// Forgets all, and gives the memory back.
    pub(crate) fn clear(&mut self) {
        *self = Self::new(self.max_resets);
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
