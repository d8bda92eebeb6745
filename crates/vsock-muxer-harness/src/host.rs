// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! A simulated host: backends and streams without descriptors, and the components that use them.
//!
//! The numbers that `as_raw_fd` returns are names, not descriptors: an [`EventLoop`] looks up their
//! readiness. As in a kernel, the lowest free number is used first, so numbers are reused as soon
//! as possible. A stream behaves like a [socket](StreamKind::Socket), with one descriptor and
//! hang-ups, or like a [channel](StreamKind::Channel), with two descriptors and no hang-ups. Every
//! call of a stream can be made to [fail](StreamFault).
//!
//! [`EventLoop`]: crate::sim::EventLoop

mod end;
mod faults;
mod stream;
mod world;

use std::any::Any;
use std::collections::{BTreeMap, VecDeque};
use std::io::{self, ErrorKind};
use std::os::fd::{AsRawFd, RawFd};

use vsock_backend_api::{VsockBackend, VsockBackendType, VsockStream};
use vsock_proto::{MessageFlags, SocketType};

pub use end::{HostEnd, HostRead};
use faults::FaultScript;
pub use faults::StreamFault;
use stream::DeviceEnd;
pub use world::StreamKind;
use world::{Backend, FdUse, PortListener, Shared, TYPE, lock};
pub(crate) use world::{Edges, Polled};

/// The simulated host. See the [module](self). A clone refers to the same host.
#[derive(Clone, Debug, Default)]
pub struct SimHost {
    world: Shared,
}

/// A backend of a [`SimHost`], as seen by its components. A clone refers to the same backend.
#[derive(Clone, Debug)]
pub struct HostBackend {
    world: Shared,
    index: usize,
    kind: StreamKind,
    capacity: usize,
}

/// How a component requests a port of the guest.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub enum RequestForm {
    /// With a line of text, or a first message.
    Text,
    /// Out of band.
    OutOfBand,
}

impl SimHost {
    /// Creates a host without backends.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Creates a backend, and the object to add to a muxer. Its streams hold `capacity` bytes in
    /// each direction.
    #[must_use]
    pub fn backend(
        &self,
        kind: StreamKind,
        capacity: usize,
    ) -> (HostBackend, Box<dyn VsockBackend>) {
        let mut world = lock(&self.world);
        let index = world.backends.len();
        let fd = world.open_fd(FdUse::Backend(index));
        world.backends.push(Backend {
            fd,
            queue: VecDeque::new(),
            listeners: BTreeMap::new(),
            edges: 0,
            accepts: FaultScript::default(),
            gone: false,
        });
        let ours = HostBackend {
            world: Shared::clone(&self.world),
            index,
            kind,
            capacity,
        };
        let theirs = Box::new(DeviceBackend {
            ours: ours.clone(),
            fd,
        });
        (ours, theirs)
    }

    /// Returns the number of open descriptors: those of backends and of the device ends of streams.
    #[must_use]
    pub fn open_fds(&self) -> usize {
        lock(&self.world).open_fds()
    }

    /// Returns the number of connections with at least one open end.
    #[must_use]
    pub fn connections(&self) -> usize {
        lock(&self.world).conns.len()
    }

    pub(crate) fn poll(&self, fd: RawFd) -> Option<Polled> {
        lock(&self.world).poll(fd)
    }

    pub(crate) fn take_closed(&self) -> Vec<RawFd> {
        std::mem::take(&mut lock(&self.world).closed)
    }

    /// Returns how many calls of the device on streams have made progress.
    pub(crate) fn activity(&self) -> u64 {
        lock(&self.world).activity
    }
}

impl HostBackend {
    /// Opens a stream that has transferred nothing. Its first bytes must name the port.
    ///
    /// # Errors
    ///
    /// `ConnectionRefused` if the backend was dropped.
    pub fn connect_stream(&self) -> io::Result<HostEnd> {
        self.open(SocketType::Stream, None)
    }

    /// Requests a port of the guest out of band.
    ///
    /// # Errors
    ///
    /// As for [`connect_stream`](Self::connect_stream).
    pub fn connect_to(&self, port: u32) -> io::Result<HostEnd> {
        self.connect_as(SocketType::Stream, RequestForm::OutOfBand, port)
    }

    /// Opens a connection of any type, and requests a port in either form.
    ///
    /// # Errors
    ///
    /// As for [`connect_stream`](Self::connect_stream).
    pub fn connect_as(
        &self,
        socket_type: SocketType,
        form: RequestForm,
        port: u32,
    ) -> io::Result<HostEnd> {
        if form == RequestForm::OutOfBand {
            return self.open(socket_type, Some(port));
        }
        let end = self.open(socket_type, None)?;
        let line = format!("CONNECT {port}\n");
        match socket_type {
            SocketType::Stream => drop(end.write(line.as_bytes())?),
            SocketType::SeqPacket => {
                end.send(line.as_bytes(), MessageFlags::END_OF_MESSAGE)?;
            }
        }
        Ok(end)
    }

    /// Adds a connection to the backend's queue, with the port if it is requested out of band.
    fn open(&self, socket_type: SocketType, port: Option<u32>) -> io::Result<HostEnd> {
        let mut world = lock(&self.world);
        if world.backends[self.index].gone {
            return Err(ErrorKind::ConnectionRefused.into());
        }
        let id = world.add(self.kind, self.capacity, socket_type);
        if let Some(conn) = world.conns.get_mut(&id) {
            conn.port = port;
        }
        let backend = &mut world.backends[self.index];
        backend.edges += u64::from(backend.queue.is_empty());
        backend.queue.push_back(id);
        drop(world);
        Ok(HostEnd::new(&self.world, id))
    }

    /// Makes a component listen on a port, with streams or messages as the guest requests;
    /// `backlog` connections may wait.
    pub fn listen(&self, port: u32, backlog: usize) {
        let waiting = VecDeque::new();
        let listener = PortListener { backlog, waiting };
        lock(&self.world).backends[self.index]
            .listeners
            .insert(port, listener);
    }

    /// Accepts the next waiting connection.
    #[must_use]
    pub fn accept(&self, port: u32) -> Option<HostEnd> {
        let id = lock(&self.world).backends[self.index]
            .listeners
            .get_mut(&port)?
            .waiting
            .pop_front()?;
        Some(HostEnd::new(&self.world, id))
    }

    /// Makes the `accept` with this index, counted from the first one, fail: with an error, or with
    /// a spurious `WouldBlock`.
    pub fn fail_accept(&self, index: usize, kind: ErrorKind) {
        let fault = match kind {
            ErrorKind::WouldBlock => StreamFault::WouldBlock,
            kind => StreamFault::Error(kind),
        };
        lock(&self.world).backends[self.index]
            .accepts
            .at(index, fault);
    }
}

/// The backend, as seen by the device.
#[derive(Debug)]
struct DeviceBackend {
    ours: HostBackend,
    fd: RawFd,
}

impl DeviceBackend {
    fn open(&self, dst_port: u32, socket_type: SocketType) -> io::Result<Box<dyn VsockStream>> {
        let mut world = lock(&self.ours.world);
        let has_room = world.backends[self.ours.index]
            .listeners
            .get(&dst_port)
            .is_some_and(|listener| listener.waiting.len() < listener.backlog);
        if !has_room {
            return Err(ErrorKind::ConnectionRefused.into());
        }
        let id = world.add(self.ours.kind, self.ours.capacity, socket_type);
        if let Some(listener) = world.backends[self.ours.index].listeners.get_mut(&dst_port) {
            listener.waiting.push_back(id);
        }
        drop(world);
        self.stream(id)
    }

    fn stream(&self, id: usize) -> io::Result<Box<dyn VsockStream>> {
        DeviceEnd::new(&self.ours.world, id)
            .map(|end| Box::new(end) as Box<dyn VsockStream>)
            .ok_or_else(|| ErrorKind::NotConnected.into())
    }
}

impl AsRawFd for DeviceBackend {
    fn as_raw_fd(&self) -> RawFd {
        self.fd
    }
}

impl VsockBackend for DeviceBackend {
    fn accept(&mut self) -> io::Result<Box<dyn VsockStream>> {
        let mut world = lock(&self.ours.world);
        let backend = &mut world.backends[self.ours.index];
        match backend.accepts.next() {
            Some(StreamFault::Error(kind)) => return Err(kind.into()),
            Some(_) => {
                backend.edges += 1;
                return Err(ErrorKind::WouldBlock.into());
            }
            None => {}
        }
        let id = backend.queue.pop_front().ok_or(ErrorKind::WouldBlock)?;
        world.activity += 1;
        drop(world);
        self.stream(id)
    }

    fn connect(&self, dst_port: u32) -> io::Result<Box<dyn VsockStream>> {
        self.open(dst_port, SocketType::Stream)
    }

    fn has_seqpacket(&self) -> bool {
        true
    }

    fn connect_seqpacket(&self, dst_port: u32) -> io::Result<Box<dyn VsockStream>> {
        self.open(dst_port, SocketType::SeqPacket)
    }

    fn r#type(&self) -> VsockBackendType {
        TYPE
    }

    fn as_any(&self) -> &dyn Any {
        self
    }
}

impl Drop for DeviceBackend {
    fn drop(&mut self) {
        let mut world = lock(&self.ours.world);
        let backend = &mut world.backends[self.ours.index];
        backend.gone = true;
        backend.queue.clear();
        let fd = backend.fd;
        world.close_fd(fd);
    }
}
