// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! End-to-end credit for a connection between two guests.
//!
//! Such a connection consists of two connections to the device, each with its own credit. This
//! module joins them: the credit that one guest reports is passed on to the other, in both
//! directions.

use crate::pending::Owed;
use crate::state::{Phase, ToGuestState, ToHostState};
use crate::{Connection, Credit, SocketType, Tick};

/// The largest part of a far guest's buffer beyond our own that is taken into account, in bytes.
const MOST_BEYOND: u32 = 1 << 30;

/// A far guest is short of credit when it has more than this share of its window in flight.
const SHORT_SHARE: u32 = 2;

impl Connection {
    /// Returns what the guest has reported about its buffer, for the far end, or `None` before it
    /// has reported anything. `fwd_cnt` is counted from the beginning of the connection.
    #[must_use]
    pub fn guest_credit(&self) -> Option<Credit> {
        let knows = self.phase.knows_window();
        knows.then(|| self.to_guest.window.peer_credit())
    }

    /// Reports the credit of the guest at the far end of the stream, as returned by
    /// [`guest_credit`](Self::guest_credit) of its connection.
    ///
    /// From then on, this guest receives credit for what the far guest has credited rather than for
    /// what the stream has accepted (virtio 1.3, 5.10.6.3). `None`, the initial state, means that
    /// there is no such guest.
    ///
    /// Our own buffer still bounds what waits for the stream, whatever the far end reports.
    ///
    /// ```
    /// # use std::sync::Arc;
    /// # use vsock_proto::*;
    /// # let request = Packet {
    /// #     key: ConnKey::new(Port::new(52), Port::new(1024)),
    /// #     socket_type: SocketType::Stream,
    /// #     body: Body::Request,
    /// #     len: 0,
    /// #     credit: Credit { buf_alloc: 4096, fwd_cnt: 0 },
    /// # };
    /// let now = Tick::ZERO;
    /// let mut conn = Connection::accept(&Arc::new(Config::default()), &request, now);
    /// let far = Credit { buf_alloc: 1000, fwd_cnt: 0 };
    /// conn.on_far_credit(now, Some(far));
    /// conn.on_host_connected(now);
    /// let Some(Transmit::Packet(response)) = conn.poll_transmit(now, 64) else { panic!() };
    /// assert_eq!(response.credit, far);
    /// ```
    pub fn on_far_credit(&mut self, now: Tick, far: Option<Credit>) {
        self.to_guest.far_window = far.map(|far| far.buf_alloc);
        if self.to_host.state == ToHostState::Open {
            let own = self.config.buf_alloc();
            let socket_type = self.socket_type;
            self.to_host
                .window
                .set_far(far.map(|far| match socket_type {
                    SocketType::Stream => far,
                    SocketType::SeqPacket => for_messages(far, own),
                }));
        }
        self.review_credit(now);
    }

    /// Returns whether a change of the far guest's credit must be reported with
    /// [`on_far_credit`](Self::on_far_credit) as soon as it occurs, rather than with the next
    /// event.
    #[must_use]
    pub fn awaits_far_credit(&self) -> bool {
        self.phase == Phase::Connected
            && self.to_host.state == ToHostState::Open
            && self
                .to_host
                .awaits_far(self.to_guest.window.peer_buf_alloc())
    }

    /// Requests credit from this guest now if the far guest is running out of it.
    pub(super) fn ask_for_far(&mut self, now: Tick) {
        // The far guest counts what it has in flight against the smaller of its own buffer and this
        // guest's. It may therefore run short before this guest sees any reason to report credit.
        let credit = self.to_guest.window.peer_credit();
        let in_flight = self.to_guest.window.in_flight();
        let is_much = |far_window| in_flight > credit.buf_alloc.min(far_window) / SHORT_SHARE;
        // If the stream is readable, `ToGuest::ask` requests credit for the bytes in it instead.
        let short = self.phase == Phase::Connected
            && self.to_guest.state == ToGuestState::Open
            && !self.to_guest.readable
            && self.to_guest.far_window.is_some_and(is_much);
        let need = &mut self.to_guest.far_need;
        if need.ask(now, short, credit, &self.config) {
            self.pending.insert(Owed::CreditRequest);
        }
    }
}

/// Converts the far guest's credit for a seqpacket connection. A message must become complete in
/// our own buffer, so the guest may not be told of a larger one. Instead, the rest of the far
/// guest's buffer is reported as bytes that it has already taken.
fn for_messages(far: Credit, own: u32) -> Credit {
    let buf_alloc = far.buf_alloc.min(own);
    let beyond = far.buf_alloc.saturating_sub(buf_alloc).min(MOST_BEYOND);
    Credit {
        buf_alloc,
        fwd_cnt: far.fwd_cnt.wrapping_add(beyond),
    }
}
