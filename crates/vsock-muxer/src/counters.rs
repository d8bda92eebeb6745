// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

use std::fmt;

use vsock_proto::Ending;

use crate::refusal::RefusalReason;

/// What a muxer has counted since it was made.
///
/// A host client that is refused sees no more than the end of its stream; these say why, by
/// [reason](Self::refused) as well as by field.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
#[non_exhaustive]
pub struct MuxerCounters {
    /// Packets that came from the guest.
    pub packets_from_guest: u64,
    /// Packets that were put into buffers of the guest.
    pub packets_to_guest: u64,
    /// Bytes of payload that came from the guest, for connections that took them.
    pub bytes_from_guest: u64,
    /// Bytes of payload that were put into buffers of the guest.
    pub bytes_to_guest: u64,
    /// `CREDIT_UPDATE`s that were put into buffers of the guest.
    pub credit_updates_to_guest: u64,
    /// `CREDIT_UPDATE`s that came from the guest.
    pub credit_updates_from_guest: u64,
    /// Packets that were dropped: with foreign addresses, of an unknown operation, of a socket type
    /// that is unknown or was not negotiated, or while the device was not active. Where the guest
    /// waits for an answer, it gets an RST: so a REQUEST for a seqpacket socket counts here if the
    /// guest driver has not accepted `VIRTIO_VSOCK_F_SEQPACKET`.
    pub packets_rejected: u64,
    /// Packets of connections that do not exist, answered by an RST unless they were one. A few are
    /// normal: those that the guest had sent before it heard of the end of their connection.
    pub packets_unmatched: u64,
    /// Connections that the host has begun.
    pub host_initiated: u64,
    /// Connections that the guest has begun, refused ones among them.
    pub guest_initiated: u64,
    /// Connections of the guest to which no backend had a stream.
    pub refused_by_backend: u64,
    /// Connections of the guest that it asked for after
    /// [`begin_shutdown`](crate::Muxer::begin_shutdown).
    pub refused_by_shutdown: u64,
    /// Connections of the host that the guest refused.
    pub refused_by_guest: u64,
    /// Connections of the host whose REQUEST the guest did not answer in time.
    pub unanswered_by_guest: u64,
    /// Connections of the host for whose REQUEST the guest had no buffer in time.
    pub undelivered: u64,
    /// Connections of the guest that a host component did not answer in time.
    pub unanswered_by_host: u64,
    /// Connections that were refused because there were as many as
    /// [`max_connections`](vsock_proto::Config::max_connections), or half of that for those of
    /// other guests.
    pub refused_at_limit: u64,
    /// Connections of the guest that were refused because as many as
    /// [`max_accepting`](vsock_proto::Config::max_accepting) were waiting for a busy host
    /// component.
    pub accepting_at_limit: u64,
    /// Host connections that were refused because every host port is in use; connections of other
    /// guests because what is left of one still has the same ports, or because their address is
    /// none.
    pub refused_without_port: u64,
    /// Host clients that were closed, to make room for the next, because as many as
    /// [`max_handshakes`](vsock_proto::Config::max_handshakes) had not sent their command.
    pub handshakes_at_limit: u64,
    /// Host clients whose command was none, or that wanted messages of a guest without
    /// `VIRTIO_VSOCK_F_SEQPACKET`.
    pub handshakes_malformed: u64,
    /// Host clients that left before their command was whole.
    pub handshakes_abandoned: u64,
    /// Host clients that took too long over their command.
    pub handshakes_timed_out: u64,
    /// Calls of `accept` that failed, other than for want of a client.
    pub accept_failures: u64,
    /// Streams that could not be watched for writing, and were tried again later.
    pub watch_failures: u64,
    /// How often a connection had to stop sending to the guest, and may have had more, because the
    /// guest's buffer was full.
    pub credit_stalls: u64,
    /// How often a host component took less than the guest had sent, so that the rest waits.
    pub host_stalls: u64,
    /// How connections ended.
    pub endings: EndingCounts,
}

impl MuxerCounters {
    /// How many connections were refused for this reason.
    #[must_use]
    pub fn refused(&self, reason: RefusalReason) -> u64 {
        let mut counters = *self;
        *counters.refused_mut(reason)
    }

    /// The counter of a reason.
    pub(crate) const fn refused_mut(&mut self, reason: RefusalReason) -> &mut u64 {
        match reason {
            RefusalReason::CommandMalformed => &mut self.handshakes_malformed,
            RefusalReason::CommandAbandoned => &mut self.handshakes_abandoned,
            RefusalReason::CommandTimedOut => &mut self.handshakes_timed_out,
            RefusalReason::TooManyHandshakes => &mut self.handshakes_at_limit,
            RefusalReason::TooManyConnections => &mut self.refused_at_limit,
            RefusalReason::NoHostPort => &mut self.refused_without_port,
            RefusalReason::GuestRefused => &mut self.refused_by_guest,
            RefusalReason::GuestSilent => &mut self.unanswered_by_guest,
            RefusalReason::NotDelivered => &mut self.undelivered,
            RefusalReason::Backend => &mut self.refused_by_backend,
            RefusalReason::TooManyAccepting => &mut self.accepting_at_limit,
            RefusalReason::HostSilent => &mut self.unanswered_by_host,
            RefusalReason::ShuttingDown => &mut self.refused_by_shutdown,
        }
    }
}

/// Every way, in the order of the counts.
const WAYS: [Ending; 12] = [
    Ending::Clean,
    Ending::GuestRefused,
    Ending::HostRefused,
    Ending::NotDelivered,
    Ending::TimedOut,
    Ending::GuestReset,
    Ending::HostReset,
    Ending::Superseded,
    Ending::Forfeited,
    Ending::Violated,
    Ending::MessageTooLong,
    Ending::Aborted,
];

/// How many connections ended in which way: see [`Ending`]. Its `Debug` form has those ways that
/// have been seen.
#[derive(Clone, Copy, Default, Eq, PartialEq)]
pub struct EndingCounts([u64; WAYS.len()]);

impl EndingCounts {
    /// How many ended so.
    #[must_use]
    pub fn of(&self, ending: Ending) -> u64 {
        self.iter()
            .find_map(|(way, count)| (way == ending).then_some(count))
            .unwrap_or(0)
    }

    /// How many ended in any way.
    #[must_use]
    pub fn total(&self) -> u64 {
        self.0.iter().sum()
    }

    /// Every way, and how many ended so, which may be none.
    pub fn iter(&self) -> impl Iterator<Item = (Ending, u64)> {
        WAYS.into_iter().zip(self.0)
    }

    pub(crate) fn count(&mut self, ending: Ending) {
        for (way, count) in WAYS.into_iter().zip(&mut self.0) {
            if way == ending {
                *count += 1;
            }
        }
    }
}

impl fmt::Debug for EndingCounts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let seen = self.iter().filter(|(_, count)| *count > 0);
        f.debug_map().entries(seen).finish()
    }
}
