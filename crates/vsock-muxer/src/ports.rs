// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

use std::collections::BTreeSet;
use std::ops::Range;

use thiserror::Error;
use vsock_proto::Port;

/// The host ports of host-initiated connections.
///
/// Ports are assigned in rotation, so that a released port is not soon reused: the guest may still
/// have a record of its last connection. A port comes with a [`PortLease`], and only the lease
/// releases it. A connection that the guest initiated has no lease and cannot release any port,
/// whatever its own port is.
#[derive(Debug)]
pub(crate) struct PortAllocator {
    range: Range<u32>,
    next: u32,
    leased: BTreeSet<u32>,
}

/// The right to use a host port. It must be released.
#[derive(Debug, Eq, PartialEq)]
#[must_use = "a port that is not released is lost"]
pub(crate) struct PortLease(u32);

impl PortLease {
    /// Returns the port.
    pub(crate) const fn port(&self) -> Port {
        Port::new(self.0)
    }
}

impl PortAllocator {
    /// Creates an allocator in which all ports of the range are free. It starts with the first
    /// port.
    pub(crate) const fn new(range: Range<u32>) -> Self {
        let next = range.start;
        Self {
            range,
            next,
            leased: BTreeSet::new(),
        }
    }

    /// Continues with this port, the [`next_port`](Self::next_port) of a saved device, so that a
    /// restored guest does not see ports of connections of which it still has a record. A port
    /// outside the range means the first one.
    pub(crate) fn starting_at(mut self, port: Port) -> Self {
        self.go_to(port);
        self
    }

    /// Does the same as [`starting_at`](Self::starting_at) while ports are leased.
    pub(crate) fn go_to(&mut self, port: Port) {
        let port = u32::from(port);
        self.next = if self.range.contains(&port) {
            port
        } else {
            self.range.start
        };
    }

    /// Returns the port that will be tried next.
    pub(crate) const fn next_port(&self) -> Port {
        Port::new(self.next)
    }

    /// Assigns the next port that is free and not `taken`. With `taken`, the caller excludes ports
    /// that a connection of the guest already uses with the same peer port.
    ///
    /// # Errors
    ///
    /// [`NoPortLeft`] if every port of the range is leased or taken.
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

    /// Releases a port.
    #[expect(
        clippy::needless_pass_by_value,
        reason = "the lease is consumed so that it cannot be released twice"
    )]
    pub(crate) fn release(&mut self, lease: PortLease) {
        self.leased.remove(&lease.0);
    }
}

/// An error returned when every port of the range is in use.
#[derive(Clone, Copy, Debug, Eq, Error, PartialEq)]
#[error("all {ports} host ports are in use")]
pub(crate) struct NoPortLeft {
    /// The number of ports in the range.
    pub(crate) ports: usize,
}

#[cfg(test)]
mod tests;
