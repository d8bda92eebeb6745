// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

use std::any::Any;
use std::io::{self, Read, Write};
use std::net::Shutdown;
use std::os::fd::{AsRawFd, BorrowedFd, RawFd};
use std::time::Duration;

use crate::{VsockAddr, VsockBackendType, VsockCredit, VsockMessages};

/// One end of a connection between the device and a host component.
///
/// `as_raw_fd` is for polling only: it is readable when a read would not return `WouldBlock`.
/// Where a stream is not a socket, [`write_ready_fd`](Self::write_ready_fd) is a descriptor of its
/// own; waiting for `EPOLLOUT` on `as_raw_fd` then means nothing.
///
/// Dropping a stream closes it, as dropping a socket does: the peer reads what was written, then
/// the end. A stream that can tell a reset from an end does so by [`abort`](Self::abort).
///
/// Every method but [`backend_type`](Self::backend_type) and [`as_any`](Self::as_any) has a
/// default, so that an implementation grows with its needs. The crate's documentation has a
/// complete one.
pub trait VsockStream: Read + Write + AsRawFd + Send {
    /// What carries the bytes of this stream.
    fn backend_type(&self) -> VsockBackendType;

    /// Makes reads and writes of this end return `WouldBlock` (`true`) or wait (`false`) where they
    /// cannot make progress.
    ///
    /// # Errors
    ///
    /// - `Unsupported`: the stream has one mode only (the default).
    /// - Anything else comes from the operating system; the mode is then unchanged.
    fn set_nonblocking(&mut self, _nonblocking: bool) -> io::Result<()> {
        Err(io::ErrorKind::Unsupported.into())
    }

    /// Bounds how long a blocking read waits for its first byte; `None` waits for ever.
    ///
    /// Non-blocking mode ignores the timeout, and keeps it.
    ///
    /// # Errors
    ///
    /// - `InvalidInput`: the timeout is zero.
    /// - `Unsupported`: reads of this stream cannot time out (the default).
    fn set_read_timeout(&mut self, _timeout: Option<Duration>) -> io::Result<()> {
        Err(io::ErrorKind::Unsupported.into())
    }

    /// Bounds how long a blocking write waits for space; `None` waits for ever.
    ///
    /// Non-blocking mode ignores the timeout, and keeps it.
    ///
    /// # Errors
    ///
    /// - `InvalidInput`: the timeout is zero.
    /// - `Unsupported`: writes of this stream cannot time out (the default).
    fn set_write_timeout(&mut self, _timeout: Option<Duration>) -> io::Result<()> {
        Err(io::ErrorKind::Unsupported.into())
    }

    /// Receives bytes together with descriptors that the peer passed (`SCM_RIGHTS`); returns how
    /// many of each came. The descriptors then belong to the caller.
    ///
    /// # Errors
    ///
    /// - `Unsupported`: the stream carries no descriptors (the default).
    /// - `WouldBlock`: nothing is there, in non-blocking mode.
    /// - Anything else comes from the operating system.
    fn recv_data_fd(&self, _bytes: &mut [u8], _fds: &mut [RawFd]) -> io::Result<(usize, usize)> {
        Err(io::ErrorKind::Unsupported.into())
    }

    /// Ends one direction, or both, as `shutdown(2)` does.
    ///
    /// By this a half-close passes between guest and host (`VIRTIO_VSOCK_OP_SHUTDOWN` with one
    /// flag, virtio 1.3, section 5.10.6.6.1).
    ///
    /// # Errors
    ///
    /// - `Unsupported`: the stream knows no half-close (the default); dropping it is the only end.
    /// - Anything else comes from the operating system.
    fn shutdown(&mut self, _how: Shutdown) -> io::Result<()> {
        Err(io::ErrorKind::Unsupported.into())
    }

    /// Drops the stream, with a reset for the peer where the stream knows one: what it has not
    /// ended in order is broken off. A drop alone is a close.
    ///
    /// By this a device passes the guest's reset on (`VIRTIO_VSOCK_OP_RST`, virtio 1.3, section
    /// 5.10.6.6). The default drops; a stream around another one hands it on.
    fn abort(self: Box<Self>) {}

    /// The descriptor to poll for `EPOLLOUT`: ready when a write would not return `WouldBlock`.
    ///
    /// The default is `as_raw_fd`, which is right for sockets. The descriptor belongs to the
    /// stream.
    ///
    /// # Errors
    ///
    /// Making the descriptor can fail, for example with `EMFILE`. The stream is then as it was.
    fn write_ready_fd(&self) -> io::Result<RawFd> {
        Ok(self.as_raw_fd())
    }

    /// As [`write_ready_fd`](Self::write_ready_fd), borrowed from the stream, so that it cannot be
    /// used after it was closed.
    ///
    /// # Errors
    ///
    /// - `Unsupported`: the stream has numbers only (the default).
    /// - Others are those of [`write_ready_fd`](Self::write_ready_fd).
    fn write_ready(&self) -> io::Result<BorrowedFd<'_>> {
        Err(io::ErrorKind::Unsupported.into())
    }

    /// Whether a stream that [`VsockBackend::connect`](crate::VsockBackend::connect) has returned
    /// is connected by now.
    ///
    /// A stream whose component cannot be reached without waiting, as over TCP, is returned before
    /// it is connected. A device asks at first, and again when
    /// [`write_ready_fd`](Self::write_ready_fd) is ready; it neither reads nor writes before the
    /// answer is `Ok`, which answers the guest. The default is `Ok`: what is returned is connected.
    /// The call never waits, in whichever mode the stream is.
    ///
    /// # Errors
    ///
    /// - `WouldBlock`: not yet.
    /// - Anything else: the component cannot be reached. The device drops the stream, and answers
    ///   the guest with `VIRTIO_VSOCK_OP_RST`.
    fn finish_connect(&mut self) -> io::Result<()> {
        Ok(())
    }

    /// The port of the guest that the stream's opener has named out of band, if it has.
    ///
    /// A device asks once, before it reads. `Some` settles the handshake: no command comes in the
    /// stream, no `OK` is expected in it, and [`confirm`](Self::confirm) tells the opener that the
    /// guest has accepted. The default, `None`, is right for streams that begin with a command
    /// (`CONNECT <port>\n`).
    fn requested_port(&mut self) -> Option<u32> {
        None
    }

    /// Tells the opener that the guest has accepted, and which port of the host the connection has;
    /// only after [`requested_port`](Self::requested_port) has named one.
    ///
    /// # Errors
    ///
    /// - `Unsupported`: the opener has not asked in this way (the default).
    /// - Anything else: the opener has left.
    fn confirm(&mut self, _host_port: u32) -> io::Result<()> {
        Err(io::ErrorKind::Unsupported.into())
    }

    /// As [`confirm`](Self::confirm), with both addresses, so that the opener can tell to whom it
    /// is connected. A device calls this one; the default calls `confirm(host.port)`.
    ///
    /// # Errors
    ///
    /// Those of [`confirm`](Self::confirm).
    fn confirm_from(&mut self, _guest: VsockAddr, host: VsockAddr) -> io::Result<()> {
        self.confirm(host.port)
    }

    /// The address of the other end of the connection.
    ///
    /// At a host component's end it is the guest's CID and port, at a device's end the component's.
    /// `None`: the stream does not know it (the default).
    fn peer(&self) -> Option<VsockAddr> {
        None
    }

    /// The address of this end, as [`peer`](Self::peer) is that of the other.
    fn local(&self) -> Option<VsockAddr> {
        None
    }

    /// How to send and receive whole messages, if the stream keeps their boundaries; it is then the
    /// host's end of a seqpacket connection, and never carries anything else.
    ///
    /// The default, `None`, is right for streams of bytes.
    fn messages(&mut self) -> Option<&mut dyn VsockMessages> {
        None
    }

    /// Whether the peer's end is known to have been dropped.
    ///
    /// A stream that is paused, or whose reading has ended, can stay registered edge-triggered and
    /// ask this on an event, where its descriptor reports no `EPOLLHUP` by itself. For a socket it
    /// is a system call; there a peer that has shut both directions down looks the same. The
    /// default knows nothing and says `false`.
    fn peer_gone(&self) -> bool {
        false
    }

    /// Whether the peer has ended its reading, so that a write would be `BrokenPipe`, where the
    /// stream knows that without a write.
    ///
    /// A device asks this of connections between two guests only: on events, and after a read that
    /// has found nothing. So a stream that carries one makes its descriptor readable when it
    /// becomes so, until the next read. The default knows nothing and says `false`.
    fn peer_stopped_reading(&self) -> bool {
        false
    }

    /// Tells the other end what the guest at this end has told of its buffer, for
    /// [`peer_credit`](Self::peer_credit).
    ///
    /// A device tells it of connections between two guests only, whenever it has changed. The
    /// default tells nothing.
    fn tell_credit(&self, _credit: VsockCredit) {}

    /// What the other end [has told](Self::tell_credit) last.
    ///
    /// A device asks this of connections between two guests only, on every event, and then gives
    /// its guest credit for what the other one has taken. With the default, `None`, it gives credit
    /// for what the stream has taken.
    fn peer_credit(&self) -> Option<VsockCredit> {
        None
    }

    /// A descriptor, to poll for `EPOLLIN`, that becomes ready when
    /// [`peer_credit`](Self::peer_credit) is not `known` (any more). Each call says anew what is
    /// known; the descriptor is always the same one, and belongs to the stream.
    ///
    /// # Errors
    ///
    /// - `Unsupported`: the stream tells of no credit (the default).
    /// - Making the descriptor can fail, for example with `EMFILE`. The stream is then as it was.
    fn credit_fd(&self, _known: Option<VsockCredit>) -> io::Result<RawFd> {
        Err(io::ErrorKind::Unsupported.into())
    }

    /// The stream as `Any`, for code that knows its concrete type.
    fn as_any(&self) -> &dyn Any;

    /// As [`as_any`](Self::as_any), to do something with it. `None` is the default.
    fn as_any_mut(&mut self) -> Option<&mut dyn Any> {
        None
    }

    /// As [`as_any`](Self::as_any), to own it: so a device finds a stream that can copy to guest
    /// memory directly. Ask `as_any` first, because `None` (the default) drops the stream.
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

    /// What an implementor of the older trait has: the required methods only.
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
    fn what_a_foreign_stream_leaves_out_is_unsupported() {
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
    fn a_foreign_stream_polls_one_fd_and_knows_nothing_of_its_peer() {
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
    fn a_foreign_stream_that_is_aborted_is_dropped() {
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
