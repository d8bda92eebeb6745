// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! The headers before each packet's payload, in the format of Linux's vsockmon
//! (`linux/vsockmon.h`): a header common to all transports, and the transport's own header.

use vsock_proto::{Header, Op};

/// The size of both headers in bytes.
pub(super) const LEN: usize = MONITOR + Header::LEN;

/// The size of `struct af_vsockmon_hdr` in bytes.
const MONITOR: usize = 32;

/// `AF_VSOCK_TRANSPORT_VIRTIO`: the transport's header is a virtio header.
const TRANSPORT_VIRTIO: u16 = 2;

/// The size of the transport's header in bytes.
const TRANSPORT_LEN: u16 = 44;

/// `enum af_vsockmon_op`: the purpose of a packet, independent of the transport.
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
    /// Converts a virtio operation, which may be any number.
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

/// Returns both headers of a packet.
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
