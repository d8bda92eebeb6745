// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! What was passed, and how it is read and written. Every call here may wait for as long as the
//! process that has passed it likes.

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

/// Bytes for which a pipe with room has room for sure (`PIPE_BUF`): a write of more may wait though
/// a poll has said that there is room.
const CERTAIN: usize = 4096;

/// Why a descriptor does not become a stream.
#[derive(Debug, Error)]
#[non_exhaustive]
pub(super) enum RefusedDescriptor {
    #[error("expected a pipe, a regular file or a connected stream socket")]
    Kind,
    #[error("expected a descriptor that is open for reading or for writing")]
    Mode,
    #[error(
        "expected a pipe that is open for one direction: with both it reads what it has written"
    )]
    BothWays,
    #[error("expected no \"keep\" with a socket: it cannot be opened again")]
    KeepSocket,
    #[error(
        "the other end of a pipe cannot be opened, for \"keep\"; expected its permissions and /proc"
    )]
    OtherEnd(#[source] io::Error),
    #[error("the descriptor cannot be looked at")]
    Look(#[source] io::Error),
}

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Kind {
    Socket,
    Pipe,
    File,
}

/// A descriptor that becomes a stream.
#[derive(Debug)]
pub(super) struct Descriptor {
    file: OwnedFd,
    kind: Kind,
    reads: bool,
    writes: bool,
    /// Both ends of the pipe, so that neither side of it ends for want of a process at the other.
    _other_end: Option<OwnedFd>,
}

impl Descriptor {
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
            // A file has no other end that could be closed.
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

    /// Writes some of the bytes: to a pipe only as many as fit for sure where there is room.
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

    /// Shows the other side the end of what is written, if that can be done before a close.
    pub(super) fn end_writing(&self) {
        if self.kind == Kind::Socket {
            // What has ended already needs no end.
            let _ended = shutdown(&self.file, Shutdown::Write);
        }
    }

    /// Whether these events of a poll, after which no byte could be moved, say that none will be.
    ///
    /// An error may also be a note to the process that keeps the socket, as of a time stamp that it
    /// has asked for. A poll reports that until it is taken, so it is taken here. If there is none,
    /// the thread for the other direction may have taken it: then the error is gone.
    pub(super) fn is_broken(&self, events: PollFlags) -> bool {
        events.contains(PollFlags::ERR) && !self.take_note() && self.has_error()
    }

    /// Whether a poll reports an error now.
    fn has_error(&self) -> bool {
        let mut fds = [PollFd::new(&self.file, PollFlags::empty())];
        match poll(&mut fds, Some(&Timespec::default())) {
            Ok(_) => fds[0].revents().contains(PollFlags::ERR),
            Err(_) => true,
        }
    }

    /// Takes a note from the queue for errors of a TCP socket. Whether there was one.
    fn take_note(&self) -> bool {
        // A Unix socket does not know the flag, and would give bytes.
        self.is_tcp()
            && recv(
                &self.file,
                &mut [0_u8],
                RecvFlags::ERRQUEUE | RecvFlags::DONTWAIT,
            )
            .is_ok()
    }

    /// Ends a socket immediately, by a reset where there is such a thing, for a connection that was
    /// broken off: also where the process that has passed it keeps its own descriptor.
    pub(super) fn abort(&self) {
        if self.kind != Kind::Socket {
            return;
        }
        if self.is_tcp() {
            // What is not sent is discarded then, however long the socket is to linger.
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

/// Opens a pipe or FIFO for reading and writing, which never waits. The file that was passed says
/// which one, whatever has its path by now.
fn open_both_ends(pipe: &OwnedFd) -> io::Result<OwnedFd> {
    let path = format!("/proc/self/fd/{}", pipe.as_raw_fd());
    let flags = OFlags::RDWR | OFlags::NONBLOCK | OFlags::CLOEXEC | OFlags::NOCTTY;
    Ok(open(path, flags, Mode::empty())?)
}
