// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Sockets that do not accept files (`SCM_RIGHTS`), and the handling of files that arrive anyway.
//!
//! A file that arrives with a message is closed by the thread that receives the message, or by the
//! thread that closes the socket while the message is in its queue. Such a close can block for as
//! long as the sender likes. On a device thread, this would stop all traffic of the guest.
//!
//! Linux 6.16 and later can refuse files: the sender gets an error (`EPERM`). On older kernels,
//! messages are received with room for files. The files, and sockets with files in their queues,
//! are then closed on a [separate thread](super::closer). If too many files wait there, a
//! connection that brings more is reset, and its files stay in its queue. If far too many wait, no
//! more connections are made. One case remains: with no descriptor left, the kernel cannot deliver
//! a file and closes it during the call, which can block.

#![expect(
    unsafe_code,
    reason = "no safe wrapper has this socket option, or receives files into guest memory"
)]

use std::io::{self, ErrorKind, IoSliceMut};
use std::mem::{ManuallyDrop, MaybeUninit};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::path::Path;
use std::slice;
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use rustix::net::sockopt::{self, Timeout};
use rustix::net::{
    self, AddressFamily, RecvAncillaryBuffer, RecvFlags, ReturnFlags, Shutdown, SocketAddrUnix,
    SocketFlags, SocketType,
};

use super::arrival::has_come;
use super::{closer, handed_over};

/// The option that decides whether a socket accepts files (Linux 6.16).
const SO_PASSRIGHTS: libc::c_int = 83;

/// The number of bytes in a queue that one peek covers.
const LOOK: usize = 64 * 1024;

/// The maximum number of peeks into a queue. A socket with more messages goes to the closer thread.
const LOOKS: usize = 1024;

/// Bytes for the maximum number of files in a message (253), and for the credentials before them.
const LEN: u16 = 1088;
pub(super) const ROOM: usize = LEN as usize;
const _: () = assert!(rustix::cmsg_space!(ScmCredentials(1), ScmRights(253)) <= ROOM);

/// The files that can be in a socket's queue.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Files {
    /// None. The kernel has refused files since the socket was created.
    Refused,
    /// Files that arrived before this process got the socket. The kernel refuses others.
    Earlier,
    /// Any files that the peer sends.
    Any,
    /// The socket listens and another process shares it, so this process must not empty its queue.
    Shared,
}

/// A socket whose close never blocks, whatever its peer has sent.
#[derive(Debug)]
pub(crate) struct GuardedSocket {
    socket: ManuallyDrop<OwnedFd>,
    files: Files,
}

impl GuardedSocket {
    /// Creates a socket. It is non-blocking if `flags` say so.
    pub(crate) fn new(socket_type: SocketType, flags: SocketFlags) -> Result<Self, Errno> {
        let flags = flags | SocketFlags::CLOEXEC;
        let socket = net::socket_with(AddressFamily::UNIX, socket_type, flags, None)?;
        let files = if refuse(socket.as_fd()) {
            Files::Refused
        } else {
            Files::Any
        };
        Ok(Self::with(socket, files))
    }

    /// Guards an existing socket, to which messages may already have been sent.
    pub(super) fn given(socket: OwnedFd) -> Self {
        let files = refused_from_now_on(&socket);
        Self::with(socket, files)
    }

    /// Refuses files that are sent to the socket from now on.
    pub(crate) fn refuse_files(&mut self) {
        self.files = refused_from_now_on(&self.socket);
    }

    /// Guards a socket of a kind that cannot carry files.
    pub(crate) const fn without_files(socket: OwnedFd) -> Self {
        let (socket, files) = (ManuallyDrop::new(socket), Files::Refused);
        Self { socket, files }
    }

    /// Creates a stream socket for listening, whose connections accept files.
    pub(super) fn for_files(flags: SocketFlags) -> Result<Self, Errno> {
        let (family, flags) = (AddressFamily::UNIX, flags | SocketFlags::CLOEXEC);
        let socket = net::socket_with(family, SocketType::STREAM, flags, None)?;
        let (socket, files) = (ManuallyDrop::new(socket), Files::Any);
        Ok(Self { socket, files })
    }

    /// Guards a listening socket that another process has [passed](super::handed_over). Its
    /// connections refuse files, if the kernel can do so.
    pub(super) fn shared(socket: OwnedFd, socket_type: SocketType) -> io::Result<Self> {
        let (socket, files) = (handed_over::take(socket, socket_type)?, Files::Shared);
        let socket = ManuallyDrop::new(socket);
        Ok(Self { socket, files })
    }

    /// Like [`shared`](Self::shared), but its connections accept files.
    pub(super) fn shared_for_files(socket: OwnedFd) -> io::Result<Self> {
        let socket = ManuallyDrop::new(handed_over::take(socket, SocketType::STREAM)?);
        let files = Files::Any;
        Ok(Self { socket, files })
    }

    fn with(socket: OwnedFd, files: Files) -> Self {
        if files != Files::Refused {
            // Deliver out-of-band bytes in line. Otherwise a read that skips such a byte would also
            // close the file that came with it. Socket types without such bytes reject the option.
            let _unsupported = sockopt::set_socket_oobinline(&socket, true);
        }
        let socket = ManuallyDrop::new(socket);
        Self { socket, files }
    }

    /// Connects without blocking. Returns `AGAIN` if the backlog of the listener is full.
    pub(crate) fn connect(path: &Path, socket_type: SocketType) -> Result<Self, Errno> {
        let address = SocketAddrUnix::new(path)?;
        let socket = Self::new(socket_type, SocketFlags::NONBLOCK)?;
        loop {
            match net::connect(&socket, &address) {
                Err(Errno::INTR) => {}
                Err(error) => return Err(error),
                Ok(()) => return Ok(socket),
            }
        }
    }

    /// Like [`connect`](Self::connect), for a guest's connection. Returns `NOBUFS` if too many
    /// sockets wait to be closed.
    pub(crate) fn dial(path: &Path, socket_type: SocketType) -> Result<Self, Errno> {
        closer::check_room()?;
        Self::connect(path, socket_type)
    }

    /// Accepts a client without blocking. The new socket inherits the setting for files. Returns
    /// `NOBUFS` if too many sockets wait to be closed.
    pub(crate) fn accept(&self) -> Result<Self, Errno> {
        closer::check_room()?;
        let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
        let socket = net::accept_with(self, flags)?;
        Ok(match self.files {
            // The client may have connected and sent files before this process had the listener.
            Files::Shared => Self::given(socket),
            files => Self::with(socket, files),
        })
    }

    /// Returns whether the peer has gone. This is also true if both directions were shut down, by
    /// either side, because the kernel reports both in the same way.
    pub(crate) fn is_left(&self) -> bool {
        let mut fds = [PollFd::new(self, PollFlags::empty())];
        let gone = PollFlags::HUP | PollFlags::ERR;
        poll(&mut fds, Some(&Timespec::default())).is_ok() && fds[0].revents().intersects(gone)
    }

    pub(crate) fn shutdown(&self, how: std::net::Shutdown) -> io::Result<()> {
        let how = match how {
            std::net::Shutdown::Read => Shutdown::Read,
            std::net::Shutdown::Write => Shutdown::Write,
            std::net::Shutdown::Both => Shutdown::Both,
        };
        Ok(net::shutdown(self, how)?)
    }

    pub(crate) fn set_timeout(&self, which: Timeout, timeout: Option<Duration>) -> io::Result<()> {
        Ok(sockopt::set_socket_timeout(self, which, timeout)?)
    }

    /// Returns whether a message can carry files. Its receiver must then pass them to [`closer`].
    pub(super) fn may_bring_files(&self) -> bool {
        self.files != Files::Refused
    }

    /// Returns whether closing the socket could close files in its queue.
    fn holds_files(&self) -> bool {
        if matches!(self.files, Files::Refused | Files::Shared) {
            return false;
        }
        if self.files == Files::Any {
            // Stop further messages, so that the answer stays true. The peer must not see an
            // orderly end yet: if bytes are unread, the close will be a reset. (This fails for a
            // socket without a peer, which gets no messages anyway.)
            let _no_peer = net::shutdown(self, Shutdown::Read);
        }
        if sockopt::socket_acceptconn(self) != Ok(false) {
            return self.holds_sockets();
        }
        // Walk through the whole queue with peeks. If that is not possible, assume the worst.
        if !look_from_the_front(self.as_fd()) {
            return true;
        }
        let mut buffer = vec![0; LOOK];
        for _ in 0..LOOKS {
            match self.look(&mut buffer, RecvFlags::DONTWAIT) {
                Ok(seen) if seen.files => return true,
                // The end of the queue. An empty message also has no bytes, but it has credentials.
                Ok(seen) if seen.bytes == 0 && !seen.credentials => return false,
                // The kernel reports a reset once, before the messages in the queue.
                Ok(_) | Err(Errno::CONNRESET) => {}
                // Usually `AGAIN`: the queue is empty.
                Err(_) => return false,
            }
        }
        true
    }

    /// Returns whether clients wait in the backlog of a listener that was shut down. Each of them
    /// has a queue of its own. The only way to find out is to accept one.
    fn holds_sockets(&self) -> bool {
        match net::accept_with(self, SocketFlags::CLOEXEC) {
            Ok(first) => {
                drop(Self::with(first, Files::Any));
                true
            }
            Err(error) => error != Errno::INVAL,
        }
    }

    /// Returns how many bytes, up to `most`, can be read without receiving files.
    ///
    /// # Errors
    ///
    /// The errors of a read, and `ConnectionReset` if there are files in the queue. (The peek can
    /// also see the files of later bytes.)
    pub(super) fn bytes_without_files(&self, most: usize) -> io::Result<usize> {
        let seen = self.look(&mut vec![0; most.min(LOOK)], RecvFlags::empty())?;
        if seen.files {
            let message = "the peer sent files while too many files wait to be closed";
            return Err(io::Error::new(ErrorKind::ConnectionReset, message));
        }
        Ok(seen.bytes)
    }

    /// Peeks at the next bytes or the next message.
    fn look(&self, buffer: &mut [u8], flags: RecvFlags) -> Result<Seen, Errno> {
        // With room for credentials and none for files, the kernel truncates the control data if
        // there are files. They stay in the queue.
        let mut room = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmCredentials(1))];
        let room = match sockopt::socket_passcred(self) {
            Ok(true) => &mut room[..],
            _ => &mut [],
        };
        let mut credentials = RecvAncillaryBuffer::new(room);
        let mut buffers = [IoSliceMut::new(buffer)];
        let flags = flags | RecvFlags::PEEK;
        let message = net::recvmsg(self, &mut buffers, &mut credentials, flags)?;
        Ok(Seen {
            bytes: message.bytes,
            files: message.flags.contains(ReturnFlags::CTRUNC),
            credentials: credentials.drain().count() > 0,
        })
    }
}

/// The result of a peek into a queue.
struct Seen {
    bytes: usize,
    files: bool,
    credentials: bool,
}

/// Refuses files from now on, if the kernel can. Returns which files can still be in the queue.
fn refused_from_now_on(socket: &OwnedFd) -> Files {
    if !refuse(socket.as_fd()) {
        Files::Any
    } else if has_come(socket) {
        Files::Earlier
    } else {
        Files::Refused
    }
}

impl Drop for GuardedSocket {
    fn drop(&mut self) {
        let may_block = self.holds_files();
        // SAFETY: the socket is taken once, here, and not used afterwards.
        let socket = unsafe { ManuallyDrop::take(&mut self.socket) };
        if may_block {
            // The close may come much later, so show the peer the end now.
            let _no_peer = net::shutdown(&socket, Shutdown::Both);
            closer::close(socket);
        }
    }
}

impl AsFd for GuardedSocket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

impl AsRawFd for GuardedSocket {
    fn as_raw_fd(&self) -> RawFd {
        self.socket.as_raw_fd()
    }
}

/// Makes the kernel refuse files that are sent to the socket from now on. Returns whether it can.
fn refuse(socket: BorrowedFd<'_>) -> bool {
    #[cfg(test)]
    if tests::is_old() {
        return false;
    }
    set_option(socket, SO_PASSRIGHTS, 0)
}

/// Makes each peek begin where the last one ended. Returns whether the socket supports that.
fn look_from_the_front(socket: BorrowedFd<'_>) -> bool {
    set_option(socket, libc::SO_PEEK_OFF, 0)
}

/// Sets a socket option. Returns whether the kernel accepted it.
pub(crate) fn set_option(socket: BorrowedFd<'_>, option: libc::c_int, value: libc::c_int) -> bool {
    let len = libc::socklen_t::from(4_u8);
    let value = (&raw const value).cast();
    // SAFETY: the pointer leads to an int of this length that lives until the call returns.
    let set = unsafe { libc::setsockopt(socket.as_raw_fd(), libc::SOL_SOCKET, option, value, len) };
    set == 0
}

/// A buffer for the control data of a message, aligned for its headers.
pub(super) struct Room([MaybeUninit<u64>; ROOM / size_of::<u64>()]);

impl Room {
    pub(super) const fn new() -> Self {
        Self([MaybeUninit::uninit(); ROOM / size_of::<u64>()])
    }

    /// Makes the next `recvmsg` with this message put files here. The room must stay alive and in
    /// place until [`take_files`].
    pub(super) fn offer(&mut self, message: &mut libc::msghdr) {
        message.msg_control = self.0.as_mut_ptr().cast();
        // The type of this field depends on the C library. A `u16` converts to all of them.
        message.msg_controllen = LEN.into();
    }
}

/// Returns the files that arrived with a message.
///
/// # Safety
///
/// `recvmsg` must have filled in the message, its [`Room`] must still be alive, and this must be
/// called only once for it.
pub(super) unsafe fn take_files(message: &libc::msghdr) -> Vec<OwnedFd> {
    let mut files = Vec::new();
    // SAFETY: the caller's room contains complete headers, written by the kernel.
    let mut next = unsafe { libc::CMSG_FIRSTHDR(message) };
    // SAFETY: `next` is null, or points to a header in the caller's room, which is aligned for it.
    while let Some(header) = unsafe { next.as_ref() } {
        if (header.cmsg_level, header.cmsg_type) == (libc::SOL_SOCKET, libc::SCM_RIGHTS) {
            // SAFETY: this is only arithmetic.
            let before = unsafe { libc::CMSG_LEN(0) };
            let len = length(header.cmsg_len).saturating_sub(length(before));
            // SAFETY: `next` points to a header, which its data follows.
            let start = unsafe { libc::CMSG_DATA(next) };
            // SAFETY: the kernel has written `cmsg_len` bytes, of which `len` are data.
            let bytes = unsafe { slice::from_raw_parts(start, len) };
            for bytes in bytes.chunks_exact(size_of::<RawFd>()) {
                let Ok(bytes) = bytes.try_into() else {
                    continue; // unreachable: every chunk has this size
                };
                let number = RawFd::from_ne_bytes(bytes);
                // SAFETY: the kernel has just opened this descriptor, and it is taken only once.
                files.push(unsafe { OwnedFd::from_raw_fd(number) });
            }
        }
        // SAFETY: `next` is a header of this message, as above.
        next = unsafe { libc::CMSG_NXTHDR(message, next) };
    }
    files
}

/// Converts a length, whose type depends on the C library.
fn length(value: impl TryInto<usize>) -> usize {
    value.try_into().unwrap_or(0)
}

#[cfg(test)]
pub(super) mod tests;
