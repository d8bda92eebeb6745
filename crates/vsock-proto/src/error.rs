// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

use thiserror::Error;

use crate::ResetReply;

/// A number that is not the CID it should be.
#[derive(Clone, Copy, Debug, Eq, Error, PartialEq)]
#[non_exhaustive]
pub enum CidError {
    /// The upper 32 bits are reserved and must be zero.
    #[error("the reserved upper bits of CID {0:#x} are set")]
    UpperBits(u64),
    /// The CID has a meaning of its own, so no guest may have it.
    #[error("CID {0} is reserved")]
    Reserved(u64),
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
    /// It bears somebody else's source CID.
    #[error("source CID {0} is not the peer's")]
    ForeignSource(u64),
    /// It is for somebody else.
    #[error("destination CID {0} is not ours")]
    ForeignDestination(u64),
    /// Its socket type is unknown, or has not been negotiated.
    #[error("socket type {0} is not in use")]
    UnknownType(u16),
    /// Its operation is unknown.
    #[error("operation {0} is unknown")]
    UnknownOp(u16),
}

/// What a peer did to a connection that a correct peer never does.
#[derive(Clone, Copy, Debug, Eq, Error, PartialEq)]
#[non_exhaustive]
pub enum Violation {
    /// More payload than the receive buffer that it was told of.
    #[error("{used} bytes queued and {len} more overrun a buffer of {buf_alloc}")]
    CreditOverrun {
        /// Bytes in the buffer.
        used: u32,
        /// Bytes of the packet.
        len: u32,
        /// Bytes that the buffer holds.
        buf_alloc: u32,
    },
    /// It says that it has taken more than it was sent.
    #[error("fwd_cnt {fwd_cnt} is ahead of the {sent} bytes that were sent (modulo 2^32)")]
    ForwardedUnsent {
        /// What the packet says.
        fwd_cnt: u32,
        /// What was sent.
        sent: u32,
    },
    /// Payload before the connection was there.
    #[error("payload on a connection that is not established")]
    DataTooEarly,
    /// Payload after it said that there would be none.
    #[error("payload after the end of sending was declared")]
    DataAfterEnd,
    /// A message longer than the limit.
    #[error("a message of {len} bytes or more; the limit is {limit}")]
    MessageTooLong {
        /// Bytes that have come so far.
        len: u32,
        /// Bytes that a message may have.
        limit: u32,
    },
    /// More empty messages than may wait: credit does not bound them.
    #[error("more than {limit} empty messages wait")]
    TooManyEmptyMessages {
        /// How many may wait.
        limit: u32,
    },
    /// A packet of another socket type. The connection is not touched by it.
    #[error("the packet's socket type is not the connection's")]
    WrongType,
}

/// Bytes that would exceed the limit of a [`Backlog`](crate::Backlog).
#[derive(Clone, Copy, Debug, Eq, Error, PartialEq)]
#[error("{len} bytes wait and {more} more exceed the limit of {limit}")]
pub struct BacklogFull {
    /// Bytes that wait.
    pub len: usize,
    /// Bytes that were to be added.
    pub more: usize,
    /// Bytes that may wait.
    pub limit: usize,
}

/// An RST that cannot be kept: too many wait for buffers of the guest.
#[derive(Clone, Copy, Debug, Eq, Error, PartialEq)]
#[error("{limit} RSTs wait already")]
pub struct ResetsFull {
    /// How many may wait.
    pub limit: usize,
}

/// Every port of the range is in use.
#[derive(Clone, Copy, Debug, Eq, Error, PartialEq)]
#[error("all {ports} host ports are in use")]
pub struct NoPortLeft {
    /// How many there are.
    pub ports: usize,
}

/// A line of the text handshake that is not what it should be.
#[derive(Clone, Copy, Debug, Eq, Error, PartialEq)]
#[non_exhaustive]
pub enum LineError {
    /// It has no end within the limit.
    #[error("no line of at most {limit} bytes")]
    TooLong {
        /// Bytes that a line may have, with the newline.
        limit: usize,
    },
    /// It does not begin with the keyword, or has another number of words than two.
    #[error("not a keyword and a port")]
    Malformed,
    /// The second word is not a port: decimal digits for a number below 2^32 - 1.
    #[error("not a port number")]
    BadPort,
}
