// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

use std::fmt;

/// What carries the bytes of a backend's streams.
///
/// A type that names a socket makes two promises. First, the process has no other descriptor of the
/// socket, so dropping the stream closes the connection in order, without a `shutdown` before.
/// Second, a peer that has closed shows as `EPOLLHUP`, so a device need not call
/// [`peer_gone`](crate::VsockStream::peer_gone) on each event. A stream that cannot promise both is
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
    /// Anything else, with a name chosen by the implementor.
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
    fn each_type_has_a_distinct_name() {
        let names: HashSet<String> = ALL.iter().map(ToString::to_string).collect();
        assert_eq!(names.len(), ALL.len());
    }

    #[test]
    fn types_can_be_keys_of_a_map() {
        let set: HashSet<VsockBackendType> = ALL.into_iter().chain(ALL).collect();
        assert_eq!(set.len(), ALL.len());
        assert_ne!(VsockBackendType::Other("a"), VsockBackendType::Other("b"));
    }

    #[test]
    fn display_honours_the_width_of_a_table() {
        assert_eq!(format!("{:>6}|", VsockBackendType::Tcp), "   tcp|");
    }
}
