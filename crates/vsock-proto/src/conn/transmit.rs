// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! What a connection sends to the guest.

use crate::pending::Owed;
use crate::state::{Event, Phase, ToGuestState};
use crate::{Body, Connection, Ending, MessageFlags, Packet, Progress, SocketType, Tick};

/// What [`Connection::poll_transmit`] has for the guest.
#[derive(Debug)]
pub enum Transmit<'a> {
    /// A packet without payload. It counts as sent: it must go into the buffer that is at hand.
    Packet(Packet),
    /// Permission to read from the host's stream.
    Data(DataGrant<'a>),
}

impl Connection {
    /// Whether the host's stream is read as soon as the guest has a buffer.
    #[must_use]
    pub fn reads_next(&self) -> bool {
        self.may_send_data()
    }

    /// Whether the host may have payload and the guest's buffer is full.
    #[must_use]
    pub fn awaits_credit(&self) -> bool {
        self.to_guest.readable
            && self.phase == Phase::Connected
            && self.to_guest.state == ToGuestState::Open
            && !self.to_guest.has_credit()
    }

    /// The next packet for the guest.
    ///
    /// To be called with a buffer of the guest at hand, which has been checked, and in which `room`
    /// bytes are left after the header: with no room there may be a packet, but never a grant. A
    /// read into an empty buffer would look like the end of the stream.
    ///
    /// What is owed comes in this order: RST, REQUEST, RESPONSE, SHUTDOWN, `CREDIT_REQUEST`,
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
        if owed == Owed::Response {
            self.catch_up(now);
            self.review_credit(now);
        }
        Some(Transmit::Packet(packet))
    }

    /// A packet that is sent now, with the credit of this moment: whatever it is, it makes an owed
    /// update superfluous.
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
/// The caller reads at most [`bytes`](Self::bytes), into one buffer or into several, and makes a
/// packet for each buffer with [`sent`](Self::sent). Where a read does not give bytes,
/// [`finish`](Self::finish) says so. A grant that is dropped has changed nothing.
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
/// // One read has filled a buffer of 64 bytes and put 10 more into a second one.
/// let first = grant.sent(64);
/// let second = grant.sent(10);
/// assert_eq!((first.len, second.len), (64, 10));
/// // The next read finds nothing.
/// grant.finish(Progress::Pending);
/// assert!(conn.poll_transmit(now, 64).is_none());
/// ```
#[derive(Debug)]
#[must_use = "a grant says how much may be read, and makes the packets"]
pub struct DataGrant<'a> {
    conn: &'a mut Connection,
    now: Tick,
}

impl DataGrant<'_> {
    /// Bytes that may be sent, in packets of at most [`max_payload`](crate::Config::max_payload).
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.conn.to_guest.bytes_free() as usize
    }

    /// Packets that may be sent.
    #[must_use]
    pub fn packets(&self) -> usize {
        self.conn.to_guest.packets_free() as usize
    }

    /// Bytes that a message may have on a seqpacket socket: as many as the guest's buffer holds,
    /// for the guest takes it out as a whole, and at most
    /// [`max_message`](crate::Config::max_message).
    #[must_use]
    pub fn message_limit(&self) -> usize {
        self.conn.message_limit() as usize
    }

    /// Bytes that one packet may have.
    #[must_use]
    pub fn packet_bytes(&self) -> usize {
        self.bytes().min(self.conn.config.max_payload() as usize)
    }

    /// The packet for `len` bytes that are in a buffer of the guest.
    pub fn sent(&mut self, len: usize) -> Packet {
        self.sent_piece(len, MessageFlags::NONE)
    }

    /// As [`sent`](Self::sent), on a seqpacket socket: a piece of a message, with the flags of its
    /// end if it is the last.
    ///
    /// A message that the guest could never hold whole, or that is over
    /// [`max_message`](crate::Config::max_message), ends the connection: an RST follows this
    /// packet.
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

    /// What a read found instead of bytes: nothing for now, the end, a failure, or a message that
    /// is too long. `Done` changes nothing.
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
    fn count_message(&mut self, now: Tick, len: u32, flags: MessageFlags) {
        let total = self.to_guest.message_sent.saturating_add(len);
        let limit = self.message_limit();
        if total > limit || total == limit && !flags.ends_message() {
            self.on_message_too_long(now);
        } else {
            self.to_guest.message_sent = if flags.ends_message() { 0 } else { total };
        }
    }

    /// After the guest has told of its buffer: a message of which it now holds all that it can, and
    /// not the end, will never be whole.
    pub(super) fn check_message(&mut self, now: Tick) {
        if self.to_guest.message_sent > 0 && self.to_guest.message_sent >= self.message_limit() {
            self.on_message_too_long(now);
        }
    }

    fn message_limit(&self) -> u32 {
        let guest = self.to_guest.window.peer_buf_alloc();
        self.config.max_message().min(guest)
    }
}
