// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

use thiserror::Error;

/// A protocol violation: something that a correct peer never does to a connection.
#[derive(Clone, Copy, Debug, Eq, Error, PartialEq)]
#[non_exhaustive]
pub enum Violation {
    /// The payload exceeds the advertised receive buffer.
    #[error("{len} more bytes after {used} overrun the receive buffer of {buf_alloc}")]
    CreditOverrun {
        /// Bytes in the buffer.
        used: u32,
        /// Bytes in the packet.
        len: u32,
        /// The size of the buffer in bytes.
        buf_alloc: u32,
    },
    /// The peer claims to have received more than it was sent.
    #[error("fwd_cnt {fwd_cnt} is ahead of the {sent} bytes that were sent (modulo 2^32)")]
    ForwardedUnsent {
        /// The counter in the packet.
        fwd_cnt: u32,
        /// The counter of bytes that were sent.
        sent: u32,
    },
    /// Payload arrived before the connection was established.
    #[error("payload before the connection was established")]
    DataTooEarly,
    /// Payload arrived after the peer had announced that it would send no more.
    #[error("payload after a shutdown that announced the end of sending")]
    DataAfterEnd,
    /// A message is longer than the limit.
    #[error("message of at least {len} bytes exceeds the limit of {limit}")]
    MessageTooLong {
        /// Bytes that have arrived so far.
        len: u32,
        /// The maximum length of a message in bytes.
        limit: u32,
    },
    /// More empty messages wait than the limit allows. Credit does not bound them.
    #[error("more than {limit} empty messages wait")]
    TooManyEmptyMessages {
        /// The maximum number of waiting empty messages.
        limit: u32,
    },
    /// The packet has another socket type than the connection, which it does not affect.
    #[error("the packet's socket type differs from the connection's")]
    WrongType,
}
