// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

use std::fmt;
use std::net::SocketAddr;
use std::os::unix::net::SocketAddr as UnixAddr;
use std::path::PathBuf;
use std::str::FromStr;

use thiserror::Error;

/// Where connections of a guest to a port go.
///
/// As text: `unix:PATH`, `tcp:ADDRESS:PORT` with an IP address (`[::1]` for one of version 6),
/// `dgram:PATH`.
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
    /// A Unix socket that listens: for streams (`SOCK_STREAM`), and for messages (`SOCK_SEQPACKET`)
    /// if the guest's socket has those.
    Unix(PathBuf),
    /// An address of TCP, for streams.
    Tcp(SocketAddr),
    /// A Unix socket that receives datagrams (`SOCK_DGRAM`): each message of the guest is one.
    Datagrams(PathBuf),
}

/// What is wrong with the text of a [`ForwardTarget`].
#[derive(Clone, Copy, Debug, Eq, Error, PartialEq)]
#[non_exhaustive]
pub enum ForwardTargetError {
    /// It begins otherwise.
    #[error("expected unix:PATH, tcp:ADDRESS:PORT or dgram:PATH")]
    Kind,
    /// It is no address, or one of port 0.
    #[error(
        "expected tcp:ADDRESS:PORT with an IP address and a port from 1, as tcp:127.0.0.1:80 or tcp:[::1]:80"
    )]
    Address,
    /// It is empty, or too long for a socket.
    #[error("expected the path of a socket, of 1 to 107 bytes")]
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
    fn targets_are_as_they_are_spelt() {
        for text in [
            "unix:/run/a:b",
            "dgram:n",
            "tcp:[::1]:8080",
            "tcp:10.0.0.1:1",
            // A scope, by its number.
            "tcp:[fe80::1%2]:80",
        ] {
            assert_eq!(text.parse::<ForwardTarget>().unwrap().to_string(), text);
        }
    }

    #[test]
    fn what_is_no_target_is_told_what_was_expected() {
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
