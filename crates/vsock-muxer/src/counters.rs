// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

use std::fmt;

use vsock_proto::Ending;

use crate::refusal::RefusalReason;

/// The counters of a muxer, since its creation.
///
/// A refused host client sees only the end of its stream; these counters show why, by field or by
/// [reason](Self::refused).
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
#[non_exhaustive]
pub struct MuxerCounters {
    /// Packets from the guest.
    pub packets_from_guest: u64,
    /// Packets that were put into buffers of the guest.
    pub packets_to_guest: u64,
    /// Bytes of payload from the guest that a connection accepted.
    pub bytes_from_guest: u64,
    /// Bytes of payload that were put into buffers of the guest.
    pub bytes_to_guest: u64,
    /// `CREDIT_UPDATE`s that were put into buffers of the guest.
    pub credit_updates_to_guest: u64,
    /// `CREDIT_UPDATE`s from the guest.
    pub credit_updates_from_guest: u64,
    /// Packets that were dropped because of a foreign address, an unknown operation, a socket type
    /// that is unknown or was not negotiated, or because the device was not active.
    ///
    /// If the guest waits for an answer, it receives an RST: a REQUEST for a seqpacket socket, for
    /// example, is counted here if the driver has not accepted `VIRTIO_VSOCK_F_SEQPACKET`.
    pub packets_rejected: u64,
    /// Packets of connections that do not exist, which are answered with an RST unless they are
    /// RSTs themselves. A few are normal: those that the guest sent before it learned that their
    /// connection had ended.
    pub packets_unmatched: u64,
    /// Connections initiated by the host.
    pub host_initiated: u64,
    /// Connections initiated by the guest, including refused ones.
    pub guest_initiated: u64,
    /// Connections of the guest for which no backend provided a stream.
    pub refused_by_backend: u64,
    /// Connections that the guest requested after [`begin_shutdown`](crate::Muxer::begin_shutdown).
    pub refused_by_shutdown: u64,
    /// Connections of the host that the guest refused.
    pub refused_by_guest: u64,
    /// Connections of the host whose REQUEST the guest did not answer in time.
    pub unanswered_by_guest: u64,
    /// Connections of the host for whose REQUEST the guest provided no buffer in time.
    pub undelivered: u64,
    /// Connections of the guest that no host component answered in time.
    pub unanswered_by_host: u64,
    /// Connections that were refused because
    /// [`max_connections`](vsock_proto::Config::max_connections) was reached, or half of it for
    /// connections initiated by siblings.
    pub refused_at_limit: u64,
    /// Connections of the guest that were refused because
    /// [`max_accepting`](vsock_proto::Config::max_accepting) connections were already waiting for
    /// busy host components.
    pub accepting_at_limit: u64,
    /// Host connections that were refused because every host port was in use, and connections of
    /// siblings that were refused because their address was invalid or still in use by an old
    /// connection.
    pub refused_without_port: u64,
    /// Host clients that were closed to make room for another, because
    /// [`max_handshakes`](vsock_proto::Config::max_handshakes) clients had not sent a complete
    /// command.
    pub handshakes_at_limit: u64,
    /// Host clients that sent an invalid command, or requested a seqpacket connection to a guest
    /// without `VIRTIO_VSOCK_F_SEQPACKET`.
    pub handshakes_malformed: u64,
    /// Host clients that left before their command was complete.
    pub handshakes_abandoned: u64,
    /// Host clients that did not send their command in time.
    pub handshakes_timed_out: u64,
    /// Calls of `accept` that failed for any reason other than that no client was waiting.
    pub accept_failures: u64,
    /// Streams that could not be watched for writing, and were tried again later.
    pub watch_failures: u64,
    /// How many times a connection stopped sending to the guest because the guest's buffer was
    /// full.
    pub credit_stalls: u64,
    /// How many times a host component accepted only a part of what the guest had sent, so that the
    /// rest had to wait.
    pub host_stalls: u64,
    /// How connections ended.
    pub endings: EndingCounts,
}

impl MuxerCounters {
    /// Returns how many connections were refused for this reason.
    #[must_use]
    pub fn refused(&self, reason: RefusalReason) -> u64 {
        let mut counters = *self;
        *counters.refused_mut(reason)
    }

    /// Returns the counter of a reason.
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

/// All endings, in the order of the counts.
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

/// How many connections ended in each way: see [`Ending`]. The `Debug` output omits those that have
/// not occurred.
#[derive(Clone, Copy, Default, Eq, PartialEq)]
pub struct EndingCounts([u64; WAYS.len()]);

impl EndingCounts {
    /// Returns how many connections ended in this way.
    #[must_use]
    pub fn of(&self, ending: Ending) -> u64 {
        self.iter()
            .find_map(|(way, count)| (way == ending).then_some(count))
            .unwrap_or(0)
    }

    /// Returns how many connections ended in any way.
    #[must_use]
    pub fn total(&self) -> u64 {
        self.0.iter().sum()
    }

    /// Returns an iterator over all endings and how many connections ended in each way, which may
    /// be 0.
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
