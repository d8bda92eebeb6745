// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

use core::array;

/// `struct virtio_vsock_hdr`: the header that precedes the payload of each packet (virtio 1.3,
/// 5.10.6).
///
/// The fields are raw and unchecked; [`Route`](crate::Route) turns them into a typed
/// [`Packet`](crate::Packet). A device copies the 44 bytes from guest memory once and decodes the
/// copy, so the guest cannot change a field after it has been checked.
///
/// ```
/// use vsock_proto::{Header, Op};
///
/// let header = Header {
///     src_cid: 3,
///     dst_cid: 2,
///     src_port: 1024,
///     dst_port: 52,
///     len: 0,
///     socket_type: 1,
///     op: Op::Request.into(),
///     flags: 0,
///     buf_alloc: 262_144,
///     fwd_cnt: 0,
/// };
/// assert_eq!(Header::decode(&header.encode()), header);
/// ```
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Header {
    /// The sender's CID; the upper 32 bits are reserved.
    pub src_cid: u64,
    /// The receiver's CID; the upper 32 bits are reserved.
    pub dst_cid: u64,
    /// The sender's port.
    pub src_port: u32,
    /// The receiver's port.
    pub dst_port: u32,
    /// The length of the payload that follows, in bytes.
    pub len: u32,
    /// The socket type (`type`): see [`SocketType`](crate::SocketType).
    pub socket_type: u16,
    /// The operation: see [`Op`](crate::Op).
    pub op: u16,
    /// Flags, whose meaning depends on `op`.
    pub flags: u32,
    /// The total size of the sender's receive buffer for this connection, in bytes.
    pub buf_alloc: u32,
    /// The number of payload bytes that the sender has taken out of that buffer, modulo 2^32.
    pub fwd_cnt: u32,
}

impl Header {
    /// The length of a header in guest memory: 44 bytes, because the structure is packed.
    pub const LEN: usize = 44;

    /// Decodes a header from its 44 bytes, which may have any values.
    #[must_use]
    pub fn decode(bytes: &[u8; Self::LEN]) -> Self {
        Self {
            src_cid: u64::from_le_bytes(field(bytes, 0)),
            dst_cid: u64::from_le_bytes(field(bytes, 8)),
            src_port: u32::from_le_bytes(field(bytes, 16)),
            dst_port: u32::from_le_bytes(field(bytes, 20)),
            len: u32::from_le_bytes(field(bytes, 24)),
            socket_type: u16::from_le_bytes(field(bytes, 28)),
            op: u16::from_le_bytes(field(bytes, 30)),
            flags: u32::from_le_bytes(field(bytes, 32)),
            buf_alloc: u32::from_le_bytes(field(bytes, 36)),
            fwd_cnt: u32::from_le_bytes(field(bytes, 40)),
        }
    }

    /// Encodes the header as the 44 bytes that go into guest memory.
    #[must_use]
    pub fn encode(&self) -> [u8; Self::LEN] {
        let mut bytes = [0; Self::LEN];
        put(&mut bytes, 0, self.src_cid.to_le_bytes());
        put(&mut bytes, 8, self.dst_cid.to_le_bytes());
        put(&mut bytes, 16, self.src_port.to_le_bytes());
        put(&mut bytes, 20, self.dst_port.to_le_bytes());
        put(&mut bytes, 24, self.len.to_le_bytes());
        put(&mut bytes, 28, self.socket_type.to_le_bytes());
        put(&mut bytes, 30, self.op.to_le_bytes());
        put(&mut bytes, 32, self.flags.to_le_bytes());
        put(&mut bytes, 36, self.buf_alloc.to_le_bytes());
        put(&mut bytes, 40, self.fwd_cnt.to_le_bytes());
        bytes
    }
}

#[expect(
    clippy::indexing_slicing,
    clippy::arithmetic_side_effects,
    reason = "callers pass a constant offset with at + N <= 44; the golden vector covers all"
)]
fn field<const N: usize>(bytes: &[u8; Header::LEN], at: usize) -> [u8; N] {
    array::from_fn(|i| bytes[at + i])
}

#[expect(
    clippy::indexing_slicing,
    clippy::arithmetic_side_effects,
    reason = "callers pass a constant offset with at + N <= 44; the golden vector covers all"
)]
fn put<const N: usize>(bytes: &mut [u8; Header::LEN], at: usize, value: [u8; N]) {
    bytes[at..at + N].copy_from_slice(&value);
}
