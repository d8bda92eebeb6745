// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

use std::any::Any;
use std::io::{self, ErrorKind, IoSlice, IoSliceMut, Read, Write};
use std::net::Shutdown;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::net::UnixStream;
use std::slice;
use std::time::Duration;

use rustix::io::{ioctl_fionbio, read, readv};
use rustix::net::sockopt::Timeout;
use rustix::net::{self, SendAncillaryBuffer, SendFlags};
use thiserror::Error;
use vm_memory::bitmap::BitmapSlice;
use vm_memory::{ReadVolatile, VolatileMemoryError, VolatileSlice, WriteVolatile};
use vsock_backend_api::{VsockBackendType, VsockStream, VsockVolatileStream};

use super::guarded_socket::GuardedSocket;
use super::pieces;
use super::socket_stream::{as_fd_of, socket_methods};

/// The device end of a connection to a host process.
///
/// The standard library's [`UnixStream`] implements `VsockStream` too. This type also protects the
/// device from descriptors that a host process sends, and moves many pieces of guest memory with
/// one system call if it is [registered](crate#with-a-device) with the device.
///
/// It has one descriptor, for reading and for writing. Writing to a process that has gone is an
/// error and never raises a signal. An empty read or write has no effect, whatever the state of the
/// socket. An event loop learns from `EPOLLHUP` that the peer has gone; asking for it takes a
/// system call.
///
/// Descriptors (`SCM_RIGHTS`) are not accepted, because closing them can block. A host process that
/// sends any gets an error (`EPERM`), if the kernel can refuse them (Linux 6.16). On older kernels
/// the bytes arrive, and a separate thread closes the descriptors. If the stream is dropped with
/// unread bytes, this thread closes the socket too.
///
/// Dropping the stream closes the connection. A Unix socket has only one kind of reset: the kernel
/// reports `ECONNRESET` to the peer, once, if the socket is closed with unread bytes. An
/// [abort](VsockStream::abort) is therefore the same as a drop: after the guest's RST, the host
/// process sees a reset if bytes that it sent were not read, and otherwise an orderly end.
///
/// If a bitmap of guest memory panics during a read, the bytes of that read are lost, because they
/// cannot be put back into the socket. The loss never goes unnoticed: every later read fails with
/// `InvalidData`.
#[derive(Debug)]
pub struct UnixVsockStream {
    pub(crate) socket: GuardedSocket,
    /// The guest port for the stream, if the client does not send it.
    requested: Option<u32>,
    /// The number of bytes that the next read into guest memory is expected to find.
    expected: usize,
    /// Set while a read into guest memory is under way. If a panic leaves it set, bytes are missing
    /// from the stream.
    torn: bool,
}

/// The error of every read after a read that panicked.
#[derive(Clone, Copy, Debug, Error)]
#[error("bytes from a Unix socket were lost in a panic of guest memory's bitmap; close the stream")]
struct BytesLost;

/// The initial and least number of expected bytes: one buffer of a Linux guest.
const LITTLE: usize = 2 * 1024;
/// The maximum number of expected bytes: the largest packet.
const MUCH: usize = 64 * 1024;
/// The factor by which the expectation grows or shrinks.
const STEP: usize = 8;

impl UnixVsockStream {
    /// Creates a stream over a connected socket. The socket stays in its blocking or non-blocking
    /// mode. A clone of the socket elsewhere can keep the connection open after the device closes
    /// it.
    #[must_use]
    pub fn new(socket: UnixStream) -> Self {
        Self::over(GuardedSocket::given(socket.into()))
    }

    pub(crate) fn over(socket: GuardedSocket) -> Self {
        Self {
            socket,
            requested: None,
            expected: LITTLE,
            torn: false,
        }
    }

    /// Sets the guest port of the stream, for a client that does not send one and gets no answer.
    pub(crate) fn wanting(mut self, port: u32) -> Self {
        self.requested = Some(port);
        self
    }

    /// Returns an error if bytes of the socket were lost.
    fn check_whole(&self) -> io::Result<()> {
        if self.torn {
            return Err(io::Error::new(ErrorKind::InvalidData, BytesLost));
        }
        Ok(())
    }

    /// Adapts the expectation to a read that filled `got` of `offered` bytes.
    fn learn(&mut self, got: usize, offered: usize) {
        // A full read suggests that more is waiting; a read far below the expectation suggests
        // small messages. Anything in between leaves the expectation as it is.
        if got == offered && offered >= self.expected {
            self.expected = (self.expected * STEP).min(MUCH);
        } else if got < self.expected / STEP {
            self.expected = (self.expected / STEP).max(LITTLE);
        }
    }
}

impl Read for UnixVsockStream {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        if buf.is_empty() {
            return Ok(0);
        }
        self.check_whole()?;
        if self.socket.may_bring_files() {
            return pieces::receive(&self.socket, &[VolatileSlice::from(buf)]);
        }
        Ok(read(&self.socket, buf)?)
    }

    fn read_vectored(&mut self, bufs: &mut [IoSliceMut<'_>]) -> io::Result<usize> {
        if bufs.iter().all(|buf| buf.is_empty()) {
            return Ok(0);
        }
        self.check_whole()?;
        if self.socket.may_bring_files() {
            let places = bufs.iter_mut().map(|buf| VolatileSlice::from(&mut **buf));
            return pieces::receive(&self.socket, &places.collect::<Vec<_>>());
        }
        Ok(readv(&self.socket, bufs)?)
    }
}

impl Write for UnixVsockStream {
    fn write(&mut self, buf: &[u8]) -> io::Result<usize> {
        if buf.is_empty() {
            return Ok(0);
        }
        Ok(net::send(&self.socket, buf, SendFlags::NOSIGNAL)?)
    }

    fn write_vectored(&mut self, bufs: &[IoSlice<'_>]) -> io::Result<usize> {
        if bufs.iter().all(|buf| buf.is_empty()) {
            return Ok(0);
        }
        let mut nothing = SendAncillaryBuffer::default();
        Ok(net::sendmsg(
            &self.socket,
            bufs,
            &mut nothing,
            SendFlags::NOSIGNAL,
        )?)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl ReadVolatile for UnixVsockStream {
    fn read_volatile<B: BitmapSlice>(
        &mut self,
        buf: &mut VolatileSlice<'_, B>,
    ) -> Result<usize, VolatileMemoryError> {
        self.read_volatile_vectored(slice::from_ref(buf))
            .map_err(VolatileMemoryError::IOError)
    }
}

impl WriteVolatile for UnixVsockStream {
    fn write_volatile<B: BitmapSlice>(
        &mut self,
        buf: &VolatileSlice<'_, B>,
    ) -> Result<usize, VolatileMemoryError> {
        self.write_volatile_vectored(slice::from_ref(buf))
            .map_err(VolatileMemoryError::IOError)
    }
}

impl VsockVolatileStream for UnixVsockStream {
    fn read_volatile_vectored<B: BitmapSlice>(
        &mut self,
        pieces: &[VolatileSlice<'_, B>],
    ) -> io::Result<usize> {
        let offered = pieces.iter().map(VolatileSlice::len).sum();
        if offered == 0 {
            return Ok(0);
        }
        self.check_whole()?;
        // If a bitmap panics in here, the flag stays set.
        self.torn = true;
        let got = pieces::receive(&self.socket, pieces);
        self.torn = false;
        let got = got?;
        self.learn(got, offered);
        Ok(got)
    }

    /// An estimate from previous reads. It matters because the device must parse the descriptors of
    /// every guest buffer that it offers, even if the buffer stays empty.
    fn readable_bytes(&self) -> usize {
        self.expected
    }

    fn write_volatile_vectored<B: BitmapSlice>(
        &mut self,
        pieces: &[VolatileSlice<'_, B>],
    ) -> io::Result<usize> {
        pieces::send(&self.socket, pieces)
    }
}

as_fd_of!(UnixVsockStream, socket);

impl VsockStream for UnixVsockStream {
    fn requested_port(&mut self) -> Option<u32> {
        self.requested
    }

    fn confirm(&mut self, _host_port: u32) -> io::Result<()> {
        self.requested
            .map(drop)
            .ok_or_else(|| ErrorKind::Unsupported.into())
    }

    fn shutdown(&mut self, how: Shutdown) -> io::Result<()> {
        self.socket.shutdown(how)
    }

    socket_methods!(socket, VsockBackendType::UnixStream);
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::panic::{AssertUnwindSafe, catch_unwind};

    use rustix::net::{AddressFamily, SocketFlags, SocketType, socketpair};
    use rustix::process::Signal;
    use vm_memory::{MmapRegion, VolatileMemory};
    use vmm_sys_util::signal::{block_signal, clear_signal};
    use vsock_driver::Fuse;

    use super::*;
    use crate::UnixSeqpacketStream;

    #[test]
    fn t132_a_loss_of_bytes_by_a_panicking_bitmap_is_reported() {
        let (near, far) = UnixStream::pair().unwrap();
        let mut near = UnixVsockStream::new(near);
        near.set_nonblocking(true).unwrap();
        let memory = MmapRegion::<Fuse>::new(4096).unwrap();
        let pieces = [0, 100].map(|at| memory.get_slice(at, 100).unwrap());
        let empty = near.read_volatile_vectored(&pieces).unwrap_err();
        assert_eq!(empty.kind(), ErrorKind::WouldBlock);
        (&far).write_all(&[7; 150]).unwrap();
        assert_eq!(near.read_volatile_vectored(&pieces).unwrap(), 150);
        (&far).write_all(&[7; 400]).unwrap();
        Fuse::light(2);
        let read = catch_unwind(AssertUnwindSafe(|| near.read_volatile_vectored(&pieces)));
        Fuse::put_out();
        drop(read.unwrap_err());
        let reads = [
            near.read(&mut [0; 9]),
            near.read_vectored(&mut [IoSliceMut::new(&mut [0; 9])]),
            near.read_volatile_vectored(&pieces),
        ];
        for read in reads {
            assert_eq!(read.unwrap_err().kind(), ErrorKind::InvalidData);
        }
        // The other direction still works.
        assert_eq!(near.write_volatile_vectored(&pieces).unwrap(), 200);
        let mut got = [0; 200];
        (&far).read_exact(&mut got).unwrap();
        assert_eq!(got, [7; 200]);
    }

    #[test]
    fn an_abort_is_a_reset_only_if_bytes_are_unread() {
        for unread in [true, false] {
            let (near, mut far) = UnixStream::pair().unwrap();
            if unread {
                far.write_all(b"x").unwrap();
            }
            let near: Box<dyn VsockStream> = Box::new(UnixVsockStream::new(near));
            near.abort();
            let end = far.read(&mut [0]).map_err(|error| error.kind());
            let expected = if unread {
                Err(ErrorKind::ConnectionReset)
            } else {
                Ok(0)
            };
            assert_eq!(end, expected);
        }
    }

    #[test]
    fn the_expected_size_of_reads_adapts_to_the_traffic() {
        let (near, far) = UnixStream::pair().unwrap();
        let mut near = UnixVsockStream::new(near);
        let mut memory = vec![0; MUCH];
        let mut read = |sent: usize| {
            (&far).write_all(&vec![7; sent]).unwrap();
            let mut calls = Vec::new();
            let mut left = sent;
            while left > 0 {
                let offered = near.readable_bytes();
                let place = VolatileSlice::from(&mut memory[..offered]);
                left -= near.read_volatile_vectored(&[place]).unwrap();
                calls.push(offered);
            }
            calls
        };
        assert_eq!(read(64), [LITTLE]);
        assert_eq!(read(100_000), [LITTLE, 16 * 1024, MUCH, MUCH]);
        assert_eq!(read(9000), [MUCH], "neither a lot nor a little");
        assert_eq!(read(64), [MUCH]);
        assert_eq!(read(64), [8 * 1024]);
        assert_eq!(read(64), [LITTLE]);
    }

    #[test]
    fn a_peer_has_gone_only_if_both_directions_have_ended() {
        let (near, far) = UnixStream::pair().unwrap();
        let near = UnixVsockStream::new(near);
        assert!(!near.peer_gone());
        (&far).write_all(b"x").unwrap();
        far.shutdown(Shutdown::Write).unwrap();
        assert!(!near.peer_gone(), "it can still read");
        drop(far);
        assert!(near.peer_gone());
        let (near, far) = UnixStream::pair().unwrap();
        let mut near = UnixVsockStream::new(near);
        near.shutdown(Shutdown::Write).unwrap();
        assert!(!near.peer_gone(), "it can still send");
        far.shutdown(Shutdown::Write).unwrap();
        assert!(near.peer_gone(), "both directions have ended");
    }

    /// Returns whether SIGPIPE, which this thread blocks, is pending.
    fn is_pending() -> bool {
        let status = fs::read_to_string("/proc/thread-self/status").unwrap();
        let signals = status.lines().find_map(|line| line.strip_prefix("SigPnd:"));
        let signals = u64::from_str_radix(signals.unwrap().trim(), 16).unwrap();
        signals & (1 << (Signal::PIPE.as_raw() - 1)) != 0
    }

    fn broken() -> UnixStream {
        let (near, far) = UnixStream::pair().unwrap();
        drop(far);
        near
    }

    #[test]
    fn t68_no_write_to_a_peer_that_has_gone_raises_a_signal() {
        let pipe = Signal::PIPE.as_raw();
        // Rust programs ignore SIGPIPE, but while it is blocked it becomes pending all the same.
        block_signal(pipe).unwrap();
        rustix::io::write(broken(), b"x").unwrap_err();
        assert!(is_pending(), "the test can detect the signal");
        clear_signal(pipe).unwrap();

        UnixVsockStream::new(broken()).write(b"x").unwrap_err();
        assert!(!is_pending());
        UnixVsockStream::new(broken())
            .write_vectored(&[IoSlice::new(b"x")])
            .unwrap_err();
        assert!(!is_pending());
        let mut byte = [1];
        let piece = VolatileSlice::from(&mut byte[..]);
        UnixVsockStream::new(broken())
            .write_volatile_vectored(&[piece])
            .unwrap_err();
        assert!(!is_pending());
        let flags = SocketFlags::CLOEXEC;
        let (near, far) =
            socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, flags, None).unwrap();
        let mut messages = UnixSeqpacketStream::new(near).unwrap();
        drop(far);
        messages.write(b"x").unwrap_err();
        assert!(!is_pending());
    }
}
