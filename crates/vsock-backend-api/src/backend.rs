// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

use std::any::Any;
use std::io;
use std::os::fd::AsRawFd;

use crate::{VsockAddr, VsockBackendType, VsockStream};

/// The source of the host ends of a vsock device's connections.
///
/// `as_raw_fd` is for polling only: it is readable while a connection waits to be
/// [accepted](Self::accept). A device registers it once, and on each event accepts until
/// `WouldBlock`.
///
/// The [crate documentation](crate) contains a complete implementation.
pub trait VsockBackend: AsRawFd + Send {
    /// Takes the next connection that a host component has opened to the guest.
    ///
    /// The stream is in non-blocking mode. It begins with the command `CONNECT <port>\n`, which
    /// names the guest's port, unless [`requested_port`](VsockStream::requested_port) returns the
    /// port. If the stream has [`messages`](VsockStream::messages), it is a request for a seqpacket
    /// connection, and the command is its first message.
    ///
    /// # Errors
    ///
    /// - `WouldBlock`: no connection waits.
    /// - Any other error concerns this one connection, or means that the backend lacks a resource
    ///   such as descriptors; a later call may succeed.
    fn accept(&mut self) -> io::Result<Box<dyn VsockStream>>;

    /// Opens a connection to the host component that listens on `dst_port`, on behalf of a guest.
    ///
    /// The stream is in non-blocking mode. The call must not wait for the component. A stream may
    /// be returned before it is connected: the device then answers the guest when
    /// [`finish_connect`](VsockStream::finish_connect) succeeds.
    ///
    /// # Errors
    ///
    /// - `WouldBlock`: the component cannot accept the connection now. The device may try again,
    ///   with pauses, for as long as the port's [`listener`](Self::listener) is the same and the
    ///   guest still waits.
    /// - `ConnectionRefused`: the port has no listener, or the listener's backlog is full.
    /// - Any other error: the connection could not be made, for example for lack of descriptors.
    ///
    /// On any error except `WouldBlock`, the device answers the guest with `VIRTIO_VSOCK_OP_RST`
    /// (virtio 1.3, section 5.10.6.6).
    fn connect(&self, dst_port: u32) -> io::Result<Box<dyn VsockStream>>;

    /// Like [`connect`](Self::connect), with both addresses: `from` is the guest's, `to` the
    /// host's. A device calls this method.
    ///
    /// The default calls `connect(to.port)`. A backend that passes the guest's address on to its
    /// component overrides it, and returns a stream that reports both addresses
    /// ([`peer`](VsockStream::peer), [`local`](VsockStream::local)).
    ///
    /// # Errors
    ///
    /// As for [`connect`](Self::connect).
    fn connect_from(&self, _from: VsockAddr, to: VsockAddr) -> io::Result<Box<dyn VsockStream>> {
        self.connect(to.port)
    }

    /// Returns whether [`connect_seqpacket`](Self::connect_seqpacket) can ever succeed. The answer
    /// must not change. The default is `false`.
    fn has_seqpacket(&self) -> bool {
        false
    }

    /// Like [`connect`](Self::connect), for a seqpacket socket of the guest: the stream has
    /// [`messages`](VsockStream::messages).
    ///
    /// # Errors
    ///
    /// - `Unsupported`: the backend has only byte streams (the default).
    /// - Others: as for [`connect`](Self::connect).
    fn connect_seqpacket(&self, _dst_port: u32) -> io::Result<Box<dyn VsockStream>> {
        Err(io::ErrorKind::Unsupported.into())
    }

    /// Like [`connect_seqpacket`](Self::connect_seqpacket), with both addresses, as in
    /// [`connect_from`](Self::connect_from). The default calls `connect_seqpacket(to.port)`.
    ///
    /// # Errors
    ///
    /// As for [`connect_seqpacket`](Self::connect_seqpacket).
    fn connect_seqpacket_from(
        &self,
        _from: VsockAddr,
        to: VsockAddr,
    ) -> io::Result<Box<dyn VsockStream>> {
        self.connect_seqpacket(to.port)
    }

    /// Identifies the current listener of `dst_port`. The call must not wait.
    ///
    /// A device retries a connection that failed with `WouldBlock` only while the listener is the
    /// same. A listener that has been restarted must not receive connections that were meant for
    /// its predecessor, because the guest may have given them up.
    ///
    /// `None` means that the port has no listener, or that the backend cannot identify it (the
    /// default). Two answers of `None` count as the same listener.
    fn listener(&self, _dst_port: u32) -> Option<ListenerId> {
        None
    }

    /// Returns what carries the bytes of this backend's streams.
    fn r#type(&self) -> VsockBackendType;

    /// Returns the backend as `Any`, for code that knows its concrete type.
    fn as_any(&self) -> &dyn Any;
}

/// Identifies the listener of a port. Compare it only with the identifiers that the same backend
/// returns for the same port.
///
/// ```
/// use vsock_backend_api::ListenerId;
///
/// // A socket's file: device, inode, and creation time.
/// let before = ListenerId::new([64_769, 1_311_042, 1_760_000_000, 250_000_000]);
/// let after = ListenerId::new([64_769, 1_311_042, 1_760_000_009, 0]);
/// assert_ne!(before, after);
/// ```
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub struct ListenerId([u64; 4]);

impl ListenerId {
    /// Creates an identifier from these numbers. No other listener of the same port may have the
    /// same numbers, now or later.
    #[must_use]
    pub const fn new(numbers: [u64; 4]) -> Self {
        Self(numbers)
    }
}

#[cfg(test)]
mod tests {
    use std::any::Any;
    use std::io::{self, ErrorKind};
    use std::os::fd::{AsRawFd, RawFd};

    use super::VsockBackend;
    use crate::{VsockAddr, VsockBackendType, VsockStream};

    /// An implementation of the original trait: required methods only.
    struct Foreign;

    impl AsRawFd for Foreign {
        fn as_raw_fd(&self) -> RawFd {
            7
        }
    }

    impl VsockBackend for Foreign {
        fn accept(&mut self) -> io::Result<Box<dyn VsockStream>> {
            Err(ErrorKind::WouldBlock.into())
        }
        fn connect(&self, dst_port: u32) -> io::Result<Box<dyn VsockStream>> {
            assert_eq!(dst_port, 80);
            Err(ErrorKind::ConnectionRefused.into())
        }
        fn r#type(&self) -> VsockBackendType {
            VsockBackendType::Tcp
        }
        fn as_any(&self) -> &dyn Any {
            self
        }
    }

    #[test]
    fn a_backend_without_overrides_has_byte_streams_only_and_no_listener_ids() {
        assert_eq!(Foreign.listener(80), None);
        assert!(!Foreign.has_seqpacket());
        let refusal = Foreign.connect_seqpacket(80).err().unwrap();
        assert_eq!(refusal.kind(), ErrorKind::Unsupported);
    }

    #[test]
    fn a_backend_without_overrides_receives_the_port_of_the_address() {
        let from = VsockAddr { cid: 3, port: 1024 };
        let to = VsockAddr { cid: 2, port: 80 };
        let refusal = Foreign.connect_from(from, to).err().unwrap();
        assert_eq!(refusal.kind(), ErrorKind::ConnectionRefused);
        let refusal = Foreign.connect_seqpacket_from(from, to).err().unwrap();
        assert_eq!(refusal.kind(), ErrorKind::Unsupported);
    }
}
