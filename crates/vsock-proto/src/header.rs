// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

use core::array;

/// `struct virtio_vsock_hdr`: what stands before the payload of each packet (virtio 1.3, 5.10.6).
///
/// These are the fields as they came, of whatever value. [`Route`](crate::Route) makes a typed
/// [`Packet`](crate::Packet) of them. A device copies the 44 bytes out of guest memory once and
/// decodes the copy, so that nothing which has been checked can change any more.
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
    /// CID of the sender; the upper 32 bits are reserved.
    pub src_cid: u64,
    /// CID of the receiver; the upper 32 bits are reserved.
    pub dst_cid: u64,
    /// Port of the sender.
    pub src_port: u32,
    /// Port of the receiver.
    pub dst_port: u32,
    /// Bytes of payload that follow.
    pub len: u32,
    /// `type`: see [`SocketType`](crate::SocketType).
    pub socket_type: u16,
    /// See [`Op`](crate::Op).
    pub op: u16,
    /// What they mean depends on `op`.
    pub flags: u32,
    /// Bytes of receive buffer that the sender has for this connection, free or not.
    pub buf_alloc: u32,
    /// Payload bytes that the sender has taken out of that buffer so far, modulo 2^32.
    pub fwd_cnt: u32,
}

impl Header {
    /// Bytes of a header in guest memory: packed, so 44 and not the 48 of a padded structure.
    pub const LEN: usize = 44;

    /// Reads the header out of its 44 bytes, whatever they are.
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

    /// The 44 bytes as they go to guest memory.
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
    reason = "each caller names a constant offset with at + N <= 44; the golden vector visits all"
)]
fn field<const N: usize>(bytes: &[u8; Header::LEN], at: usize) -> [u8; N] {
    array::from_fn(|i| bytes[at + i])
}

#[expect(
    clippy::indexing_slicing,
    clippy::arithmetic_side_effects,
    reason = "each caller names a constant offset with at + N <= 44; the golden vector visits all"
)]
fn put<const N: usize>(bytes: &mut [u8; Header::LEN], at: usize, value: [u8; N]) {
    bytes[at..at + N].copy_from_slice(&value);
}
