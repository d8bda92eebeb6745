// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! What the two ends of a connection share: a pipe each way, and which ends still exist.

use std::sync::OnceLock;

use vsock_backend_api::VsockAddr;

use crate::config::VsockInnerConfig;
use crate::counters::OpenGuard;
use crate::credit::CreditCell;
use crate::pipe::Pipe;
use crate::sync::{Arc, AtomicBool, AtomicU8, Ordering};
use crate::word::{CONNECTING, FIN, READ_SHUT, WRITER_RESET};

/// The two ends.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Side {
    /// From a connector or a listener.
    Application,
    /// From the backend.
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
    /// The guest's, which the device stands for.
    pub(crate) guest: VsockAddr,
    /// The application's: the host's, or another guest's.
    pub(crate) host: VsockAddr,
}

/// How far an end is connected.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum ConnectState {
    Connected,
    /// The device has not answered.
    Connecting,
    /// The device has ended the connection instead.
    Refused,
    /// The device's answer was none.
    BadAnswer,
}

/// See the documentation of the module.
#[derive(Debug)]
pub(crate) struct Connection {
    to_device: Arc<Pipe>,
    to_application: Arc<Pipe>,
    /// What each end is told of the other one's guest.
    for_application: CreditCell,
    for_device: CreditCell,
    /// How many halves of each end are not dropped.
    application_halves: AtomicU8,
    device_halves: AtomicU8,
    /// Empty until the device has told them.
    addresses: OnceLock<Addresses>,
    /// The device has answered something that is no answer.
    bad_answer: AtomicBool,
    _open: Option<OpenGuard>,
}

impl Connection {
    /// Makes the shared part.
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

    /// What `side` is told of its peer's guest.
    pub(crate) const fn credit_for(&self, side: Side) -> &CreditCell {
        match side {
            Side::Application => &self.for_application,
            Side::Device => &self.for_device,
        }
    }

    /// Whether both halves of `side` have been dropped.
    pub(crate) fn is_gone(&self, side: Side) -> bool {
        // ORDER: Acquire; partner: the release in `leave`: a thread that sees an end gone sees its
        // directions ended.
        self.halves(side).load(Ordering::Acquire) == 0
    }

    /// One half of `side` is being dropped, and has ended its direction. With the last one the peer
    /// gets a new edge, whatever its descriptor showed before.
    pub(crate) fn leave(&self, side: Side) {
        // ORDER: AcqRel; partners: `is_gone`, and the other half's `leave`.
        if self.halves(side).fetch_sub(1, Ordering::AcqRel) == 1 {
            self.outgoing(side).data.new_edge();
            self.credit_for(side.peer()).leave();
        }
    }

    /// The reading half of `side` has shut down, and its peer has not ended its writing. Between
    /// two guests the peer's device is to know before it writes: it has an event, which the next
    /// read takes back.
    pub(crate) fn stopped_reading(&self, side: Side) {
        if self.is_between_guests() {
            self.outgoing(side).data.new_edge();
        }
    }

    /// Whether both ends are guests, each of which a device stands for.
    pub(crate) fn is_between_guests(&self) -> bool {
        let addresses = self.addresses.get();
        addresses.is_some_and(|addresses| addresses.host.cid != HOST_CID)
    }

    /// How far `side` is connected. What has no request to wait for is so from the beginning.
    pub(crate) fn connect_state(&self, side: Side) -> ConnectState {
        let is_connected = || !self.outgoing(side).space.load().has(CONNECTING);
        if is_connected() {
            return ConnectState::Connected;
        }
        if !self.incoming(side).data.load().has(FIN | WRITER_RESET) {
            return ConnectState::Connecting;
        }
        // Look again: the device may have confirmed and ended since. It confirms before it ends.
        if is_connected() {
            return ConnectState::Connected;
        }
        // ORDER: Acquire; partner: the release in `reject`. It comes before the end, and so is seen
        // by a thread that sees the end.
        if self.bad_answer.load(Ordering::Acquire) {
            ConnectState::BadAnswer
        } else {
            ConnectState::Refused
        }
    }

    /// The device at `side` confirms the request of its peer.
    pub(crate) fn confirm(&self, side: Side) {
        self.incoming(side).space.set_connected();
    }

    /// The device at `side` has ended its writing without a confirmation: its peer's writing ends,
    /// too.
    pub(crate) fn refuse(&self, side: Side) {
        self.incoming(side).space.end(|_| READ_SHUT);
    }

    /// The device at `side` has answered something that is no answer.
    pub(crate) fn reject(&self, side: Side) {
        // ORDER: Release; partner: the acquire in `connect_state`.
        self.bad_answer.store(true, Ordering::Release);
        self.outgoing(side).end(FIN);
        self.refuse(side);
    }

    /// Tells both ends their addresses, once.
    pub(crate) fn set_addresses(&self, addresses: Addresses) {
        self.addresses.get_or_init(|| addresses);
    }

    /// The address of `side`, if it is known.
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
