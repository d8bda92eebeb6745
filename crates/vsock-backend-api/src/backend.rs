// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

use std::any::Any;
use std::io;
use std::os::fd::AsRawFd;

use crate::{VsockAddr, VsockBackendType, VsockStream};

/// Where a vsock device gets the host ends of its connections from.
///
/// `as_raw_fd` is for polling only: it is readable while a connection waits to be
/// [accepted](Self::accept). A device registers it once and accepts until `WouldBlock`.
///
/// The crate's documentation has a complete implementation.
pub trait VsockBackend: AsRawFd + Send {
    /// Takes the next connection that a host component has opened towards the guest.
    ///
    /// The stream is in non-blocking mode. Which guest port it wants, its first bytes tell
    /// (`CONNECT <port>\n`), unless [`requested_port`](VsockStream::requested_port) knows. One that
    /// has [`messages`](VsockStream::messages) wants a seqpacket connection, and its command is its
    /// first message.
    ///
    /// # Errors
    ///
    /// - `WouldBlock`: no connection waits.
    /// - Anything else concerns this one connection, or says that the backend lacks a resource such
    ///   as descriptors; a later call may succeed.
    fn accept(&mut self) -> io::Result<Box<dyn VsockStream>>;

    /// Opens a connection to the host component that serves `dst_port`, for a guest that asked.
    ///
    /// The stream is in non-blocking mode. The call must not wait for the component: a stream that
    /// is not connected yet says so ([`finish_connect`](VsockStream::finish_connect)), and the
    /// guest is answered when it is.
    ///
    /// # Errors
    ///
    /// - `WouldBlock`: the component cannot take it at the moment; a device may try again, with
    ///   pauses, while its [`listener`](Self::listener) is the same, until the guest has waited for
    ///   long enough.
    /// - `ConnectionRefused`: the port has no listener, or its queue of waiting connections is
    ///   full.
    /// - Anything else: the connection could not be made, for example for want of descriptors.
    ///
    /// But for `WouldBlock`, the device answers the guest with `VIRTIO_VSOCK_OP_RST` (virtio 1.3,
    /// section 5.10.6.6).
    fn connect(&self, dst_port: u32) -> io::Result<Box<dyn VsockStream>>;

    /// As [`connect`](Self::connect), with both addresses: `from` is the guest's, `to` the host's.
    /// A device calls this one.
    ///
    /// The default calls `connect(to.port)`. A backend that tells its component the guest's address
    /// has its own, and what it returns knows both addresses
    /// ([`peer`](VsockStream::peer), [`local`](VsockStream::local)).
    ///
    /// # Errors
    ///
    /// Those of [`connect`](Self::connect).
    fn connect_from(&self, _from: VsockAddr, to: VsockAddr) -> io::Result<Box<dyn VsockStream>> {
        self.connect(to.port)
    }

    /// Whether [`connect_seqpacket`](Self::connect_seqpacket) may ever succeed. The answer is
    /// always the same; the default is `false`.
    fn has_seqpacket(&self) -> bool {
        false
    }

    /// As [`connect`](Self::connect), for a seqpacket socket of the guest: the stream has
    /// [`messages`](VsockStream::messages).
    ///
    /// # Errors
    ///
    /// `Unsupported`: the backend has streams of bytes only (the default). Others are those of
    /// [`connect`](Self::connect).
    fn connect_seqpacket(&self, _dst_port: u32) -> io::Result<Box<dyn VsockStream>> {
        Err(io::ErrorKind::Unsupported.into())
    }

    /// As [`connect_seqpacket`](Self::connect_seqpacket), with both addresses, as
    /// [`connect_from`](Self::connect_from) has them. The default calls
    /// `connect_seqpacket(to.port)`.
    ///
    /// # Errors
    ///
    /// Those of [`connect_seqpacket`](Self::connect_seqpacket).
    fn connect_seqpacket_from(
        &self,
        _from: VsockAddr,
        to: VsockAddr,
    ) -> io::Result<Box<dyn VsockStream>> {
        self.connect_seqpacket(to.port)
    }

    /// The listener that `dst_port` has now. The call must not wait.
    ///
    /// A connection that was refused with `WouldBlock` is tried again at the same listener alone.
    /// One that starts anew is not to be handed the connections that were meant for the one before:
    /// the guest may have given up each of them.
    ///
    /// `None`: there is none, or it cannot be told (the default). `None` and `None` count as the
    /// same.
    fn listener(&self, _dst_port: u32) -> Option<ListenerId> {
        None
    }

    /// What carries the bytes of this backend's streams.
    fn r#type(&self) -> VsockBackendType;

    /// The backend as `Any`, for code that knows its concrete type.
    fn as_any(&self) -> &dyn Any;
}

/// Which listener a backend would meet at a port: to be compared with another of the same backend
/// and port, and for nothing else.
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
    /// The listener that has these numbers, which no other has at the same port, at the same time
    /// or later.
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

    /// What an implementor of the older trait has.
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
    fn a_foreign_backend_has_streams_of_bytes_only_and_cannot_tell_its_listeners() {
        assert_eq!(Foreign.listener(80), None);
        assert!(!Foreign.has_seqpacket());
        let refusal = Foreign.connect_seqpacket(80).err().unwrap();
        assert_eq!(refusal.kind(), ErrorKind::Unsupported);
    }
    #[test]
    fn a_foreign_backend_is_asked_for_the_port_of_the_address() {
        let from = VsockAddr { cid: 3, port: 1024 };
        let to = VsockAddr { cid: 2, port: 80 };
        let refusal = Foreign.connect_from(from, to).err().unwrap();
        assert_eq!(refusal.kind(), ErrorKind::ConnectionRefused);
        let refusal = Foreign.connect_seqpacket_from(from, to).err().unwrap();
        assert_eq!(refusal.kind(), ErrorKind::Unsupported);
    }
}
