// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

use core::fmt;

use thiserror::Error;

/// A context identifier: who an address belongs to (virtio 1.3, 5.10.4).
///
/// On the wire it takes 64 bits, of which the upper 32 are reserved and zero. A `Cid` is made from
/// all 64, so that `0x1_0000_0002` is an error and not the host.
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
    /// The hypervisor, reserved.
    pub const HYPERVISOR: Self = Self(0);
    /// Loopback inside one machine, reserved.
    pub const LOCAL: Self = Self(1);
    /// The host, as every guest knows it.
    pub const HOST: Self = Self(2);
    /// The wildcard, never the address of anybody.
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

/// The CID of a guest: any but 0, 1, 2 and the two all-ones values (virtio 1.3, 5.10.4).
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
    /// The CID without the promise that a guest may have it.
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
    /// `VMADDR_PORT_ANY`: asks for some port, and is never the port of anything.
    pub const ANY: Self = Self(u32::MAX);

    /// The port with this number.
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

/// What identifies a connection of one guest: the CID of the host's side, the port on our side and
/// the port on the peer's.
///
/// The guest's own CID is no part of it: [`Route`](crate::Route) lets only packets from and to one
/// guest through. Nor is the socket type: a tuple belongs to one connection, whatever its type
/// (virtio 1.3, 5.10.6.2).
///
/// ```
/// use vsock_proto::{Cid, CidError, ConnKey, Port};
///
/// let key = ConnKey::new(Port::new(1 << 30), Port::new(52));
/// assert_eq!(key.host_cid, Cid::HOST);
/// assert_eq!(key.mirror().mirror(), key);
///
/// // The same ports, and another guest instead of the host.
/// assert_ne!(key.with_host_cid(Cid::try_from(4)?), key);
/// # Ok::<(), CidError>(())
/// ```
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct ConnKey {
    /// The CID that the guest is connected to: the host's, or that of another guest in whose place
    /// the device stands.
    pub host_cid: Cid,
    /// Our port: the host's, in a device.
    pub local: Port,
    /// The port of the other side: the guest's, in a device.
    pub peer: Port,
}

impl ConnKey {
    /// The connection between these two ports, of the guest and [`Cid::HOST`].
    #[must_use]
    pub const fn new(local: Port, peer: Port) -> Self {
        Self {
            host_cid: Cid::HOST,
            local,
            peer,
        }
    }

    /// The connection between the same ports, with this CID on the host's side.
    #[must_use]
    pub const fn with_host_cid(self, host_cid: Cid) -> Self {
        Self { host_cid, ..self }
    }

    /// The same connection as the other side sees it.
    #[must_use]
    pub const fn mirror(self) -> Self {
        Self {
            host_cid: self.host_cid,
            local: self.peer,
            peer: self.local,
        }
    }
}

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
