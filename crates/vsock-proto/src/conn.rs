// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

mod far;
mod far_need;
mod from_guest;
mod from_host;
mod to_guest;
mod to_host;
mod transmit;
mod unwind;

use alloc::sync::Arc;

pub use to_host::Chunk;
pub use transmit::{DataGrant, Transmit};

use crate::pending::{Owed, Pending};
use crate::state::{Event, Outlook, Phase, ToGuestState};
use crate::{
    Config, Confirmation, ConnKey, Ending, HostAction, HostActions, Interest, Packet,
    ShutdownFlags, SocketType, Tick, Violation,
};
use to_guest::ToGuest;
use to_host::ToHost;

/// One connection: takes events, returns packets and actions.
///
/// A connection has three inputs:
///
/// * *The guest.* [`Connection::on_packet`] takes a packet. [`Connection::poll_transmit`] returns
///   one for a buffer that the guest has provided.
/// * *The host's stream*, which the caller owns. The caller reports events of the stream
///   ([`on_host_connected`](Self::on_host_connected), [`on_host_readable`](Self::on_host_readable),
///   [`flush`](Self::flush), [`on_host_hangup`](Self::on_host_hangup)), and the connection returns
///   actions to execute and events to watch for ([`take_actions`](Self::take_actions),
///   [`interest`](Self::interest)).
/// * *Time.* Every event comes with the current time. [`on_timeout`](Self::on_timeout) must be
///   called at the [`deadline`](Self::deadline).
///
/// The connection itself touches payload only when the host's stream refuses it. In the direction
/// of the host, it asks the [`Payload`](crate::Payload) to write itself to the stream, and buffers
/// only what the stream does not accept. In the direction of the guest, it grants a number of
/// bytes, the caller reads that many from the stream into the guest's buffer, and the [`DataGrant`]
/// makes the packet.
///
/// # Example
///
/// A guest connects, sends three bytes, and receives two.
///
/// ```
/// use std::sync::Arc;
/// use vsock_proto::{
///     Body, Config, ConnKey, Connection, Credit, MessageFlags, Packet, Port, Progress,
///     SlicePayload, SocketType, Tick, Transmit, Violation,
/// };
///
/// let config = Arc::new(Config::default());
/// let now = Tick::ZERO;
/// let request = Packet {
///     key: ConnKey::new(Port::new(52), Port::new(1024)),
///     socket_type: SocketType::Stream,
///     body: Body::Request,
///     len: 0,
///     credit: Credit { buf_alloc: 4096, fwd_cnt: 0 },
/// };
/// let mut conn = Connection::accept(&config, &request, now);
/// // The caller has obtained a stream to the host component that listens on port 52.
/// conn.on_host_connected(now);
/// let Some(Transmit::Packet(response)) = conn.poll_transmit(now, 4096) else { panic!() };
/// assert_eq!(response.body, Body::Response);
///
/// let data = Packet { body: Body::Data(MessageFlags::NONE), len: 3, ..request };
/// let mut host = Vec::new();
/// let write = |bytes: &[u8], _| {
///     host.extend_from_slice(bytes);
///     Progress::Done(bytes.len())
/// };
/// conn.on_packet(now, &data, &mut SlicePayload::new(b"abc", write))?;
/// assert_eq!(host, b"abc");
///
/// conn.on_host_readable(now);
/// let Some(Transmit::Data(mut grant)) = conn.poll_transmit(now, 4096) else { panic!() };
/// assert_eq!(grant.bytes(), 4096, "the guest's whole credit");
/// // The caller reads two bytes from the stream into the guest's buffer.
/// let packet = grant.sent(2);
/// assert_eq!((packet.len, packet.credit.fwd_cnt), (2, 3));
/// # Ok::<(), Violation>(())
/// ```
#[derive(Debug)]
pub struct Connection {
    config: Arc<Config>,
    key: ConnKey,
    socket_type: SocketType,
    confirmation: Confirmation,
    phase: Phase,
    /// The flags that we have sent to the guest, or are about to send.
    ours: ShutdownFlags,
    /// The flags that the guest has sent.
    theirs: ShutdownFlags,
    /// Whether the host's stream hung up before the connection was established.
    hung_up: bool,
    pending: Pending,
    actions: HostActions,
    to_host: ToHost,
    to_guest: ToGuest,
    deadline: Option<Tick>,
    ending: Option<Ending>,
}

impl Connection {
    /// Creates a connection that a host component initiates: a REQUEST becomes pending for the
    /// guest.
    #[must_use]
    pub fn connect(
        config: &Arc<Config>,
        key: ConnKey,
        socket_type: SocketType,
        confirmation: Confirmation,
        now: Tick,
    ) -> Self {
        let mut conn = Self::new(config, key, socket_type, Phase::Requesting, now);
        conn.confirmation = confirmation;
        conn.pending.insert(Owed::Request);
        conn
    }

    /// Creates a connection from a guest's REQUEST.
    ///
    /// The caller obtains a stream for it and then calls
    /// [`on_host_connected`](Self::on_host_connected) or
    /// [`on_host_refused`](Self::on_host_refused).
    #[must_use]
    pub fn accept(config: &Arc<Config>, request: &Packet, now: Tick) -> Self {
        let mut conn = Self::new(
            config,
            request.key,
            request.socket_type,
            Phase::Accepting,
            now,
        );
        conn.to_guest.window.start(request.credit);
        conn
    }

    fn new(
        config: &Arc<Config>,
        key: ConnKey,
        socket_type: SocketType,
        phase: Phase,
        now: Tick,
    ) -> Self {
        Self {
            config: Arc::clone(config),
            key,
            socket_type,
            confirmation: Confirmation::OutOfBand,
            phase,
            ours: ShutdownFlags::NONE,
            theirs: ShutdownFlags::NONE,
            hung_up: false,
            pending: Pending::NONE,
            actions: HostActions::NONE,
            to_host: ToHost::new(config, socket_type),
            to_guest: ToGuest::new(config, socket_type),
            deadline: phase
                .timeout(config)
                .map(|timeout| now.saturating_add(timeout)),
            ending: None,
        }
    }

    /// Starts the receive counter at `start` instead of zero, so that a test can make it wrap
    /// without transferring 4 GiB.
    ///
    /// The REQUEST or the RESPONSE reports the value to the guest. The counter of the other
    /// direction starts where the guest's own packet says.
    #[must_use]
    pub fn with_fwd_cnt(mut self, start: u32) -> Self {
        self.to_host.start_at(&self.config, start);
        self
    }

    /// Handles whatever is due: the end of the deadline, or another request for credit. Does
    /// nothing if called too early.
    pub fn on_timeout(&mut self, now: Tick) {
        self.ask_for_far(now);
        if self.phase == Phase::Connected && self.to_guest.probe(now, &self.config) {
            self.pending.insert(Owed::CreditRequest);
        }
        if self.deadline.is_none_or(|deadline| now < deadline) {
            return;
        }
        let ending = match self.phase {
            Phase::Requesting | Phase::Responding => Ending::NotDelivered,
            Phase::Requested | Phase::Accepting => Ending::TimedOut,
            _ => Ending::Forfeited,
        };
        self.end(now, Event::Expired, ending);
    }

    /// Takes the actions to execute on the host's stream. Must be called after every event.
    pub fn take_actions(&mut self) -> HostActions {
        core::mem::take(&mut self.actions)
    }

    /// Returns whether [`poll_transmit`](Self::poll_transmit) has a packet for the guest. Must be
    /// called after every event.
    #[must_use]
    pub fn wants_transmit(&self) -> bool {
        !self.pending.is_empty() || self.may_send_data()
    }

    /// Returns the events for which the host's stream should be watched.
    ///
    /// A stream is not watched for readability while the guest has no room, because its bytes could
    /// not be sent, nor after it was reported readable and until it has been read empty.
    #[must_use]
    pub fn interest(&self) -> Interest {
        let connected = self.phase == Phase::Connected;
        Interest {
            read: connected
                && self.to_guest.state == ToGuestState::Open
                && !self.to_guest.readable
                && self.to_guest.has_credit(),
            write: self.phase.has_stream() && self.to_host.has_chunk(),
        }
    }

    /// Returns when [`on_timeout`](Self::on_timeout) must be called.
    #[must_use]
    pub fn deadline(&self) -> Option<Tick> {
        let asks = self.to_guest.ask_at();
        self.deadline.into_iter().chain(asks).min()
    }

    /// Returns the ports and the CID on the host's side.
    #[must_use]
    pub const fn key(&self) -> ConnKey {
        self.key
    }

    /// Returns the socket type.
    #[must_use]
    pub const fn socket_type(&self) -> SocketType {
        self.socket_type
    }

    /// Returns the current stage of the connection's life.
    #[must_use]
    pub const fn phase(&self) -> Phase {
        self.phase
    }

    /// Returns whether the connection holds no resources and can be dropped.
    #[must_use]
    pub const fn is_closed(&self) -> bool {
        matches!(self.phase, Phase::Closed)
    }

    /// Returns why the connection is ending or has ended, or `None` while it continues.
    #[must_use]
    pub const fn ending(&self) -> Option<Ending> {
        self.ending
    }

    /// Returns how many bytes the guest may send before the host accepts any.
    #[must_use]
    pub fn window(&self) -> u32 {
        self.config.buf_alloc()
    }

    /// Returns the number of bytes that wait for the host.
    #[must_use]
    pub const fn waiting(&self) -> usize {
        self.to_host.waiting()
    }

    /// Returns the memory allocated for these bytes, which can temporarily exceed their number. A
    /// caller can use it to bound the memory of many connections together.
    #[must_use]
    pub const fn memory(&self) -> usize {
        self.to_host.memory()
    }

    /// Returns the number of bytes that were sent to the guest and that it has not yet taken out of
    /// its buffer.
    #[must_use]
    pub const fn in_flight(&self) -> u32 {
        self.to_guest.window.in_flight()
    }

    /// Moves to the next phase, and does the work of leaving the old phase and entering the new
    /// one.
    fn advance(&mut self, now: Tick, event: Event) {
        let Some(next) = self.phase.next(event) else {
            return;
        };
        // From here on the host's stream is closed, so waiting bytes can no longer be written and
        // bytes that the host has sent can no longer be read. Free both buffers now: the remaining
        // phases only send packets.
        if self.phase.has_stream() && !next.has_stream() {
            self.actions.insert(HostAction::Close);
            self.to_host.discard();
            self.to_guest.end();
        }
        self.phase = next;
        self.deadline = next
            .timeout(&self.config)
            .map(|timeout| now.saturating_add(timeout));
        // The new phase decides which packets may still be sent. After an RST nothing may follow,
        // so `Resetting` replaces everything that was pending, and `Draining` and `Closed` send
        // nothing at all.
        match next {
            Phase::Responding => self.pending.insert(Owed::Response),
            Phase::Draining | Phase::Closed => self.pending.clear(),
            Phase::Resetting => {
                self.pending.clear();
                self.pending.insert(Owed::Reset);
            }
            Phase::Finishing if !self.pending.contains(Owed::Shutdown) => {
                // The guest already has our SHUTDOWN: continue with the RST.
                self.advance(now, Event::ShutdownSent);
            }
            _ => {}
        }
    }

    /// Does the same as [`advance`](Self::advance) for an event that ends the connection, and
    /// records the reason.
    fn end(&mut self, now: Tick, event: Event, ending: Ending) {
        if self.phase.next(event).is_some() {
            self.ending.get_or_insert(ending);
            self.advance(now, event);
        }
    }

    /// Ends the connection because the guest violated the protocol.
    fn violated(&mut self, now: Tick, violation: Violation) -> Violation {
        self.end(now, Event::Violation, Ending::Violated);
        violation
    }

    /// Checks, after a direction has ended, whether the connection has ended as well.
    fn settle(&mut self, now: Tick) {
        match Outlook::of(self.to_guest.state, self.to_host.state) {
            Outlook::GoOn => {}
            Outlook::FlushInTime => {
                // A deadline that is already running continues: only progress extends it.
                let timeout = self.config.linger_timeout();
                self.deadline
                    .get_or_insert_with(|| now.saturating_add(timeout));
            }
            Outlook::Finish if self.theirs.is_complete() => {
                // The guest announced a complete shutdown itself, so it expects an RST and no
                // SHUTDOWN.
                self.end(now, Event::GuestClosed, Ending::Clean);
            }
            Outlook::Finish => self.end(now, Event::HalvesEnded, Ending::Clean),
            Outlook::Linger => self.end(now, Event::HostClosed, Ending::Clean),
        }
    }

    /// Sets one of our flags and makes a SHUTDOWN with all of them pending.
    fn declare(&mut self, flag: ShutdownFlags) {
        self.ours = self.ours | flag;
        self.pending.insert(Owed::Shutdown);
    }

    /// Decides, after anything that may have changed credit or readiness, whether to report credit
    /// to the guest or to request it.
    fn review_credit(&mut self, now: Tick) {
        if !self.phase.has_credit() {
            return;
        }
        // A guest that will send no more has no use for credit.
        let guest_sends = !self.theirs.contains(ShutdownFlags::SEND);
        let peer_buf_alloc = self.to_guest.window.peer_buf_alloc();
        if guest_sends && self.to_host.update_due(peer_buf_alloc) {
            self.pending.insert(Owed::CreditUpdate);
        }
        // Request credit on our own behalf only if the host has bytes to send. The far guest may
        // need credit although the host's stream is empty.
        let host_sends = self.to_guest.readable && self.to_guest.state == ToGuestState::Open;
        self.ask_for_far(now);
        if host_sends && self.to_guest.ask(now, &self.config) {
            self.pending.insert(Owed::CreditRequest);
        }
    }

    /// Returns whether payload may be sent to the guest now.
    fn may_send_data(&self) -> bool {
        self.phase == Phase::Connected
            && self.to_guest.state == ToGuestState::Open
            && self.to_guest.readable
            && self.to_guest.has_credit()
    }
}
