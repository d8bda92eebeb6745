// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! The state that the two ends of a connection share: a pipe for each direction, and which halves
//! still exist.

use std::sync::OnceLock;

use vsock_backend_api::VsockAddr;

use crate::config::VsockInnerConfig;
use crate::counters::OpenGuard;
use crate::credit::CreditCell;
use crate::pipe::Pipe;
use crate::sync::{Arc, AtomicBool, AtomicU8, Ordering};
use crate::word::{CONNECTING, FIN, READ_SHUT, WRITER_RESET};

/// The two ends of a connection.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Side {
    /// The end from a connector or a listener.
    Application,
    /// The end from the backend.
    Device,
}

impl Side {
    pub(crate) const fn peer(self) -> Self {
        match self {
            Self::Application => Self::Device,
            Self::Device => Self::Application,
        }
    }
}

/// The CID of the host (virtio 1.3, 5.10.4).
const HOST_CID: u64 = 2;

/// The addresses of both ends.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Addresses {
    /// The address of the guest that the device serves.
    pub(crate) guest: VsockAddr,
    /// The address of the application end: the host's, or another guest's.
    pub(crate) host: VsockAddr,
}

/// The connection state of an end.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum ConnectState {
    Connected,
    /// The device has not answered yet.
    Connecting,
    /// The device closed the connection without confirming it.
    Refused,
    /// The device's answer was malformed.
    BadAnswer,
}

/// The state that the two ends of a connection share.
#[derive(Debug)]
pub(crate) struct Connection {
    to_device: Arc<Pipe>,
    to_application: Arc<Pipe>,
    /// The credit reported to each end.
    for_application: CreditCell,
    for_device: CreditCell,
    /// How many halves of each end still exist.
    application_halves: AtomicU8,
    device_halves: AtomicU8,
    /// Empty until the device passes them on.
    addresses: OnceLock<Addresses>,
    /// The device's answer was malformed.
    bad_answer: AtomicBool,
    _open: Option<OpenGuard>,
}

impl Connection {
    /// Creates the shared state.
    pub(crate) fn new(config: &VsockInnerConfig, open: Option<OpenGuard>) -> Arc<Self> {
        Arc::new(Self {
            to_device: Arc::new(Pipe::new(config.to_device)),
            to_application: Arc::new(Pipe::new(config.to_application)),
            for_application: CreditCell::new(),
            for_device: CreditCell::new(),
            application_halves: AtomicU8::new(2),
            device_halves: AtomicU8::new(2),
            addresses: OnceLock::new(),
            bad_answer: AtomicBool::new(false),
            _open: open,
        })
    }

    /// The pipe that `side` writes to.
    pub(crate) fn outgoing(&self, side: Side) -> &Arc<Pipe> {
        match side {
            Side::Application => &self.to_device,
            Side::Device => &self.to_application,
        }
    }

    /// The pipe that `side` reads from.
    pub(crate) fn incoming(&self, side: Side) -> &Arc<Pipe> {
        self.outgoing(side.peer())
    }

    /// The credit reported to `side` by its peer.
    pub(crate) const fn credit_for(&self, side: Side) -> &CreditCell {
        match side {
            Side::Application => &self.for_application,
            Side::Device => &self.for_device,
        }
    }

    /// Whether both halves of `side` have been dropped.
    pub(crate) fn is_gone(&self, side: Side) -> bool {
        // ORDER: Acquire; partner: the release in `leave`. A thread that sees an end gone also sees
        // that its directions have ended.
        self.halves(side).load(Ordering::Acquire) == 0
    }

    /// Called when one half of `side` is dropped, after it has ended its direction. With the last
    /// half, the peer gets a new edge, whether or not its descriptor was ready before.
    pub(crate) fn leave(&self, side: Side) {
        // ORDER: AcqRel; partners: `is_gone`, and the other half's `leave`.
        if self.halves(side).fetch_sub(1, Ordering::AcqRel) == 1 {
            self.outgoing(side).data.new_edge();
            self.credit_for(side.peer()).leave();
        }
    }

    /// Called when the reading half of `side` has shut down before its peer ended its writing.
    /// Between two guests, the peer's device must learn of it before it writes, so its descriptor
    /// becomes ready until the next read.
    pub(crate) fn stopped_reading(&self, side: Side) {
        if self.is_between_guests() {
            self.outgoing(side).data.new_edge();
        }
    }

    /// Whether both ends belong to guests, each served by a device.
    pub(crate) fn is_between_guests(&self) -> bool {
        let addresses = self.addresses.get();
        addresses.is_some_and(|addresses| addresses.host.cid != HOST_CID)
    }

    /// The connection state of `side`. Without a request, an end is connected from the start.
    pub(crate) fn connect_state(&self, side: Side) -> ConnectState {
        let is_connected = || !self.outgoing(side).space.load().has(CONNECTING);
        if is_connected() {
            return ConnectState::Connected;
        }
        if !self.incoming(side).data.load().has(FIN | WRITER_RESET) {
            return ConnectState::Connecting;
        }
        // Check again: the device may have confirmed and closed in between. It confirms before it
        // closes.
        if is_connected() {
            return ConnectState::Connected;
        }
        // ORDER: Acquire; partner: the release in `reject`, which precedes the end. A thread that
        // sees the end also sees this flag.
        if self.bad_answer.load(Ordering::Acquire) {
            ConnectState::BadAnswer
        } else {
            ConnectState::Refused
        }
    }

    /// The device at `side` accepts its peer's request.
    pub(crate) fn confirm(&self, side: Side) {
        self.incoming(side).space.set_connected();
    }

    /// The device at `side` has ended its writing without confirming, so its peer's writing ends
    /// too.
    pub(crate) fn refuse(&self, side: Side) {
        self.incoming(side).space.end(|_| READ_SHUT);
    }

    /// The device at `side` has sent a malformed answer.
    pub(crate) fn reject(&self, side: Side) {
        // ORDER: Release; partner: the acquire in `connect_state`.
        self.bad_answer.store(true, Ordering::Release);
        self.outgoing(side).end(FIN);
        self.refuse(side);
    }

    /// Makes the addresses known to both ends. Only the first call counts.
    pub(crate) fn set_addresses(&self, addresses: Addresses) {
        self.addresses.get_or_init(|| addresses);
    }

    /// The address of `side`, if known.
    pub(crate) fn address(&self, side: Side) -> Option<VsockAddr> {
        let addresses = self.addresses.get()?;
        Some(match side {
            Side::Application => addresses.host,
            Side::Device => addresses.guest,
        })
    }

    fn halves(&self, side: Side) -> &AtomicU8 {
        match side {
            Side::Application => &self.application_halves,
            Side::Device => &self.device_halves,
        }
    }
}
