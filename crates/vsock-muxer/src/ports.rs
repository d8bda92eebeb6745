// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

use std::collections::BTreeSet;
use std::ops::Range;

use thiserror::Error;
use vsock_proto::Port;

/// The host ports of host-initiated connections.
///
/// Ports are given out in a circle, so that one which has just been given back is not used again
/// soon: the guest may not have finished with it. A port comes with a [`PortLease`], and only the
/// lease gives it back. A connection that the guest began has none, and cannot free anything,
/// whatever its port is.
#[derive(Debug)]
pub(crate) struct PortAllocator {
    range: Range<u32>,
    next: u32,
    leased: BTreeSet<u32>,
}

/// The right to a host port. It must be given back.
#[derive(Debug, Eq, PartialEq)]
#[must_use = "a port that is not released is lost"]
pub(crate) struct PortLease(u32);

impl PortLease {
    /// The port.
    pub(crate) const fn port(&self) -> Port {
        Port::new(self.0)
    }
}

impl PortAllocator {
    /// All ports of the range are free; the first will be the first.
    pub(crate) const fn new(range: Range<u32>) -> Self {
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
    pub(crate) fn starting_at(mut self, port: Port) -> Self {
        let port = u32::from(port);
        if self.range.contains(&port) {
            self.next = port;
        }
        self
    }

    /// The port that will be tried next.
    pub(crate) const fn next_port(&self) -> Port {
        Port::new(self.next)
    }

    /// Gives out the next port that is free and not `taken`, by which a caller keeps off ports that
    /// a connection of the guest uses with the same peer port.
    ///
    /// # Errors
    ///
    /// [`NoPortLeft`]: every port of the range is leased or taken.
    pub(crate) fn lease(&mut self, taken: impl Fn(Port) -> bool) -> Result<PortLease, NoPortLeft> {
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
        reason = "giving the lease away is the point: it cannot be given back twice"
    )]
    pub(crate) fn release(&mut self, lease: PortLease) {
        self.leased.remove(&lease.0);
    }
}

/// Every port of the range is in use.
#[derive(Clone, Copy, Debug, Eq, Error, PartialEq)]
#[error("all {ports} host ports are in use")]
pub(crate) struct NoPortLeft {
    /// How many there are.
    pub(crate) ports: usize,
}

#[cfg(test)]
mod tests;
