// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

use alloc::collections::VecDeque;
use alloc::vec::Vec;

use crate::error::ResetsFull;
use crate::{ConnKey, ResetReply, Slot, SocketType};

/// Who is next to fill a buffer of the guest.
///
/// *Connections* that have something to send stand in a list that is threaded through an array with
/// one entry for each connection. A connection stands in it once or not at all; there is nothing
/// that could overflow, so none is ever lost, and there is nothing to synchronise again. The caller
/// takes the first, lets it send, and puts it at the end if it has more: everybody is served once
/// before anybody is served twice.
///
/// *RSTs* to packets that belong to no connection wait in a queue of bounded length. When it is
/// [full](Self::is_full) the caller stops to take packets from the guest, until the guest has
/// provided buffers for those RSTs (virtio 1.3, 5.10.6.1). So none is lost either.
///
/// While both wait, they take turns.
///
/// ```
/// use vsock_proto::{Next, RxQueue, Slot};
///
/// let mut queue = RxQueue::new(256);
/// queue.push(Slot::new(0));
/// queue.push(Slot::new(7));
/// queue.push(Slot::new(0));
/// assert_eq!(queue.pop(), Some(Next::Connection(Slot::new(0))));
/// assert_eq!(queue.pop(), Some(Next::Connection(Slot::new(7))));
/// assert_eq!(queue.pop(), None);
/// ```
#[derive(Debug)]
pub struct RxQueue {
    links: Vec<Link>,
    first: Option<Slot>,
    last: Option<Slot>,
    resets: VecDeque<ResetReply>,
    max_resets: usize,
    reset_was_last: bool,
}

#[derive(Clone, Copy, Debug, Default)]
struct Link {
    queued: bool,
    before: Option<Slot>,
    after: Option<Slot>,
}

/// What [`RxQueue::pop`] gives.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Next {
    /// An RST for which there is no connection; it is not in the queue any more.
    Reset(ResetReply),
    /// A connection that has something to send; it is not in the queue any more.
    Connection(Slot),
}

impl RxQueue {
    /// An empty queue, in which at most `max_resets` RSTs may wait.
    #[must_use]
    pub const fn new(max_resets: usize) -> Self {
        Self {
            links: Vec::new(),
            first: None,
            last: None,
            resets: VecDeque::new(),
            max_resets,
            reset_was_last: false,
        }
    }

    /// Puts a connection at the end, if it does not stand in the queue already.
    pub fn push(&mut self, slot: Slot) {
        if slot.index() >= self.links.len() {
            let len = slot.index().saturating_add(1);
            self.links.resize(len, Link::default());
        }
        if self.link(slot).queued {
            return;
        }
        let before = self.last.replace(slot);
        self.set(slot, |link| {
            *link = Link {
                queued: true,
                before,
                after: None,
            };
        });
        match before {
            Some(before) => self.set(before, |link| link.after = Some(slot)),
            None => self.first = Some(slot),
        }
    }

    /// Takes a connection out, wherever it stands.
    pub fn remove(&mut self, slot: Slot) {
        let link = self.link(slot);
        if !link.queued {
            return;
        }
        match link.before {
            Some(before) => self.set(before, |l| l.after = link.after),
            None => self.first = link.after,
        }
        match link.after {
            Some(after) => self.set(after, |l| l.before = link.before),
            None => self.last = link.before,
        }
        self.set(slot, |link| *link = Link::default());
    }

    /// Owes the guest an RST. Owing the same one twice is owing it once.
    ///
    /// # Errors
    ///
    /// [`ResetsFull`]: it could not be kept. A caller that looks at [`is_full`](Self::is_full)
    /// before it takes a packet never sees this.
    pub fn owe_reset(&mut self, reply: ResetReply) -> Result<(), ResetsFull> {
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
    pub fn forgive_reset(&mut self, key: ConnKey, socket_type: SocketType) {
        if !self.resets.is_empty() {
            let socket_type = u16::from(socket_type);
            self.resets
                .retain(|reply| reply.key != key || reply.socket_type != socket_type);
        }
    }

    /// Whether an RST is owed to this tuple, which would kill a connection that is begun with it now.
    #[must_use]
    pub fn owes_reset(&self, key: ConnKey) -> bool {
        self.resets.iter().any(|reply| reply.key == key)
    }

    /// Whether no other RST can be owed: the guest's packets must wait.
    #[must_use]
    pub fn is_full(&self) -> bool {
        self.resets.len() >= self.max_resets
    }

    /// Whether nobody waits.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.first.is_none() && self.resets.is_empty()
    }

    /// RSTs that wait.
    #[must_use]
    pub fn resets(&self) -> usize {
        self.resets.len()
    }

    /// Takes out whoever is next.
    pub fn pop(&mut self) -> Option<Next> {
        let reset_is_next = !self.reset_was_last || self.first.is_none();
        if reset_is_next && let Some(reply) = self.resets.pop_front() {
            self.reset_was_last = true;
            return Some(Next::Reset(reply));
        }
        self.reset_was_last = false;
        let slot = self.first?;
        self.remove(slot);
        Some(Next::Connection(slot))
    }

    /// Forgets everybody, and gives the memory back.
    pub fn clear(&mut self) {
        *self = Self::new(self.max_resets);
    }

    fn link(&self, slot: Slot) -> Link {
        self.links.get(slot.index()).copied().unwrap_or_default()
    }

    fn set(&mut self, slot: Slot, change: impl FnOnce(&mut Link)) {
        if let Some(link) = self.links.get_mut(slot.index()) {
            change(link);
        }
    }
}
