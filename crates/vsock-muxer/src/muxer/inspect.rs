// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Watching a muxer: what was counted, what there is, and the end of one connection by its number.

use std::io::ErrorKind;

use vsock_proto::{ConnKey, Ending, Tick};

use crate::connection_info::{ConnectionId, ConnectionInfo, Initiator, ListPosition, MuxerGauges};
use crate::counters::MuxerCounters;
use crate::entry::{ConnectionEntry, Entry};
use crate::muxer::Muxer;
use crate::refusal::{ConnectionRefusal, RefusalReason};

impl Muxer {
    /// What has been counted.
    #[must_use]
    pub fn counters(&self) -> MuxerCounters {
        self.counters
    }

    /// How much there is at the moment.
    #[must_use]
    pub fn gauges(&self) -> MuxerGauges {
        MuxerGauges {
            connections: self.table.connections(),
            handshakes: self.table.handshakes(),
            accepting: self.busy.len(),
            resets_owed: self.rxq.resets(),
        }
    }

    /// Every connection, in no particular order.
    pub fn connections(&self) -> impl Iterator<Item = ConnectionInfo> {
        self.table.iter().filter_map(connection_info)
    }

    /// A part of the connections, for a thread that must not stop for all of them: looks at the
    /// next `most` places where one may be, and returns where to go on, or `None` after the last.
    ///
    /// A connection that is there all the time is listed once. One that begins or ends between two
    /// parts may be missing.
    ///
    /// ```
    /// use vsock_muxer::{Config, GuestCid, ListPosition, Muxer};
    ///
    /// let muxer = Muxer::new(GuestCid::try_from(3)?, Config::default());
    /// let mut connections = Vec::new();
    /// let mut position = Some(ListPosition::default());
    /// while let Some(from) = position {
    ///     position = muxer.connections_from(from, 256, &mut connections);
    ///     // The thread has time for something else here.
    /// }
    /// assert_eq!(connections, []);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    #[must_use = "where the listing goes on"]
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

    /// Ends a connection on both sides: the host's stream is aborted, and the guest is owed an RST
    /// if it knows of the connection. What is in flight is lost. Returns whether there was such a
    /// connection to end.
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

    /// Host clients that have not yet sent their command.
    #[must_use]
    pub fn handshakes(&self) -> usize {
        self.table.handshakes()
    }

    /// The oldest refusal that was not yet taken, for the log. The last 32 are kept.
    pub fn next_refusal(&mut self) -> Option<ConnectionRefusal> {
        self.refusals.pop()
    }

    /// Counts a refusal, and keeps it for the log.
    pub(super) fn note_refusal(&mut self, refusal: ConnectionRefusal) {
        *self.counters.refused_mut(refusal.reason) += 1;
        self.refusals.push(refusal);
    }

    /// A host component has refused a connection of the guest.
    pub(super) fn note_host_refusal(&mut self, key: ConnKey, error: Option<ErrorKind>) {
        let reason = RefusalReason::Backend;
        let refusal = ConnectionRefusal::of_connection(reason, Initiator::Guest, key);
        self.note_refusal(refusal.with_error(error));
    }

    /// Counts how a connection has ended.
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
