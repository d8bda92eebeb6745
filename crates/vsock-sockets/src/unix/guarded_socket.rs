// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Sockets that accept no files (`SCM_RIGHTS`), and what becomes of files that come nevertheless.
//!
//! A file that comes with a message is closed by the thread that takes the message, or that closes
//! the socket while the message is in its queue. A close may wait, for as long as the sender of the
//! file likes. On the thread that moves the bytes of a guest that would be the end of its traffic.
//!
//! Since 6.16 Linux can refuse files: then the sender gets an error (`EPERM`). Where it cannot,
//! messages are received with room for files, and files, and sockets with files in their queue, are
//! closed on a [thread of their own](super::closer). If too many wait for it, a connection that
//! brings more is reset, and its files stay in its queue; if far too many do, no other connection
//! is taken in. Without a descriptor left there is no room: the system then closes the file in the
//! call, and that may wait.

#![expect(
    unsafe_code,
    reason = "no safe wrapper knows the option, or finds files for pieces of guest memory"
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

/// Whether a socket takes files (Linux 6.16).
const SO_PASSRIGHTS: libc::c_int = 83;

/// Bytes of a queue that one look covers.
const LOOK: usize = 64 * 1024;

/// Looks at a queue at most. A socket with more messages is left to the thread that closes.
const LOOKS: usize = 1024;

/// Bytes for all the files that a message can have (253), and for the credentials before them.
const LEN: u16 = 1088;
pub(super) const ROOM: usize = LEN as usize;
const _: () = assert!(rustix::cmsg_space!(ScmCredentials(1), ScmRights(253)) <= ROOM);

/// Which files may be in a socket's queue.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Files {
    /// None: the system has refused them from the socket's first moment on.
    Refused,
    /// Those that came before the socket was handed over. The system refuses others.
    Earlier,
    /// Whatever a peer sends.
    Any,
    /// It listens, and another process has it as well: its queue is not for this one to empty.
    Shared,
}

/// A socket whose close does not wait, whatever its peer has sent to it.
#[derive(Debug)]
pub(crate) struct GuardedSocket {
    socket: ManuallyDrop<OwnedFd>,
    files: Files,
}

impl GuardedSocket {
    /// A socket that is not connected yet. It does not block if `flags` say so.
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

    /// A socket from elsewhere, to which messages may have been sent.
    pub(super) fn given(socket: OwnedFd) -> Self {
        let files = refused_from_now_on(&socket);
        Self::with(socket, files)
    }

    /// Has files refused that are sent to the socket from now on.
    pub(crate) fn refuse_files(&mut self) {
        self.files = refused_from_now_on(&self.socket);
    }

    /// A socket of a sort that carries no files.
    pub(crate) const fn without_files(socket: OwnedFd) -> Self {
        let (socket, files) = (ManuallyDrop::new(socket), Files::Refused);
        Self { socket, files }
    }

    /// A socket to listen with for connections that bring files.
    pub(super) fn for_files(flags: SocketFlags) -> Result<Self, Errno> {
        let (family, flags) = (AddressFamily::UNIX, flags | SocketFlags::CLOEXEC);
        let socket = net::socket_with(family, SocketType::STREAM, flags, None)?;
        let (socket, files) = (ManuallyDrop::new(socket), Files::Any);
        Ok(Self { socket, files })
    }

    /// A socket that listens, and that another process has [handed over](super::handed_over). The
    /// connections that it accepts bring no files if the system can refuse them.
    pub(super) fn shared(socket: OwnedFd, socket_type: SocketType) -> io::Result<Self> {
        let (socket, files) = (handed_over::take(socket, socket_type)?, Files::Shared);
        let socket = ManuallyDrop::new(socket);
        Ok(Self { socket, files })
    }

    /// As [`shared`](Self::shared), for connections that bring files.
    pub(super) fn shared_for_files(socket: OwnedFd) -> io::Result<Self> {
        let socket = ManuallyDrop::new(handed_over::take(socket, SocketType::STREAM)?);
        let files = Files::Any;
        Ok(Self { socket, files })
    }

    fn with(socket: OwnedFd, files: Files) -> Self {
        if files != Files::Refused {
            // A byte out of band, and the file with it, would be dropped by the read that steps
            // over it. What has no such bytes does not know the option.
            let _unknown = sockopt::set_socket_oobinline(&socket, true);
        }
        let socket = ManuallyDrop::new(socket);
        Self { socket, files }
    }

    /// Connects without waiting: `AGAIN` if the backlog of the listener is full.
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

    /// As [`connect`](Self::connect), for a guest: `NOBUFS` if too many sockets wait to be closed.
    pub(crate) fn dial(path: &Path, socket_type: SocketType) -> Result<Self, Errno> {
        closer::check_room()?;
        Self::connect(path, socket_type)
    }

    /// Accepts without waiting, from a listener: what this one refuses, its connections do.
    /// `NOBUFS` if too many sockets wait to be closed.
    pub(crate) fn accept(&self) -> Result<Self, Errno> {
        closer::check_room()?;
        let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
        let socket = net::accept_with(self, flags)?;
        Ok(match self.files {
            // The client may have come before this process, and brought files.
            Files::Shared => Self::given(socket),
            files => Self::with(socket, files),
        })
    }

    /// Whether the peer is gone, as far as the system tells: where both directions were shut down,
    /// by whichever side, it looks the same.
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

    /// Whether a message may come with files, which its receiver then hands to [`closer`].
    pub(super) fn may_bring_files(&self) -> bool {
        self.files != Files::Refused
    }

    /// Whether a close may close files that lie in the queue.
    fn holds_files(&self) -> bool {
        if matches!(self.files, Files::Refused | Files::Shared) {
            return false;
        }
        if self.files == Files::Any {
            // From here on nothing else comes. The peer does not see an end yet: where bytes are
            // unread, the close is a reset. (A socket without a peer cannot be shut down, and need
            // not be.)
            let _alone = net::shutdown(self, Shutdown::Read);
        }
        if sockopt::socket_acceptconn(self) != Ok(false) {
            return self.holds_sockets();
        }
        if !look_from_the_front(self.as_fd()) {
            return true;
        }
        let mut buffer = vec![0; LOOK];
        for _ in 0..LOOKS {
            match self.look(&mut buffer, RecvFlags::DONTWAIT) {
                Ok(seen) if seen.files => return true,
                // An empty message has credentials, the end has none.
                Ok(seen) if seen.bytes == 0 && !seen.credentials => return false,
                // A reset is told once, before what is in the queue.
                Ok(_) | Err(Errno::CONNRESET) => {}
                Err(_) => return false,
            }
        }
        true
    }

    /// Whether sockets wait in the queue of a listener that was shut down, each with a queue of its
    /// own. That is seen by taking one.
    fn holds_sockets(&self) -> bool {
        match net::accept_with(self, SocketFlags::CLOEXEC) {
            Ok(first) => {
                drop(Self::with(first, Files::Any));
                true
            }
            Err(error) => error != Errno::INVAL,
        }
    }

    /// How many bytes, `most` at most, can be read before files come.
    ///
    /// # Errors
    ///
    /// Those of a read, and `ConnectionReset`: there are files in the queue. (A look may see those
    /// of later bytes, too.)
    pub(super) fn bytes_without_files(&self, most: usize) -> io::Result<usize> {
        let seen = self.look(&mut vec![0; most.min(LOOK)], RecvFlags::empty())?;
        if seen.files {
            let message = "files have come, and too many wait to be closed already";
            return Err(io::Error::new(ErrorKind::ConnectionReset, message));
        }
        Ok(seen.bytes)
    }

    /// Looks at what is next, and takes nothing.
    fn look(&self, buffer: &mut [u8], flags: RecvFlags) -> Result<Seen, Errno> {
        // Room for credentials, if there are any, and none for files: they are cut off.
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

/// What is next in a queue.
struct Seen {
    bytes: usize,
    files: bool,
    credentials: bool,
}

/// Has files refused from now on, if the system can. Which may be there nevertheless.
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
        let wait = self.holds_files();
        // SAFETY: it is taken once, here, and not used after that.
        let socket = unsafe { ManuallyDrop::take(&mut self.socket) };
        if wait {
            // The peer need not wait for the end.
            let _alone = net::shutdown(&socket, Shutdown::Both);
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

/// Lets the system refuse files that are sent to the socket from now on. Whether it does.
fn refuse(socket: BorrowedFd<'_>) -> bool {
    #[cfg(test)]
    if tests::is_old() {
        return false;
    }
    set_option(socket, SO_PASSRIGHTS, 0)
}

/// Lets each look begin where the last one ended. Whether it does.
fn look_from_the_front(socket: BorrowedFd<'_>) -> bool {
    set_option(socket, libc::SO_PEEK_OFF, 0)
}

pub(crate) fn set_option(socket: BorrowedFd<'_>, option: libc::c_int, value: libc::c_int) -> bool {
    let len = libc::socklen_t::from(4_u8);
    let value = (&raw const value).cast();
    // SAFETY: the value is an int, of this length, and lives until the call returns.
    let set = unsafe { libc::setsockopt(socket.as_raw_fd(), libc::SOL_SOCKET, option, value, len) };
    set == 0
}

/// Room for what comes with the bytes of a message, aligned for its headers.
pub(super) struct Room([MaybeUninit<u64>; ROOM / size_of::<u64>()]);

impl Room {
    pub(super) const fn new() -> Self {
        Self([MaybeUninit::uninit(); ROOM / size_of::<u64>()])
    }

    /// Lets the next `recvmsg` put files here. The room must live, and stay where it is, until
    /// [`take_files`].
    pub(super) fn offer(&mut self, message: &mut libc::msghdr) {
        message.msg_control = self.0.as_mut_ptr().cast();
        // The C libraries differ in the type, and a `u16` becomes either.
        message.msg_controllen = LEN.into();
    }
}

/// The files that came with a message.
///
/// # Safety
///
/// A `recvmsg` has filled the message, its [`Room`] still exists, and the files are taken only
/// once.
pub(super) unsafe fn take_files(message: &libc::msghdr) -> Vec<OwnedFd> {
    let mut files = Vec::new();
    // SAFETY: the caller's room has whole headers, as the kernel has written them.
    let mut next = unsafe { libc::CMSG_FIRSTHDR(message) };
    // SAFETY: null, or a header in the caller's room, which is aligned for it.
    while let Some(header) = unsafe { next.as_ref() } {
        if (header.cmsg_level, header.cmsg_type) == (libc::SOL_SOCKET, libc::SCM_RIGHTS) {
            // SAFETY: arithmetic.
            let before = unsafe { libc::CMSG_LEN(0) };
            let len = number(header.cmsg_len).saturating_sub(number(before));
            // SAFETY: the data follows the header.
            let start = unsafe { libc::CMSG_DATA(next) };
            // SAFETY: the kernel has written as many bytes as the header's length says.
            let bytes = unsafe { slice::from_raw_parts(start, len) };
            for bytes in bytes.chunks_exact(size_of::<RawFd>()) {
                let Ok(bytes) = bytes.try_into() else {
                    continue; // not for chunks of this size
                };
                let number = RawFd::from_ne_bytes(bytes);
                // SAFETY: the kernel has just made it for us, and the caller takes it once.
                files.push(unsafe { OwnedFd::from_raw_fd(number) });
            }
        }
        // SAFETY: as above.
        next = unsafe { libc::CMSG_NXTHDR(message, next) };
    }
    files
}

/// A length, whose type differs from one C library to the other.
fn number(length: impl TryInto<usize>) -> usize {
    length.try_into().unwrap_or(0)
}

#[cfg(test)]
pub(super) mod tests;
