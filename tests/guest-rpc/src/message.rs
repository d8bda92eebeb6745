// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! The messages, encoded as protocol buffers over every protocol.

/// Some bytes and a number.
#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct Piece {
    #[prost(uint64, tag = "1")]
    pub(crate) number: u64,
    #[prost(bytes = "vec", tag = "2")]
    pub(crate) bytes: Vec<u8>,
}

/// The length of a stream, and of its pieces. The last piece may be shorter.
#[derive(Clone, Copy, PartialEq, prost::Message)]
pub(crate) struct Amount {
    #[prost(uint64, tag = "1")]
    pub(crate) bytes: u64,
    #[prost(uint32, tag = "2")]
    pub(crate) piece: u32,
    #[prost(uint64, tag = "3")]
    pub(crate) seed: u64,
}

/// A summary of a stream.
#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct Summary {
    #[prost(uint64, tag = "1")]
    pub(crate) bytes: u64,
    #[prost(bytes = "vec", tag = "2")]
    pub(crate) sha256: Vec<u8>,
}

/// The code with which to refuse a call.
#[derive(Clone, Copy, PartialEq, prost::Message)]
pub(crate) struct Refusal {
    #[prost(int32, tag = "1")]
    pub(crate) code: i32,
}

/// An empty message.
#[derive(Clone, Copy, PartialEq, prost::Message)]
pub(crate) struct Nothing {}
