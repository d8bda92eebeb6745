// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

mod accept;
mod batch;
mod client_gone;
mod connecting;
mod guest_side;
mod host_side;
mod inspect;
mod messages;
mod pause;
mod retry;
mod review;
mod rx;
mod shutdown;
mod siblings;
mod time;
mod unwind;

use std::collections::VecDeque;
use std::fmt;
use std::sync::Arc;

use vsock_backend_api::VsockBackend;
use vsock_proto::{Config, GuestCid, Interest, Phase, Port, Route, SocketTypes, Tick};

use crate::action::Action;
use crate::backends::{Backends, MuxerError, Serves};
use crate::busy::Busy;
use crate::connection_info::Births;
use crate::counters::MuxerCounters;
use crate::entry::Entry;
use crate::ports::PortAllocator;
use crate::refusal::RecentRefusals;
use crate::rxq::RxQueue;
use crate::slot::Slot;
use crate::state::{MuxerState, StateVersionError};
use crate::table::Table;
use crate::timers::Timers;
use crate::token::BackendId;
use crate::unsent::MessageBuffer;
use crate::waiting::Waiting;

/// The state of a muxer between two resets.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Life {
    /// The driver is not ready.
    Inactive,
    Active,
    /// The guest is paused.
    Paused,
    /// The guest is being told that its connections are closed; no new ones begin.
    ShuttingDown,
}

/// The connections of one guest. The [crate documentation](crate) explains how to drive a muxer.
///
/// If a stream, a backend or the guest's side panics during a call, the panic propagates and every
/// connection ends as it does in a [`reset`](Self::reset). The muxer can then be
/// [activated](Self::activate) again.
pub struct Muxer {
    guest: GuestCid,
    config: Arc<Config>,
    life: Life,
    types: SocketTypes,
    route: Route,
    backends: Backends,
    table: Table,
    /// Clients whose command is incomplete.
    waiting: Waiting,
    /// Connections that wait for a busy host component.
    busy: Busy,
    ports: PortAllocator,
    rxq: RxQueue,
    /// Connections that may hold payload of the current batch that was not yet offered to their
    /// streams. Each is listed once.
    batch: Vec<Slot>,
    message_buffer: MessageBuffer,
    /// Deadlines of connections and handshakes.
    timers: Timers,
    /// When each backend is asked for clients again.
    accept_timers: Timers,
    actions: VecDeque<Action>,
    births: Births,
    counters: MuxerCounters,
    refusals: RecentRefusals,
}

impl Muxer {
    /// The maximum number of backends.
    pub const MAX_BACKENDS: usize = Backends::MAX;

    /// Creates an inactive muxer without backends.
    #[must_use]
    pub fn new(guest: GuestCid, config: Config) -> Self {
        Self {
            guest,
            life: Life::Inactive,
            types: SocketTypes::STREAM,
            route: Route::to_guest(guest, SocketTypes::STREAM),
            backends: Backends::default(),
            table: Table::default(),
            waiting: Waiting::default(),
            busy: Busy::default(),
            ports: PortAllocator::new(config.host_ports()),
            rxq: RxQueue::new(config.max_resets()),
            batch: Vec::new(),
            message_buffer: MessageBuffer::default(),
            timers: Timers::new(),
            accept_timers: Timers::new(),
            actions: VecDeque::new(),
            births: Births::default(),
            counters: MuxerCounters::default(),
            refusals: RecentRefusals::default(),
            config: Arc::new(config),
        }
    }

    /// Returns the guest's CID.
    #[must_use]
    pub const fn guest_cid(&self) -> GuestCid {
        self.guest
    }

    /// Returns the configuration.
    #[must_use]
    pub fn config(&self) -> &Config {
        &self.config
    }

    /// Adds a backend for host-initiated connections, and for guest connections to every port
    /// without its own backend.
    ///
    /// If several backends are added in this way, the first one serves these guest connections.
    /// Seqpacket connections go to the first one that [supports them](VsockBackend::has_seqpacket).
    ///
    /// # Errors
    ///
    /// [`MuxerError::TooManyBackends`] if there are [`MAX_BACKENDS`](Self::MAX_BACKENDS) already.
    pub fn add_backend(&mut self, backend: Box<dyn VsockBackend>) -> Result<BackendId, MuxerError> {
        let id = self.backends.add(backend, Serves::Rest)?;
        self.watch_added(id);
        Ok(id)
    }

    /// Adds a backend for host-initiated connections, and for guest connections to these ports
    /// only. More ports can be [routed](Self::route_port) to it later.
    ///
    /// # Errors
    ///
    /// [`MuxerError::PortTaken`] if a port already has a backend, and the errors of
    /// [`add_backend`](Self::add_backend). The muxer is then unchanged.
    pub fn add_backend_for(
        &mut self,
        backend: Box<dyn VsockBackend>,
        ports: &[u32],
    ) -> Result<BackendId, MuxerError> {
        let id = self.backends.add(backend, Serves::Ports(ports))?;
        self.watch_added(id);
        Ok(id)
    }

    /// Adds the backend for connections between this guest and other guests.
    ///
    /// Without one, a REQUEST to any CID except the host's is answered with an RST, and other
    /// packets to such a CID are dropped.
    ///
    /// The backend receives the guest's connections to every valid guest CID except the guest's
    /// own, through [`connect_from`](VsockBackend::connect_from) or
    /// [`connect_seqpacket_from`](VsockBackend::connect_seqpacket_from), and decides by both
    /// addresses. If it returns a stream before the other guest has answered, the stream reports
    /// the answer ([`finish_connect`]).
    ///
    /// If the backend [accepts](VsockBackend::accept) a stream that names its port
    /// ([`requested_port`]) and whose [`peer`] has the CID of another guest, the connection comes
    /// from that address: packets to the guest carry it, and no port of the host is used. If the
    /// guest already has a connection with the same address and port, the new one is refused. Other
    /// streams of the backend come from the host.
    ///
    /// # Errors
    ///
    /// [`MuxerError::SiblingsTaken`] if there is such a backend already, and the errors of
    /// [`add_backend`](Self::add_backend).
    ///
    /// [`finish_connect`]: vsock_backend_api::VsockStream::finish_connect
    /// [`requested_port`]: vsock_backend_api::VsockStream::requested_port
    /// [`peer`]: vsock_backend_api::VsockStream::peer
    pub fn add_sibling_backend(
        &mut self,
        backend: Box<dyn VsockBackend>,
    ) -> Result<BackendId, MuxerError> {
        let id = self.backends.add(backend, Serves::Siblings)?;
        self.set_route();
        self.watch_added(id);
        Ok(id)
    }

    /// Updates the route after a change of the negotiated features or of the backends.
    fn set_route(&mut self) {
        let route = Route::to_guest(self.guest, self.types);
        self.route = if self.backends.has_siblings() {
            route.to_guests_too()
        } else {
            route
        };
    }

    fn watch_added(&mut self, id: BackendId) {
        if self.life == Life::Active {
            if let Some(backend) = self.backends.get_mut(id) {
                backend.watch(Interest::READ, &mut self.actions);
            }
        }
    }

    /// Routes the guest's connections to `port` to a backend.
    ///
    /// # Errors
    ///
    /// [`MuxerError::PortTaken`] if the port already has a backend, and
    /// [`MuxerError::UnknownBackend`] if the backend belongs to another muxer.
    pub fn route_port(&mut self, port: u32, backend: BackendId) -> Result<(), MuxerError> {
        self.backends.route(Port::new(port), backend)
    }

    /// [Resets](Self::reset) the muxer and removes every backend and its ports.
    ///
    /// Counters are kept, and other backends can be added before the next
    /// [`activate`](Self::activate). Every [`BackendId`] becomes invalid.
    ///
    /// The caller must keep the returned backends until it has executed the next
    /// [actions](Self::next_action), some of which unregister their descriptors.
    #[must_use = "the backends must live until the actions have been taken"]
    pub fn remove_backends(&mut self, now: Tick) -> Vec<Box<dyn VsockBackend>> {
        self.reset(now);
        std::mem::take(&mut self.backends).into_inner()
    }

    /// Returns whether any backend supports the guest's seqpacket sockets, so that the device can
    /// offer `VIRTIO_VSOCK_F_SEQPACKET`.
    #[must_use]
    pub fn has_seqpacket(&self) -> bool {
        self.backends.has_seqpacket()
    }

    /// Activates the muxer once the driver is ready. From now on, backends are watched and the
    /// negotiated socket types may be used.
    ///
    /// If the muxer is already active, it is [reset](Self::reset) first.
    pub fn activate(&mut self, now: Tick, types: SocketTypes) {
        if self.life != Life::Inactive {
            self.reset(now);
        }
        self.life = Life::Active;
        self.types = types;
        self.set_route();
        self.watch_backends();
    }

    /// Resets the muxer after a device reset: closes every connection and every unfinished
    /// handshake without telling the guest.
    ///
    /// Backends are kept, but not watched until [`activate`](Self::activate).
    pub fn reset(&mut self, now: Tick) {
        self.life = Life::Inactive;
        self.unwatch_backends();
        self.close_all(now, |_| true);
    }

    /// Closes every connection of which the guest has a record, as [`reset`](Self::reset) does, but
    /// stays active.
    ///
    /// Call it before the device sends the guest `VIRTIO_VSOCK_EVENT_TRANSPORT_RESET` (virtio 1.3,
    /// 5.10.6.7).
    ///
    /// Host clients that have not yet sent a complete command are kept. So are those whose REQUEST
    /// is not yet in a buffer of the guest, because the guest cannot have lost a connection of
    /// which it has never heard. Connections that the guest has closed and forgotten still deliver
    /// their last bytes to the host.
    pub fn transport_reset(&mut self, now: Tick) {
        self.close_all(now, |entry| match entry {
            Entry::Connection(entry) => {
                !matches!(entry.conn.phase(), Phase::Requesting | Phase::Draining)
            }
            Entry::Handshake(_) => false,
        });
    }

    /// Returns the state that a snapshot needs. Nothing is closed: a device that continues after
    /// the snapshot keeps its connections.
    #[must_use]
    pub fn save(&self) -> MuxerState {
        MuxerState {
            version: MuxerState::VERSION,
            next_host_port: self.ports.next_port().into(),
            connections: self.table.connections() as u64,
        }
    }

    /// Continues where another muxer was [saved](Self::save).
    ///
    /// Closes every connection as [`transport_reset`](Self::transport_reset) does; the device must
    /// send its guest `VIRTIO_VSOCK_EVENT_TRANSPORT_RESET`. See [`MuxerState`].
    ///
    /// # Errors
    ///
    /// [`StateVersionError`] if the state has an unsupported version. The muxer is then unchanged.
    pub fn restore(&mut self, now: Tick, state: &MuxerState) -> Result<(), StateVersionError> {
        state.check_version()?;
        self.transport_reset(now);
        // Clients whose REQUEST has not been sent keep their ports.
        self.ports.go_to(Port::new(state.next_host_port));
        Ok(())
    }

    /// Returns the next action for the event loop. Call it after every method that takes `now`,
    /// until it returns `None`.
    #[must_use = "an action that is not executed is lost"]
    pub fn next_action(&mut self) -> Option<Action> {
        self.actions.pop_front()
    }

    /// Starts accepting clients.
    fn watch_backends(&mut self) {
        for backend in self.backends.iter_mut() {
            backend.watch(Interest::READ, &mut self.actions);
        }
    }

    /// Stops accepting clients.
    fn unwatch_backends(&mut self) {
        for backend in self.backends.iter_mut() {
            backend.unwatch(&mut self.actions);
        }
        self.accept_timers = Timers::new();
    }

    /// Closes the entries that `which` selects, and drops everything else that is pending for the
    /// guest.
    fn close_all(&mut self, now: Tick, which: impl Fn(&Entry) -> bool) {
        self.rxq.clear();
        for slot in self.table.slots() {
            if !self.table.entry(slot).is_some_and(|entry| which(entry)) {
                // Clearing the queue has removed the place of its REQUEST.
                self.schedule(slot);
                continue;
            }
            match self.table.connection(slot) {
                Some(entry) => {
                    entry.conn.abort(now);
                    self.review(now, slot);
                }
                None => self.end_handshake(slot),
            }
        }
    }
}

impl fmt::Debug for Muxer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Muxer")
            .field("guest", &self.guest)
            .field("life", &self.life)
            .field("connections", &self.table.connections())
            .field("handshakes", &self.table.handshakes())
            .field("counters", &self.counters)
            .finish_non_exhaustive()
    }
}
