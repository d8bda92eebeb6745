// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

use vsock_proto::state::Phase;
use vsock_proto::{ConnKey, Ending};

/// What a muxer has counted since it was made.
///
/// A host client that is refused sees no more than the end of its stream; these say why.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
#[non_exhaustive]
pub struct Counters {
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
    /// Packets that were dropped: with foreign addresses, of an unknown type or operation, or while
    /// the device was not active.
    pub packets_rejected: u64,
    /// Packets of connections that do not exist, answered by an RST unless they were one.
    pub packets_unmatched: u64,
    /// Connections that the host has begun.
    pub host_initiated: u64,
    /// Connections that the guest has begun, refused ones among them.
    pub guest_initiated: u64,
    /// Connections of the guest to which no backend had a stream.
    pub refused_by_backend: u64,
    /// Connections that were refused because there were as many as
    /// [`max_connections`](vsock_proto::Config::max_connections).
    pub refused_at_limit: u64,
    /// Connections of the guest that were refused because as many as
    /// [`max_accepting`](vsock_proto::Config::max_accepting) were waiting for a busy host component.
    pub accepting_at_limit: u64,
    /// Host connections that were refused because every host port is in use.
    pub refused_without_port: u64,
    /// Host clients that were refused because as many as
    /// [`max_handshakes`](vsock_proto::Config::max_handshakes) had not sent their command.
    pub handshakes_at_limit: u64,
    /// Host clients whose command was none, or that wanted messages of a driver without
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
    /// How connections ended.
    pub endings: Endings,
}

/// How many connections ended in which way: see [`Ending`].
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Endings([u64; 12]);

impl Endings {
    /// How many ended so.
    #[must_use]
    pub fn of(&self, ending: Ending) -> u64 {
        place(ending)
            .and_then(|place| self.0.get(place).copied())
            .unwrap_or(0)
    }

    /// How many ended in any way.
    #[must_use]
    pub fn total(&self) -> u64 {
        self.0.iter().sum()
    }

    pub(crate) fn count(&mut self, ending: Ending) {
        if let Some(count) = place(ending).and_then(|place| self.0.get_mut(place)) {
            *count += 1;
        }
    }
}

const fn place(ending: Ending) -> Option<usize> {
    Some(match ending {
        Ending::Clean => 0,
        Ending::GuestRefused => 1,
        Ending::HostRefused => 2,
        Ending::NotDelivered => 3,
        Ending::TimedOut => 4,
        Ending::GuestReset => 5,
        Ending::HostReset => 6,
        Ending::Superseded => 7,
        Ending::Forfeited => 8,
        Ending::Violated => 9,
        Ending::MessageTooLong => 10,
        Ending::Aborted => 11,
        _ => return None,
    })
}

/// One connection, as it is at the moment.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub struct ConnectionInfo {
    /// The ports: `local` is the host's.
    pub key: ConnKey,
    /// Where it is in its life.
    pub phase: Phase,
    /// Whether the host has begun it.
    pub host_initiated: bool,
    /// Bytes that wait for the host.
    pub waiting: usize,
    /// Bytes that the guest was sent and has not yet taken out of its buffer.
    pub in_flight: u32,
    /// Bytes of payload that came from the guest.
    pub bytes_from_guest: u64,
    /// Bytes of payload that went to the guest.
    pub bytes_to_guest: u64,
}
