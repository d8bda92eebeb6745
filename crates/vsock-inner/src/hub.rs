// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! The state that a backend shares with its connectors and listeners.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::io::{self, ErrorKind};
use std::sync::PoisonError;

use thiserror::Error;
use vsock_backend_api::VsockStream;

use crate::backlog::{Backlog, PushError};
use crate::config::{VsockInnerConfig, VsockInnerConfigError};
use crate::connection::Addresses;
use crate::counters::{BackendCounters, Counters, OpenGuard};
use crate::request::Request;
use crate::seqpacket::VsockInnerSeqpacket;
use crate::stream::{Carries, VsockInnerStream};
use crate::sync::{Arc, EventFd, Mutex, MutexGuard};

/// The port that means "any", in virtio and in Linux.
const ANY_PORT: u32 = u32::MAX;

/// Why a connection was refused. As an [`io::Error`] it is `ConnectionRefused`.
#[derive(Clone, Copy, Debug, Eq, Error, PartialEq)]
#[non_exhaustive]
pub enum ConnectError {
    /// The maximum number of connections already wait to be accepted.
    #[error("cannot connect to {to}: backlog full ({limit} connections wait)")]
    BacklogFull {
        /// The intended target.
        to: Target,
        /// The limit.
        limit: usize,
    },
    /// The port has no listener.
    #[error("cannot connect to port {port}: it has no listener")]
    NoListener {
        /// The port of the host.
        port: u32,
    },
    /// The backend, or the listener, has been dropped.
    #[error("cannot connect to {to}: it has been dropped")]
    Dropped {
        /// The intended target.
        to: Target,
    },
}

/// The target of a connection.
#[derive(Clone, Copy, Debug, Eq, Error, PartialEq)]
#[non_exhaustive]
pub enum Target {
    /// The device, which accepts at the backend.
    #[error("the device")]
    Device,
    /// The listener of a port.
    #[error("port {0}")]
    Port(u32),
}

/// Why a port cannot be listened on.
#[derive(Clone, Copy, Debug, Eq, Error, PartialEq)]
#[non_exhaustive]
pub enum ListenError {
    /// The port already has a listener: `AddrInUse`.
    #[error("cannot listen on port {port}: it is already in use")]
    InUse {
        /// The port.
        port: u32,
    },
    /// The port is 0 or `u32::MAX`, which are not usable ports: `InvalidInput`.
    #[error("cannot listen on port {port}: it is reserved; expected 1 to {}", ANY_PORT - 1)]
    Reserved {
        /// The port.
        port: u32,
    },
    /// The backend has been dropped: `ConnectionRefused`.
    #[error("cannot listen on port {port}: the backend has been dropped")]
    Dropped {
        /// The port.
        port: u32,
    },
}

/// The state that a backend shares with its connectors and listeners.
#[derive(Debug)]
pub(crate) struct Hub {
    pub(crate) config: VsockInnerConfig,
    /// Connections that wait for the device.
    pub(crate) backlog: Backlog,
    /// The backlogs of the listeners; `None` after the backend's drop.
    listeners: Mutex<Option<HashMap<u32, Arc<Backlog>>>>,
    counters: Arc<Counters>,
}

impl Hub {
    pub(crate) fn new(config: VsockInnerConfig) -> Result<Self, VsockInnerConfigError> {
        config.check()?;
        Ok(Self {
            config,
            backlog: Backlog::new(config.pending),
            listeners: Mutex::new(Some(HashMap::new())),
            counters: Counters::new(),
        })
    }

    /// Opens a connection from the application to the device, which connects it to `port` of the
    /// guest, if given.
    pub(crate) fn connect_to_device(&self, port: Option<u32>) -> io::Result<VsockInnerStream> {
        self.connect(port, None, &self.config, Carries::Bytes)
    }

    /// Like [`connect_to_device`](Self::connect_to_device), from an address that the device learns.
    pub(crate) fn connect_from(
        &self,
        addresses: Addresses,
        carries: Carries,
    ) -> io::Result<VsockInnerStream> {
        let port = Some(addresses.guest.port);
        let config = match carries {
            Carries::Bytes => self.config,
            Carries::Messages => VsockInnerSeqpacket::config(self.config),
        };
        self.connect(port, Some(addresses), &config, carries)
    }

    fn connect(
        &self,
        port: Option<u32>,
        addresses: Option<Addresses>,
        config: &VsockInnerConfig,
        carries: Carries,
    ) -> io::Result<VsockInnerStream> {
        let to = Target::Device;
        // Openers that have given up make room before the limit is checked.
        self.backlog.drop_given_up();
        let (mut application, mut device) = self.connection(&self.backlog, config, to)?;
        // All of this precedes `push`, because afterwards the device can accept its end at any
        // time.
        device.carries = carries;
        if let Some(addresses) = addresses {
            device.reader.half.connection.set_addresses(addresses);
        }
        if let Some(port) = port {
            device.request = Request::ask(port, &mut application.writer, &mut device.writer);
        }
        let queued = self.backlog.push(device);
        queued.map_err(|refused| self.refuse(refused, to))?;
        Ok(application)
    }

    /// Opens a connection from the device to the listener of `port`, which learns the addresses.
    pub(crate) fn connect_to_listener(
        &self,
        port: u32,
        addresses: Option<Addresses>,
    ) -> io::Result<VsockInnerStream> {
        let to = Target::Port(port);
        let backlog = match &*self.listeners() {
            Some(listeners) => listeners
                .get(&port)
                .map(Arc::clone)
                .ok_or(ConnectError::NoListener { port }),
            None => Err(ConnectError::Dropped { to }),
        };
        let backlog = backlog.map_err(|error| self.count(error))?;
        let (application, device) = self.connection(&backlog, &self.config, to)?;
        if let Some(addresses) = addresses {
            device.reader.half.connection.set_addresses(addresses);
        }
        let queued = backlog.push(application);
        queued.map_err(|refused| self.refuse(refused, to))?;
        Ok(device)
    }

    /// Creates a backlog for the port, and the descriptor of its listener.
    pub(crate) fn listen(&self, port: u32) -> io::Result<(Arc<Backlog>, Arc<EventFd>)> {
        if port == 0 || port == ANY_PORT {
            return Err(ListenError::Reserved { port }.into());
        }
        match self
            .listeners()
            .as_mut()
            .map(|listeners| listeners.entry(port))
        {
            None => Err(ListenError::Dropped { port }.into()),
            Some(Entry::Occupied(_)) => Err(ListenError::InUse { port }.into()),
            Some(Entry::Vacant(free)) => {
                // Create the descriptor last, so that an invalid port is reported even without
                // descriptors.
                let fd = Arc::new(EventFd::new()?);
                let backlog = Arc::new(Backlog::new(self.config.pending));
                Ok((Arc::clone(free.insert(backlog)), fd))
            }
        }
    }

    /// Frees the port, unless the backend's drop has already done so.
    pub(crate) fn stop_listening(&self, port: u32) {
        let backlog = self
            .listeners()
            .as_mut()
            .and_then(|listeners| listeners.remove(&port));
        if let Some(backlog) = backlog {
            backlog.close();
        }
    }

    /// Refuses further connections: the backend is being dropped.
    pub(crate) fn close(&self) {
        self.backlog.close();
        let listeners = self.listeners().take();
        for backlog in listeners.into_iter().flat_map(HashMap::into_values) {
            backlog.close();
        }
    }

    pub(crate) fn counters(&self) -> BackendCounters {
        let at_listeners = self.listeners().as_ref().map_or(0, |listeners| {
            listeners.values().map(|backlog| backlog.len()).sum()
        });
        BackendCounters {
            open: self.counters.open(),
            refused: self.counters.refused(),
            pending: self.backlog.len() + at_listeners,
        }
    }

    /// Creates both ends of a connection, unless the backlog would refuse it.
    fn connection(
        &self,
        backlog: &Backlog,
        config: &VsockInnerConfig,
        to: Target,
    ) -> io::Result<(VsockInnerStream, VsockInnerStream)> {
        let room = backlog.check();
        room.map_err(|refused| self.refuse(refused, to))?;
        let open = OpenGuard::new(&self.counters);
        let (application, mut device) = VsockInnerStream::connection(config, Some(open))?;
        device.set_nonblocking(true)?;
        Ok((application, device))
    }

    fn refuse(&self, refused: PushError, to: Target) -> ConnectError {
        self.count(match refused {
            PushError::Full(limit) => ConnectError::BacklogFull { to, limit },
            PushError::Closed => ConnectError::Dropped { to },
        })
    }

    fn count(&self, error: ConnectError) -> ConnectError {
        self.counters.count_refused();
        error
    }

    fn listeners(&self) -> MutexGuard<'_, Option<HashMap<u32, Arc<Backlog>>>> {
        self.listeners
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }
}

impl From<ConnectError> for io::Error {
    fn from(error: ConnectError) -> Self {
        Self::new(ErrorKind::ConnectionRefused, error)
    }
}

impl From<ListenError> for io::Error {
    fn from(error: ListenError) -> Self {
        let kind = match error {
            ListenError::InUse { .. } => ErrorKind::AddrInUse,
            ListenError::Reserved { .. } => ErrorKind::InvalidInput,
            ListenError::Dropped { .. } => ErrorKind::ConnectionRefused,
        };
        Self::new(kind, error)
    }
}
