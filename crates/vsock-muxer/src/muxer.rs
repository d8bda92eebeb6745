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

/// Where a muxer stands between two resets.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Life {
    /// The guest driver is not ready.
    Inactive,
    Active,
    /// The guest is paused.
    Paused,
    /// The guest is told that its connections are gone; none begins.
    ShuttingDown,
}

/// The connections of one guest. The [crate](crate)'s documentation says how it is driven.
///
/// A panic of a stream, of a backend or of the guest's side in one of its calls passes through, and
/// ends every connection as a [`reset`](Self::reset) does: the muxer can be
/// [activated](Self::activate) again.
pub struct Muxer {
    guest: GuestCid,
    config: Arc<Config>,
    life: Life,
    types: SocketTypes,
    route: Route,
    backends: Backends,
    table: Table,
    /// Clients whose command is not whole.
    waiting: Waiting,
    /// Connections that wait for a busy host component.
    busy: Busy,
    ports: PortAllocator,
    rxq: RxQueue,
    /// Connections that may have payload of the batch that was not yet offered to their streams,
    /// each listed once.
    batch: Vec<Slot>,
    message_buffer: MessageBuffer,
    /// Deadlines of connections and handshakes.
    timers: Timers,
    /// When which backend is asked again.
    accept_timers: Timers,
    actions: VecDeque<Action>,
    births: Births,
    counters: MuxerCounters,
    refusals: RecentRefusals,
}

impl Muxer {
    /// Backends that a muxer takes.
    pub const MAX_BACKENDS: usize = Backends::MAX;

    /// A muxer without backends, not yet active.
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

    /// The guest's CID.
    #[must_use]
    pub const fn guest_cid(&self) -> GuestCid {
        self.guest
    }

    /// How it is configured.
    #[must_use]
    pub fn config(&self) -> &Config {
        &self.config
    }

    /// Adds a backend: its host-initiated connections, and the guest's connections to every port
    /// that no backend has for itself (the first backend that was added so gets them; for seqpacket
    /// sockets, the first of these that [has any](VsockBackend::has_seqpacket)).
    ///
    /// # Errors
    ///
    /// [`MuxerError::TooManyBackends`], beyond [`MAX_BACKENDS`](Self::MAX_BACKENDS).
    pub fn add_backend(&mut self, backend: Box<dyn VsockBackend>) -> Result<BackendId, MuxerError> {
        let id = self.backends.add(backend, Serves::Rest)?;
        self.watch_added(id);
        Ok(id)
    }

    /// Adds a backend: its host-initiated connections, and the guest's connections to these ports
    /// and to no others, unless they are [routed](Self::route_port) to it later.
    ///
    /// # Errors
    ///
    /// [`MuxerError::PortTaken`], and those of [`add_backend`](Self::add_backend); nothing has
    /// changed then.
    pub fn add_backend_for(
        &mut self,
        backend: Box<dyn VsockBackend>,
        ports: &[u32],
    ) -> Result<BackendId, MuxerError> {
        let id = self.backends.add(backend, Serves::Ports(ports))?;
        self.watch_added(id);
        Ok(id)
    }

    /// Adds the backend for connections between the guest and other guests: without one, a REQUEST
    /// to any other CID than the host's is answered with an RST, and nothing else that goes there
    /// is.
    ///
    /// It gets the guest's connections to every CID that a guest can have but its own, by
    /// [`connect_from`](VsockBackend::connect_from) or
    /// [`connect_seqpacket_from`](VsockBackend::connect_seqpacket_from), and decides by both
    /// addresses. A stream that it returns before the other guest has answered says so
    /// ([`finish_connect`]).
    ///
    /// A stream that it [accepts](VsockBackend::accept), that names its port ([`requested_port`])
    /// and whose [`peer`] has the CID of another guest is a connection from that address: the
    /// guest's packets bear it, and no port of the host is used. If the guest has a connection with
    /// the same address and port already, the new one is refused. Other streams of the backend come
    /// from the host.
    ///
    /// # Errors
    ///
    /// [`MuxerError::SiblingsTaken`], and those of [`add_backend`](Self::add_backend).
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

    /// Brings the route in line with what was negotiated, and with the backends.
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

    /// Gives the guest's connections to `port` to a backend.
    ///
    /// # Errors
    ///
    /// [`MuxerError::PortTaken`], and [`MuxerError::UnknownBackend`] for another muxer's.
    pub fn route_port(&mut self, port: u32, backend: BackendId) -> Result<(), MuxerError> {
        self.backends.route(Port::new(port), backend)
    }

    /// [Resets](Self::reset) the muxer, and gives up every backend and every port that one had.
    /// What was counted stays, other backends may be added before the next
    /// [`activate`](Self::activate), and a [`BackendId`] from before means nothing.
    ///
    /// The backends are the caller's, to be dropped after the next [actions](Self::next_action):
    /// some of these take back the watches of their descriptors.
    #[must_use = "the backends must live until the actions have been taken"]
    pub fn remove_backends(&mut self, now: Tick) -> Vec<Box<dyn VsockBackend>> {
        self.reset(now);
        std::mem::take(&mut self.backends).into_inner()
    }

    /// Whether a backend has streams for the guest's seqpacket sockets: then a device offers
    /// `VIRTIO_VSOCK_F_SEQPACKET`.
    #[must_use]
    pub fn has_seqpacket(&self) -> bool {
        self.backends.has_seqpacket()
    }

    /// The guest driver is ready: backends are watched from now on. The socket types are those that
    /// were negotiated.
    ///
    /// A device that is active already is [reset](Self::reset) first.
    pub fn activate(&mut self, now: Tick, types: SocketTypes) {
        if self.life != Life::Inactive {
            self.reset(now);
        }
        self.life = Life::Active;
        self.types = types;
        self.set_route();
        self.watch_backends();
    }

    /// The device was reset: every connection and every unfinished handshake is closed, nothing is
    /// told to the guest, backends stay and are no longer watched until
    /// [`activate`](Self::activate).
    pub fn reset(&mut self, now: Tick) {
        self.life = Life::Inactive;
        self.unwatch_backends();
        self.close_all(now, |_| true);
    }

    /// Every connection that the guest knows of is closed as by [`reset`](Self::reset), but the
    /// device stays active: to be called when `VIRTIO_VSOCK_EVENT_TRANSPORT_RESET` is owed to the
    /// guest (virtio 1.3, 5.10.6.7).
    ///
    /// Host clients that have not yet sent their command lose nothing and stay. So do those whose
    /// REQUEST is in no buffer of the guest yet: the guest cannot have lost what it has not heard
    /// of.
    pub fn transport_reset(&mut self, now: Tick) {
        self.close_all(now, |entry| match entry {
            Entry::Connection(entry) => entry.conn.phase() != Phase::Requesting,
            Entry::Handshake(_) => false,
        });
    }

    /// What a snapshot needs of the muxer. Nothing is closed: a device that goes on after the
    /// snapshot keeps its connections.
    #[must_use]
    pub fn save(&self) -> MuxerState {
        MuxerState {
            version: MuxerState::VERSION,
            next_host_port: self.ports.next_port().into(),
            connections: self.table.connections() as u64,
        }
    }

    /// Goes on where another muxer was [saved](Self::save). Every connection of this one is closed
    /// as by [`transport_reset`](Self::transport_reset), and the device owes its guest
    /// `VIRTIO_VSOCK_EVENT_TRANSPORT_RESET`; see [`MuxerState`].
    ///
    /// # Errors
    ///
    /// The state has a version that this release does not know. The muxer is then unchanged.
    pub fn restore(&mut self, now: Tick, state: &MuxerState) -> Result<(), StateVersionError> {
        state.check_version()?;
        self.transport_reset(now);
        self.ports = PortAllocator::new(self.config.host_ports())
            .starting_at(Port::new(state.next_host_port));
        Ok(())
    }

    /// The next thing for the event loop to do; to be asked after every call that takes `now`,
    /// until there is none.
    #[must_use = "what is not carried out is lost"]
    pub fn next_action(&mut self) -> Option<Action> {
        self.actions.pop_front()
    }

    /// Accepts clients from now on.
    fn watch_backends(&mut self) {
        for backend in self.backends.iter_mut() {
            backend.watch(Interest::READ, &mut self.actions);
        }
    }

    /// No client is accepted any more.
    fn unwatch_backends(&mut self) {
        for backend in self.backends.iter_mut() {
            backend.unwatch(&mut self.actions);
        }
        self.accept_timers = Timers::new();
    }

    /// Closes what `which` names, and forgets whatever else is owed to the guest.
    fn close_all(&mut self, now: Tick, which: impl Fn(&Entry) -> bool) {
        self.rxq.clear();
        for slot in self.table.slots() {
            if !self.table.entry(slot).is_some_and(|entry| which(entry)) {
                // Its REQUEST has lost its place in the queue with all others.
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
