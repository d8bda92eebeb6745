// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

use std::net::{IpAddr, SocketAddr, UdpSocket};

/// A process's use of a TCP address.
#[derive(Clone, Copy, Debug)]
pub(crate) enum TcpUse {
    /// The process listens on the address.
    Listens(SocketAddr),
    /// A guest of the process can connect to the address.
    Dials(SocketAddr),
}

impl TcpUse {
    /// Returns whether the two uses have a socket in common and at least one of them listens on it.
    pub(crate) fn overlaps(self, other: Self) -> bool {
        match (self, other) {
            // With port 0 the system chooses a different port each time.
            (Self::Listens(one), Self::Listens(other)) => one == other && one.port() != 0,
            (Self::Listens(listener), Self::Dials(target))
            | (Self::Dials(target), Self::Listens(listener)) => meets(listener, target),
            (Self::Dials(_), Self::Dials(_)) => false,
        }
    }
}

/// Returns whether a connection to `target` arrives at `listener`.
fn meets(listener: SocketAddr, target: SocketAddr) -> bool {
    if listener.port() != target.port() {
        return false;
    }
    let (at, to) = (listener.ip().to_canonical(), target.ip().to_canonical());
    if at == to {
        return true;
    }
    let any = match at {
        IpAddr::V4(at) => at.is_unspecified() && to.is_ipv4(),
        // An IPv6 wildcard listener also accepts IPv4 connections.
        IpAddr::V6(at) => at.is_unspecified(),
    };
    // Linux treats a connection to the unspecified address as one to the loopback address.
    (to.is_unspecified() && (at.is_loopback() || any)) || (any && is_own(target))
}

/// Returns whether the address belongs to this machine. The test is whether a socket can be bound
/// to it.
fn is_own(address: SocketAddr) -> bool {
    let mut free = address;
    free.set_port(0);
    address.ip().to_canonical().is_loopback() || UdpSocket::bind(free).is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn t125_a_listener_conflicts_with_the_targets_that_reach_it() {
        for (listener, target, meets) in [
            ("127.0.0.1:80", "127.0.0.1:80", true),
            ("127.0.0.1:80", "127.0.0.1:81", false),
            ("127.0.0.1:80", "127.0.0.2:80", false),
            ("0.0.0.0:80", "127.0.0.2:80", true),
            ("0.0.0.0:80", "[::1]:80", false),
            ("[::]:80", "127.0.0.1:80", true),
            ("[::]:80", "[::1]:80", true),
            ("[::]:80", "[::ffff:127.0.0.1]:80", true),
            ("127.0.0.1:80", "[::ffff:127.0.0.1]:80", true),
            ("127.0.0.1:80", "0.0.0.0:80", true),
            ("0.0.0.0:80", "0.0.0.0:80", true),
            ("0.0.0.0:80", "192.0.2.7:80", false),
            ("127.0.0.1:0", "127.0.0.1:80", false),
        ] {
            let one = TcpUse::Listens(listener.parse().unwrap());
            let other = TcpUse::Dials(target.parse().unwrap());
            let both = [one.overlaps(other), other.overlaps(one)];
            assert_eq!(both, [meets; 2], "{listener} {target}");
        }
        let [one, any] = ["127.0.0.1:80", "127.0.0.1:0"].map(|text| text.parse().unwrap());
        assert!(TcpUse::Listens(one).overlaps(TcpUse::Listens(one)));
        assert!(!TcpUse::Listens(any).overlaps(TcpUse::Listens(any)));
        assert!(!TcpUse::Dials(one).overlaps(TcpUse::Dials(one)));
    }
}
