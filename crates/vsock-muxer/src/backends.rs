// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

use std::collections::{HashMap, VecDeque};
use std::os::fd::RawFd;

use vsock_backend_api::VsockBackend;
use vsock_proto::Port;

use crate::backoff::Backoff;
use crate::{Action, BackendId, MuxerError, Token};

/// The backends, and which of them has which port.
#[derive(Default)]
pub(crate) struct Backends {
    list: Vec<Backend>,
    ports: HashMap<Port, BackendId>,
}

/// A backend, and how the driver watches it.
pub(crate) struct Backend {
    pub(crate) backend: Box<dyn VsockBackend>,
    /// The pause after a failure.
    pub(crate) pause: Option<Backoff>,
    fd: RawFd,
    token: Token,
    /// Whether its descriptor is registered for reading; `None`: not registered.
    watch: Option<bool>,
}

impl Backends {
    /// No muxer takes more.
    pub(crate) const MAX: usize = 1024;

    pub(crate) fn add(&mut self, backend: Box<dyn VsockBackend>) -> Result<BackendId, MuxerError> {
        let id = match u32::try_from(self.list.len()) {
            Ok(number) if self.list.len() < Self::MAX => BackendId(number),
            _ => return Err(MuxerError::TooManyBackends { limit: Self::MAX }),
        };
        self.list.push(Backend {
            fd: backend.as_raw_fd(),
            backend,
            pause: None,
            token: Token::backend(id),
            watch: None,
        });
        Ok(id)
    }

    pub(crate) fn route(&mut self, port: Port, id: BackendId) -> Result<(), MuxerError> {
        if id.index() >= self.list.len() {
            return Err(MuxerError::UnknownBackend);
        }
        if self.ports.contains_key(&port) {
            return Err(MuxerError::PortTaken { port: port.into() });
        }
        self.ports.insert(port, id);
        Ok(())
    }

    /// The backend for a port: its own, or the first.
    pub(crate) fn for_port(&self, port: Port) -> Option<&dyn VsockBackend> {
        let index = self.ports.get(&port).map_or(0, |id| id.index());
        self.list.get(index).map(|backend| &*backend.backend)
    }

    pub(crate) fn get_mut(&mut self, id: BackendId) -> Option<&mut Backend> {
        self.list.get_mut(id.index())
    }

    pub(crate) fn iter_mut(&mut self) -> impl Iterator<Item = &mut Backend> {
        self.list.iter_mut()
    }
}

impl Backend {
    pub(crate) fn watch(&mut self, read: bool, actions: &mut VecDeque<Action>) {
        if self.watch == Some(read) {
            return;
        }
        self.watch = Some(read);
        actions.push_back(Action::Watch {
            token: self.token,
            fd: self.fd,
            read,
            write: false,
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
