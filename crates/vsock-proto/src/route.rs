// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

use thiserror::Error;

use crate::{
    Body, Cid, ConnKey, Credit, GuestCid, Header, Op, Packet, Port, SocketType, SocketTypes,
};

/// Who speaks with whom: turns headers into packets and packets into headers.
///
/// A device has one route for its guest. Only a packet from this guest passes, and only to the host
/// or, [where it is let](Self::to_guests_too), to another guest. What goes back bears the
/// configured CID of the guest, never that of some packet.
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
/// // A packet in another guest's name.
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

/// Which end of the route this side is.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
enum End {
    Device,
    Guest,
}

/// What a guest speaks with.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
enum Reach {
    Host,
    HostAndGuests,
}

impl Route {
    /// The host's route to a guest: what a device uses.
    #[must_use]
    pub const fn to_guest(guest: GuestCid, types: SocketTypes) -> Self {
        Self {
            guest,
            end: End::Device,
            reach: Reach::Host,
            types,
        }
    }

    /// The guest's route to the host: what a model of a guest uses.
    #[must_use]
    pub const fn to_host(guest: GuestCid, types: SocketTypes) -> Self {
        Self {
            guest,
            end: End::Guest,
            reach: Reach::Host,
            types,
        }
    }

    /// The same route, on which packets between the guest and other guests pass as well: any CID
    /// that a guest can have, but its own. Whether there is such a guest, a connection finds out.
    #[must_use]
    pub const fn to_guests_too(self) -> Self {
        Self {
            reach: Reach::HostAndGuests,
            ..self
        }
    }

    /// Checks a header that came from the peer.
    ///
    /// The addresses come first: a packet that is not for us, or not from the peer, is never
    /// answered in our name.
    ///
    /// # Errors
    ///
    /// Why the packet concerns no connection, with the RST that answers it, if one does.
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

    /// The CID on the host's side of a packet that belongs on this route.
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

    /// The CID, if the guest may speak with it.
    fn reached(&self, cid: u64) -> Option<Cid> {
        if cid == u64::from(Cid::HOST) {
            return Some(Cid::HOST);
        }
        let other = GuestCid::try_from(cid).ok()?;
        let passes = self.reach == Reach::HostAndGuests && other != self.guest;
        passes.then_some(other.cid())
    }

    /// The header of a packet that goes to the peer.
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

    /// The RST that answers a packet which belongs to no connection; none if it is an RST itself.
    #[must_use]
    pub fn reset_for(&self, packet: &Packet) -> Option<ResetReply> {
        (packet.body != Body::Reset).then(|| ResetReply {
            key: packet.key,
            socket_type: packet.socket_type.into(),
        })
    }

    /// The header of such an RST. It tells nothing about credit, for there is no buffer.
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

    /// Source and destination of what this side sends.
    fn cids(&self, host_cid: Cid) -> (u64, u64) {
        match self.end {
            End::Device => (host_cid.into(), self.guest.into()),
            End::Guest => (self.guest.into(), host_cid.into()),
        }
    }

    /// A guest that connects to a CID which does not exist shall learn of it immediately, from that
    /// CID. Anything else that goes astray is dropped.
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

/// An RST for which there is no connection. It repeats the type of the packet that it answers,
/// known or not.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub struct ResetReply {
    /// The tuple, as this side sees it; its CID is the one that the guest had spoken to.
    pub key: ConnKey,
    /// The `type` field.
    pub socket_type: u16,
}

/// A packet that concerns no connection, and the RST that answers it, if one does.
#[derive(Clone, Copy, Debug, Eq, Error, PartialEq)]
#[error("packet rejected")]
pub struct Reject {
    /// What is wrong with it.
    #[source]
    pub cause: RejectCause,
    /// What the sender shall be told.
    pub reply: Option<ResetReply>,
}

impl From<RejectCause> for Reject {
    fn from(cause: RejectCause) -> Self {
        Self { cause, reply: None }
    }
}

/// Why a packet concerns no connection.
#[derive(Clone, Copy, Debug, Eq, Error, PartialEq)]
#[non_exhaustive]
pub enum RejectCause {
    /// Its source CID is not the peer's.
    #[error("source CID {0} is not the peer's")]
    ForeignSource(u64),
    /// Its destination CID is not ours.
    #[error("destination CID {0} is not ours")]
    ForeignDestination(u64),
    /// Its socket type is unknown, or has not been negotiated.
    #[error("socket type {0} is not in use")]
    UnknownType(u16),
    /// Its operation is unknown.
    #[error("operation {0} is unknown")]
    UnknownOp(u16),
}
