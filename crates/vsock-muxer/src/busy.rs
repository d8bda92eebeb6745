// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

use std::collections::{BTreeMap, HashMap};

use vsock_backend_api::ListenerId;
use vsock_proto::{Cid, Packet, Port, SocketType, Tick};

use crate::backoff::Backoff;
use crate::slot::Slot;

/// The connections of the guest that wait for busy host components, in one queue per component,
/// served in the order of arrival.
///
/// The guest chooses ports, so the map uses a keyed hash against deliberate collisions.
#[derive(Debug, Default)]
pub(crate) struct Busy {
    queues: HashMap<Target, Queue>,
    waiting: usize,
    next: u64,
}

/// The host component or sibling that the guest connects to.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub(crate) struct Target {
    pub(crate) cid: Cid,
    pub(crate) port: Port,
    pub(crate) socket_type: SocketType,
}

/// The place of one connection in its queue.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) struct Ticket {
    target: Target,
    number: u64,
}

/// The connections that wait for one component. Never empty.
#[derive(Debug)]
struct Queue {
    /// The listener that was busy. All connections in the queue are meant for it.
    met: Option<ListenerId>,
    pause: Backoff,
    waiting: BTreeMap<u64, Slot>,
}

/// The first connection in a queue, and the state of the queue.
#[derive(Clone, Copy, Debug)]
pub(crate) struct First {
    pub(crate) slot: Slot,
    pub(crate) met: Option<ListenerId>,
    pub(crate) pause: Backoff,
}

impl Target {
    pub(crate) const fn of(request: &Packet) -> Self {
        Self {
            cid: request.key.host_cid,
            port: request.key.local,
            socket_type: request.socket_type,
        }
    }
}

impl Ticket {
    pub(crate) const fn target(self) -> Target {
        self.target
    }
}

impl Busy {
    /// Returns the number of waiting connections.
    pub(crate) const fn len(&self) -> usize {
        self.waiting
    }

    /// Returns whether a connection waits for this component.
    pub(crate) fn has(&self, target: Target) -> bool {
        self.queues.contains_key(&target)
    }

    /// Appends a connection to a queue. If the queue is new, `met` returns the listener.
    pub(crate) fn add(
        &mut self,
        now: Tick,
        target: Target,
        slot: Slot,
        met: impl FnOnce() -> Option<ListenerId>,
    ) -> Ticket {
        let number = self.next;
        self.next += 1;
        let queue = self.queues.entry(target).or_insert_with(|| Queue {
            met: met(),
            pause: Backoff::after(None, now),
            waiting: BTreeMap::new(),
        });
        queue.waiting.insert(number, slot);
        self.waiting += 1;
        Ticket { target, number }
    }

    /// Removes a connection from its queue.
    pub(crate) fn remove(&mut self, ticket: Ticket) {
        let Some(queue) = self.queues.get_mut(&ticket.target) else {
            return;
        };
        if queue.waiting.remove(&ticket.number).is_some() {
            self.waiting -= 1;
        }
        if queue.waiting.is_empty() {
            self.queues.remove(&ticket.target);
        }
    }

    /// Returns the connection that has waited longest for this component.
    pub(crate) fn first(&self, target: Target) -> Option<First> {
        let queue = self.queues.get(&target)?;
        let (_, slot) = queue.waiting.first_key_value()?;
        Some(First {
            slot: *slot,
            met: queue.met,
            pause: queue.pause,
        })
    }

    /// Returns when the component is asked again on behalf of this connection, if it is the first.
    pub(crate) fn retry(&self, ticket: Ticket) -> Option<Backoff> {
        let queue = self.queues.get(&ticket.target)?;
        let (first, _) = queue.waiting.first_key_value()?;
        (*first == ticket.number).then_some(queue.pause)
    }

    /// Sets when the component is asked again.
    pub(crate) fn set_pause(&mut self, target: Target, pause: Backoff) {
        if let Some(queue) = self.queues.get_mut(&target) {
            queue.pause = pause;
        }
    }
}
