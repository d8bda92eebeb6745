// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! The sockets of `std` are streams.
//!
//! A stream that says it is a socket promises that no other descriptor of it exists
//! ([`VsockBackendType`]): a device is given one that was not cloned.

use std::any::Any;
use std::io;
use std::net::{Shutdown, TcpStream};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, RawFd};
use std::os::unix::net::UnixStream;
use std::time::Duration;

use crate::{VsockBackendType, VsockStream};

#[cfg(feature = "scm-rights")]
mod kernel;

/// What both have in common: the inherent methods of the same names do it.
macro_rules! socket_methods {
    ($socket:ident) => {
        fn set_nonblocking(&mut self, nonblocking: bool) -> io::Result<()> {
            $socket::set_nonblocking(self, nonblocking)
        }

        fn set_read_timeout(&mut self, timeout: Option<Duration>) -> io::Result<()> {
            $socket::set_read_timeout(self, timeout)
        }

        fn set_write_timeout(&mut self, timeout: Option<Duration>) -> io::Result<()> {
            $socket::set_write_timeout(self, timeout)
        }

        /// As the socket's own, but that an end of what has ended already is no error.
        fn shutdown(&mut self, how: Shutdown) -> io::Result<()> {
            match $socket::shutdown(self, how) {
                Err(error) if error.kind() == io::ErrorKind::NotConnected => Ok(()),
                result => result,
            }
        }

        fn write_ready_fd(&self) -> io::Result<RawFd> {
            Ok(self.as_raw_fd())
        }

        fn write_ready(&self) -> io::Result<BorrowedFd<'_>> {
            Ok(self.as_fd())
        }

        /// Asks the kernel with the feature `scm-rights`, and knows nothing without it.
        #[cfg(feature = "scm-rights")]
        fn peer_gone(&self) -> bool {
            kernel::peer_gone(self.as_fd())
        }

        fn as_any(&self) -> &dyn Any {
            self
        }

        fn as_any_mut(&mut self) -> Option<&mut dyn Any> {
            Some(self)
        }

        fn into_any(self: Box<Self>) -> Option<Box<dyn Any>> {
            Some(self)
        }
    };
}

/// Mode and timeouts are the kernel's, and so is what an expired one fails with: `WouldBlock`. An
/// empty read or write looks at the socket as any other, and can wait or fail.
///
/// ```
/// use std::io::{Read, Write};
/// use std::os::unix::net::UnixStream;
/// use vsock_backend_api::{VsockBackendType, VsockStream};
///
/// let (host, device) = UnixStream::pair()?;
/// let mut device: Box<dyn VsockStream> = Box::new(device);
/// assert_eq!(device.backend_type(), VsockBackendType::UnixStream);
/// device.set_nonblocking(true)?;
/// (&host).write_all(b"hello")?;
/// assert_eq!(device.read(&mut [0; 8])?, 5);
/// # Ok::<(), std::io::Error>(())
/// ```
///
/// A vectored write to a peer that has gone raises `SIGPIPE`, which a Rust program ignores unless
/// it has changed that. A process whose `main` is not Rust's ignores the signal itself.
///
/// Without the feature `scm-rights`, `peer_gone` is always `false`: a client that leaves while the
/// guest has no buffer for its request is then announced to the guest all the same.
impl VsockStream for UnixStream {
    fn backend_type(&self) -> VsockBackendType {
        VsockBackendType::UnixStream
    }

    /// Descriptors beyond `fds` are closed. An empty `bytes` receives nothing.
    #[cfg(feature = "scm-rights")]
    fn recv_data_fd(&self, bytes: &mut [u8], fds: &mut [RawFd]) -> io::Result<(usize, usize)> {
        kernel::receive(self.as_fd(), bytes, fds)
    }

    socket_methods!(UnixStream);
}

/// As a `UnixStream`; `recv_data_fd` is `Unsupported`.
impl VsockStream for TcpStream {
    fn backend_type(&self) -> VsockBackendType {
        VsockBackendType::Tcp
    }

    /// For a socket whose connect was begun in non-blocking mode.
    fn finish_connect(&mut self) -> io::Result<()> {
        if let Some(error) = self.take_error()? {
            return Err(error);
        }
        match self.peer_addr() {
            Ok(_) => Ok(()),
            Err(error) if error.kind() == io::ErrorKind::NotConnected => {
                Err(io::ErrorKind::WouldBlock.into())
            }
            Err(error) => Err(error),
        }
    }

    socket_methods!(TcpStream);
}

#[cfg(test)]
mod tests {
    use std::io::{ErrorKind, Read, Write};
    use std::net::{Shutdown, TcpListener, TcpStream};
    use std::os::fd::{AsFd, AsRawFd};
    use std::os::unix::net::UnixStream;
    use std::time::Duration;

    use crate::{VsockBackendType, VsockStream};

    fn tcp() -> (TcpStream, TcpStream) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let near = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        (near, listener.accept().unwrap().0)
    }

    fn pairs() -> [(Box<dyn VsockStream>, Box<dyn VsockStream>); 2] {
        let (near, far) = UnixStream::pair().unwrap();
        let (tcp_near, tcp_far) = tcp();
        [
            (Box::new(near), Box::new(far)),
            (Box::new(tcp_near), Box::new(tcp_far)),
        ]
    }

    #[test]
    fn sockets_say_what_they_are_and_are_found_by_type() {
        let [(mut unix, _far), (mut tcp, _tcp_far)] = pairs();
        assert_eq!(unix.backend_type(), VsockBackendType::UnixStream);
        assert_eq!(tcp.backend_type(), VsockBackendType::Tcp);
        assert!(unix.as_any().is::<UnixStream>() && tcp.as_any().is::<TcpStream>());
        assert!(unix.as_any_mut().unwrap().is::<UnixStream>());
        assert!(tcp.as_any_mut().unwrap().is::<TcpStream>());
        assert!(unix.into_any().unwrap().is::<UnixStream>());
        assert!(tcp.into_any().unwrap().is::<TcpStream>());
    }

    #[test]
    fn mode_and_timeouts_are_those_of_the_socket() {
        for (mut near, _far) in pairs() {
            near.set_nonblocking(true).unwrap();
            let nothing = near.read(&mut [0]).unwrap_err();
            assert_eq!(nothing.kind(), ErrorKind::WouldBlock);
            near.set_nonblocking(false).unwrap();
            near.set_read_timeout(Some(Duration::from_millis(1)))
                .unwrap();
            let late = near.read(&mut [0]).unwrap_err();
            assert_eq!(
                late.kind(),
                ErrorKind::WouldBlock,
                "a blocking one would wait"
            );
            for zero in [
                near.set_read_timeout(Some(Duration::ZERO)),
                near.set_write_timeout(Some(Duration::ZERO)),
            ] {
                assert_eq!(zero.unwrap_err().kind(), ErrorKind::InvalidInput);
            }
            near.set_write_timeout(Some(Duration::from_millis(1)))
                .unwrap();
            while near.write(&[0; 1 << 16]).is_ok() {}
        }
    }

    #[test]
    fn sockets_of_std_are_connected() {
        for (mut near, _far) in pairs() {
            near.finish_connect().unwrap();
        }
    }

    #[cfg(feature = "scm-rights")]
    #[test]
    fn a_socket_of_std_without_a_peer_is_not_connected_yet() {
        use rustix::net::{AddressFamily, SocketType, socket};

        let socket = socket(AddressFamily::INET, SocketType::STREAM, None).unwrap();
        let error = TcpStream::from(socket).finish_connect().unwrap_err();
        assert_eq!(error.kind(), ErrorKind::WouldBlock);
    }

    #[test]
    fn what_ended_a_connect_is_its_error() {
        let (mut near, far) = tcp();
        near.write_all(b"unread").unwrap();
        assert_eq!(far.peek(&mut [0; 8]).unwrap(), 6);
        drop(far); // bytes that were not read make it a reset
        let mut looks = (0..10_000_000).map(|_| near.finish_connect().err());
        let error = looks.find_map(|error| error).unwrap();
        assert_eq!(error.kind(), ErrorKind::ConnectionReset);
    }

    #[test]
    fn a_half_close_passes_and_an_end_of_what_has_ended_is_no_error() {
        for (mut near, mut far) in pairs() {
            near.write_all(b"last").unwrap();
            near.shutdown(Shutdown::Write).unwrap();
            let mut text = String::new();
            far.read_to_string(&mut text).unwrap();
            assert_eq!(text, "last");
            far.write_all(b"answer").unwrap();
            drop(far);
            assert_eq!(near.read(&mut [0; 8]).unwrap(), 6);
            assert_eq!(near.read(&mut [0; 8]).unwrap(), 0);
            for how in [Shutdown::Both, Shutdown::Write, Shutdown::Read] {
                near.shutdown(how).unwrap();
            }
        }
    }

    #[test]
    fn one_descriptor_is_for_both() {
        let (near, _far) = UnixStream::pair().unwrap();
        assert_eq!(near.write_ready_fd().unwrap(), near.as_raw_fd());
        let borrowed = near.write_ready().unwrap();
        assert_eq!(borrowed.as_raw_fd(), near.as_fd().as_raw_fd());
        let (tcp, _far) = tcp();
        assert_eq!(tcp.write_ready_fd().unwrap(), tcp.as_raw_fd());
        assert_eq!(tcp.write_ready().unwrap().as_raw_fd(), tcp.as_raw_fd());
    }
}
