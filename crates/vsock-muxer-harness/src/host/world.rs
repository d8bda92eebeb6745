// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! The state of the simulated host: descriptor names, connections and listeners.

use std::collections::{BTreeMap, VecDeque};
use std::os::fd::RawFd;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use vsock_backend_api::VsockBackendType;
use vsock_muxer::Readiness;
use vsock_proto::{MessageFlags, SocketType};

use super::faults::FaultScript;

/// The number of the first descriptor. It is only a name: no descriptor is open.
const FIRST_FD: RawFd = 1000;

/// The type of every simulated backend and stream.
pub(super) const TYPE: VsockBackendType = VsockBackendType::Other("simulated");

/// The state of the host, shared by its backends and both ends of its streams.
pub(super) type Shared = Arc<Mutex<World>>;

/// Locks the state. If another holder has panicked, its own test reports that.
pub(super) fn lock(world: &Shared) -> MutexGuard<'_, World> {
    world.lock().unwrap_or_else(PoisonError::into_inner)
}

/// How a simulated stream can be watched.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub enum StreamKind {
    /// Like a Unix socket: one descriptor for both directions, with hang-ups.
    Socket,
    /// Like an in-process channel: a second descriptor for writing, and no hang-ups.
    Channel,
}

/// The owner of a simulated descriptor.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum FdUse {
    Backend(usize),
    /// The stream's descriptor.
    Stream(usize),
    /// The descriptor that reports when a stream with two descriptors is writable.
    Writing(usize),
}

/// The readiness of a descriptor, and how many times it has become ready.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub(crate) struct Polled {
    pub(crate) ready: Readiness,
    pub(crate) edges: Edges,
}

/// How many times each kind of readiness has begun.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub(crate) struct Edges {
    pub(crate) read: u64,
    pub(crate) write: u64,
    pub(crate) hangup: u64,
}

/// The state of the writer of a direction.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub(crate) enum Writer {
    #[default]
    Open,
    /// The writer will write no more.
    Ended,
    /// The writer has left without an end.
    Broken,
}

/// One direction of a connection.
#[derive(Debug, Default)]
pub(crate) struct Pipe {
    pub(crate) bytes: VecDeque<u8>,
    /// The messages that the bytes belong to, on a seqpacket connection: the length and end of
    /// each.
    pub(crate) messages: VecDeque<(usize, MessageFlags)>,
    pub(crate) capacity: usize,
    pub(crate) writer: Writer,
    /// Whether the reader will read no more.
    pub(crate) deaf: bool,
}

impl Pipe {
    /// Ends the writing, unless it has already ended or was broken off.
    pub(crate) fn end(&mut self) {
        if self.writer == Writer::Open {
            self.writer = Writer::Ended;
        }
    }

    /// Returns whether every write would be refused.
    pub(crate) fn is_closed(&self) -> bool {
        self.deaf || self.writer != Writer::Open
    }

    pub(crate) fn readable(&self) -> bool {
        !self.is_empty() || self.writer != Writer::Open || self.deaf
    }

    /// Returns how many bytes still fit. A message costs one byte more than its length.
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

    /// Adds a message. As in a Unix socket, a message of any length fits if there is any room.
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

    /// Removes the next message.
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
    /// The port that was requested out of band.
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

    /// Makes a change, and counts the kinds of readiness that begin with it.
    pub(crate) fn changing<T>(&mut self, change: impl FnOnce(&mut Self) -> T) -> T {
        let before = self.readiness();
        let result = change(self);
        let after = self.readiness();
        self.edges.read += u64::from(after.readable && !before.readable);
        self.edges.write += u64::from(after.writable && !before.writable);
        self.edges.hangup += u64::from(after.hangup && !before.hangup);
        // An end is an event of its own, even while bytes wait.
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
    /// The faults of coming accepts.
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
    /// How many calls on streams have made progress.
    pub(crate) activity: u64,
}

impl World {
    /// Opens the lowest free number, as a kernel does, so that numbers are reused immediately.
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

    /// Removes the connection if both ends were dropped.
    pub(crate) fn bury(&mut self, id: usize) {
        if self
            .conns
            .get(&id)
            .is_some_and(|conn| conn.device_gone && conn.host_gone)
        {
            self.conns.remove(&id);
        }
    }

    /// Returns the readiness of a descriptor, or `None` if it is not open.
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
                    // An eventfd is always writable, and reports no hang-up.
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
