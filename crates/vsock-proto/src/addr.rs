// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

use core::fmt;

use thiserror::Error;

/// A context identifier: identifies the host or a guest in an address (virtio 1.3, 5.10.4).
///
/// A CID takes 64 bits in a packet, of which the upper 32 are reserved and zero. The conversion
/// checks all 64, so `0x1_0000_0002` is an error rather than the host.
///
/// ```
/// use vsock_proto::{Cid, CidError};
///
/// assert_eq!(Cid::try_from(2)?, Cid::HOST);
/// assert_eq!(Cid::try_from(0x1_0000_0002), Err(CidError::UpperBits(0x1_0000_0002)));
/// # Ok::<(), CidError>(())
/// ```
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct Cid(u64);

impl Cid {
    /// The hypervisor. Reserved.
    pub const HYPERVISOR: Self = Self(0);
    /// Loopback within one machine. Reserved.
    pub const LOCAL: Self = Self(1);
    /// The host, as seen by every guest.
    pub const HOST: Self = Self(2);
    /// The wildcard, which is never a real address.
    pub const ANY: Self = Self(u32::MAX as u64);
}

impl TryFrom<u64> for Cid {
    type Error = CidError;

    fn try_from(raw: u64) -> Result<Self, CidError> {
        if raw > Self::ANY.0 {
            return Err(CidError::UpperBits(raw));
        }
        Ok(Self(raw))
    }
}

impl From<Cid> for u64 {
    fn from(cid: Cid) -> Self {
        cid.0
    }
}

impl fmt::Display for Cid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// The CID of a guest: any value except 0, 1, 2 and the two all-ones values (virtio 1.3, 5.10.4).
///
/// ```
/// use vsock_proto::{Cid, CidError, GuestCid};
///
/// let guest = GuestCid::try_from(3)?;
/// assert_eq!(u64::from(guest), 3);
/// assert_eq!(GuestCid::try_from(2), Err(CidError::Reserved(2)));
/// # Ok::<(), CidError>(())
/// ```
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct GuestCid(Cid);

impl GuestCid {
    /// Converts to a plain [`Cid`].
    #[must_use]
    pub const fn cid(self) -> Cid {
        self.0
    }
}

impl TryFrom<u64> for GuestCid {
    type Error = CidError;

    fn try_from(raw: u64) -> Result<Self, CidError> {
        let reserved = raw <= Cid::HOST.0 || raw == Cid::ANY.0 || raw == u64::MAX;
        if reserved {
            return Err(CidError::Reserved(raw));
        }
        Cid::try_from(raw).map(Self)
    }
}

impl From<GuestCid> for u64 {
    fn from(cid: GuestCid) -> Self {
        cid.0.0
    }
}

impl fmt::Display for GuestCid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// A port number on either side.
///
/// ```
/// use vsock_proto::Port;
///
/// assert_eq!(u32::from(Port::new(1024)), 1024);
/// assert_eq!(Port::new(1024).to_string(), "1024");
/// ```
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct Port(u32);

impl Port {
    /// `VMADDR_PORT_ANY`: requests any free port, and is never a port in use.
    pub const ANY: Self = Self(u32::MAX);

    /// Returns the port with this number.
    #[must_use]
    pub const fn new(number: u32) -> Self {
        Self(number)
    }
}

impl From<u32> for Port {
    fn from(number: u32) -> Self {
        Self(number)
    }
}

impl From<Port> for u32 {
    fn from(port: Port) -> Self {
        port.0
    }
}

impl fmt::Display for Port {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// The identity of a connection within one guest: the CID on the host's side, the local port and
/// the peer's port.
///
/// The guest's own CID is not part of the key, because [`Route`](crate::Route) accepts packets of
/// one guest only. Nor is the socket type: two connections cannot share a tuple, whatever their
/// types (virtio 1.3, 5.10.6.2).
///
/// ```
/// use vsock_proto::{Cid, CidError, ConnKey, Port};
///
/// let key = ConnKey::new(Port::new(1 << 30), Port::new(52));
/// assert_eq!(key.host_cid, Cid::HOST);
/// assert_eq!(key.mirror().mirror(), key);
///
/// // The same ports, but a sibling instead of the host.
/// assert_ne!(key.with_host_cid(Cid::try_from(4)?), key);
/// # Ok::<(), CidError>(())
/// ```
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct ConnKey {
    /// The CID that the guest is connected to: the host's, or a sibling's, on whose behalf the
    /// device answers.
    pub host_cid: Cid,
    /// Our port. In a device, this is the host's.
    pub local: Port,
    /// The peer's port. In a device, this is the guest's.
    pub peer: Port,
}

impl ConnKey {
    /// Returns the key of the connection between these two ports of [`Cid::HOST`] and the guest.
    #[must_use]
    pub const fn new(local: Port, peer: Port) -> Self {
        Self {
            host_cid: Cid::HOST,
            local,
            peer,
        }
    }

    /// Returns the key with the same ports and this CID on the host's side.
    #[must_use]
    pub const fn with_host_cid(self, host_cid: Cid) -> Self {
        Self { host_cid, ..self }
    }

    /// Returns the key of the same connection as the peer sees it.
    #[must_use]
    pub const fn mirror(self) -> Self {
        Self {
            host_cid: self.host_cid,
            local: self.peer,
            peer: self.local,
        }
    }
}

/// An error returned when a number is not a valid CID.
#[derive(Clone, Copy, Debug, Eq, Error, PartialEq)]
#[non_exhaustive]
pub enum CidError {
    /// The upper 32 bits are reserved and must be zero.
    #[error("invalid CID {0:#x}: expected zeros in the reserved upper 32 bits")]
    UpperBits(u64),
    /// The CID is reserved for a special purpose and cannot identify a guest.
    #[error("invalid guest CID {0}: expected 3 to 4294967294")]
    Reserved(u64),
}
