// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

use crate::{ConnKey, MessageFlags, Op, ShutdownFlags, SocketType};

/// A packet whose header has been checked: what [`Route::parse`](crate::Route::parse) makes of a
/// [`Header`](crate::Header), and what a [`Connection`](crate::Connection) wants to be sent.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Packet {
    /// The connection, as this side sees it.
    pub key: ConnKey,
    /// The type of its sockets.
    pub socket_type: SocketType,
    /// What the packet says.
    pub body: Body,
    /// Bytes of payload that follow the header.
    pub len: u32,
    /// The sender's receive buffer.
    pub credit: Credit,
}

/// What a packet says: `op`, and the `flags` as this `op` means them.
///
/// The bits of a shutdown and those of a message share one field of the header. Here they cannot
/// be taken for one another.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub enum Body {
    /// [`Op::Request`]
    Request,
    /// [`Op::Response`]
    Response,
    /// [`Op::Reset`]
    Reset,
    /// [`Op::Shutdown`]
    Shutdown(ShutdownFlags),
    /// [`Op::ReadWrite`]; the flags are those of a seqpacket socket, and none on a stream.
    Data(MessageFlags),
    /// [`Op::CreditUpdate`]
    CreditUpdate,
    /// [`Op::CreditRequest`]
    CreditRequest,
}

impl Body {
    /// The operation as it stands in a header.
    ///
    /// ```
    /// use vsock_proto::{Body, Op, ShutdownFlags};
    ///
    /// assert_eq!(Body::Shutdown(ShutdownFlags::SEND).op(), Op::Shutdown);
    /// ```
    #[must_use]
    pub const fn op(self) -> Op {
        match self {
            Self::Request => Op::Request,
            Self::Response => Op::Response,
            Self::Reset => Op::Reset,
            Self::Shutdown(_) => Op::Shutdown,
            Self::Data(_) => Op::ReadWrite,
            Self::CreditUpdate => Op::CreditUpdate,
            Self::CreditRequest => Op::CreditRequest,
        }
    }

    /// The flags as they stand in a header.
    #[must_use]
    pub const fn flags(self) -> u32 {
        match self {
            Self::Shutdown(flags) => flags.bits(),
            Self::Data(flags) => flags.bits(),
            Self::Request
            | Self::Response
            | Self::Reset
            | Self::CreditUpdate
            | Self::CreditRequest => 0,
        }
    }

    /// The body that `op` and `flags` of a header make on a socket of this type.
    #[must_use]
    pub const fn new(op: Op, flags: u32, socket_type: SocketType) -> Self {
        match op {
            Op::Request => Self::Request,
            Op::Response => Self::Response,
            Op::Reset => Self::Reset,
            Op::Shutdown => Self::Shutdown(ShutdownFlags::from_bits(flags)),
            Op::ReadWrite => Self::Data(match socket_type {
                SocketType::Stream => MessageFlags::NONE,
                SocketType::SeqPacket => MessageFlags::from_bits(flags),
            }),
            Op::CreditUpdate => Self::CreditUpdate,
            Op::CreditRequest => Self::CreditRequest,
        }
    }
}

/// What the sender of a packet says about its receive buffer (virtio 1.3, 5.10.6.3). Every packet
/// of a connection carries it.
#[derive(Clone, Copy, Debug, Default, Eq, Hash, PartialEq)]
pub struct Credit {
    /// Bytes of the buffer, free or not.
    pub buf_alloc: u32,
    /// Payload bytes taken out of the buffer so far, modulo 2^32.
    pub fwd_cnt: u32,
}
