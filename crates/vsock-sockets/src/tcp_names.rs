// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

use std::net::{IpAddr, SocketAddr, UdpSocket};

/// What a process uses of the addresses of TCP.
#[derive(Clone, Copy, Debug)]
pub(crate) enum TcpUse {
    Listens(SocketAddr),
    /// A guest can reach it.
    Dials(SocketAddr),
}

impl TcpUse {
    /// Whether both have a socket in common, and one of them listens on it.
    pub(crate) fn overlaps(self, other: Self) -> bool {
        match (self, other) {
            // Port 0 is another one each time.
            (Self::Listens(one), Self::Listens(other)) => one == other && one.port() != 0,
            (Self::Listens(listener), Self::Dials(target))
            | (Self::Dials(target), Self::Listens(listener)) => meets(listener, target),
            (Self::Dials(_), Self::Dials(_)) => false,
        }
    }
}

/// Whether a connection to `target` comes to `listener`.
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
        // It takes connections of both versions.
        IpAddr::V6(at) => at.is_unspecified(),
    };
    // Who connects to no address connects to itself.
    (to.is_unspecified() && (at.is_loopback() || any)) || (any && is_own(target))
}

/// Whether the address belongs to this machine: then a socket can have it.
fn is_own(address: SocketAddr) -> bool {
    let mut free = address;
    free.set_port(0);
    address.ip().to_canonical().is_loopback() || UdpSocket::bind(free).is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn t125_a_listener_is_what_a_guest_reaches_there() {
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
