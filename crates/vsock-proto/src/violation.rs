// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

use thiserror::Error;

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
