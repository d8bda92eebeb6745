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
/// Watching is lazy, so that a steady transfer requests nothing of the event loop: once registered,
/// a descriptor stays registered, and the watch is withdrawn only after an event that cannot be
/// used.
///
/// The properties of a stream are queried once, before anything is requested of the event loop: a
/// watched stream outside of the table never runs its own code.
pub(crate) struct HostStream {
    stream: Box<dyn VsockStream>,
    carrier: VsockBackendType,
    socket_type: SocketType,
    token: Token,
    fd: RawFd,
    /// How `fd` is registered.
    watch: Option<Interest>,
    writing: Writing,
    /// Whether the stream was reported readable and no read has yet found it empty.
    readable: bool,
    hangup: Hangup,
    link: Link,
    /// The exchange of credit with the guest at the other end.
    pub(crate) far: FarCredit,
}

/// Whether the host component has accepted the connection.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Link {
    /// The attempt to connect is in progress.
    Pending,
    Up,
    /// The attempt to connect has failed.
    Refused,
}

/// The descriptor that reports that the stream is writable.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Writing {
    /// Not yet queried.
    Unknown,
    /// The stream's only descriptor.
    SameFd,
    /// A separate descriptor, registered for writing.
    Watched(RawFd),
    /// A separate descriptor, registered for hang-ups only.
    Resting(RawFd),
}

/// Whether the peer has gone.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Hangup {
    /// No hang-up was seen.
    Unseen,
    /// A hang-up was seen, but the connection does not know yet.
    Seen,
    /// The connection knows.
    Told,
}

impl HostStream {
    /// Creates the host's end from a stream that the event loop does not watch yet. Until
    /// [`begin_watch`](Self::begin_watch), the stream may be called outside of the table, because a
    /// panic would leave nothing registered.
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

    /// Returns whether the attempt to reach the host component is still in progress.
    pub(crate) const fn is_pending(&self) -> bool {
        matches!(self.link, Link::Pending)
    }

    /// Checks whether the host component has been reached.
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

    /// Starts to watch the stream for reading.
    pub(crate) fn begin_watch(&mut self, actions: &mut VecDeque<Action>) {
        self.set_watch(Interest::READ, actions);
    }

    /// Passes this guest's credit to the other guest's device and reads that guest's credit.
    /// Returns it if it has changed.
    pub(crate) fn exchange_credit(&mut self, ours: Option<VsockCredit>) -> Option<VsockCredit> {
        self.far.exchange(&*self.stream, ours)
    }

    /// Requests an event when the other guest's credit changes.
    ///
    /// # Errors
    ///
    /// The stream has no descriptor for it.
    pub(crate) fn await_credit(&mut self, actions: &mut VecDeque<Action>) -> io::Result<()> {
        self.far.wait(&*self.stream, self.token, actions)
    }

    pub(crate) fn stream(&mut self) -> &mut dyn VsockStream {
        &mut *self.stream
    }

    /// Returns the socket type of the connection that the stream belongs to.
    pub(crate) const fn socket_type(&self) -> SocketType {
        self.socket_type
    }

    /// Records that the stream may be read. Returns whether this is news. If it is not, the event
    /// was useless, and the watch is withdrawn until a read finds nothing.
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

    /// Records that the peer has gone. A second report is useless; because a hang-up cannot be
    /// masked, the descriptor is then unregistered.
    pub(crate) fn note_hangup(&mut self, actions: &mut VecDeque<Action>) {
        if self.hangup == Hangup::Unseen {
            self.hangup = Hangup::Seen;
        } else {
            self.unwatch(actions);
        }
        self.readable = true;
    }

    /// Returns whether the peer has gone, for streams that report it by no event. A socket reports
    /// a hang-up, and a query would be a system call for each event; other streams must be queried.
    pub(crate) fn is_left(&self) -> bool {
        let reports = self.is_socket() || self.carrier == VsockBackendType::HybridStream;
        !reports && self.stream.peer_gone()
    }

    /// Returns whether the peer has gone although no event has reported it yet. On a socket, this
    /// is a system call.
    pub(crate) fn has_left_unseen(&self) -> bool {
        self.hangup == Hangup::Unseen && self.stream.peer_gone()
    }

    /// Returns whether the peer has stopped reading.
    pub(crate) fn peer_stopped_reading(&self) -> bool {
        self.stream.peer_stopped_reading()
    }

    /// Returns whether the stream is a socket without another descriptor, so that dropping it ends
    /// it in an orderly way. A socket that a client has passed may still be open in the client.
    pub(crate) const fn is_socket(&self) -> bool {
        matches!(
            self.carrier,
            VsockBackendType::UnixStream | VsockBackendType::Tcp
        )
    }

    /// Returns whether small payloads should be gathered and written together. A call of a stream
    /// inside the process costs less than a copy; a call of any other stream is a system call.
    pub(crate) fn gathers(&self) -> bool {
        self.carrier != VsockBackendType::Inner
    }

    /// Records the end of what the host has sent. If the peer has gone completely, the descriptor
    /// has no more events to report.
    pub(crate) fn note_end(&mut self, actions: &mut VecDeque<Action>) {
        if self.has_left_unseen() {
            self.hangup = Hangup::Seen;
        }
        if self.hangup != Hangup::Unseen {
            self.unwatch(actions);
        }
    }

    /// Returns, once, whether to tell the connection that the peer has gone.
    pub(crate) fn take_hangup(&mut self) -> bool {
        let owed = self.hangup == Hangup::Seen;
        if owed {
            self.hangup = Hangup::Told;
        }
        owed
    }

    /// Records that a read without an event may have left more bytes.
    pub(crate) const fn assume_readable(&mut self) {
        self.readable = true;
    }

    /// Records that a read has found nothing, so the next event counts again.
    pub(crate) fn note_drained(&mut self, actions: &mut VecDeque<Action>) {
        self.readable = false;
        let watch = self.watch.unwrap_or_default();
        let read = true;
        self.set_watch(Interest { read, ..watch }, actions);
    }

    /// Watches the stream for writing, because bytes wait for it.
    ///
    /// # Errors
    ///
    /// The descriptor for it cannot be created now.
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

    /// Returns whether the stream is already watched for writing with a separate descriptor, so
    /// that only the next edge will report space.
    pub(crate) const fn awaits_edge(&self) -> bool {
        matches!(self.writing, Writing::Watched(_))
    }

    /// Records that nothing waits for the stream. The watch of a socket is withdrawn, because each
    /// of its events would repeat that it is writable. A separate descriptor stays registered until
    /// one of its events [is useless](Self::note_unused_writable).
    pub(crate) fn rest_writing(&mut self, actions: &mut VecDeque<Action>) {
        if self.writing == Writing::SameFd {
            if let Some(watch) = self.watch {
                let write = false;
                self.set_watch(Interest { write, ..watch }, actions);
            }
        }
    }

    /// Handles an event that reports that the stream is writable although nothing waits for it.
    pub(crate) fn note_unused_writable(&mut self, actions: &mut VecDeque<Action>) {
        self.rest_writing(actions);
        if let Writing::Watched(fd) = self.writing {
            self.writing = Writing::Resting(fd);
            self.push_watch(fd, Interest::NONE, actions);
        }
    }

    /// Passes the stream to the event loop, which closes or aborts it.
    pub(crate) fn close(self, mode: CloseMode, actions: &mut VecDeque<Action>) {
        let mode = match mode {
            // Dropping a socket already ends what was written to it, so the extra call is
            // unnecessary.
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
