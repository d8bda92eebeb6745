// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! A passed descriptor: which kinds are accepted, and how they are read, written and ended.
//!
//! Every call here can block for as long as the process that passed the descriptor likes.

use std::io::{self, ErrorKind};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::{FileType, Mode, OFlags, fcntl_getfl, fstat, open};
use rustix::net::{
    RecvFlags, SendFlags, Shutdown, SocketType, connect_unspec, getpeername, ipproto, recv, send,
    shutdown, sockopt,
};
use thiserror::Error;

use super::command::Keep;

/// The number of bytes that a pipe accepts without blocking if a poll reports room (`PIPE_BUF`). A
/// larger write can block even then.
const CERTAIN: usize = 4096;

/// The reason for refusing a descriptor.
#[derive(Debug, Error)]
#[non_exhaustive]
pub(super) enum RefusedDescriptor {
    #[error("expected a pipe, a regular file or a connected stream socket")]
    Kind,
    #[error("expected a descriptor that is open for reading or writing")]
    Mode,
    #[error("expected a pipe that is open in one direction only, or it would read its own output")]
    BothWays,
    #[error("\"keep\" is not supported for sockets, which cannot be reopened")]
    KeepSocket,
    #[error("cannot open the other end of the pipe for \"keep\", which needs permission and /proc")]
    OtherEnd(#[source] io::Error),
    #[error("cannot examine the descriptor")]
    Look(#[source] io::Error),
}

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Kind {
    Socket,
    Pipe,
    File,
}

/// A descriptor that was accepted.
#[derive(Debug)]
pub(super) struct Descriptor {
    file: OwnedFd,
    kind: Kind,
    reads: bool,
    writes: bool,
    /// With `keep`, a descriptor for both ends of the pipe. While it is open, neither end sees that
    /// the other one has no process.
    _other_end: Option<OwnedFd>,
}

impl Descriptor {
    /// Checks whether the descriptor can be used.
    pub(super) fn examine(file: OwnedFd, keep: Keep) -> Result<Self, RefusedDescriptor> {
        let look = |error: rustix::io::Errno| RefusedDescriptor::Look(error.into());
        let mode = fcntl_getfl(&file).map_err(look)?;
        if mode.contains(OFlags::PATH) {
            return Err(RefusedDescriptor::Mode);
        }
        let kind = match FileType::from_raw_mode(fstat(&file).map_err(look)?.st_mode) {
            FileType::Socket if is_connected_stream(&file) => Kind::Socket,
            FileType::Fifo => Kind::Pipe,
            FileType::RegularFile => Kind::File,
            _ => return Err(RefusedDescriptor::Kind),
        };
        let (reads, writes) = match mode & OFlags::RWMODE {
            OFlags::RDONLY => (true, false),
            OFlags::WRONLY => (false, true),
            OFlags::RDWR => (true, true),
            _ => return Err(RefusedDescriptor::Mode),
        };
        let other_end = match (kind, keep) {
            (Kind::Pipe, _) if reads && writes => return Err(RefusedDescriptor::BothWays),
            (Kind::Pipe, Keep::Yes) => {
                Some(open_both_ends(&file).map_err(RefusedDescriptor::OtherEnd)?)
            }
            (Kind::Socket, Keep::Yes) => return Err(RefusedDescriptor::KeepSocket),
            // A file has no other end, so there is nothing to keep.
            (Kind::File, Keep::Yes) | (_, Keep::No) => None,
        };
        Ok(Self {
            file,
            kind,
            reads,
            writes,
            _other_end: other_end,
        })
    }

    pub(super) const fn reads(&self) -> bool {
        self.reads
    }

    pub(super) const fn writes(&self) -> bool {
        self.writes
    }

    pub(super) fn read(&self, buffer: &mut [u8]) -> io::Result<usize> {
        Ok(match self.kind {
            Kind::Socket => recv(&self.file, buffer, RecvFlags::DONTWAIT)?.0,
            Kind::Pipe | Kind::File => rustix::io::read(&self.file, buffer)?,
        })
    }

    /// Writes some of the bytes. To a pipe, writes only as many as cannot block after a poll.
    pub(super) fn write(&self, bytes: &[u8]) -> io::Result<usize> {
        let written = match self.kind {
            Kind::Socket => send(&self.file, bytes, SendFlags::DONTWAIT | SendFlags::NOSIGNAL)?,
            Kind::Pipe => {
                let certain = bytes.get(..CERTAIN).unwrap_or(bytes);
                rustix::io::write(&self.file, certain)?
            }
            Kind::File => rustix::io::write(&self.file, bytes)?,
        };
        if written == 0 {
            return Err(ErrorKind::WriteZero.into());
        }
        Ok(written)
    }

    /// Ends the written direction of a socket. Pipes and files can only be closed.
    pub(super) fn end_writing(&self) {
        if self.kind == Kind::Socket {
            // This fails if the direction has already ended.
            let _ended = shutdown(&self.file, Shutdown::Write);
        }
    }

    /// Returns whether the descriptor has failed for good, given the events of a poll after which
    /// no byte could be moved.
    ///
    /// On a TCP socket, an error event can also announce a message in the error queue, such as a
    /// time stamp that the process which shares the socket has requested. A poll reports it until
    /// someone takes it, so it is taken here. If there is none, the thread for the other direction
    /// may have taken it, and then the error event has gone.
    pub(super) fn is_broken(&self, events: PollFlags) -> bool {
        events.contains(PollFlags::ERR) && !self.take_note() && self.has_error()
    }

    /// Returns whether a poll reports an error now.
    fn has_error(&self) -> bool {
        let mut fds = [PollFd::new(&self.file, PollFlags::empty())];
        match poll(&mut fds, Some(&Timespec::default())) {
            Ok(_) => fds[0].revents().contains(PollFlags::ERR),
            Err(_) => true,
        }
    }

    /// Takes a message from the error queue of a TCP socket. Returns whether there was one.
    fn take_note(&self) -> bool {
        // A Unix socket ignores the flag and would return data.
        self.is_tcp()
            && recv(
                &self.file,
                &mut [0_u8],
                RecvFlags::ERRQUEUE | RecvFlags::DONTWAIT,
            )
            .is_ok()
    }

    /// Ends a socket immediately after an aborted connection, with a reset if it is TCP. This works
    /// even if the process that passed the socket keeps its own descriptor.
    pub(super) fn abort(&self) {
        if self.kind != Kind::Socket {
            return;
        }
        if self.is_tcp() {
            // Discard unsent bytes, whatever linger time the process has set. Disconnecting then
            // resets the connection.
            let _discards = sockopt::set_socket_linger(&self.file, Some(Duration::ZERO));
            if connect_unspec(&self.file).is_ok() {
                return;
            }
        }
        let _ended = shutdown(&self.file, Shutdown::Both);
    }

    fn is_tcp(&self) -> bool {
        self.kind == Kind::Socket
            && matches!(
                sockopt::socket_protocol(&self.file),
                Ok(Some(ipproto::TCP | ipproto::MPTCP))
            )
    }
}

impl AsFd for Descriptor {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.file.as_fd()
    }
}

fn is_connected_stream(file: &OwnedFd) -> bool {
    sockopt::socket_type(file) == Ok(SocketType::STREAM)
        && getpeername(file).is_ok_and(|peer| peer.is_some())
}

/// Opens a pipe or FIFO for both reading and writing, which does not block. Opening it through its
/// descriptor finds the right one, even if another file has its path now.
fn open_both_ends(pipe: &OwnedFd) -> io::Result<OwnedFd> {
    let path = format!("/proc/self/fd/{}", pipe.as_raw_fd());
    let flags = OFlags::RDWR | OFlags::NONBLOCK | OFlags::CLOEXEC | OFlags::NOCTTY;
    Ok(open(path, flags, Mode::empty())?)
}
