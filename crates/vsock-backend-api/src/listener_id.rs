// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

/// Which listener a backend would meet at a port: to be compared with another of the same backend and
/// port, and for nothing else.
///
/// ```
/// use vsock_backend_api::ListenerId;
///
/// // The file of a socket: device, inode, and when it was made.
/// let before = ListenerId::new([64_769, 1_311_042, 1_760_000_000, 250_000_000]);
/// let after = ListenerId::new([64_769, 1_311_042, 1_760_000_009, 0]);
/// assert_ne!(before, after);
/// ```
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub struct ListenerId([u64; 4]);

impl ListenerId {
    /// The listener that has these numbers, which no other has at the same port, at the same time or
    /// later.
    #[must_use]
    pub const fn new(numbers: [u64; 4]) -> Self {
        Self(numbers)
    }
}
