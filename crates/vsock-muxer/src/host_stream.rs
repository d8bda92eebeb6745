// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

use std::collections::VecDeque;
use std::io::{self, ErrorKind};
use std::os::fd::RawFd;

use vsock_backend_api::{VsockBackendType, VsockCredit, VsockStream};
use vsock_proto::{Interest, SocketType};

use crate::action::{Action, CloseMode, ClosingStream};
use crate::far_credit::FarCredit;
use crate::token::Token;

/// A host's stream, and how the event loop watches it.
///
/// Watching is lazy, so that in the steady flow nothing is said to the event loop: once registered,
/// a descriptor stays so, and only an event that cannot be used takes the watch back.
///
/// What a stream says of itself is asked once, before anything is told to the event loop: a watched
/// stream outside of the table runs no code of its own.
pub(crate) struct HostStream {
    stream: Box<dyn VsockStream>,
    carrier: VsockBackendType,
    socket_type: SocketType,
    token: Token,
    fd: RawFd,
    /// How `fd` is registered.
    watch: Option<Interest>,
    writing: Writing,
    /// The stream was ready to be read, and has not yet refused.
    readable: bool,
    hangup: Hangup,
    link: Link,
    /// Credit of the guest at the other end.
    pub(crate) far: FarCredit,
}

/// Whether the host component has taken the connection.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Link {
    /// It is being reached.
    Pending,
    Up,
    /// It cannot be reached.
    Refused,
}

/// What becomes ready when the stream can be written.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Writing {
    /// Not asked so far.
    Unknown,
    /// The stream's one descriptor.
    SameFd,
    /// A descriptor of its own, registered for writing.
    Watched(RawFd),
    /// A descriptor of its own, registered for nothing.
    Resting(RawFd),
}

/// Whether the other end is gone.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Hangup {
    /// Not that anything has said.
    Unseen,
    /// It was seen, and the connection is still to be told.
    Seen,
    /// And the connection knows.
    Told,
}

impl HostStream {
    /// Takes the stream in, of which the event loop does not know yet: until
    /// [`begin_watch`](Self::begin_watch) it may be called outside of the table, for a panic leaves
    /// nothing registered.
    pub(crate) fn unwatched(mut stream: Box<dyn VsockStream>, token: Token) -> Self {
        Self {
            fd: stream.as_raw_fd(),
            carrier: stream.backend_type(),
            socket_type: match stream.messages() {
                None => SocketType::Stream,
                Some(_) => SocketType::SeqPacket,
            },
            stream,
            token,
            watch: None,
            writing: Writing::Unknown,
            readable: false,
            hangup: Hangup::Unseen,
            link: Link::Up,
            far: FarCredit::default(),
        }
    }

    /// Whether the host component is still being reached.
    pub(crate) const fn is_pending(&self) -> bool {
        matches!(self.link, Link::Pending)
    }

    /// Looks whether the host component has been reached.
    pub(crate) fn finish_connect(&mut self) -> Link {
        self.link = loop {
            break match self.stream.finish_connect().map_err(|error| error.kind()) {
                Ok(()) => Link::Up,
                Err(ErrorKind::Interrupted) => continue,
                Err(ErrorKind::WouldBlock) => Link::Pending,
                Err(_) => Link::Refused,
            };
        };
        self.link
    }

    /// Has the stream watched for reading.
    pub(crate) fn begin_watch(&mut self, actions: &mut VecDeque<Action>) {
        self.set_watch(Interest::READ, actions);
    }

    /// Tells the other guest's device what this guest has told, and looks what that one has;
    /// returns it if it is news.
    pub(crate) fn exchange_credit(&mut self, ours: Option<VsockCredit>) -> Option<VsockCredit> {
        self.far.exchange(&*self.stream, ours)
    }

    /// Has the event loop tell when the other guest's credit changes.
    ///
    /// # Errors
    ///
    /// There is no descriptor for it.
    pub(crate) fn await_credit(&mut self, actions: &mut VecDeque<Action>) -> io::Result<()> {
        self.far.wait(&*self.stream, self.token, actions)
    }

    pub(crate) fn stream(&mut self) -> &mut dyn VsockStream {
        &mut *self.stream
    }

    /// The sort of socket whose host's end the stream is.
    pub(crate) const fn socket_type(&self) -> SocketType {
        self.socket_type
    }

    /// Notes that the stream may be read. Returns whether that is news; if it is not, the event was
    /// of no use, and no other like it shall come until a read has found nothing.
    pub(crate) fn note_readable(&mut self, actions: &mut VecDeque<Action>) -> bool {
        if self.readable {
            if let Some(watch) = self.watch {
                let read = false;
                self.set_watch(Interest { read, ..watch }, actions);
            }
            return false;
        }
        self.readable = true;
        true
    }

    /// Notes that the other end is gone. The second time it is no news: a hang-up cannot be masked,
    /// so the descriptor is unregistered.
    pub(crate) fn note_hangup(&mut self, actions: &mut VecDeque<Action>) {
        if self.hangup == Hangup::Unseen {
            self.hangup = Hangup::Seen;
        } else {
            self.unwatch(actions);
        }
        self.readable = true;
    }

    /// Whether the other end is gone, where no event says so. A socket reports it as a hang-up, and
    /// asking it would be a system call for each event; any other stream can be asked only.
    pub(crate) fn is_left(&self) -> bool {
        let reports = self.is_socket() || self.carrier == VsockBackendType::HybridStream;
        !reports && self.stream.peer_gone()
    }

    /// Whether the other end is gone and no event has said so yet. For a socket it is a system
    /// call.
    pub(crate) fn has_left_unseen(&self) -> bool {
        self.hangup == Hangup::Unseen && self.stream.peer_gone()
    }

    /// Whether the other end has ended its reading.
    pub(crate) fn peer_stopped_reading(&self) -> bool {
        self.stream.peer_stopped_reading()
    }

    /// Whether the stream is a socket of which there is no other descriptor, so that dropping it is
    /// an orderly end. One that a client has passed may still be open there.
    pub(crate) const fn is_socket(&self) -> bool {
        matches!(
            self.carrier,
            VsockBackendType::UnixStream | VsockBackendType::Tcp
        )
    }

    /// Whether small payloads are better written together: a call of a stream inside the process
    /// costs less than copying them, but a call of any other stream is a system call.
    pub(crate) fn gathers(&self) -> bool {
        self.carrier != VsockBackendType::Inner
    }

    /// Notes the end of what the host has sent. If the other end is gone altogether, no event of
    /// the descriptor has anything to tell any more.
    pub(crate) fn note_end(&mut self, actions: &mut VecDeque<Action>) {
        if self.has_left_unseen() {
            self.hangup = Hangup::Seen;
        }
        if self.hangup != Hangup::Unseen {
            self.unwatch(actions);
        }
    }

    /// Whether the connection is to be told, once, that the other end is gone.
    pub(crate) fn take_hangup(&mut self) -> bool {
        let owed = self.hangup == Hangup::Seen;
        if owed {
            self.hangup = Hangup::Told;
        }
        owed
    }

    /// What was read without an event may have left more.
    pub(crate) const fn assume_readable(&mut self) {
        self.readable = true;
    }

    /// A read has found nothing: the next event counts again.
    pub(crate) fn note_drained(&mut self, actions: &mut VecDeque<Action>) {
        self.readable = false;
        let watch = self.watch.unwrap_or_default();
        let read = true;
        self.set_watch(Interest { read, ..watch }, actions);
    }

    /// Has the stream watched for writing, because bytes wait for it.
    ///
    /// # Errors
    ///
    /// The descriptor for it cannot be made now.
    pub(crate) fn watch_writing(&mut self, actions: &mut VecDeque<Action>) -> io::Result<()> {
        if self.writing == Writing::Unknown {
            self.writing = match self.stream.write_ready_fd()? {
                fd if fd == self.fd => Writing::SameFd,
                fd => Writing::Resting(fd),
            };
        }
        match self.writing {
            Writing::SameFd => {
                let watch = self.watch.unwrap_or_default();
                let write = true;
                self.set_watch(Interest { write, ..watch }, actions);
            }
            Writing::Resting(fd) => {
                self.writing = Writing::Watched(fd);
                self.push_watch(fd, Interest::WRITE, actions);
            }
            Writing::Watched(_) | Writing::Unknown => {}
        }
        Ok(())
    }

    /// Whether to watch for writing changes nothing, so that only another edge will tell of space.
    pub(crate) const fn awaits_edge(&self) -> bool {
        matches!(self.writing, Writing::Watched(_))
    }

    /// Nothing waits for the stream. A socket's watch is taken back, because each event of it would
    /// say again that it is writable; a descriptor of its own stays until an event of it
    /// [is of no use](Self::note_unused_writable).
    pub(crate) fn rest_writing(&mut self, actions: &mut VecDeque<Action>) {
        if self.writing == Writing::SameFd {
            if let Some(watch) = self.watch {
                let write = false;
                self.set_watch(Interest { write, ..watch }, actions);
            }
        }
    }

    /// The stream can be written, and nothing waits for it.
    pub(crate) fn note_unused_writable(&mut self, actions: &mut VecDeque<Action>) {
        self.rest_writing(actions);
        if let Writing::Watched(fd) = self.writing {
            self.writing = Writing::Resting(fd);
            self.push_watch(fd, Interest::NONE, actions);
        }
    }

    /// Gives the stream to the event loop, to be closed or aborted.
    pub(crate) fn close(self, mode: CloseMode, actions: &mut VecDeque<Action>) {
        let mode = match mode {
            // What was written to a socket ends with its drop.
            CloseMode::Shutdown if self.is_socket() => CloseMode::Drop,
            mode => mode,
        };
        let write_fd = match self.writing {
            Writing::Watched(fd) | Writing::Resting(fd) => Some(fd),
            Writing::Unknown | Writing::SameFd => None,
        };
        self.far.unwatch(self.token, actions);
        actions.push_back(Action::Close {
            token: self.token,
            fds: [self.watch.map(|_| self.fd), write_fd],
            stream: ClosingStream::new(self.stream, mode),
        });
    }

    fn set_watch(&mut self, interest: Interest, actions: &mut VecDeque<Action>) {
        if self.watch.replace(interest) != Some(interest) {
            self.push_watch(self.fd, interest, actions);
        }
    }

    fn push_watch(&self, fd: RawFd, interest: Interest, actions: &mut VecDeque<Action>) {
        actions.push_back(Action::Watch {
            token: self.token,
            fd,
            interest,
        });
    }

    fn unwatch(&mut self, actions: &mut VecDeque<Action>) {
        if self.watch.take().is_some() {
            actions.push_back(Action::Unwatch {
                token: self.token,
                fd: self.fd,
            });
        }
    }
}
