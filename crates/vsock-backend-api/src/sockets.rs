// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Implements [`VsockStream`] for the sockets of `std`.
//!
//! The implementations report a socket type, which promises that the process has no other
//! descriptor of the socket ([`VsockBackendType`]). So a device must be given a socket that was not
//! cloned.

use std::any::Any;
use std::io;
use std::net::{Shutdown, TcpStream};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, RawFd};
use std::os::unix::net::UnixStream;
use std::time::Duration;

use crate::{VsockBackendType, VsockStream};

#[cfg(feature = "scm-rights")]
mod kernel;

/// The methods that both sockets implement by calling the inherent method of the same name.
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

        /// Like the socket's own method, but shutting down a direction that has already ended
        /// succeeds.
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

        /// Asks the kernel with the feature `scm-rights`; without it, always `false`.
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

/// Mode and timeouts are those of the kernel, so an expired timeout is `WouldBlock`. An empty read
/// or write accesses the socket like any other, and can wait or fail.
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
/// A vectored write to a closed peer raises `SIGPIPE`. Rust programs ignore that signal by default;
/// a process whose `main` is not written in Rust must ignore it itself.
///
/// Without the feature `scm-rights`, `peer_gone` is always `false`. The guest then receives the
/// request of a client even if the client has left while the request waited for a buffer.
impl VsockStream for UnixStream {
    fn backend_type(&self) -> VsockBackendType {
        VsockBackendType::UnixStream
    }

    /// Descriptors beyond `fds` are closed, which can block. An empty `bytes` receives nothing.
    #[cfg(feature = "scm-rights")]
    fn recv_data_fd(&self, bytes: &mut [u8], fds: &mut [RawFd]) -> io::Result<(usize, usize)> {
        kernel::receive(self.as_fd(), bytes, fds)
    }

    socket_methods!(UnixStream);
}

/// Like `UnixStream`, except that `recv_data_fd` is `Unsupported`.
impl VsockStream for TcpStream {
    fn backend_type(&self) -> VsockBackendType {
        VsockBackendType::Tcp
    }

    /// For a socket whose connect was started in non-blocking mode.
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
    fn sockets_report_their_type_and_can_be_downcast() {
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
    fn mode_and_timeouts_are_those_of_the_kernel() {
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
                "a blocking read would wait"
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
    fn connected_sockets_finish_connect() {
        for (mut near, _far) in pairs() {
            near.finish_connect().unwrap();
        }
    }

    #[cfg(feature = "scm-rights")]
    #[test]
    fn a_socket_without_a_peer_is_not_connected_yet() {
        use rustix::net::{AddressFamily, SocketType, socket};

        let socket = socket(AddressFamily::INET, SocketType::STREAM, None).unwrap();
        let error = TcpStream::from(socket).finish_connect().unwrap_err();
        assert_eq!(error.kind(), ErrorKind::WouldBlock);
    }

    #[test]
    fn finish_connect_returns_the_error_that_ended_the_connection() {
        let (mut near, far) = tcp();
        near.write_all(b"unread").unwrap();
        assert_eq!(far.peek(&mut [0; 8]).unwrap(), 6);
        drop(far); // resets, because bytes are unread
        let mut looks = (0..10_000_000).map(|_| near.finish_connect().err());
        let error = looks.find_map(|error| error).unwrap();
        assert_eq!(error.kind(), ErrorKind::ConnectionReset);
    }

    #[test]
    fn a_half_close_passes_and_shutting_down_again_succeeds() {
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
    fn one_descriptor_serves_reading_and_writing() {
        let (near, _far) = UnixStream::pair().unwrap();
        assert_eq!(near.write_ready_fd().unwrap(), near.as_raw_fd());
        let borrowed = near.write_ready().unwrap();
        assert_eq!(borrowed.as_raw_fd(), near.as_fd().as_raw_fd());
        let (tcp, _far) = tcp();
        assert_eq!(tcp.write_ready_fd().unwrap(), tcp.as_raw_fd());
        assert_eq!(tcp.write_ready().unwrap().as_raw_fd(), tcp.as_raw_fd());
    }
}
