// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Information about a connection, for monitoring.

use std::fmt;
use std::num::ParseIntError;
use std::str::FromStr;
use std::time::Duration;

use vsock_proto::{ConnKey, Phase, SocketType, Tick};

/// The side that initiated a connection.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub enum Initiator {
    /// The guest, with a REQUEST.
    Guest,
    /// A host client or a sibling, through a backend's
    /// [`accept`](vsock_backend_api::VsockBackend::accept).
    Host,
}

/// The number of a connection, which can be used to [reset](crate::Muxer::reset_connection) it.
///
/// A muxer counts from 1 and never reuses a number, so an old number cannot refer to another
/// connection.
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

/// The identity of a connection and the time it began.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Birth {
    pub(crate) id: ConnectionId,
    pub(crate) at: Tick,
}

/// The source of connection numbers.
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

/// Information about one connection at the present time.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub struct ConnectionInfo {
    /// The number of the connection.
    pub id: ConnectionId,
    /// The ports, and the CID on the host's side. `local` is the host's port, or a sibling's.
    pub key: ConnKey,
    /// The socket type.
    pub socket_type: SocketType,
    /// The stage of its life.
    pub phase: Phase,
    /// The side that initiated it.
    pub initiator: Initiator,
    /// When it began, in the muxer's time.
    pub begun: Tick,
    /// Bytes that wait for the host.
    pub waiting: usize,
    /// Bytes sent to the guest that it has not yet taken out of its buffer.
    pub in_flight: u32,
    /// Bytes of payload from the guest.
    pub bytes_from_guest: u64,
    /// Bytes of payload to the guest.
    pub bytes_to_guest: u64,
}

impl ConnectionInfo {
    /// Returns how long ago the connection began.
    #[must_use]
    pub fn age(&self, now: Tick) -> Duration {
        now.since(self.begun)
    }
}

/// The position at which a listing of connections continues: see
/// [`Muxer::connections_from`](crate::Muxer::connections_from).
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct ListPosition(pub(crate) usize);

/// How many objects a muxer holds at the present time.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
#[non_exhaustive]
pub struct MuxerGauges {
    /// Connections, in any phase.
    pub connections: usize,
    /// Host clients whose command is not complete.
    pub handshakes: usize,
    /// Connections of the guest that wait for a busy host component.
    pub accepting: usize,
    /// Pending RSTs for packets without a connection, which wait for buffers of the guest.
    pub resets_owed: usize,
}
