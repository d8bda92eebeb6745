// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Reasons for refusing a connection to a host client or to the guest.

use std::collections::VecDeque;
use std::fmt;
use std::io::ErrorKind;

use vsock_proto::{Cid, ConnKey, Ending, Port};

use crate::connection_info::Initiator;

/// Why a connection was refused. [`MuxerCounters::refused`](crate::MuxerCounters::refused) counts
/// each reason.
///
/// A host client sees only the end of its stream, and the guest only an RST.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
#[non_exhaustive]
pub enum RefusalReason {
    /// The client's command is not `CONNECT` with a valid port, or the client sends messages
    /// although the driver has not accepted `VIRTIO_VSOCK_F_SEQPACKET`.
    CommandMalformed,
    /// The client left before its command was complete.
    CommandAbandoned,
    /// The client did not send its command within
    /// [`command_timeout`](vsock_proto::Config::command_timeout).
    CommandTimedOut,
    /// The client was closed to make room, because
    /// [`max_handshakes`](vsock_proto::Config::max_handshakes) clients had not sent their command.
    TooManyHandshakes,
    /// There are [`max_connections`](vsock_proto::Config::max_connections) connections, or siblings
    /// have initiated half of that number.
    TooManyConnections,
    /// Every host port is in use. For a connection of a sibling: an old connection still uses the
    /// same ports, or its address is invalid.
    NoHostPort,
    /// The guest answered the REQUEST with an RST: nothing listens on the port.
    GuestRefused,
    /// The guest did not answer the REQUEST within
    /// [`response_timeout`](vsock_proto::Config::response_timeout).
    GuestSilent,
    /// The guest provided no buffer for the REQUEST within
    /// [`deliver_timeout`](vsock_proto::Config::deliver_timeout).
    NotDelivered,
    /// No backend serves the port, or the backend provided no stream, for example because the other
    /// guest cannot be reached or has refused.
    Backend,
    /// [`max_accepting`](vsock_proto::Config::max_accepting) connections of the guest were already
    /// waiting for busy host components.
    TooManyAccepting,
    /// The host component, or the other guest, did not answer within
    /// [`response_timeout`](vsock_proto::Config::response_timeout).
    HostSilent,
    /// The device is [shutting down](crate::Muxer::begin_shutdown).
    ShuttingDown,
}

impl RefusalReason {
    /// All reasons.
    pub const ALL: [Self; 13] = [
        Self::CommandMalformed,
        Self::CommandAbandoned,
        Self::CommandTimedOut,
        Self::TooManyHandshakes,
        Self::TooManyConnections,
        Self::NoHostPort,
        Self::GuestRefused,
        Self::GuestSilent,
        Self::NotDelivered,
        Self::Backend,
        Self::TooManyAccepting,
        Self::HostSilent,
        Self::ShuttingDown,
    ];

    /// Returns a name for machines, in lower case with underscores.
    ///
    /// ```
    /// assert_eq!(vsock_muxer::RefusalReason::GuestRefused.name(), "guest_refused");
    /// ```
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::CommandMalformed => "command_malformed",
            Self::CommandAbandoned => "command_abandoned",
            Self::CommandTimedOut => "command_timed_out",
            Self::TooManyHandshakes => "too_many_handshakes",
            Self::TooManyConnections => "too_many_connections",
            Self::NoHostPort => "no_host_port",
            Self::GuestRefused => "guest_refused",
            Self::GuestSilent => "guest_silent",
            Self::NotDelivered => "not_delivered",
            Self::Backend => "backend",
            Self::TooManyAccepting => "too_many_accepting",
            Self::HostSilent => "host_silent",
            Self::ShuttingDown => "shutting_down",
        }
    }

    /// Returns the reason for the side that initiated a connection with this ending, or `None` if
    /// the connection had been established.
    pub(crate) const fn of(ending: Ending, initiator: Initiator) -> Option<Self> {
        match (initiator, ending) {
            (Initiator::Host, Ending::GuestRefused) => Some(Self::GuestRefused),
            (Initiator::Host, Ending::TimedOut) => Some(Self::GuestSilent),
            (Initiator::Host, Ending::NotDelivered) => Some(Self::NotDelivered),
            (Initiator::Guest, Ending::TimedOut) => Some(Self::HostSilent),
            _ => None,
        }
    }

    /// Returns the text for a connection with a sibling, if it differs.
    const fn text_for_sibling(self) -> Option<&'static str> {
        match self {
            Self::NoHostPort => Some("an old connection still uses the same ports"),
            Self::Backend => Some("the other guest cannot be reached or has refused"),
            Self::HostSilent => Some("the other guest did not answer in time"),
            _ => None,
        }
    }
}

impl fmt::Display for RefusalReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::CommandMalformed => {
                "invalid command, expected CONNECT and a port that the guest can have"
            }
            Self::CommandAbandoned => "the client left before its command was complete",
            Self::CommandTimedOut => "the client did not send its command in time",
            Self::TooManyHandshakes => "too many clients had not sent their command",
            Self::TooManyConnections => "the guest has reached its limit of connections",
            Self::NoHostPort => "all host ports are in use",
            Self::GuestRefused => "the guest has refused, nothing in the guest listens on the port",
            Self::GuestSilent => "the guest did not answer in time",
            Self::NotDelivered => "the guest has no buffer for the request",
            Self::Backend => "no host component accepts it",
            Self::TooManyAccepting => "too many connections wait for busy host components",
            Self::HostSilent => "the host component did not answer in time",
            Self::ShuttingDown => "the device is shutting down",
        })
    }
}

/// A refused connection, for the log.
///
/// ```
/// use vsock_muxer::{Config, GuestCid, Header, Muxer, Op, RefusalReason, SocketTypes, Tick};
///
/// let mut muxer = Muxer::new(GuestCid::try_from(3)?, Config::default());
/// muxer.activate(Tick::ZERO, SocketTypes::STREAM);
/// let request = Header {
///     src_cid: 3,
///     dst_cid: 2,
///     src_port: 1024,
///     dst_port: 52,
///     socket_type: 1,
///     op: Op::Request.into(),
///     ..Header::default()
/// };
/// muxer.on_packet(Tick::ZERO, &request, &mut &b""[..]); // no backend serves the port
/// let refusal = muxer.next_refusal().unwrap();
/// assert_eq!(refusal.reason, RefusalReason::Backend);
/// let text = "guest port 1024 to host port 52: no host component accepts it (connection refused)";
/// assert_eq!(refusal.to_string(), text);
/// assert_eq!(muxer.counters().refused(RefusalReason::Backend), 1);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub struct ConnectionRefusal {
    /// Why it was refused.
    pub reason: RefusalReason,
    /// The side that requested it.
    pub initiator: Initiator,
    /// The guest's port; `None` for a host client that had not sent a complete command.
    pub guest_port: Option<Port>,
    /// The CID on the host's side: a sibling's or [`Cid::HOST`].
    pub host_cid: Cid,
    /// The port on the host's side; `None` for a host client.
    pub host_port: Option<Port>,
    /// The backend's error, if it returned one.
    pub error: Option<ErrorKind>,
}

impl ConnectionRefusal {
    /// Creates the refusal of a host client that requested this port of the guest.
    pub(crate) const fn of_client(reason: RefusalReason, guest_port: Option<Port>) -> Self {
        Self {
            reason,
            initiator: Initiator::Host,
            guest_port,
            host_cid: Cid::HOST,
            host_port: None,
            error: None,
        }
    }

    /// Creates the refusal of a connection with this key.
    pub(crate) fn of_connection(reason: RefusalReason, initiator: Initiator, key: ConnKey) -> Self {
        // A host client does not know the host port that was assigned to its connection.
        let is_client = initiator == Initiator::Host && key.host_cid == Cid::HOST;
        Self {
            host_cid: key.host_cid,
            host_port: (!is_client).then_some(key.local),
            initiator,
            ..Self::of_client(reason, Some(key.peer))
        }
    }

    /// Adds the backend's error.
    pub(crate) fn with_error(self, error: Option<ErrorKind>) -> Self {
        Self { error, ..self }
    }
}

impl fmt::Display for ConnectionRefusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let port = |port: Option<Port>| port.map_or(0, u32::from);
        let (guest_port, host_port) = (port(self.guest_port), port(self.host_port));
        let sibling = (self.host_cid != Cid::HOST).then_some(self.host_cid);
        match (self.initiator, sibling) {
            (Initiator::Host, None) if self.guest_port.is_none() => f.write_str("host client")?,
            (Initiator::Host, None) => write!(f, "host client to guest port {guest_port}")?,
            (Initiator::Host, Some(cid)) => {
                write!(
                    f,
                    "port {host_port} of guest {cid} to guest port {guest_port}"
                )?;
            }
            (Initiator::Guest, None) => {
                write!(f, "guest port {guest_port} to host port {host_port}")?;
            }
            (Initiator::Guest, Some(cid)) => {
                write!(
                    f,
                    "guest port {guest_port} to port {host_port} of guest {cid}"
                )?;
            }
        }
        match sibling.and_then(|_| self.reason.text_for_sibling()) {
            Some(text) => write!(f, ": {text}")?,
            None => write!(f, ": {}", self.reason)?,
        }
        match self.error {
            Some(error) => write!(f, " ({error})"),
            None => Ok(()),
        }
    }
}

/// The most recent refusals that were not yet taken. If the owner does not take them, the oldest
/// are lost.
#[derive(Debug, Default)]
pub(crate) struct RecentRefusals(VecDeque<ConnectionRefusal>);

impl RecentRefusals {
    /// The maximum number of refusals.
    const CAPACITY: usize = 32;

    pub(crate) fn push(&mut self, refusal: ConnectionRefusal) {
        if self.0.len() == Self::CAPACITY {
            self.0.pop_front();
        }
        self.0.push_back(refusal);
    }

    pub(crate) fn pop(&mut self) -> Option<ConnectionRefusal> {
        self.0.pop_front()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn after_many_refusals_the_last_ones_are_kept() {
        let mut recent = RecentRefusals::default();
        for port in 0..100 {
            let port = Some(Port::new(port));
            recent.push(ConnectionRefusal::of_client(
                RefusalReason::NoHostPort,
                port,
            ));
        }
        let kept = std::iter::from_fn(|| recent.pop()).map(|refusal| refusal.guest_port);
        assert!(kept.eq((68..100).map(|port| Some(Port::new(port)))));
    }

    #[test]
    fn every_reason_has_a_unique_name() {
        let names: std::collections::BTreeSet<_> = RefusalReason::ALL
            .into_iter()
            .map(RefusalReason::name)
            .collect();
        assert_eq!(names.len(), RefusalReason::ALL.len());
    }
}
