// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! The state of the simulated host: names of descriptors, connections, listeners.

use std::collections::{BTreeMap, VecDeque};
use std::os::fd::RawFd;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use vsock_backend_api::VsockBackendType;
use vsock_muxer::Readiness;
use vsock_proto::{MessageFlags, SocketType};

use super::faults::FaultScript;

/// The number of the first descriptor. It is only a name: nothing is open.
const FIRST_FD: RawFd = 1000;

/// The type of every simulated backend and stream.
pub(super) const TYPE: VsockBackendType = VsockBackendType::Other("simulated");

/// The state of the host, as its backends and both ends of its streams hold it.
pub(super) type Shared = Arc<Mutex<World>>;

/// A panic of another holder is that test's failure, not ours.
pub(super) fn lock(world: &Shared) -> MutexGuard<'_, World> {
    world.lock().unwrap_or_else(PoisonError::into_inner)
}

/// How a simulated stream can be watched.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub enum StreamKind {
    /// As a Unix socket: one descriptor for both directions, which hangs up.
    Socket,
    /// As an in-process channel: a second descriptor for writing, and no hang-up.
    Channel,
}

/// What a simulated descriptor belongs to.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum FdUse {
    Backend(usize),
    /// The stream's descriptor.
    Stream(usize),
    /// The descriptor that tells when a stream with two of them can be written.
    Writing(usize),
}

/// How ready a descriptor is, and how often it has become so.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub(crate) struct Polled {
    pub(crate) ready: Readiness,
    pub(crate) edges: Edges,
}

/// How often each kind of readiness has come.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub(crate) struct Edges {
    pub(crate) read: u64,
    pub(crate) write: u64,
    pub(crate) hangup: u64,
}

/// How far the writer of a direction is.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub(crate) enum Writer {
    #[default]
    Open,
    /// It will write no more.
    Ended,
    /// It has left without an end.
    Broken,
}

/// One direction of a connection.
#[derive(Debug, Default)]
pub(crate) struct Pipe {
    pub(crate) bytes: VecDeque<u8>,
    /// The messages that they are, if they are any: how long each is, and how it ends.
    pub(crate) messages: VecDeque<(usize, MessageFlags)>,
    pub(crate) capacity: usize,
    pub(crate) writer: Writer,
    /// The reader will read no more.
    pub(crate) deaf: bool,
}

impl Pipe {
    /// The writer ends, if it has not ended or broken off.
    pub(crate) fn end(&mut self) {
        if self.writer == Writer::Open {
            self.writer = Writer::Ended;
        }
    }

    /// Whether a write would be refused for good.
    pub(crate) fn is_closed(&self) -> bool {
        self.deaf || self.writer != Writer::Open
    }

    pub(crate) fn readable(&self) -> bool {
        !self.is_empty() || self.writer != Writer::Open || self.deaf
    }

    /// Bytes that still fit; a message costs one more than its own.
    pub(crate) fn room(&self) -> usize {
        let used = self.bytes.len() + self.messages.len();
        self.capacity.saturating_sub(used)
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.bytes.is_empty() && self.messages.is_empty()
    }

    pub(crate) fn clear(&mut self) {
        self.bytes.clear();
        self.messages.clear();
    }

    /// Adds a message, which as in a Unix socket has room if there is any.
    pub(crate) fn push(
        &mut self,
        message: impl IntoIterator<Item = u8>,
        end: MessageFlags,
    ) -> bool {
        if self.room() == 0 {
            return false;
        }
        let before = self.bytes.len();
        self.bytes.extend(message);
        self.messages.push_back((self.bytes.len() - before, end));
        true
    }

    /// Takes the next message out.
    pub(crate) fn pop(&mut self) -> Option<(Vec<u8>, MessageFlags)> {
        let (len, end) = self.messages.pop_front()?;
        Some((self.bytes.drain(..len).collect(), end))
    }

    pub(crate) fn writable(&self) -> bool {
        self.room() > 0 || self.deaf || self.writer == Writer::Ended
    }
}

#[derive(Debug)]
pub(crate) struct Conn {
    pub(crate) kind: StreamKind,
    pub(crate) socket_type: SocketType,
    pub(crate) to_device: Pipe,
    pub(crate) to_host: Pipe,
    pub(crate) fd: RawFd,
    pub(crate) write_fd: Option<RawFd>,
    pub(crate) device_gone: bool,
    pub(crate) host_gone: bool,
    pub(crate) edges: Edges,
    pub(crate) reads: FaultScript,
    pub(crate) writes: FaultScript,
    /// The port that was named out of band.
    pub(crate) port: Option<u32>,
}

impl Conn {
    pub(crate) fn readiness(&self) -> Readiness {
        Readiness {
            readable: self.to_device.readable(),
            writable: self.to_host.writable(),
            hangup: self.host_gone,
        }
    }

    /// Does something, and counts what has become ready by it.
    pub(crate) fn changing<T>(&mut self, change: impl FnOnce(&mut Self) -> T) -> T {
        let before = self.readiness();
        let result = change(self);
        let after = self.readiness();
        self.edges.read += u64::from(after.readable && !before.readable);
        self.edges.write += u64::from(after.writable && !before.writable);
        self.edges.hangup += u64::from(after.hangup && !before.hangup);
        // An end is an event of its own, also while bytes wait.
        if self.to_device.writer != Writer::Open && after.hangup != before.hangup {
            self.edges.read += 1;
        }
        result
    }
}

#[derive(Debug)]
pub(crate) struct PortListener {
    pub(crate) backlog: usize,
    pub(crate) waiting: VecDeque<usize>,
}

#[derive(Debug)]
pub(crate) struct Backend {
    pub(crate) fd: RawFd,
    pub(crate) queue: VecDeque<usize>,
    pub(crate) listeners: BTreeMap<u32, PortListener>,
    pub(crate) edges: u64,
    /// Accepts and connects that fail, from the next one on.
    pub(crate) accepts: FaultScript,
    pub(crate) gone: bool,
}

#[derive(Debug, Default)]
pub(crate) struct World {
    pub(crate) conns: BTreeMap<usize, Conn>,
    pub(crate) backends: Vec<Backend>,
    next_conn: usize,
    fds: BTreeMap<RawFd, FdUse>,
    /// Descriptors that were closed since this was last taken.
    pub(crate) closed: Vec<RawFd>,
    /// Calls on streams that made progress, of any kind.
    pub(crate) activity: u64,
}

impl World {
    /// The lowest free number, as a kernel gives it: so numbers are used again immediately.
    pub(crate) fn open_fd(&mut self, of: FdUse) -> RawFd {
        let mut fd = FIRST_FD;
        for used in self.fds.keys() {
            if *used != fd {
                break;
            }
            fd += 1;
        }
        self.fds.insert(fd, of);
        fd
    }

    pub(crate) fn close_fd(&mut self, fd: RawFd) {
        self.fds.remove(&fd);
        self.closed.push(fd);
    }

    pub(crate) fn open_fds(&self) -> usize {
        self.fds.len()
    }

    pub(crate) fn add(
        &mut self,
        kind: StreamKind,
        capacity: usize,
        socket_type: SocketType,
    ) -> usize {
        let id = self.next_conn;
        self.next_conn += 1;
        let pipe = || Pipe {
            capacity,
            ..Pipe::default()
        };
        let conn = Conn {
            kind,
            socket_type,
            to_device: pipe(),
            to_host: pipe(),
            fd: self.open_fd(FdUse::Stream(id)),
            write_fd: None,
            device_gone: false,
            host_gone: false,
            edges: Edges::default(),
            reads: FaultScript::default(),
            writes: FaultScript::default(),
            port: None,
        };
        self.conns.insert(id, conn);
        id
    }

    /// Both ends are gone: nothing of the connection is left.
    pub(crate) fn bury(&mut self, id: usize) {
        if self
            .conns
            .get(&id)
            .is_some_and(|conn| conn.device_gone && conn.host_gone)
        {
            self.conns.remove(&id);
        }
    }

    /// How ready a descriptor is; `None` if no such descriptor is open.
    pub(crate) fn poll(&self, fd: RawFd) -> Option<Polled> {
        Some(match *self.fds.get(&fd)? {
            FdUse::Backend(index) => {
                let backend = self.backends.get(index)?;
                Polled {
                    ready: Readiness {
                        readable: !backend.queue.is_empty(),
                        ..Readiness::default()
                    },
                    edges: Edges {
                        read: backend.edges,
                        ..Edges::default()
                    },
                }
            }
            FdUse::Stream(id) => {
                let conn = self.conns.get(&id)?;
                let mut polled = Polled {
                    ready: conn.readiness(),
                    edges: conn.edges,
                };
                if conn.kind == StreamKind::Channel {
                    // An eventfd can always be written, and knows of no hang-up.
                    polled.ready.writable = true;
                    polled.ready.hangup = false;
                    polled.edges.hangup = 0;
                    polled.edges.write = 0;
                }
                polled
            }
            FdUse::Writing(id) => {
                let conn = self.conns.get(&id)?;
                Polled {
                    ready: Readiness {
                        writable: conn.readiness().writable,
                        ..Readiness::default()
                    },
                    edges: Edges {
                        write: conn.edges.write,
                        ..Edges::default()
                    },
                }
            }
        })
    }
}
