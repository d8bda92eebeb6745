// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

use std::fmt;

/// What carries the bytes of a backend's streams.
///
/// A stream that says it is a socket promises two things. There is no other descriptor of the
/// socket, so dropping the stream is an orderly end, without a `shutdown` before; and a peer that
/// has gone shows as `EPOLLHUP`, so a device need not ask on each event. Any other stream is
/// `Other`.
///
/// ```
/// use vsock_backend_api::VsockBackendType;
///
/// assert_eq!(VsockBackendType::Inner.to_string(), "inner");
/// assert_eq!(VsockBackendType::Other("shm").to_string(), "shm");
/// ```
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
#[non_exhaustive]
pub enum VsockBackendType {
    /// A Unix domain socket.
    UnixStream,
    /// A TCP socket.
    Tcp,
    /// A byte channel inside the process.
    Inner,
    /// A descriptor that a client passed over a Unix domain socket.
    HybridStream,
    /// Anything else, by the name its implementor gives it.
    Other(&'static str),
}

impl fmt::Display for VsockBackendType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::UnixStream => "unix",
            Self::Tcp => "tcp",
            Self::Inner => "inner",
            Self::HybridStream => "hybrid",
            Self::Other(name) => name,
        })
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::VsockBackendType;

    const ALL: [VsockBackendType; 5] = [
        VsockBackendType::UnixStream,
        VsockBackendType::Tcp,
        VsockBackendType::Inner,
        VsockBackendType::HybridStream,
        VsockBackendType::Other("shm"),
    ];

    #[test]
    fn every_type_has_a_name_of_its_own() {
        let names: HashSet<String> = ALL.iter().map(ToString::to_string).collect();
        assert_eq!(names.len(), ALL.len());
    }

    #[test]
    fn types_serve_as_keys_of_a_map() {
        let set: HashSet<VsockBackendType> = ALL.into_iter().chain(ALL).collect();
        assert_eq!(set.len(), ALL.len());
        assert_ne!(VsockBackendType::Other("a"), VsockBackendType::Other("b"));
    }

    #[test]
    fn display_honours_the_width_of_a_table() {
        assert_eq!(format!("{:>6}|", VsockBackendType::Tcp), "   tcp|");
    }
}
