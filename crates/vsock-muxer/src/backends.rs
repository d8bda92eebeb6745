// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

use std::collections::{HashMap, HashSet, VecDeque};
use std::io::{self, ErrorKind};
use std::os::fd::RawFd;

use thiserror::Error;
use vsock_backend_api::{ListenerId, VsockAddr, VsockBackend, VsockStream};
use vsock_proto::{Cid, Interest, Port, SocketType};

use crate::action::Action;
use crate::backoff::Backoff;
use crate::busy::Target;
use crate::token::{BackendId, Token};

/// The backends, and the ports that each one serves.
#[derive(Default)]
pub(crate) struct Backends {
    list: Vec<Backend>,
    ports: HashMap<Port, BackendId>,
    /// The backends for all other ports, in the order in which they were added.
    rest: Vec<BackendId>,
    /// The backend for connections with siblings.
    siblings: Option<BackendId>,
}

/// A backend, and how the event loop watches it.
pub(crate) struct Backend {
    pub(crate) backend: Box<dyn VsockBackend>,
    /// The pause after a failure.
    pub(crate) pause: Option<Backoff>,
    fd: RawFd,
    token: Token,
    /// How the descriptor is registered.
    watch: Option<Interest>,
}

/// The connections of the guest that a backend serves.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Serves<'p> {
    /// Connections to these ports only.
    Ports(&'p [u32]),
    /// Connections to every port without its own backend.
    Rest,
    /// Connections to siblings.
    Siblings,
}

impl Backends {
    /// The maximum number of backends in a muxer.
    pub(crate) const MAX: usize = 1024;

    pub(crate) fn add(
        &mut self,
        backend: Box<dyn VsockBackend>,
        serves: Serves<'_>,
    ) -> Result<BackendId, MuxerError> {
        let id = match u32::try_from(self.list.len()) {
            Ok(number) if self.list.len() < Self::MAX => BackendId(number),
            _ => return Err(MuxerError::TooManyBackends { limit: Self::MAX }),
        };
        let ports = match serves {
            Serves::Siblings if self.siblings.is_some() => return Err(MuxerError::SiblingsTaken),
            Serves::Rest | Serves::Siblings => &[],
            Serves::Ports(ports) => ports,
        };
        let mut named = HashSet::new();
        for &port in ports {
            self.check_free(Port::new(port))?;
            if !named.insert(port) {
                return Err(MuxerError::PortTaken { port });
            }
        }
        let fd = backend.as_raw_fd(); // A panic here leaves everything unchanged.
        self.ports
            .extend(ports.iter().map(|&port| (Port::new(port), id)));
        self.list.push(Backend {
            fd,
            backend,
            pause: None,
            token: Token::backend(id),
            watch: None,
        });
        match serves {
            Serves::Rest => self.rest.push(id),
            Serves::Siblings => self.siblings = Some(id),
            Serves::Ports(_) => {}
        }
        Ok(id)
    }

    pub(crate) fn route(&mut self, port: Port, id: BackendId) -> Result<(), MuxerError> {
        if id.index() >= self.list.len() {
            return Err(MuxerError::UnknownBackend);
        }
        self.check_free(port)?;
        self.ports.insert(port, id);
        Ok(())
    }

    fn check_free(&self, port: Port) -> Result<(), MuxerError> {
        if self.ports.contains_key(&port) {
            return Err(MuxerError::PortTaken { port: port.into() });
        }
        Ok(())
    }

    /// Requests a stream from the guest's address to a sibling or to a port of the host. The port's
    /// own backend is asked, or the first one for all other ports; for a seqpacket connection, the
    /// first of those that support it.
    pub(crate) fn connect(
        &self,
        from: VsockAddr,
        target: Target,
    ) -> io::Result<Box<dyn VsockStream>> {
        let backend = self.serving(target).ok_or(ErrorKind::ConnectionRefused)?;
        let to = addr(target.cid, target.port);
        let mut stream = match target.socket_type {
            SocketType::Stream => backend.connect_from(from, to)?,
            SocketType::SeqPacket => backend.connect_seqpacket_from(from, to)?,
        };
        // A stream of the other type would invent message boundaries, or lose them.
        if stream.messages().is_some() != (target.socket_type == SocketType::SeqPacket) {
            return Err(ErrorKind::Unsupported.into());
        }
        Ok(stream)
    }

    /// Returns the listener that [`connect`](Self::connect) would use now, if the backend reports
    /// it.
    pub(crate) fn listener(&self, target: Target) -> Option<ListenerId> {
        if target.cid != Cid::HOST {
            return None;
        }
        self.serving(target)?.listener(target.port.into())
    }

    fn serving(&self, target: Target) -> Option<&dyn VsockBackend> {
        if target.cid != Cid::HOST {
            let siblings = self.list.get(self.siblings?.index());
            return siblings.map(|one| &*one.backend);
        }
        let mut rest = self.rest.iter().filter_map(|id| self.list.get(id.index()));
        let backend = match (self.ports.get(&target.port), target.socket_type) {
            (Some(id), _) => self.list.get(id.index()),
            (None, SocketType::Stream) => rest.next(),
            (None, SocketType::SeqPacket) => rest.find(|one| one.backend.has_seqpacket()),
        };
        backend.map(|one| &*one.backend)
    }

    /// Returns whether any backend serves the guest's seqpacket sockets.
    pub(crate) fn has_seqpacket(&self) -> bool {
        self.list.iter().any(|one| one.backend.has_seqpacket())
    }

    /// Returns whether a backend serves connections with siblings.
    pub(crate) const fn has_siblings(&self) -> bool {
        self.siblings.is_some()
    }

    /// Returns whether this is the backend for connections with siblings.
    pub(crate) fn is_for_siblings(&self, id: BackendId) -> bool {
        self.siblings == Some(id)
    }

    pub(crate) fn get_mut(&mut self, id: BackendId) -> Option<&mut Backend> {
        self.list.get_mut(id.index())
    }

    pub(crate) fn into_inner(self) -> Vec<Box<dyn VsockBackend>> {
        self.list.into_iter().map(|one| one.backend).collect()
    }

    pub(crate) fn iter_mut(&mut self) -> impl Iterator<Item = &mut Backend> {
        self.list.iter_mut()
    }
}

impl Backend {
    pub(crate) fn watch(&mut self, interest: Interest, actions: &mut VecDeque<Action>) {
        if self.watch.replace(interest) == Some(interest) {
            return;
        }
        actions.push_back(Action::Watch {
            token: self.token,
            fd: self.fd,
            interest,
        });
    }

    pub(crate) fn unwatch(&mut self, actions: &mut VecDeque<Action>) {
        self.pause = None;
        if self.watch.take().is_some() {
            actions.push_back(Action::Unwatch {
                token: self.token,
                fd: self.fd,
            });
        }
    }
}

/// An error in the setup of a muxer.
#[derive(Clone, Copy, Debug, Eq, Error, PartialEq)]
#[non_exhaustive]
pub enum MuxerError {
    /// The port already has a backend.
    #[error("port {port} already has a backend")]
    PortTaken {
        /// The port.
        port: u32,
    },
    /// Connections with siblings already have a backend.
    #[error("connections between guests already have a backend")]
    SiblingsTaken,
    /// The backend belongs to another muxer.
    #[error("unknown backend: expected one that was added to this muxer")]
    UnknownBackend,
    /// The muxer has the maximum number of backends.
    #[error("too many backends: expected at most {limit}")]
    TooManyBackends {
        /// The maximum number of backends.
        limit: usize,
    },
}

/// Converts an address to the form that streams and backends use.
pub(crate) fn addr(cid: Cid, port: Port) -> VsockAddr {
    VsockAddr {
        cid: cid.into(),
        port: port.into(),
    }
}
