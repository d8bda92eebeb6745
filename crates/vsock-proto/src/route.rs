// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

use thiserror::Error;

use crate::{
    Body, Cid, ConnKey, Credit, GuestCid, Header, Op, Packet, Port, SocketType, SocketTypes,
};

/// Checks the addresses of packets, and converts headers to packets and packets to headers.
///
/// A device has one route for its guest. The route accepts packets from this guest only, and only
/// to the host or, [if enabled](Self::to_guests_too), to another guest. Packets to the guest carry
/// its configured CID, never one taken from a packet.
///
/// ```
/// use vsock_proto::{Body, CidError, GuestCid, Header, Op, Route, SocketTypes};
///
/// let route = Route::to_guest(GuestCid::try_from(3)?, SocketTypes::STREAM);
/// let header = Header {
///     src_cid: 3,
///     dst_cid: 2,
///     src_port: 1024,
///     dst_port: 52,
///     socket_type: 1,
///     op: Op::Request.into(),
///     ..Header::default()
/// };
/// let packet = route.parse(&header).expect("a request from guest 3 to the host");
/// assert_eq!(packet.body, Body::Request);
///
/// // A packet with a forged source CID.
/// let forged = Header { src_cid: 4, ..header };
/// assert!(route.parse(&forged).unwrap_err().reply.is_none());
///
/// // A packet to another guest.
/// let to_sibling = Header { dst_cid: 4, ..header };
/// assert!(route.parse(&to_sibling).is_err());
/// let packet = route.to_guests_too().parse(&to_sibling).expect("a request to guest 4");
/// assert_eq!(u64::from(packet.key.host_cid), 4);
/// # Ok::<(), CidError>(())
/// ```
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub struct Route {
    guest: GuestCid,
    end: End,
    reach: Reach,
    types: SocketTypes,
}

/// The end of the route that this side is.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
enum End {
    Device,
    Guest,
}

/// The peers that a guest may communicate with.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
enum Reach {
    Host,
    HostAndGuests,
}

impl Route {
    /// Creates the host's route to a guest, which a device uses.
    #[must_use]
    pub const fn to_guest(guest: GuestCid, types: SocketTypes) -> Self {
        Self {
            guest,
            end: End::Device,
            reach: Reach::Host,
            types,
        }
    }

    /// Creates the guest's route to the host, which a model of a guest uses.
    #[must_use]
    pub const fn to_host(guest: GuestCid, types: SocketTypes) -> Self {
        Self {
            guest,
            end: End::Guest,
            reach: Reach::Host,
            types,
        }
    }

    /// Extends the route to packets between the guest and other guests: every valid guest CID
    /// except the guest's own. Whether a guest with that CID exists is determined when it connects.
    #[must_use]
    pub const fn to_guests_too(self) -> Self {
        Self {
            reach: Reach::HostAndGuests,
            ..self
        }
    }

    /// Checks a header received from the peer.
    ///
    /// The addresses are checked first, so that a packet that is not from the peer is never
    /// answered.
    ///
    /// # Errors
    ///
    /// Returns why the packet belongs to no connection, and the RST that answers it, if any.
    pub fn parse(&self, header: &Header) -> Result<Packet, Reject> {
        let host_cid = self.host_cid(header)?;
        let key = key_of(header, host_cid);
        let op = Op::try_from(header.op);
        let socket_type = match SocketType::try_from(header.socket_type) {
            Ok(known) if self.types.contains(known) => known,
            _ => return Err(Self::unknown_type(header, key)),
        };
        let op = op.map_err(RejectCause::UnknownOp)?;
        Ok(Packet {
            key,
            socket_type,
            body: Body::new(op, header.flags, socket_type),
            len: header.len,
            credit: Credit {
                buf_alloc: header.buf_alloc,
                fwd_cnt: header.fwd_cnt,
            },
        })
    }

    /// Returns the CID on the host's side of a packet, if the packet may use this route.
    fn host_cid(&self, header: &Header) -> Result<Cid, Reject> {
        let guest = u64::from(self.guest);
        match self.end {
            End::Device if header.src_cid != guest => {
                Err(RejectCause::ForeignSource(header.src_cid).into())
            }
            End::Device => self
                .reached(header.dst_cid)
                .ok_or_else(|| Self::foreign_destination(header)),
            End::Guest => {
                let host_cid = self.reached(header.src_cid);
                let host_cid = host_cid.ok_or(RejectCause::ForeignSource(header.src_cid))?;
                if header.dst_cid != guest {
                    return Err(Self::foreign_destination(header));
                }
                Ok(host_cid)
            }
        }
    }

    /// Returns the CID if the guest may communicate with it.
    fn reached(&self, cid: u64) -> Option<Cid> {
        if cid == u64::from(Cid::HOST) {
            return Some(Cid::HOST);
        }
        let other = GuestCid::try_from(cid).ok()?;
        let passes = self.reach == Reach::HostAndGuests && other != self.guest;
        passes.then_some(other.cid())
    }

    /// Returns the header of a packet to the peer.
    #[must_use]
    pub fn header(&self, packet: &Packet) -> Header {
        let (src_cid, dst_cid) = self.cids(packet.key.host_cid);
        Header {
            src_cid,
            dst_cid,
            src_port: packet.key.local.into(),
            dst_port: packet.key.peer.into(),
            len: packet.len,
            socket_type: packet.socket_type.into(),
            op: packet.body.op().into(),
            flags: packet.body.flags(),
            buf_alloc: packet.credit.buf_alloc,
            fwd_cnt: packet.credit.fwd_cnt,
        }
    }

    /// Returns the RST that answers a packet without a connection, or `None` if it is an RST
    /// itself.
    #[must_use]
    pub fn reset_for(&self, packet: &Packet) -> Option<ResetReply> {
        (packet.body != Body::Reset).then(|| ResetReply {
            key: packet.key,
            socket_type: packet.socket_type.into(),
        })
    }

    /// Returns the header of such an RST. It reports no credit, because there is no buffer.
    #[must_use]
    pub fn reset_header(&self, reply: &ResetReply) -> Header {
        let (src_cid, dst_cid) = self.cids(reply.key.host_cid);
        Header {
            src_cid,
            dst_cid,
            src_port: reply.key.local.into(),
            dst_port: reply.key.peer.into(),
            socket_type: reply.socket_type,
            op: Op::Reset.into(),
            ..Header::default()
        }
    }

    /// Returns the source and the destination of packets that this side sends.
    fn cids(&self, host_cid: Cid) -> (u64, u64) {
        match self.end {
            End::Device => (host_cid.into(), self.guest.into()),
            End::Guest => (self.guest.into(), host_cid.into()),
        }
    }

    /// Rejects a packet to a CID that cannot be reached. A REQUEST is answered with an RST from
    /// that CID, so that the guest's `connect` fails immediately; any other packet is dropped.
    fn foreign_destination(header: &Header) -> Reject {
        let from = Cid::try_from(header.dst_cid).ok();
        let is_request = header.op == u16::from(Op::Request);
        Reject {
            cause: RejectCause::ForeignDestination(header.dst_cid),
            reply: from.filter(|_| is_request).map(|from| ResetReply {
                key: key_of(header, from),
                socket_type: header.socket_type,
            }),
        }
    }

    fn unknown_type(header: &Header, key: ConnKey) -> Reject {
        let is_reset = header.op == u16::from(Op::Reset);
        Reject {
            cause: RejectCause::UnknownType(header.socket_type),
            reply: (!is_reset).then_some(ResetReply {
                key,
                socket_type: header.socket_type,
            }),
        }
    }
}

fn key_of(header: &Header, host_cid: Cid) -> ConnKey {
    ConnKey::new(Port::new(header.dst_port), Port::new(header.src_port)).with_host_cid(host_cid)
}

/// An RST in answer to a packet without a connection. It repeats that packet's socket type, even an
/// unknown one.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub struct ResetReply {
    /// The tuple, as seen from this side, with the CID that the guest had addressed.
    pub key: ConnKey,
    /// The `type` field of the header.
    pub socket_type: u16,
}

/// A packet that belongs to no connection, and the RST that answers it, if any.
#[derive(Clone, Copy, Debug, Eq, Error, PartialEq)]
#[error("packet rejected")]
pub struct Reject {
    /// Why the packet was rejected.
    #[source]
    pub cause: RejectCause,
    /// The RST to send, if any.
    pub reply: Option<ResetReply>,
}

impl From<RejectCause> for Reject {
    fn from(cause: RejectCause) -> Self {
        Self { cause, reply: None }
    }
}

/// Why a packet belongs to no connection.
#[derive(Clone, Copy, Debug, Eq, Error, PartialEq)]
#[non_exhaustive]
pub enum RejectCause {
    /// The source CID is not the peer's.
    #[error("source CID {0} is not the peer's")]
    ForeignSource(u64),
    /// The destination CID cannot be reached through this route.
    #[error("destination CID {0} cannot be reached from here")]
    ForeignDestination(u64),
    /// The socket type is unknown, or was not negotiated.
    #[error("socket type {0} is unknown or was not negotiated")]
    UnknownType(u16),
    /// The operation is unknown.
    #[error("operation {0} is unknown")]
    UnknownOp(u16),
}
