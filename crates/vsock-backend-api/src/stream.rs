// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

use std::any::Any;
use std::io::{self, Read, Write};
use std::net::Shutdown;
use std::os::fd::{AsRawFd, BorrowedFd, RawFd};
use std::time::Duration;

use crate::{VsockAddr, VsockBackendType, VsockCredit, VsockMessages};

/// One end of a connection between the device and a host component.
///
/// `as_raw_fd` is for polling only: it is readable when a read would not return `WouldBlock`. A
/// stream that is not a socket may have a separate descriptor for writing,
/// [`write_ready_fd`](Self::write_ready_fd). Polling `as_raw_fd` for `EPOLLOUT` is then
/// meaningless.
///
/// Dropping a stream closes it, like dropping a socket: the peer reads what was written, then the
/// end. A stream that distinguishes a reset from an end resets the connection in
/// [`abort`](Self::abort).
///
/// Only [`backend_type`](Self::backend_type) and [`as_any`](Self::as_any) are required; every other
/// method has a default. The [crate documentation](crate) contains a complete implementation.
pub trait VsockStream: Read + Write + AsRawFd + Send {
    /// Returns what carries the bytes of this stream.
    fn backend_type(&self) -> VsockBackendType;

    /// Chooses what reads and writes do where they cannot make progress: return `WouldBlock`
    /// (`true`) or wait (`false`). The mode applies to this end only.
    ///
    /// # Errors
    ///
    /// - `Unsupported`: the stream has only one mode (the default).
    /// - Any other error comes from the operating system; the mode is unchanged.
    fn set_nonblocking(&mut self, _nonblocking: bool) -> io::Result<()> {
        Err(io::ErrorKind::Unsupported.into())
    }

    /// Limits how long a blocking read waits for its first byte. `None` waits indefinitely.
    ///
    /// Non-blocking mode ignores the timeout but keeps it.
    ///
    /// # Errors
    ///
    /// - `InvalidInput`: the timeout is zero.
    /// - `Unsupported`: reads of this stream cannot time out (the default).
    fn set_read_timeout(&mut self, _timeout: Option<Duration>) -> io::Result<()> {
        Err(io::ErrorKind::Unsupported.into())
    }

    /// Limits how long a blocking write waits for space. `None` waits indefinitely.
    ///
    /// Non-blocking mode ignores the timeout but keeps it.
    ///
    /// # Errors
    ///
    /// - `InvalidInput`: the timeout is zero.
    /// - `Unsupported`: writes to this stream cannot time out (the default).
    fn set_write_timeout(&mut self, _timeout: Option<Duration>) -> io::Result<()> {
        Err(io::ErrorKind::Unsupported.into())
    }

    /// Receives bytes together with descriptors that the peer has passed (`SCM_RIGHTS`). Returns
    /// the number of bytes and the number of descriptors. The caller owns the descriptors.
    ///
    /// # Errors
    ///
    /// - `Unsupported`: the stream does not carry descriptors (the default).
    /// - `WouldBlock`: nothing is available, in non-blocking mode.
    /// - Any other error comes from the operating system.
    fn recv_data_fd(&self, _bytes: &mut [u8], _fds: &mut [RawFd]) -> io::Result<(usize, usize)> {
        Err(io::ErrorKind::Unsupported.into())
    }

    /// Shuts down one direction, or both, like `shutdown(2)`.
    ///
    /// A device uses it to pass on a guest's half-close (`VIRTIO_VSOCK_OP_SHUTDOWN` with one flag,
    /// virtio 1.3, section 5.10.6.6.1).
    ///
    /// # Errors
    ///
    /// - `Unsupported`: the stream does not support half-close (the default); it ends only when
    ///   dropped.
    /// - Any other error comes from the operating system.
    fn shutdown(&mut self, _how: Shutdown) -> io::Result<()> {
        Err(io::ErrorKind::Unsupported.into())
    }

    /// Drops the stream and resets the connection, if the stream supports resets. Each direction
    /// that has not been shut down before ends in an error at the peer. An ordinary drop, by
    /// contrast, is a close.
    ///
    /// A device uses it to pass on a guest's reset (`VIRTIO_VSOCK_OP_RST`, virtio 1.3, section
    /// 5.10.6.6). The default only drops. A stream that wraps another should forward the call.
    fn abort(self: Box<Self>) {}

    /// Returns the descriptor to poll for `EPOLLOUT`. It is ready when a write would not return
    /// `WouldBlock`.
    ///
    /// The default is `as_raw_fd`, which is right for sockets. The descriptor belongs to the
    /// stream.
    ///
    /// # Errors
    ///
    /// Creating the descriptor can fail, for example with `EMFILE`. The stream is then unchanged.
    fn write_ready_fd(&self) -> io::Result<RawFd> {
        Ok(self.as_raw_fd())
    }

    /// Like [`write_ready_fd`](Self::write_ready_fd), but the descriptor is borrowed from the
    /// stream, so it cannot be used after it is closed.
    ///
    /// # Errors
    ///
    /// - `Unsupported`: the stream provides raw descriptors only (the default).
    /// - Others: as for [`write_ready_fd`](Self::write_ready_fd).
    fn write_ready(&self) -> io::Result<BorrowedFd<'_>> {
        Err(io::ErrorKind::Unsupported.into())
    }

    /// Returns `Ok` once a stream from [`VsockBackend::connect`](crate::VsockBackend::connect) is
    /// connected.
    ///
    /// A backend returns a stream before it is connected if connecting takes time, as over TCP. The
    /// device calls this first when it receives the stream, and again whenever
    /// [`write_ready_fd`](Self::write_ready_fd) is ready. On `Ok` it accepts the guest's request;
    /// until then it neither reads nor writes. The default is `Ok`: the stream was connected when
    /// it was returned. The call never waits, even in blocking mode.
    ///
    /// # Errors
    ///
    /// - `WouldBlock`: the stream is not connected yet.
    /// - Any other error: the component cannot be reached. The device drops the stream, and answers
    ///   the guest with `VIRTIO_VSOCK_OP_RST`.
    fn finish_connect(&mut self) -> io::Result<()> {
        Ok(())
    }

    /// Returns the guest port that the opener of this stream has requested out of band, if any.
    ///
    /// A device calls this once, before it reads. `Some` replaces the handshake: the stream
    /// contains no command, the opener expects no `OK` in it, and [`confirm`](Self::confirm)
    /// informs the opener that the guest has accepted. The default, `None`, is right for streams
    /// that begin with a command (`CONNECT <port>\n`).
    fn requested_port(&mut self) -> Option<u32> {
        None
    }

    /// Informs the opener that the guest has accepted, and which host port the connection has.
    /// Called only if [`requested_port`](Self::requested_port) has returned a port.
    ///
    /// # Errors
    ///
    /// - `Unsupported`: the opener did not request the port out of band (the default).
    /// - Any other error: the opener has closed its end.
    fn confirm(&mut self, _host_port: u32) -> io::Result<()> {
        Err(io::ErrorKind::Unsupported.into())
    }

    /// Like [`confirm`](Self::confirm), with both addresses, so that the opener knows which guest
    /// it is connected to. A device calls this method; the default calls `confirm(host.port)`.
    ///
    /// # Errors
    ///
    /// As for [`confirm`](Self::confirm).
    fn confirm_from(&mut self, _guest: VsockAddr, host: VsockAddr) -> io::Result<()> {
        self.confirm(host.port)
    }

    /// Returns the address of the other end of the connection.
    ///
    /// At a host component's end this is the guest's CID and port; at a device's end it is the host
    /// component's address. `None`: the stream does not know it (the default).
    fn peer(&self) -> Option<VsockAddr> {
        None
    }

    /// Returns the address of this end. See [`peer`](Self::peer) for the other.
    fn local(&self) -> Option<VsockAddr> {
        None
    }

    /// Returns the interface for whole messages, if the stream preserves their boundaries. The
    /// stream is then the host end of a seqpacket connection and carries only messages.
    ///
    /// The default, `None`, is right for byte streams.
    fn messages(&mut self) -> Option<&mut dyn VsockMessages> {
        None
    }

    /// Returns whether the peer is known to have dropped its end.
    ///
    /// A device keeps a stream registered (edge-triggered) while it is paused or has stopped
    /// reading, and calls this on events if the descriptor does not report `EPOLLHUP`. On a socket
    /// it costs a system call, and cannot distinguish a peer that has shut down both directions.
    /// The default is `false`: unknown.
    fn peer_gone(&self) -> bool {
        false
    }

    /// Returns whether the peer has shut down reading, so that a write would fail with
    /// `BrokenPipe`, if the stream can know this without writing.
    ///
    /// A device calls this only for connections between two guests: on events, and after a read
    /// that has found nothing. When the peer shuts down reading, such a stream must therefore make
    /// its descriptor readable until the next read. The default is `false`: unknown.
    fn peer_stopped_reading(&self) -> bool {
        false
    }

    /// Reports to the other end the credit that the guest at this end has advertised. The other end
    /// obtains it from [`peer_credit`](Self::peer_credit).
    ///
    /// A device calls this only for connections between two guests, whenever the credit has
    /// changed. The default does nothing.
    fn tell_credit(&self, _credit: VsockCredit) {}

    /// Returns the credit that the other end [has reported](Self::tell_credit) last.
    ///
    /// A device calls this only for connections between two guests, on every event. It then grants
    /// its own guest credit for what the other guest has consumed. If the result is `None` (the
    /// default), it grants credit for what the stream has accepted.
    fn peer_credit(&self) -> Option<VsockCredit> {
        None
    }

    /// Returns a descriptor that becomes readable (`EPOLLIN`) when
    /// [`peer_credit`](Self::peer_credit) differs from `known`.
    ///
    /// Each call replaces the value that is compared. The descriptor is the same each time, and
    /// belongs to the stream.
    ///
    /// # Errors
    ///
    /// - `Unsupported`: the stream does not report credit (the default).
    /// - Creating the descriptor can fail, for example with `EMFILE`. The stream is then unchanged.
    fn credit_fd(&self, _known: Option<VsockCredit>) -> io::Result<RawFd> {
        Err(io::ErrorKind::Unsupported.into())
    }

    /// Returns the stream as `Any`, for code that knows its concrete type.
    fn as_any(&self) -> &dyn Any;

    /// Like [`as_any`](Self::as_any), for mutable access. The default is `None`.
    fn as_any_mut(&mut self) -> Option<&mut dyn Any> {
        None
    }

    /// Like [`as_any`](Self::as_any), by value. A device uses it to find a stream that can copy
    /// directly to guest memory. Try `as_any` first, because on `None` (the default) the stream is
    /// dropped.
    #[must_use]
    fn into_any(self: Box<Self>) -> Option<Box<dyn Any>> {
        None
    }
}

#[cfg(test)]
mod tests {
    use std::any::Any;
    use std::io::{self, ErrorKind, Read, Write};
    use std::net::Shutdown;
    use std::os::fd::{AsRawFd, RawFd};
    use std::sync::Arc;

    use super::VsockStream;
    use crate::{VsockAddr, VsockBackendType, VsockCredit};

    /// An implementation of the original trait: required methods only.
    #[derive(Debug, Default)]
    struct Foreign {
        _witness: Arc<()>,
    }

    impl Read for Foreign {
        fn read(&mut self, _buf: &mut [u8]) -> io::Result<usize> {
            Ok(0)
        }
    }

    impl Write for Foreign {
        fn write(&mut self, buf: &[u8]) -> io::Result<usize> {
            Ok(buf.len())
        }
        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    impl AsRawFd for Foreign {
        fn as_raw_fd(&self) -> RawFd {
            7
        }
    }

    impl VsockStream for Foreign {
        fn backend_type(&self) -> VsockBackendType {
            VsockBackendType::Tcp
        }
        fn as_any(&self) -> &dyn Any {
            self
        }
    }

    const ADDR: VsockAddr = VsockAddr { cid: 3, port: 52 };

    #[test]
    fn methods_without_an_override_are_unsupported() {
        let mut stream = Foreign::default();
        let refusals = [
            stream.set_nonblocking(true),
            stream.set_read_timeout(None),
            stream.set_write_timeout(None),
            stream.recv_data_fd(&mut [0], &mut [0]).map(drop),
            stream.shutdown(Shutdown::Both),
            stream.confirm(1 << 30),
            stream.confirm_from(ADDR, ADDR),
            stream.write_ready().map(drop),
            stream.credit_fd(None).map(drop),
        ];
        for refusal in refusals {
            assert_eq!(refusal.unwrap_err().kind(), ErrorKind::Unsupported);
        }
    }

    #[test]
    fn a_stream_without_overrides_polls_one_fd_and_reports_no_peer() {
        let mut stream = Foreign::default();
        assert_eq!(stream.requested_port(), None);
        stream.finish_connect().unwrap();
        assert_eq!((stream.peer(), stream.local()), (None, None));
        assert!(stream.messages().is_none());
        assert_eq!(stream.write_ready_fd().unwrap(), stream.as_raw_fd());
        assert!(!stream.peer_gone());
        assert!(!stream.peer_stopped_reading());
        let (buf_alloc, fwd_cnt) = (1, 2);
        stream.tell_credit(VsockCredit { buf_alloc, fwd_cnt });
        assert_eq!(stream.peer_credit(), None);
        assert!(stream.as_any().is::<Foreign>());
        assert!(stream.as_any_mut().is_none());
        assert!(Box::new(stream).into_any().is_none());
    }

    #[test]
    fn aborting_a_stream_without_an_override_drops_it() {
        let foreign = Foreign::default();
        let witness = Arc::downgrade(&foreign._witness);
        let stream: Box<dyn VsockStream> = Box::new(foreign);
        stream.abort();
        assert!(witness.upgrade().is_none());
    }

    #[test]
    fn a_stream_is_usable_as_a_trait_object() {
        let mut stream: Box<dyn VsockStream> = Box::new(Foreign::default());
        assert_eq!(stream.write(b"abc").unwrap(), 3);
        assert_eq!(stream.read(&mut [0]).unwrap(), 0);
        stream.flush().unwrap();
        assert_eq!(stream.backend_type(), VsockBackendType::Tcp);
    }
}
