// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Why a host client, or the guest, does not get the connection that it asks for.

use std::collections::VecDeque;
use std::fmt;
use std::io::ErrorKind;

use vsock_proto::{Cid, ConnKey, Ending, Port};

use crate::connection_info::Initiator;

/// Why a connection is refused: [`MuxerCounters::refused`](crate::MuxerCounters::refused) counts
/// each.
///
/// A host client sees no more of it than the end of its stream, the guest no more than an RST.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
#[non_exhaustive]
pub enum RefusalReason {
    /// The client's command is not `CONNECT <port>`, the port is none, or the client sends messages
    /// and the guest driver has not accepted `VIRTIO_VSOCK_F_SEQPACKET`.
    CommandMalformed,
    /// The client left before its command was whole.
    CommandAbandoned,
    /// The client took longer than [`command_timeout`](vsock_proto::Config::command_timeout) over
    /// its command.
    CommandTimedOut,
    /// The client was closed to make room: [`max_handshakes`](vsock_proto::Config::max_handshakes)
    /// clients had not sent their command.
    TooManyHandshakes,
    /// There are [`max_connections`](vsock_proto::Config::max_connections) connections, or other
    /// guests have half of them.
    TooManyConnections,
    /// Every host port is in use. Of another guest: what is left of a connection has the same
    /// ports, or its address is none.
    NoHostPort,
    /// The guest answered the REQUEST by an RST: it has no listener on the port.
    GuestRefused,
    /// The guest did not answer the REQUEST within
    /// [`response_timeout`](vsock_proto::Config::response_timeout).
    GuestSilent,
    /// The guest had no buffer for the REQUEST within
    /// [`deliver_timeout`](vsock_proto::Config::deliver_timeout).
    NotDelivered,
    /// No backend serves the port, or the backend had no stream: it does not reach the other guest,
    /// or that one refused.
    Backend,
    /// [`max_accepting`](vsock_proto::Config::max_accepting) connections of the guest waited for a
    /// busy host component.
    TooManyAccepting,
    /// The host component, or the other guest, did not answer within
    /// [`response_timeout`](vsock_proto::Config::response_timeout).
    HostSilent,
    /// The device is [shutting down](crate::Muxer::begin_shutdown).
    ShuttingDown,
}

impl RefusalReason {
    /// Every reason.
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

    /// A name for machines: lower case, with underscores.
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

    /// What the end of a connection means for the side that asked for it; `None` if the connection
    /// was there.
    pub(crate) const fn of(ending: Ending, initiator: Initiator) -> Option<Self> {
        match (initiator, ending) {
            (Initiator::Host, Ending::GuestRefused) => Some(Self::GuestRefused),
            (Initiator::Host, Ending::TimedOut) => Some(Self::GuestSilent),
            (Initiator::Host, Ending::NotDelivered) => Some(Self::NotDelivered),
            (Initiator::Guest, Ending::TimedOut) => Some(Self::HostSilent),
            _ => None,
        }
    }

    /// What it means where another guest stands in the host's place, if that is something else.
    const fn text_for_sibling(self) -> Option<&'static str> {
        match self {
            Self::NoHostPort => Some("what is left of a connection has the same ports"),
            Self::Backend => Some("the other guest cannot be reached, or refuses it"),
            Self::HostSilent => Some("the other guest does not answer"),
            _ => None,
        }
    }
}

impl fmt::Display for RefusalReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::CommandMalformed => {
                "its command cannot be carried out, expected CONNECT and a port that the guest can have"
            }
            Self::CommandAbandoned => "it left before its command was whole",
            Self::CommandTimedOut => "its command did not come in time",
            Self::TooManyHandshakes => "too many clients have not sent their command",
            Self::TooManyConnections => "the guest has as many connections as it may have",
            Self::NoHostPort => "every host port is in use",
            Self::GuestRefused => "the guest refuses it, nothing in the guest listens on the port",
            Self::GuestSilent => "the guest does not answer",
            Self::NotDelivered => "the guest has no buffer for the request",
            Self::Backend => "no host component takes it",
            Self::TooManyAccepting => "too many connections wait for busy host components",
            Self::HostSilent => "the host component does not answer",
            Self::ShuttingDown => "the device is shutting down",
        })
    }
}

/// A connection that was refused, for the log.
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
/// let text = "guest port 1024 to host port 52: no host component takes it (connection refused)";
/// assert_eq!(refusal.to_string(), text);
/// assert_eq!(muxer.counters().refused(RefusalReason::Backend), 1);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub struct ConnectionRefusal {
    /// Why.
    pub reason: RefusalReason,
    /// The side that asked for it.
    pub initiator: Initiator,
    /// The port of the guest; `None` for a host client that had not said which it wants.
    pub guest_port: Option<Port>,
    /// The CID on the host's side: that of another guest, or else [`Cid::HOST`].
    pub host_cid: Cid,
    /// The port on the host's side; `None` for a host client that had none yet.
    pub host_port: Option<Port>,
    /// What the backend said, if it was asked.
    pub error: Option<ErrorKind>,
}

impl ConnectionRefusal {
    /// Of a host client, which wants this port of the guest.
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

    /// Of a connection with this key.
    pub(crate) fn of_connection(reason: RefusalReason, initiator: Initiator, key: ConnKey) -> Self {
        // A host client does not know the host port that its connection had.
        let is_client = initiator == Initiator::Host && key.host_cid == Cid::HOST;
        Self {
            host_cid: key.host_cid,
            host_port: (!is_client).then_some(key.local),
            initiator,
            ..Self::of_client(reason, Some(key.peer))
        }
    }

    /// With what the backend said.
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

/// The last refusals, until they are taken. An owner that does not take them loses the oldest.
#[derive(Debug, Default)]
pub(crate) struct RecentRefusals(VecDeque<ConnectionRefusal>);

impl RecentRefusals {
    /// How many are kept.
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
    fn a_crowd_of_refusals_leaves_the_last_ones() {
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
    fn no_two_reasons_have_one_name() {
        let names: std::collections::BTreeSet<_> = RefusalReason::ALL
            .into_iter()
            .map(RefusalReason::name)
            .collect();
        assert_eq!(names.len(), RefusalReason::ALL.len());
    }
}
