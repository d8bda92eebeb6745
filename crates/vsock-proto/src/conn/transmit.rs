// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Sending packets to the guest.

use crate::pending::Owed;
use crate::state::{Event, Phase, ToGuestState};
use crate::{Body, Connection, Ending, MessageFlags, Packet, Progress, SocketType, Tick};

/// What [`Connection::poll_transmit`] returns for the guest.
#[derive(Debug)]
pub enum Transmit<'a> {
    /// A packet without payload. It counts as sent, so the caller must put it into the guest's
    /// buffer.
    Packet(Packet),
    /// Permission to read from the host's stream.
    Data(DataGrant<'a>),
}

impl Connection {
    /// Returns whether the host's stream is read as soon as the guest provides a buffer.
    #[must_use]
    pub fn reads_next(&self) -> bool {
        self.may_send_data()
    }

    /// Returns whether the host may have payload that the guest has no room for.
    #[must_use]
    pub fn awaits_credit(&self) -> bool {
        self.to_guest.readable
            && self.phase == Phase::Connected
            && self.to_guest.state == ToGuestState::Open
            && !self.to_guest.has_credit()
    }

    /// Returns the next packet for the guest.
    ///
    /// Call it only when the guest has provided a buffer that was checked, with space for a header
    /// and `room` more bytes. If `room` is 0, it may return a packet, but never a grant: a read
    /// into an empty buffer would look like the end of the stream.
    ///
    /// Packets are returned in this order: RST, REQUEST, RESPONSE, SHUTDOWN, `CREDIT_REQUEST`,
    /// payload, `CREDIT_UPDATE`.
    pub fn poll_transmit(&mut self, now: Tick, room: usize) -> Option<Transmit<'_>> {
        let mut pending = self.pending;
        if room > 0 && self.may_send_data() {
            pending.insert(Owed::Data);
        }
        let owed = pending.first()?;
        self.pending.remove(owed);
        let (body, sent) = match owed {
            Owed::Reset => (Body::Reset, Some(Event::ResetSent)),
            Owed::Request => (Body::Request, Some(Event::RequestSent)),
            Owed::Response => (Body::Response, Some(Event::ResponseSent)),
            Owed::Shutdown => (Body::Shutdown(self.ours), Some(Event::ShutdownSent)),
            Owed::CreditRequest => {
                self.to_guest.window.on_asked();
                (Body::CreditRequest, None)
            }
            Owed::Data => return Some(Transmit::Data(DataGrant { conn: self, now })),
            Owed::CreditUpdate => (Body::CreditUpdate, None),
        };
        let packet = self.packet(body, 0);
        if let Some(event) = sent {
            self.advance(now, event);
        }
        // The guest knows the connection from now on, so anything that was held back can follow.
        if owed == Owed::Response {
            self.catch_up(now);
            self.review_credit(now);
        }
        Some(Transmit::Packet(packet))
    }

    /// Makes a packet that is sent now, with the current credit. Every packet reports credit, so a
    /// pending update becomes superfluous.
    fn packet(&mut self, body: Body, len: u32) -> Packet {
        self.pending.remove(Owed::CreditUpdate);
        Packet {
            key: self.key,
            socket_type: self.socket_type,
            body,
            len,
            credit: self.to_host.window.advertise(),
        }
    }
}

/// Permission to read payload from the host's stream into buffers of the guest.
///
/// The caller reads at most [`bytes`](Self::bytes) into one or more buffers, and makes a packet for
/// each buffer with [`sent`](Self::sent). If a read returns no bytes, the caller reports the reason
/// with [`finish`](Self::finish). Dropping a grant has no effect.
///
/// ```
/// # use std::sync::Arc;
/// # use vsock_proto::*;
/// # fn connection() -> Connection {
/// #     let request = Packet {
/// #         key: ConnKey::new(Port::new(52), Port::new(1024)),
/// #         socket_type: SocketType::Stream,
/// #         body: Body::Request,
/// #         len: 0,
/// #         credit: Credit { buf_alloc: 4096, fwd_cnt: 0 },
/// #     };
/// #     let mut conn = Connection::accept(&Arc::new(Config::default()), &request, Tick::ZERO);
/// #     conn.on_host_connected(Tick::ZERO);
/// #     conn.poll_transmit(Tick::ZERO, 0);
/// #     conn.on_host_readable(Tick::ZERO);
/// #     conn
/// # }
/// # let mut conn = connection();
/// # let now = Tick::ZERO;
/// let Some(Transmit::Data(mut grant)) = conn.poll_transmit(now, 64) else { panic!() };
/// assert_eq!(grant.bytes(), 4096);
/// // One read filled a buffer of 64 bytes and put 10 more bytes into a second one.
/// let first = grant.sent(64);
/// let second = grant.sent(10);
/// assert_eq!((first.len, second.len), (64, 10));
/// // The next read finds nothing.
/// grant.finish(Progress::Pending);
/// assert!(conn.poll_transmit(now, 64).is_none());
/// ```
#[derive(Debug)]
#[must_use = "a grant limits how much may be read, and makes the packets"]
pub struct DataGrant<'a> {
    conn: &'a mut Connection,
    now: Tick,
}

impl DataGrant<'_> {
    /// Returns how many bytes may be sent, in packets of at most
    /// [`max_payload`](crate::Config::max_payload).
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.conn.to_guest.bytes_free() as usize
    }

    /// Returns how many packets may be sent.
    #[must_use]
    pub fn packets(&self) -> usize {
        self.conn.to_guest.packets_free() as usize
    }

    /// Returns the maximum length of a message on a seqpacket socket: the size of the guest's
    /// buffer, which must hold the whole message, and at most
    /// [`max_message`](crate::Config::max_message).
    #[must_use]
    pub fn message_limit(&self) -> usize {
        self.conn.message_limit() as usize
    }

    /// Returns the maximum payload of one packet, in bytes.
    #[must_use]
    pub fn packet_bytes(&self) -> usize {
        self.bytes().min(self.conn.config.max_payload() as usize)
    }

    /// Returns the packet for `len` bytes that were put into a buffer of the guest. More than was
    /// granted fails a debug assertion, and otherwise leaves no credit.
    pub fn sent(&mut self, len: usize) -> Packet {
        self.sent_piece(len, MessageFlags::NONE)
    }

    /// Returns the packet for a piece of a message on a seqpacket socket, like
    /// [`sent`](Self::sent). The last piece has the flags of the end of the message.
    ///
    /// A message that exceeds [`message_limit`](Self::message_limit) ends the connection: an RST
    /// follows this packet.
    pub fn sent_piece(&mut self, len: usize, flags: MessageFlags) -> Packet {
        debug_assert!(len <= self.packet_bytes(), "more than was granted");
        let conn = &mut *self.conn;
        let len = u32::try_from(len).unwrap_or(u32::MAX);
        conn.to_guest.on_sent(len);
        let packet = conn.packet(Body::Data(flags), len);
        if conn.socket_type == SocketType::SeqPacket {
            conn.count_message(self.now, len, flags);
        }
        conn.review_credit(self.now);
        packet
    }

    /// Reports why a read returned no bytes: nothing for now, the end, a failure, or a message that
    /// is too long. `Done` has no effect.
    pub fn finish(self, progress: Progress) {
        match progress {
            Progress::Done(_) => {}
            Progress::Pending => {
                self.conn.to_guest.readable = false;
                self.conn.ask_for_far(self.now);
            }
            Progress::Closed => self.conn.on_host_end(self.now),
            Progress::Failed => {
                self.conn.end(self.now, Event::HostGone, Ending::HostReset);
            }
            Progress::TooLong => self.conn.on_message_too_long(self.now),
        }
    }
}

impl Connection {
    /// Adds a piece to the current message. A message that has reached the limit without ending can
    /// never become complete in the guest's buffer.
    fn count_message(&mut self, now: Tick, len: u32, flags: MessageFlags) {
        let total = self.to_guest.message_sent.saturating_add(len);
        let limit = self.message_limit();
        if total > limit || total == limit && !flags.ends_message() {
            self.on_message_too_long(now);
        } else {
            self.to_guest.message_sent = if flags.ends_message() { 0 } else { total };
        }
    }

    /// Ends the connection if the guest's buffer, whose size it has just reported, can no longer
    /// hold the current message.
    pub(super) fn check_message(&mut self, now: Tick) {
        if self.to_guest.message_sent > 0 && self.to_guest.message_sent >= self.message_limit() {
            self.on_message_too_long(now);
        }
    }

    /// Returns the maximum length of a message to the guest.
    fn message_limit(&self) -> u32 {
        let guest = self.to_guest.window.peer_buf_alloc();
        self.config.max_message().min(guest)
    }
}
