// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

use alloc::collections::BTreeSet;
use core::ops::Range;

use crate::Port;
use crate::error::NoPortLeft;

/// The host ports of host-initiated connections.
///
/// Ports are given out in a circle, so that one which has just been given back is not used again
/// soon: the guest may not have finished with it. Who has a port has a [`PortLease`], and only a
/// lease gives a port back. A connection that the guest began has none, and cannot free anything,
/// whatever its port is.
///
/// ```
/// use vsock_proto::{NoPortLeft, Port, PortAllocator};
///
/// let mut ports = PortAllocator::new(1000..1002);
/// let first = ports.lease(|_| false)?;
/// let second = ports.lease(|_| false)?;
/// assert_eq!((first.port(), second.port()), (Port::new(1000), Port::new(1001)));
/// assert!(ports.lease(|_| false).is_err());
/// ports.release(first);
/// assert_eq!(ports.lease(|_| false)?.port(), Port::new(1000));
/// # Ok::<(), NoPortLeft>(())
/// ```
#[derive(Debug)]
pub struct PortAllocator {
    range: Range<u32>,
    next: u32,
    leased: BTreeSet<u32>,
}

/// The right to a host port. It must be given back.
#[derive(Debug, Eq, PartialEq)]
#[must_use = "a port that is not released is lost"]
pub struct PortLease(u32);

impl PortLease {
    /// The port.
    #[must_use]
    pub const fn port(&self) -> Port {
        Port::new(self.0)
    }
}

impl PortAllocator {
    /// All ports of the range are free; the first will be the first.
    #[must_use]
    pub const fn new(range: Range<u32>) -> Self {
        let next = range.start;
        Self {
            range,
            next,
            leased: BTreeSet::new(),
        }
    }

    /// Goes on with this port: what [`next_port`](Self::next_port) was when a device was saved, so
    /// that a restored guest does not see the ports of connections that it still remembers. A port
    /// outside the range means the first.
    #[must_use]
    pub fn starting_at(mut self, port: Port) -> Self {
        let port = u32::from(port);
        if self.range.contains(&port) {
            self.next = port;
        }
        self
    }

    /// The port that will be tried next.
    #[must_use]
    pub const fn next_port(&self) -> Port {
        Port::new(self.next)
    }

    /// Gives out the next port that is free and not `taken`, by which a caller keeps off ports that
    /// a connection of the guest uses with the same peer port.
    ///
    /// # Errors
    ///
    /// [`NoPortLeft`]: every port of the range is leased or taken.
    pub fn lease(&mut self, taken: impl Fn(Port) -> bool) -> Result<PortLease, NoPortLeft> {
        for _ in self.range.clone() {
            let port = self.next;
            self.next = match port.checked_add(1) {
                Some(next) if next < self.range.end => next,
                _ => self.range.start,
            };
            if !taken(Port::new(port)) && self.leased.insert(port) {
                return Ok(PortLease(port));
            }
        }
        Err(NoPortLeft {
            ports: self.range.len(),
        })
    }

    /// Takes a port back.
    #[expect(
        clippy::needless_pass_by_value,
        reason = "giving the lease away is the point: nobody can give it back twice"
    )]
    pub fn release(&mut self, lease: PortLease) {
        self.leased.remove(&lease.0);
    }

    /// How many ports are given out.
    #[must_use]
    pub fn leased(&self) -> usize {
        self.leased.len()
    }
}
