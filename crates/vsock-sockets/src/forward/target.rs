// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

use std::fmt;
use std::net::SocketAddr;
use std::os::unix::net::SocketAddr as UnixAddr;
use std::path::PathBuf;
use std::str::FromStr;

use thiserror::Error;

/// The target of a guest's connections to a port.
///
/// In text form: `unix:PATH`, `dgram:PATH`, or `tcp:ADDRESS:PORT` with an IP address (IPv6
/// addresses in brackets, such as `[::1]`).
///
/// ```
/// use vsock_sockets::{ForwardTarget, ForwardTargetError};
///
/// let target: ForwardTarget = "tcp:127.0.0.1:80".parse()?;
/// assert_eq!(target, ForwardTarget::Tcp(([127, 0, 0, 1], 80).into()));
/// assert_eq!(target.to_string(), "tcp:127.0.0.1:80");
/// # Ok::<(), ForwardTargetError>(())
/// ```
#[derive(Clone, Debug, Eq, Hash, PartialEq)]
#[non_exhaustive]
pub enum ForwardTarget {
    /// A listening Unix socket, of type `SOCK_STREAM` for the guest's stream sockets and
    /// `SOCK_SEQPACKET` for its seqpacket sockets.
    Unix(PathBuf),
    /// A TCP address, for streams.
    Tcp(SocketAddr),
    /// A Unix datagram socket (`SOCK_DGRAM`). Each message of the guest becomes a datagram.
    Datagrams(PathBuf),
}

/// The error for an invalid [`ForwardTarget`].
#[derive(Clone, Copy, Debug, Eq, Error, PartialEq)]
#[non_exhaustive]
pub enum ForwardTargetError {
    /// The text does not begin with one of the prefixes.
    #[error("expected unix:PATH, tcp:ADDRESS:PORT or dgram:PATH")]
    Kind,
    /// The address is invalid, or its port is 0.
    #[error(
        "expected tcp:ADDRESS:PORT with an IP address and a port from 1 to 65535, such as \
         tcp:127.0.0.1:80 or tcp:[::1]:80"
    )]
    Address,
    /// The path is empty, or too long for a socket.
    #[error("expected a socket path of 1 to 107 bytes")]
    Path,
}

impl FromStr for ForwardTarget {
    type Err = ForwardTargetError;

    fn from_str(text: &str) -> Result<Self, ForwardTargetError> {
        match text.split_once(':') {
            Some(("unix", path)) => Ok(Self::Unix(parse_path(path)?)),
            Some(("dgram", path)) => Ok(Self::Datagrams(parse_path(path)?)),
            Some(("tcp", address)) => address
                .parse()
                .ok()
                .filter(|address: &SocketAddr| address.port() != 0)
                .map(Self::Tcp)
                .ok_or(ForwardTargetError::Address),
            _ => Err(ForwardTargetError::Kind),
        }
    }
}

fn parse_path(path: &str) -> Result<PathBuf, ForwardTargetError> {
    if path.is_empty() || UnixAddr::from_pathname(path).is_err() {
        return Err(ForwardTargetError::Path);
    }
    Ok(path.into())
}

impl fmt::Display for ForwardTarget {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unix(path) => write!(f, "unix:{}", path.display()),
            Self::Tcp(address) => write!(f, "tcp:{address}"),
            Self::Datagrams(path) => write!(f, "dgram:{}", path.display()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn targets_can_be_parsed_and_formatted() {
        for text in [
            "unix:/run/a:b",
            "dgram:n",
            "tcp:[::1]:8080",
            "tcp:10.0.0.1:1",
            // An address with a scope ID.
            "tcp:[fe80::1%2]:80",
        ] {
            assert_eq!(text.parse::<ForwardTarget>().unwrap().to_string(), text);
        }
    }

    #[test]
    fn the_error_for_an_invalid_target_says_what_was_expected() {
        let long = format!("unix:/{}", "x".repeat(107));
        for (text, error) in [
            ("", ForwardTargetError::Kind),
            ("/run/a", ForwardTargetError::Kind),
            ("udp:127.0.0.1:1", ForwardTargetError::Kind),
            ("unix:", ForwardTargetError::Path),
            ("dgram:", ForwardTargetError::Path),
            ("dgram:a\0b", ForwardTargetError::Path),
            (&long, ForwardTargetError::Path),
            ("tcp:localhost:80", ForwardTargetError::Address),
            ("tcp:127.0.0.1", ForwardTargetError::Address),
            ("tcp:127.0.0.1:0", ForwardTargetError::Address),
            ("tcp:::1:80000", ForwardTargetError::Address),
        ] {
            assert_eq!(text.parse::<ForwardTarget>(), Err(error), "{text}");
        }
    }
}
