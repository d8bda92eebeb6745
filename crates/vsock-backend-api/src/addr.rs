// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

use std::fmt;

/// The address of one end of a connection: a context identifier and a port (virtio 1.3, section
/// 5.10.4).
///
/// ```
/// use vsock_backend_api::VsockAddr;
///
/// let guest = VsockAddr { cid: 3, port: 1024 };
/// assert_eq!(guest.to_string(), "3:1024");
/// ```
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub struct VsockAddr {
    /// The context identifier (CID): 2 for the host, 3 or higher for a guest.
    pub cid: u64,
    /// The port.
    pub port: u32,
}

impl fmt::Display for VsockAddr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.cid, self.port)
    }
}
