// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Another guest at the far end: credit from end to end.
//!
//! A connection between two guests is two connections, each with credit of its own. Here they
//! become one: what this guest is told is what the far one has told, and what this one tells is
//! told to the far one.

use crate::pending::Owed;
use crate::state::{Phase, ToGuestState, ToHostState};
use crate::{Connection, Credit, SocketType, Tick};

/// The largest part of a far guest's buffer that counts beyond our own, in bytes.
const MOST_BEYOND: u32 = 1 << 30;

/// The share of its window that a far guest has under way when it is short of credit.
const SHORT_SHARE: u32 = 2;

impl Connection {
    /// What the guest has told of its buffer, for the far end: `fwd_cnt` is counted from the
    /// beginning of the connection. `None` before it has told.
    #[must_use]
    pub fn guest_credit(&self) -> Option<Credit> {
        let knows = self.phase.knows_window();
        knows.then(|| self.to_guest.window.peer_credit())
    }

    /// Tells what the guest at the far end of the stream has told of its buffer, as
    /// [`guest_credit`](Self::guest_credit) of its connection says it. From then on this guest has
    /// credit for what that one has credited, and not for what the stream has taken
    /// (virtio 1.3, 5.10.6.3). `None`: there is no such guest, as at the beginning.
    ///
    /// Our own buffer stays the bound of what waits for the stream, whatever the far end says.
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

    /// Whether a change of the far guest's credit is to be told
    /// ([`on_far_credit`](Self::on_far_credit)) when it comes, and not only with the next event.
    #[must_use]
    pub fn awaits_far_credit(&self) -> bool {
        self.phase == Phase::Connected
            && self.to_host.state == ToHostState::Open
            && self
                .to_host
                .awaits_far(self.to_guest.window.peer_buf_alloc())
    }

    /// Asks the guest for credit now, if the far one has none left to speak of.
    pub(super) fn ask_for_far(&mut self, now: Tick) {
        let credit = self.to_guest.window.peer_credit();
        let in_flight = self.to_guest.window.in_flight();
        let is_much = |far_window| in_flight > credit.buf_alloc.min(far_window) / SHORT_SHARE;
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

/// The same credit for messages. One has to become whole in our buffer, so the guest is told of no
/// larger one: the rest of the far guest's buffer is told as bytes that it has taken already.
fn for_messages(far: Credit, own: u32) -> Credit {
    let buf_alloc = far.buf_alloc.min(own);
    let beyond = far.buf_alloc.saturating_sub(buf_alloc).min(MOST_BEYOND);
    Credit {
        buf_alloc,
        fwd_cnt: far.fwd_cnt.wrapping_add(beyond),
    }
}
