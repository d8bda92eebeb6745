// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

use std::any::Any;
use std::io::{self, ErrorKind, IoSlice, IoSliceMut, Read, Write};
use std::mem::MaybeUninit;
use std::net::Shutdown;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::Duration;

use rustix::io::{Errno, ioctl_fionbio};
use rustix::net::sockopt::{self, Timeout};
use rustix::net::{
    self, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, ReturnFlags, SendAncillaryBuffer,
    SendFlags,
};
use vsock_backend_api::{Received, Record, VsockBackendType, VsockMessages, VsockStream};

use super::closer;
use super::guarded_socket::{GuardedSocket, ROOM};
use super::socket_stream::{as_fd_of, socket_methods};

/// The least size of the socket's send buffer, if the system allows it. The buffer grows for a
/// message that is longer than twice this size.
const BUFFER: usize = 256 * 1024;

/// The device end of a connection to a host process, over a socket that preserves message
/// boundaries (`SOCK_SEQPACKET`).
///
/// Each `recv` of the host process reads one message of the guest, and each of its `send` calls
/// sends one message to the guest. To a host process that only looks at the length, an empty
/// message looks like the end; this type can tell the two apart. Unix sockets have no records:
/// `MSG_EOR` does not reach the host process, and messages from the host process never carry it. As
/// with [`UnixVsockStream`](crate::UnixVsockStream), descriptors are not accepted, and an abort is
/// the same as a drop.
///
/// This type enables credentials on the socket, which distinguish an empty message from the end. A
/// side effect of Linux is that the socket gets an abstract name with its first message, if it has
/// no name yet.
///
/// A message can have at most about twice `net.core.wmem_max` bytes (212,992 by default, so
/// 425,952).
#[derive(Debug)]
pub struct UnixSeqpacketStream {
    socket: GuardedSocket,
    /// Whether the kernel has reported a reset: the peer closed its socket with unread messages.
    /// The kernel reports this once, before the messages that the peer had sent, and this type
    /// reports it after them.
    reset: bool,
}

impl UnixSeqpacketStream {
    /// Creates a stream over a connected socket. The socket stays in its blocking or non-blocking
    /// mode.
    ///
    /// # Errors
    ///
    /// The socket is not a Unix socket.
    pub fn new(socket: OwnedFd) -> io::Result<Self> {
        Self::over(GuardedSocket::given(socket))
    }

    pub(crate) fn over(socket: GuardedSocket) -> io::Result<Self> {
        // Every message, even an empty one, now carries credentials. The end carries none.
        sockopt::set_socket_passcred(&socket, true)?;
        // Linux doubles the size that is set.
        if sockopt::socket_send_buffer_size(&socket)? < 2 * BUFFER {
            sockopt::set_socket_send_buffer_size(&socket, BUFFER)?;
        }
        Ok(Self {
            socket,
            reset: false,
        })
    }

    /// Returns an error if the next message carries files.
    fn check_for_files(&mut self) -> io::Result<()> {
        let mut seen = self.socket.bytes_without_files(0);
        let reset = Some(Errno::CONNRESET.raw_os_error());
        // The peek may have got the kernel's one report of a reset. Remember it and peek again.
        if !self.reset && seen.as_ref().is_err_and(|e| e.raw_os_error() == reset) {
            self.reset = true;
            seen = self.socket.bytes_without_files(0);
        }
        seen.map(drop)
    }
}

/// Sends a message. If necessary, enlarges the socket's send buffer as far as the system allows.
///
/// # Errors
///
/// `InvalidInput` if the message is still too long, and errors of the operating system.
pub(crate) fn send_whole(socket: &GuardedSocket, message: &[IoSlice<'_>]) -> io::Result<()> {
    let send = || {
        let mut nothing = SendAncillaryBuffer::default();
        net::sendmsg(socket, message, &mut nothing, SendFlags::NOSIGNAL).map(drop)
    };
    let mut sent = send();
    if sent == Err(Errno::MSGSIZE) {
        let len = message.iter().map(|piece| piece.len()).sum();
        sockopt::set_socket_send_buffer_size(socket, len)?;
        sent = send();
    }
    match sent {
        Err(Errno::MSGSIZE) => Err(io::Error::new(
            ErrorKind::InvalidInput,
            "the message is longer than the largest socket buffer (net.core.wmem_max)",
        )),
        sent => Ok(sent?),
    }
}

impl VsockMessages for UnixSeqpacketStream {
    fn send_message(&mut self, message: &[IoSlice<'_>], _record: Record) -> io::Result<()> {
        let sent = send_whole(&self.socket, message);
        self.reset |= sent
            .as_ref()
            .is_err_and(|error| error.kind() == ErrorKind::ConnectionReset);
        sent
    }

    fn receive_message(&mut self, buffer: &mut [u8]) -> io::Result<Received> {
        let mut room = [MaybeUninit::uninit(); ROOM];
        // If the kernel refuses files, no room is needed: a message still shows by its credentials,
        // because the kernel then reports that they were truncated.
        let room = if self.socket.may_bring_files() {
            &mut room[..]
        } else {
            &mut []
        };
        if self.socket.may_bring_files() && closer::is_busy() {
            self.check_for_files()?;
        }
        loop {
            let mut extras = RecvAncillaryBuffer::new(room);
            let mut buffers = [IoSliceMut::new(buffer)];
            let flags = RecvFlags::CMSG_CLOEXEC;
            let got = match net::recvmsg(&self.socket, &mut buffers, &mut extras, flags) {
                // Messages that the peer sent before the reset may follow, so read on.
                Err(Errno::CONNRESET) if !self.reset => {
                    self.reset = true;
                    continue;
                }
                got => got?,
            };
            let mut is_message = got.bytes > 0 || got.flags.contains(ReturnFlags::CTRUNC);
            for extra in extras.drain() {
                is_message = true;
                if let RecvAncillaryMessage::ScmRights(files) = extra {
                    files.for_each(closer::close);
                }
            }
            return if got.flags.contains(ReturnFlags::TRUNC) {
                Ok(Received::TooLong)
            } else if is_message {
                Ok(Received::Message {
                    len: got.bytes,
                    record: Record::Continues,
                })
            } else if self.reset {
                Err(ErrorKind::ConnectionReset.into())
            } else {
                Ok(Received::End)
            };
        }
    }
}

/// Each read receives one message. An empty message cannot be told from the end.
impl Read for UnixSeqpacketStream {
    /// # Errors
    ///
    /// As for [`VsockMessages::receive_message`], and `InvalidData` if the message was longer than
    /// the buffer; it is lost then.
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        match self.receive_message(buf)? {
            Received::Message { len, .. } => Ok(len),
            Received::End => Ok(0),
            Received::TooLong => Err(ErrorKind::InvalidData.into()),
        }
    }
}

/// Each write sends one message.
impl Write for UnixSeqpacketStream {
    fn write(&mut self, buf: &[u8]) -> io::Result<usize> {
        self.write_vectored(&[IoSlice::new(buf)])
    }

    fn write_vectored(&mut self, bufs: &[IoSlice<'_>]) -> io::Result<usize> {
        self.send_message(bufs, Record::Continues)?;
        Ok(bufs.iter().map(|buf| buf.len()).sum())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

as_fd_of!(UnixSeqpacketStream, socket);

impl VsockStream for UnixSeqpacketStream {
    fn shutdown(&mut self, how: Shutdown) -> io::Result<()> {
        self.socket.shutdown(how)
    }

    socket_methods!(socket, VsockBackendType::UnixStream);

    fn messages(&mut self) -> Option<&mut dyn VsockMessages> {
        Some(self)
    }
}

#[cfg(test)]
mod tests {
    use rustix::net::{AddressFamily, SocketFlags, SocketType, socketpair};

    use super::*;

    fn pair() -> (UnixSeqpacketStream, UnixSeqpacketStream) {
        let flags = SocketFlags::CLOEXEC;
        let (near, far) =
            socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, flags, None).unwrap();
        let new = |socket| UnixSeqpacketStream::new(socket).unwrap();
        (new(near), new(far))
    }

    #[test]
    fn a_write_sends_a_message_and_a_read_receives_one() {
        let (mut near, mut far) = pair();
        near.write_all(b"one").unwrap();
        near.write_all(b"longer than there is room for").unwrap();
        near.write_all(b"three").unwrap();
        near.flush().unwrap();
        near.shutdown(Shutdown::Write).unwrap();
        let mut buffer = [0; 8];
        assert_eq!(far.read(&mut buffer).unwrap(), 3);
        let cut = far.read(&mut buffer).unwrap_err();
        assert_eq!(cut.kind(), ErrorKind::InvalidData);
        assert_eq!(far.read(&mut buffer).unwrap(), 5);
        assert_eq!(far.read(&mut buffer).unwrap(), 0);
    }

    #[test]
    fn t111_a_message_that_fits_no_buffer_is_refused() {
        let (mut near, mut far) = pair();
        let most = sockopt::socket_send_buffer_size(&near.socket).unwrap();
        assert!(most >= 2 * 64 * 1024, "a packet of the guest fits");
        sockopt::set_socket_send_buffer_size(&near.socket, i32::MAX as usize).unwrap();
        let most = sockopt::socket_send_buffer_size(&near.socket).unwrap();
        let error = near.write(&vec![0; most]).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidInput);
        far.set_nonblocking(true).unwrap();
        let nothing = far.receive_message(&mut [0; 8]).unwrap_err();
        assert_eq!(nothing.kind(), ErrorKind::WouldBlock);
    }

    #[test]
    fn t111_the_buffer_grows_for_a_longer_message() {
        let (mut near, mut far) = pair();
        sockopt::set_socket_send_buffer_size(&near.socket, 4096).unwrap();
        let message = vec![7; 100_000];
        near.write_all(&message).unwrap();
        let mut buffer = vec![0; 2 * message.len()];
        let len = far.read(&mut buffer).unwrap();
        assert!(buffer[..len] == message);
    }

    #[test]
    fn t85_a_reset_reported_to_a_send_is_reported_again_after_the_messages() {
        let (mut near, mut far) = pair();
        far.write_all(b"last").unwrap();
        near.write_all(b"this is not read").unwrap();
        drop(far);
        let reset = near.write(b"late").unwrap_err();
        assert_eq!(reset.kind(), ErrorKind::ConnectionReset);
        assert!(near.peer_gone());
        assert_eq!(near.read(&mut [0; 8]).unwrap(), 4);
        for _ in 0..2 {
            let end = near.receive_message(&mut [0; 8]).unwrap_err();
            assert_eq!(end.kind(), ErrorKind::ConnectionReset);
        }
    }

    #[test]
    fn timeouts_and_shutdowns_apply_to_the_socket() {
        let (mut near, mut far) = pair();
        assert!(!near.peer_gone());
        let soon = Some(Duration::from_millis(1));
        near.set_read_timeout(soon).unwrap();
        let late = near.read(&mut [0; 8]).unwrap_err();
        assert_eq!(late.kind(), ErrorKind::WouldBlock);
        near.set_write_timeout(soon).unwrap();
        while near.write(&[0; 10_000]).is_ok() {}
        far.shutdown(Shutdown::Read).unwrap();
        let deaf = near.write(b"x").unwrap_err();
        assert_eq!(deaf.kind(), ErrorKind::BrokenPipe);
        near.shutdown(Shutdown::Both).unwrap();
        assert!(far.peer_gone());
    }

    #[test]
    fn the_stream_can_be_downcast() {
        let (near, _far) = pair();
        assert_eq!(near.backend_type(), VsockBackendType::UnixStream);
        assert!(near.as_any().is::<UnixSeqpacketStream>());
        let mut stream: Box<dyn VsockStream> = Box::new(near);
        assert!(stream.messages().is_some());
        assert!(stream.as_any_mut().is_some());
        assert!(stream.into_any().is_some());
    }
}
