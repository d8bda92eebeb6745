// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

use std::collections::VecDeque;
use std::io;
use std::os::fd::RawFd;

use vsock_backend_api::{VsockBackendType, VsockStream};
use vsock_proto::SocketType;

use crate::action::Last;
use crate::{Action, Closing, Token};

/// A host's stream, and how the driver watches it.
///
/// Watching is lazy, so that in the steady flow nothing is said to the event loop: once registered,
/// a descriptor stays so, and only an event that cannot be used takes the watch back.
///
/// What a stream says of itself is asked once, before anything is told the driver: who has a link
/// outside of the table that is watched runs no code of the stream's.
pub(crate) struct Link {
    stream: Box<dyn VsockStream>,
    carrier: VsockBackendType,
    socket_type: SocketType,
    token: Token,
    fd: RawFd,
    /// How `fd` is registered.
    watch: Option<Watch>,
    /// What becomes ready for writing, once it was needed: `fd` itself, or another descriptor.
    write_fd: Option<RawFd>,
    /// Whether that other descriptor is registered for writing; `None`: not registered.
    write_watch: Option<bool>,
    /// The stream was ready to be read, and has not yet refused.
    readable: bool,
    /// The other end was seen to be gone.
    hung_up: bool,
    /// And the connection knows.
    hangup_told: bool,
}

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
struct Watch {
    read: bool,
    write: bool,
}

impl Link {
    /// Takes the stream in, and has it watched for reading.
    pub(crate) fn new(
        stream: Box<dyn VsockStream>,
        token: Token,
        actions: &mut VecDeque<Action>,
    ) -> Self {
        let mut link = Self::unwatched(stream, token);
        link.begin_watch(actions);
        link
    }

    /// Takes the stream in, of which the driver does not know yet: until [`begin_watch`](Self::begin_watch)
    /// it may be called outside of the table, for a panic leaves nothing behind.
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
            write_fd: None,
            write_watch: None,
            readable: false,
            hung_up: false,
            hangup_told: false,
        }
    }

    /// Has the stream watched for reading.
    pub(crate) fn begin_watch(&mut self, actions: &mut VecDeque<Action>) {
        self.set_watch(true, false, actions);
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
            if let Some(Watch { write, .. }) = self.watch {
                self.set_watch(false, write, actions);
            }
            return false;
        }
        self.readable = true;
        true
    }

    /// Notes that the other end is gone. The second time it is no news: a hang-up cannot be masked,
    /// so the descriptor is unregistered.
    pub(crate) fn note_hangup(&mut self, actions: &mut VecDeque<Action>) -> bool {
        let news = !self.hung_up;
        if !news {
            self.unwatch(actions);
        }
        self.hung_up = true;
        self.readable = true;
        news
    }

    /// Whether the other end is gone, where no event says so. A socket reports it as a hang-up, and
    /// asking it would be a system call for each event; any other stream can be asked only.
    pub(crate) fn is_left(&self) -> bool {
        let reports = self.is_socket() || self.carrier == VsockBackendType::HybridStream;
        !reports && self.stream.peer_gone()
    }

    /// Whether the other end is gone and no event has said so yet. For a socket it is a system call.
    pub(crate) fn has_left_unseen(&self) -> bool {
        !self.hung_up && self.stream.peer_gone()
    }

    /// Whether the stream is a socket that nobody else has, so that dropping it is an orderly end. One
    /// that a client has passed may still be open there.
    pub(crate) const fn is_socket(&self) -> bool {
        matches!(
            self.carrier,
            VsockBackendType::UnixStream | VsockBackendType::Tcp
        )
    }

    /// Notes the end of what the host has sent. If the other end is gone altogether, no event of the
    /// descriptor has anything to tell any more.
    pub(crate) fn note_end(&mut self, actions: &mut VecDeque<Action>) {
        self.hung_up = self.hung_up || self.stream.peer_gone();
        if self.hung_up {
            self.unwatch(actions);
        }
    }

    /// Whether the connection is to be told, once, that the other end is gone. Not while it `reads` on:
    /// that comes to the end, and then one SHUTDOWN says what an end and a hang-up would say in two.
    pub(crate) const fn owes_hangup(&mut self, reads: bool) -> bool {
        let owes = self.hung_up && !self.hangup_told && !reads;
        self.hangup_told |= owes;
        owes
    }

    /// What was read behind the event loop's back may have left more.
    pub(crate) const fn assume_readable(&mut self) {
        self.readable = true;
    }

    /// A read has found nothing: the next event counts again.
    pub(crate) fn note_drained(&mut self, actions: &mut VecDeque<Action>) {
        self.readable = false;
        if !self.watch.is_some_and(|watch| watch.read) {
            let write = self.watch.is_some_and(|watch| watch.write);
            self.set_watch(true, write, actions);
        }
    }

    /// Has the stream watched for writing, because bytes wait for it.
    ///
    /// # Errors
    ///
    /// The descriptor for it cannot be made now.
    pub(crate) fn watch_writing(&mut self, actions: &mut VecDeque<Action>) -> io::Result<()> {
        let write_fd = match self.write_fd {
            Some(fd) => fd,
            None => *self.write_fd.insert(self.stream.write_ready_fd()?),
        };
        if write_fd == self.fd {
            let read = self.watch.is_some_and(|watch| watch.read);
            self.set_watch(read, true, actions);
        } else if self.write_watch != Some(true) {
            self.set_write_watch(write_fd, true, actions);
        }
        Ok(())
    }

    /// Whether to watch for writing changes nothing, so that only another edge will tell of space.
    pub(crate) fn awaits_edge(&self) -> bool {
        self.write_watch == Some(true)
    }

    /// Nothing waits for the stream. A socket's watch is taken back, because each event of it would
    /// say again that it is writable; a descriptor of its own stays until it has said so in vain.
    pub(crate) fn rest_writing(&mut self, in_vain: bool, actions: &mut VecDeque<Action>) {
        match self.write_fd {
            None => {}
            Some(fd) if fd == self.fd => {
                if let Some(Watch { read, write: true }) = self.watch {
                    self.set_watch(read, false, actions);
                }
            }
            Some(fd) if in_vain && self.write_watch == Some(true) => {
                self.set_write_watch(fd, false, actions);
            }
            Some(_) => {}
        }
    }

    /// Gives the stream to the driver, to be closed or aborted.
    pub(crate) fn close(self, last: Last, actions: &mut VecDeque<Action>) {
        let last = match last {
            // What was written to a socket ends with its drop.
            Last::End if self.is_socket() => Last::Drop,
            last => last,
        };
        actions.push_back(Action::Close {
            token: self.token,
            fds: [
                self.watch.map(|_| self.fd),
                self.write_watch.and(self.write_fd),
            ],
            stream: Closing::by(self.stream, last),
        });
    }

    fn set_watch(&mut self, read: bool, write: bool, actions: &mut VecDeque<Action>) {
        let watch = Some(Watch { read, write });
        if self.watch == watch {
            return;
        }
        self.watch = watch;
        actions.push_back(Action::Watch {
            token: self.token,
            fd: self.fd,
            read,
            write,
        });
    }

    fn set_write_watch(&mut self, fd: RawFd, write: bool, actions: &mut VecDeque<Action>) {
        self.write_watch = Some(write);
        actions.push_back(Action::Watch {
            token: self.token,
            fd,
            read: false,
            write,
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
