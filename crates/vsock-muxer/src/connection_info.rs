// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! What a connection is like at the moment, for those who watch a muxer.

use std::fmt;
use std::num::ParseIntError;
use std::str::FromStr;
use std::time::Duration;

use vsock_proto::{ConnKey, Phase, SocketType, Tick};

/// The side that begins a connection.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub enum Initiator {
    /// The guest, by a REQUEST.
    Guest,
    /// A host client, or another guest, of a backend's
    /// [`accept`](vsock_backend_api::VsockBackend::accept).
    Host,
}

/// The number of a connection, by which it can be [reset](crate::Muxer::reset_connection). A muxer
/// counts from 1 and uses no number twice, so an old one never means another connection.
///
/// ```
/// use vsock_muxer::ConnectionId;
///
/// let id: ConnectionId = "17".parse()?;
/// assert_eq!(id.to_string(), "17");
/// # Ok::<(), std::num::ParseIntError>(())
/// ```
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct ConnectionId(u64);

impl From<ConnectionId> for u64 {
    fn from(id: ConnectionId) -> Self {
        id.0
    }
}

impl From<u64> for ConnectionId {
    fn from(number: u64) -> Self {
        Self(number)
    }
}

impl FromStr for ConnectionId {
    type Err = ParseIntError;

    fn from_str(text: &str) -> Result<Self, ParseIntError> {
        text.parse().map(Self)
    }
}

impl fmt::Display for ConnectionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// Which connection it is, and since when.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Birth {
    pub(crate) id: ConnectionId,
    pub(crate) at: Tick,
}

/// Gives each connection its number.
#[derive(Debug, Default)]
pub(crate) struct Births(u64);

impl Births {
    pub(crate) const fn next(&mut self, now: Tick) -> Birth {
        self.0 += 1;
        Birth {
            id: ConnectionId(self.0),
            at: now,
        }
    }
}

/// One connection, as it is at the moment.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub struct ConnectionInfo {
    /// Its number.
    pub id: ConnectionId,
    /// The ports, and the CID on the host's side: `local` is the host's, or another guest's.
    pub key: ConnKey,
    /// The type of its sockets.
    pub socket_type: SocketType,
    /// Where it is in its life.
    pub phase: Phase,
    /// The side that has begun it.
    pub initiator: Initiator,
    /// When it was begun, in the muxer's time.
    pub begun: Tick,
    /// Bytes that wait for the host.
    pub waiting: usize,
    /// Bytes that the guest was sent and has not yet taken out of its buffer.
    pub in_flight: u32,
    /// Bytes of payload that came from the guest.
    pub bytes_from_guest: u64,
    /// Bytes of payload that went to the guest.
    pub bytes_to_guest: u64,
}

impl ConnectionInfo {
    /// How long ago it was begun.
    #[must_use]
    pub fn age(&self, now: Tick) -> Duration {
        now.since(self.begun)
    }
}

/// Where a listing of the connections goes on: see
/// [`Muxer::connections_from`](crate::Muxer::connections_from).
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct ListPosition(pub(crate) usize);

/// How much a muxer has at the moment.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
#[non_exhaustive]
pub struct MuxerGauges {
    /// Connections, in any phase.
    pub connections: usize,
    /// Host clients that have not yet sent their command.
    pub handshakes: usize,
    /// Connections of the guest that wait for a busy host component.
    pub accepting: usize,
    /// RSTs to packets without a connection that wait for buffers of the guest.
    pub resets_owed: usize,
}
