// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Monitoring of a muxer: counters, gauges, and ending a connection by its number.

use std::io::ErrorKind;

use vsock_proto::{ConnKey, Ending, Tick};

use crate::connection_info::{ConnectionId, ConnectionInfo, Initiator, ListPosition, MuxerGauges};
use crate::counters::MuxerCounters;
use crate::entry::{ConnectionEntry, Entry};
use crate::muxer::Muxer;
use crate::refusal::{ConnectionRefusal, RefusalReason};

impl Muxer {
    /// Returns the counters.
    #[must_use]
    pub fn counters(&self) -> MuxerCounters {
        self.counters
    }

    /// Returns how many objects the muxer holds now.
    #[must_use]
    pub fn gauges(&self) -> MuxerGauges {
        MuxerGauges {
            connections: self.table.connections(),
            handshakes: self.table.handshakes(),
            accepting: self.busy.len(),
            resets_owed: self.rxq.resets(),
        }
    }

    /// Returns an iterator over all connections, in no particular order.
    pub fn connections(&self) -> impl Iterator<Item = ConnectionInfo> {
        self.table.iter().filter_map(connection_info)
    }

    /// Lists a part of the connections, for a thread that cannot pause for all of them. Checks at
    /// most `most` slots and returns where to continue, or `None` at the end.
    ///
    /// A connection that exists throughout is listed exactly once. One that begins or ends between
    /// two calls may be missing.
    ///
    /// ```
    /// use vsock_muxer::{Config, GuestCid, ListPosition, Muxer};
    ///
    /// let muxer = Muxer::new(GuestCid::try_from(3)?, Config::default());
    /// let mut connections = Vec::new();
    /// let mut position = Some(ListPosition::default());
    /// while let Some(from) = position {
    ///     position = muxer.connections_from(from, 256, &mut connections);
    ///     // The thread can do other work here.
    /// }
    /// assert_eq!(connections, []);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    #[must_use = "the returned position is where the listing continues"]
    pub fn connections_from(
        &self,
        position: ListPosition,
        most: usize,
        to: &mut Vec<ConnectionInfo>,
    ) -> Option<ListPosition> {
        let entries = self.table.iter_from(position.0).take(most);
        to.extend(entries.filter_map(|entry| entry.and_then(connection_info)));
        let next = position.0.saturating_add(most);
        (next < self.table.places()).then_some(ListPosition(next))
    }

    /// Ends a connection on both sides: aborts the host's stream, and makes an RST pending if the
    /// guest has a record of the connection.
    ///
    /// Data in flight is lost. Returns whether the connection existed.
    pub fn reset_connection(&mut self, now: Tick, id: ConnectionId) -> bool {
        self.unwinding(|muxer| {
            let Some(slot) = muxer.table.slot_of(id) else {
                return false;
            };
            if let Some(entry) = muxer.table.connection(slot) {
                entry.conn.shut_down(now);
                muxer.review(now, slot);
            }
            true
        })
    }

    /// Returns the number of host clients whose command is incomplete.
    #[must_use]
    pub fn handshakes(&self) -> usize {
        self.table.handshakes()
    }

    /// Takes the oldest refusal, for the log. The muxer keeps the last 32.
    pub fn next_refusal(&mut self) -> Option<ConnectionRefusal> {
        self.refusals.pop()
    }

    /// Counts a refusal and keeps it for the log.
    pub(super) fn note_refusal(&mut self, refusal: ConnectionRefusal) {
        *self.counters.refused_mut(refusal.reason) += 1;
        self.refusals.push(refusal);
    }

    /// Records that a host component has refused a connection of the guest.
    pub(super) fn note_host_refusal(&mut self, key: ConnKey, error: Option<ErrorKind>) {
        let reason = RefusalReason::Backend;
        let refusal = ConnectionRefusal::of_connection(reason, Initiator::Guest, key);
        self.note_refusal(refusal.with_error(error));
    }

    /// Counts how a connection ended.
    pub(super) fn note_ending(&mut self, entry: &ConnectionEntry, ending: Ending) {
        self.counters.endings.count(ending);
        let initiator = entry.initiator;
        if let Some(reason) = RefusalReason::of(ending, initiator) {
            let key = entry.conn.key();
            self.note_refusal(ConnectionRefusal::of_connection(reason, initiator, key));
        }
    }
}

fn connection_info(entry: &Entry) -> Option<ConnectionInfo> {
    match entry {
        Entry::Connection(entry) => Some(entry.info()),
        Entry::Handshake(_) => None,
    }
}
