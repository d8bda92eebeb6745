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

/// The device's end of a connection to a host process.
///
/// It is more than the [`UnixStream`] of `std`, which is a `VsockStream` as well: it guards the
/// device against descriptors that a host process sends, and moves many pieces of guest memory by
/// one system call, for which it is to be [registered](crate#with-a-device).
///
/// It has one descriptor, for reading and for writing. A write to a process that has gone is an
/// error and never a signal. An empty read or write does nothing, in whatever state the socket is.
/// That its peer has gone, an event loop learns from `EPOLLHUP`; to ask for it is a system call.
///
/// Descriptors (`SCM_RIGHTS`) are not accepted, for a close of what they stand for may wait: a host
/// process that sends any gets an error (`EPERM`), where the system can do so (Linux 6.16). On an
/// older system its bytes arrive, and a thread of the process's own closes the descriptors; when
/// the stream is dropped with bytes unread, the same thread closes its socket.
///
/// Dropping it is a close. A Unix socket knows one reset: that of a close which leaves bytes
/// unread, and its kernel makes it by itself (`ECONNRESET`, once). So an
/// [abort](VsockStream::abort) is a drop: by it the guest's RST is a reset where the process has
/// sent what was not taken, else an end.
///
/// A bitmap of guest memory that panics in a read loses what the read has received, for the socket
/// takes nothing back. Bytes are never missing without a word: every later read is then
/// `InvalidData`.
#[derive(Debug)]
pub struct UnixVsockStream {
    pub(crate) socket: GuardedSocket,
    /// The guest's port that the stream is for, where its opener does not say so in it.
    requested: Option<u32>,
    /// Bytes that the next read into guest memory is thought to find.
    expected: usize,
    /// A read into guest memory has begun and was left by a panic: bytes are missing from here on.
    torn: bool,
}

/// What every read fails with after one that was left by a panic.
#[derive(Clone, Copy, Debug, Error)]
#[error(
    "reading from a Unix socket: a panic of guest memory's bitmap has lost bytes; close the stream"
)]
struct BytesLost;

/// Bytes that are expected of a stream at first, and at least: one buffer of a Linux guest.
const LITTLE: usize = 2 * 1024;
/// Bytes that are expected at most: the largest packet.
const MUCH: usize = 64 * 1024;
/// By so much the expectation grows or shrinks.
const STEP: usize = 8;

impl UnixVsockStream {
    /// The stream over a connected socket, in the mode that the socket is in. A clone of the socket
    /// that is kept elsewhere may keep the connection open when the device ends it.
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

    /// The stream for this port of the guest: its opener says nothing of a port, and hears nothing
    /// of the answer.
    pub(crate) fn wanting(mut self, port: u32) -> Self {
        self.requested = Some(port);
        self
    }

    /// Whether none of the socket's bytes is missing.
    fn check_whole(&self) -> io::Result<()> {
        if self.torn {
            return Err(io::Error::new(ErrorKind::InvalidData, BytesLost));
        }
        Ok(())
    }

    /// Learns from a read that has got `got` of the `offered` bytes.
    fn learn(&mut self, got: usize, offered: usize) {
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
        self.torn = true;
        let got = pieces::receive(&self.socket, pieces);
        self.torn = false;
        let got = got?;
        self.learn(got, offered);
        Ok(got)
    }

    /// A guess, from the reads before: each buffer of a guest that stays empty costs a look at its
    /// descriptors.
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
    fn t132_bytes_that_a_panicking_bitmap_has_lost_are_never_missing_without_a_word() {
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
        // The other direction goes on.
        assert_eq!(near.write_volatile_vectored(&pieces).unwrap(), 200);
        let mut got = [0; 200];
        (&far).read_exact(&mut got).unwrap();
        assert_eq!(got, [7; 200]);
    }

    #[test]
    fn an_abort_is_a_reset_where_bytes_are_unread_and_else_an_end() {
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
    fn a_bulk_of_bytes_is_soon_read_in_large_pieces_and_small_messages_again_in_small_ones() {
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
        assert_eq!(read(9000), [MUCH], "neither much nor little");
        assert_eq!(read(64), [MUCH]);
        assert_eq!(read(64), [8 * 1024]);
        assert_eq!(read(64), [LITTLE]);
    }

    #[test]
    fn a_peer_is_gone_when_nothing_is_left_of_it_and_not_when_it_only_sends_no_more() {
        let (near, far) = UnixStream::pair().unwrap();
        let near = UnixVsockStream::new(near);
        assert!(!near.peer_gone());
        (&far).write_all(b"x").unwrap();
        far.shutdown(Shutdown::Write).unwrap();
        assert!(!near.peer_gone(), "it may still read");
        drop(far);
        assert!(near.peer_gone());
        let (near, far) = UnixStream::pair().unwrap();
        let mut near = UnixVsockStream::new(near);
        near.shutdown(Shutdown::Write).unwrap();
        assert!(!near.peer_gone(), "it may still send");
        far.shutdown(Shutdown::Write).unwrap();
        assert!(near.peer_gone(), "nothing is left to say");
    }

    /// Whether a signal for a broken pipe waits for this thread, which blocks it.
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
        // A signal that is ignored, as by Rust's programs, waits nevertheless while it is blocked.
        block_signal(pipe).unwrap();
        rustix::io::write(broken(), b"x").unwrap_err();
        assert!(is_pending(), "it would be seen");
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
