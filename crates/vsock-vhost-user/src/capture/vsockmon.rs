// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! What stands before each packet, as Linux's vsockmon has it (`linux/vsockmon.h`): a header that
//! every transport fills, then that of the transport.

use vsock_proto::{Header, Op};

/// Bytes of both headers.
pub(super) const LEN: usize = MONITOR + Header::LEN;

/// Bytes of `struct af_vsockmon_hdr`.
const MONITOR: usize = 32;

/// `AF_VSOCK_TRANSPORT_VIRTIO`: the transport's header is that of virtio.
const TRANSPORT_VIRTIO: u16 = 2;

/// Bytes of it.
const TRANSPORT_LEN: u16 = 44;

/// `enum af_vsockmon_op`: what a packet is for, whatever the transport.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[repr(u16)]
enum MonitorOp {
    Unknown = 0,
    Connect = 1,
    Disconnect = 2,
    Control = 3,
    Payload = 4,
}

impl From<u16> for MonitorOp {
    /// Of an operation of virtio, which may be any number.
    fn from(op: u16) -> Self {
        match Op::try_from(op) {
            Ok(Op::Request | Op::Response) => Self::Connect,
            Ok(Op::Reset | Op::Shutdown) => Self::Disconnect,
            Ok(Op::CreditUpdate | Op::CreditRequest) => Self::Control,
            Ok(Op::ReadWrite) => Self::Payload,
            Err(_) => Self::Unknown,
        }
    }
}

/// Both headers of a packet.
pub(super) fn headers(header: &Header) -> [u8; LEN] {
    let monitor = [
        &header.src_cid.to_le_bytes()[..],
        &header.dst_cid.to_le_bytes(),
        &header.src_port.to_le_bytes(),
        &header.dst_port.to_le_bytes(),
        &(MonitorOp::from(header.op) as u16).to_le_bytes(),
        &TRANSPORT_VIRTIO.to_le_bytes(),
        &TRANSPORT_LEN.to_le_bytes(),
        &[0; 2],
    ];
    let mut headers = [0; LEN];
    let parts = monitor.into_iter().flatten().copied();
    for (place, byte) in headers.iter_mut().zip(parts.chain(header.encode())) {
        *place = byte;
    }
    headers
}
