// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

use core::ops::BitOr;

/// The operation of a packet: the `op` field (virtio 1.3, 5.10.6).
///
/// ```
/// use vsock_proto::Op;
///
/// assert_eq!(Op::try_from(3), Ok(Op::Reset));
/// assert_eq!(Op::try_from(0), Err(0), "VIRTIO_VSOCK_OP_INVALID is not an operation");
/// assert_eq!(u16::from(Op::CreditRequest), 7);
/// ```
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
#[repr(u16)]
pub enum Op {
    /// Requests a connection.
    Request = 1,
    /// Accepts a connection.
    Response = 2,
    /// Refuses or aborts a connection, or completes a clean disconnect.
    Reset = 3,
    /// Announces that the sender will not receive, not send, or do neither.
    Shutdown = 4,
    /// Carries payload.
    ReadWrite = 5,
    /// Reports the sender's buffer space.
    CreditUpdate = 6,
    /// Requests a credit update.
    CreditRequest = 7,
}

impl TryFrom<u16> for Op {
    /// The unknown number.
    type Error = u16;

    fn try_from(raw: u16) -> Result<Self, u16> {
        Ok(match raw {
            1 => Self::Request,
            2 => Self::Response,
            3 => Self::Reset,
            4 => Self::Shutdown,
            5 => Self::ReadWrite,
            6 => Self::CreditUpdate,
            7 => Self::CreditRequest,
            unknown => return Err(unknown),
        })
    }
}

impl From<Op> for u16 {
    fn from(op: Op) -> Self {
        op as Self
    }
}

/// The type of a socket: the `type` field (virtio 1.3, 5.10.6.2).
///
/// ```
/// use vsock_proto::SocketType;
///
/// assert_eq!(SocketType::try_from(1), Ok(SocketType::Stream));
/// assert_eq!(SocketType::try_from(3), Err(3), "datagrams are not in the specification");
/// ```
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
#[repr(u16)]
pub enum SocketType {
    /// A stream of bytes.
    Stream = 1,
    /// A sequence of messages with boundaries.
    SeqPacket = 2,
}

impl TryFrom<u16> for SocketType {
    /// The unknown number.
    type Error = u16;

    fn try_from(raw: u16) -> Result<Self, u16> {
        match raw {
            1 => Ok(Self::Stream),
            2 => Ok(Self::SeqPacket),
            unknown => Err(unknown),
        }
    }
}

impl From<SocketType> for u16 {
    fn from(socket_type: SocketType) -> Self {
        socket_type as Self
    }
}

/// The `flags` of [`Op::Shutdown`] (virtio 1.3, 5.10.6.5).
///
/// The flags are permanent hints: a later packet with fewer flags does not revoke any.
///
/// ```
/// use vsock_proto::ShutdownFlags;
///
/// let flags = ShutdownFlags::SEND | ShutdownFlags::RECEIVE;
/// assert!(flags.is_complete());
/// // Bits that the specification does not define are ignored.
/// assert!(ShutdownFlags::from_bits(0xffff_fffc).is_empty());
/// ```
#[derive(Clone, Copy, Debug, Default, Eq, Hash, PartialEq)]
pub struct ShutdownFlags(u8);

impl ShutdownFlags {
    /// No flag.
    pub const NONE: Self = Self(0);
    /// `VIRTIO_VSOCK_SHUTDOWN_F_RECEIVE`: the sender of the packet will receive no more data.
    pub const RECEIVE: Self = Self(1);
    /// `VIRTIO_VSOCK_SHUTDOWN_F_SEND`: the sender of the packet will send no more data.
    pub const SEND: Self = Self(2);
    /// Both flags: a complete shutdown.
    pub const BOTH: Self = Self(3);

    /// Extracts the known flags from the `flags` field of a header.
    #[must_use]
    pub const fn from_bits(bits: u32) -> Self {
        Self((bits & 3) as u8)
    }

    /// Returns the value for the `flags` field of a header.
    #[must_use]
    pub const fn bits(self) -> u32 {
        self.0 as u32
    }

    /// Returns whether every flag of `other` is set.
    #[must_use]
    pub const fn contains(self, other: Self) -> bool {
        self.0 & other.0 == other.0
    }

    /// Returns whether no flag is set.
    #[must_use]
    pub const fn is_empty(self) -> bool {
        self.0 == 0
    }

    /// Returns whether both flags are set.
    #[must_use]
    pub const fn is_complete(self) -> bool {
        self.0 == 3
    }
}

impl BitOr for ShutdownFlags {
    type Output = Self;

    fn bitor(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }
}

/// The `flags` of [`Op::ReadWrite`] on a seqpacket socket (virtio 1.3, 5.10.6.6). They have no
/// meaning on a stream.
///
/// ```
/// use vsock_proto::MessageFlags;
///
/// assert!(MessageFlags::END_OF_RECORD.ends_message(), "the end of a record ends a message");
/// assert!(!MessageFlags::from_bits(4).ends_message());
/// ```
#[derive(Clone, Copy, Debug, Default, Eq, Hash, PartialEq)]
pub struct MessageFlags(u8);

impl MessageFlags {
    /// The message continues in the next packet.
    pub const NONE: Self = Self(0);
    /// `VIRTIO_VSOCK_SEQ_EOM`: the message ends with this packet.
    pub const END_OF_MESSAGE: Self = Self(1);
    /// `VIRTIO_VSOCK_SEQ_EOM` and `VIRTIO_VSOCK_SEQ_EOR`: the message and the record end with this
    /// packet.
    pub const END_OF_RECORD: Self = Self(3);

    /// Extracts the flags from the `flags` field of a header. Ignores unknown bits, and an end of
    /// record without an end of message.
    #[must_use]
    pub const fn from_bits(bits: u32) -> Self {
        match bits & 3 {
            3 => Self::END_OF_RECORD,
            1 => Self::END_OF_MESSAGE,
            _ => Self::NONE,
        }
    }

    /// Returns the value for the `flags` field of a header.
    #[must_use]
    pub const fn bits(self) -> u32 {
        self.0 as u32
    }

    /// Returns whether a message ends with this packet.
    #[must_use]
    pub const fn ends_message(self) -> bool {
        self.0 & 1 != 0
    }

    /// Returns whether a record, and with it a message, ends with this packet.
    #[must_use]
    pub const fn ends_record(self) -> bool {
        self.0 == 3
    }
}
