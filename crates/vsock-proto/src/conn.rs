// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

mod far;
mod far_need;
mod from_guest;
mod from_host;
mod to_guest;
mod to_host;
mod transmit;

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

/// One connection: events in, packets and actions out.
///
/// A connection has two sides, and time.
///
/// * *The guest.* [`Connection::on_packet`] takes a packet. [`Connection::poll_transmit`] gives
///   one, for a buffer of the guest that is at hand.
/// * *The host's stream*, which the caller owns. The connection is told what becomes of it
///   ([`on_host_connected`](Self::on_host_connected),
///   [`on_host_readable`](Self::on_host_readable), [`flush`](Self::flush),
///   [`on_host_hangup`](Self::on_host_hangup)), and says what to do with it
///   ([`take_actions`](Self::take_actions), [`interest`](Self::interest)).
/// * *Time.* Every event comes with the time. [`deadline`](Self::deadline) is when
///   [`on_timeout`](Self::on_timeout) wants to be called.
///
/// Payload passes through none of this. On the way to the host the connection asks the payload to
/// go to the stream, and takes what the stream refuses ([`Payload`](crate::Payload)). On the way to
/// the guest it grants a number of bytes, the caller reads them from the stream into the guest's
/// buffer, and the grant makes the packet ([`DataGrant`]).
///
/// # Example
///
/// A guest connects, sends three bytes, and gets two.
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
/// // The caller has a stream to the component that serves port 52.
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
/// assert_eq!(grant.bytes(), 4096, "as much as the guest has credit for");
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
    /// What the guest was told, or is to be.
    ours: ShutdownFlags,
    /// What the guest has told us.
    theirs: ShutdownFlags,
    /// The host's stream hung up before the connection was there.
    hung_up: bool,
    pending: Pending,
    actions: HostActions,
    to_host: ToHost,
    to_guest: ToGuest,
    deadline: Option<Tick>,
    ending: Option<Ending>,
}

impl Connection {
    /// Begins a connection that a host component wants: the guest is owed a REQUEST.
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

    /// Begins a connection that the guest wants, by its REQUEST. The caller finds a stream for it
    /// and says [`on_host_connected`](Self::on_host_connected) or
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

    /// Lets the receive counters begin elsewhere than at zero, to see them wrap without four
    /// gigabytes: a caller's own tests of long-lived connections need it as ours do. The guest is
    /// told so by the REQUEST or the RESPONSE; where the counters of the other direction begin, its
    /// own packet says.
    #[must_use]
    pub fn with_fwd_cnt(mut self, start: u32) -> Self {
        self.to_host.start_at(&self.config, start);
        self
    }

    /// What time may bring: a deadline, or another question for credit. Called before it is due, it
    /// does nothing.
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

    /// Takes what is to be done with the host's stream. To be asked after every event.
    pub fn take_actions(&mut self) -> HostActions {
        core::mem::take(&mut self.actions)
    }

    /// Whether [`poll_transmit`](Self::poll_transmit) has something for the guest. To be asked
    /// after every event.
    #[must_use]
    pub fn wants_transmit(&self) -> bool {
        !self.pending.is_empty() || self.may_send_data()
    }

    /// For what the host's stream should be watched.
    ///
    /// A stream that is readable while the guest has no room is not watched: nothing could be done
    /// about it. Nor is one that has said it is readable and has not yet been read empty.
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

    /// When [`on_timeout`](Self::on_timeout) is to be called.
    #[must_use]
    pub fn deadline(&self) -> Option<Tick> {
        let asks = self.to_guest.ask_at();
        self.deadline.into_iter().chain(asks).min()
    }

    /// The ports.
    #[must_use]
    pub const fn key(&self) -> ConnKey {
        self.key
    }

    /// The type of the sockets.
    #[must_use]
    pub const fn socket_type(&self) -> SocketType {
        self.socket_type
    }

    /// Where the connection is in its life.
    #[must_use]
    pub const fn phase(&self) -> Phase {
        self.phase
    }

    /// Whether nothing is left of it and it may be forgotten.
    #[must_use]
    pub const fn is_closed(&self) -> bool {
        matches!(self.phase, Phase::Closed)
    }

    /// Why it ends, or has ended; `None` while it goes on.
    #[must_use]
    pub const fn ending(&self) -> Option<Ending> {
        self.ending
    }

    /// Bytes that may wait for the host: how much the guest may send of what the host does not
    /// take.
    #[must_use]
    pub fn window(&self) -> u32 {
        self.config.buf_alloc()
    }

    /// Bytes that wait for the host.
    #[must_use]
    pub const fn waiting(&self) -> usize {
        self.to_host.waiting()
    }

    /// Bytes of memory that they take, which may be more for a while: the figure for a caller that
    /// bounds the memory of many connections together.
    #[must_use]
    pub const fn memory(&self) -> usize {
        self.to_host.memory()
    }

    /// Bytes that the guest was sent and has not yet taken out of its buffer.
    #[must_use]
    pub const fn in_flight(&self) -> u32 {
        self.to_guest.window.in_flight()
    }

    /// Moves to another phase, and does what belongs to leaving the old and entering the new.
    fn advance(&mut self, now: Tick, event: Event) {
        let Some(next) = self.phase.next(event) else {
            return;
        };
        if self.phase.has_stream() && !next.has_stream() {
            self.actions.insert(HostAction::Close);
            self.to_host.discard();
            self.to_guest.end();
        }
        self.phase = next;
        self.deadline = next
            .timeout(&self.config)
            .map(|timeout| now.saturating_add(timeout));
        match next {
            Phase::Responding => self.pending.insert(Owed::Response),
            Phase::Draining | Phase::Closed => self.pending.clear(),
            Phase::Resetting => {
                self.pending.clear();
                self.pending.insert(Owed::Reset);
            }
            Phase::Finishing if !self.pending.contains(Owed::Shutdown) => {
                self.advance(now, Event::ShutdownSent);
            }
            _ => {}
        }
    }

    /// As [`advance`](Self::advance), by an event that ends the connection for this reason.
    fn end(&mut self, now: Tick, event: Event, ending: Ending) {
        if self.phase.next(event).is_some() {
            self.ending.get_or_insert(ending);
            self.advance(now, event);
        }
    }

    /// Lets payload be moved by foreign code. A panic leaves it unknown what was taken: a broken
    /// stream.
    fn unwinding<R>(&mut self, now: Tick, call: impl FnOnce(&mut Self) -> R) -> R {
        let mut guard = Unwinding {
            conn: self,
            now,
            ended: false,
        };
        let result = call(guard.conn);
        guard.ended = true;
        result
    }

    /// Ends the connection because of what the guest did.
    fn violated(&mut self, now: Tick, violation: Violation) -> Violation {
        self.end(now, Event::Violation, Ending::Violated);
        violation
    }

    /// After a direction has ended: whether the connection has.
    fn settle(&mut self, now: Tick) {
        match Outlook::of(self.to_guest.state, self.to_host.state) {
            Outlook::GoOn => {}
            Outlook::FlushInTime => {
                let timeout = self.config.linger_timeout();
                self.deadline
                    .get_or_insert_with(|| now.saturating_add(timeout));
            }
            Outlook::Finish if self.theirs.is_complete() => {
                self.end(now, Event::GuestClosed, Ending::Clean);
            }
            Outlook::Finish => self.end(now, Event::HalvesEnded, Ending::Clean),
            Outlook::Linger => self.end(now, Event::HostClosed, Ending::Clean),
        }
    }

    /// Sets one of our flags and owes the guest a SHUTDOWN that says so.
    fn declare(&mut self, flag: ShutdownFlags) {
        self.ours = self.ours | flag;
        self.pending.insert(Owed::Shutdown);
    }

    /// After anything that may have moved credit or readiness: what is to be told or asked of
    /// credit.
    fn review_credit(&mut self, now: Tick) {
        if !self.phase.has_credit() {
            return;
        }
        let guest_sends = !self.theirs.contains(ShutdownFlags::SEND);
        let peer_buf_alloc = self.to_guest.window.peer_buf_alloc();
        if guest_sends && self.to_host.update_due(peer_buf_alloc) {
            self.pending.insert(Owed::CreditUpdate);
        }
        let host_sends = self.to_guest.readable && self.to_guest.state == ToGuestState::Open;
        self.ask_for_far(now);
        if host_sends && self.to_guest.ask(now, &self.config) {
            self.pending.insert(Owed::CreditRequest);
        }
    }

    /// Whether payload may go to the guest now.
    fn may_send_data(&self) -> bool {
        self.phase == Phase::Connected
            && self.to_guest.state == ToGuestState::Open
            && self.to_guest.readable
            && self.to_guest.has_credit()
    }
}

/// Ends the connection, unless the call has come to its end.
struct Unwinding<'a> {
    conn: &'a mut Connection,
    now: Tick,
    ended: bool,
}

impl Drop for Unwinding<'_> {
    fn drop(&mut self) {
        if !self.ended {
            self.conn.end(self.now, Event::HostGone, Ending::HostReset);
        }
    }
}
