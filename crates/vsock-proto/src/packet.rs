// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

use crate::{ConnKey, MessageFlags, Op, ShutdownFlags, SocketType};

/// A packet with a checked header: returned by [`Route::parse`](crate::Route::parse) for a received
/// [`Header`](crate::Header), and by a [`Connection`](crate::Connection) to be sent.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Packet {
    /// The connection, as seen from this side.
    pub key: ConnKey,
    /// The socket type of the connection.
    pub socket_type: SocketType,
    /// The operation and its flags.
    pub body: Body,
    /// The length of the payload that follows the header, in bytes.
    pub len: u32,
    /// The sender's receive buffer.
    pub credit: Credit,
}

/// The operation of a packet and the flags that belong to it.
///
/// In a header, the flags of a shutdown and those of a message share one field. Here they have
/// different types and cannot be confused.
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
    /// [`Op::ReadWrite`]. The flags are those of a seqpacket message; on a stream there are none.
    Data(MessageFlags),
    /// [`Op::CreditUpdate`]
    CreditUpdate,
    /// [`Op::CreditRequest`]
    CreditRequest,
}

impl Body {
    /// Returns the operation for the `op` field of a header.
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

    /// Returns the value for the `flags` field of a header.
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

    /// Creates the body for the `op` and `flags` of a header on a socket of this type.
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

/// The sender's receive buffer, reported in every packet of a connection (virtio 1.3, 5.10.6.3).
#[derive(Clone, Copy, Debug, Default, Eq, Hash, PartialEq)]
pub struct Credit {
    /// The total size of the buffer, in bytes.
    pub buf_alloc: u32,
    /// The number of payload bytes taken out of the buffer so far, modulo 2^32.
    pub fwd_cnt: u32,
}
