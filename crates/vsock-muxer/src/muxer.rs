// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

use vsock_backend_api::VsockBackend;
use vsock_proto::{Config, GuestCid, Header, SocketTypes, Tick};

use crate::{
    Action, BackendId, Counters, GuestBuffers, GuestPayload, MuxerError, Readiness, Token,
};

/// The connections of one guest.
#[derive(Debug)]
pub struct Muxer {
    guest: GuestCid,
    config: Config,
}

impl Muxer {
    /// A muxer without backends, not yet active.
    #[must_use]
    pub fn new(guest: GuestCid, config: Config) -> Self {
        Self { guest, config }
    }

    /// Adds a backend: its host-initiated connections, and the guest's connections to every port that
    /// no backend has for itself (the first backend that was added so gets them).
    ///
    /// # Errors
    ///
    /// The muxer's limits.
    pub fn add_backend(&mut self, backend: Box<dyn VsockBackend>) -> Result<BackendId, MuxerError> {
        drop(backend);
        Ok(BackendId(0))
    }

    /// Gives the guest's connections to `port` to a backend.
    ///
    /// # Errors
    ///
    /// [`MuxerError::PortTaken`].
    pub fn route_port(&mut self, port: u32, backend: BackendId) -> Result<(), MuxerError> {
        let _ = (port, backend);
        Ok(())
    }

    /// The guest's driver is ready: backends are watched from now on. The socket types are those that
    /// were negotiated.
    pub fn activate(&mut self, now: Tick, types: SocketTypes) {
        let _ = (now, types);
    }

    /// The device was reset: every connection and every unfinished handshake is closed, nothing is
    /// told to the guest, backends stay and are no longer watched until [`activate`](Self::activate).
    pub fn reset(&mut self, now: Tick) {
        let _ = now;
    }

    /// Every connection is closed as by [`reset`](Self::reset), but the device stays active: to be
    /// called when `VIRTIO_VSOCK_EVENT_TRANSPORT_RESET` is owed to the guest (virtio 1.3, 5.10.6.7).
    pub fn transport_reset(&mut self, now: Tick) {
        let _ = now;
    }

    /// Whether the next packet of the guest can be taken. While it cannot, because too many replies
    /// wait for buffers, the transmit queue must rest (virtio 1.3, 5.10.6.1).
    #[must_use]
    pub fn can_take_packet(&self) -> bool {
        true
    }

    /// Takes a packet of the guest: its header, copied once, and its payload, of which there are
    /// `header.len` bytes.
    ///
    /// Whatever the packet is, the muxer survives it and answers it as the specification says.
    pub fn on_packet(&mut self, now: Tick, header: &Header, payload: &mut dyn GuestPayload) {
        let _ = (now, header, payload);
    }

    /// Whether [`transmit`](Self::transmit) has something for the guest.
    #[must_use]
    pub fn wants_transmit(&self) -> bool {
        false
    }

    /// Fills buffers of the guest until there are none, there is nothing to send, or `budget` bytes
    /// (each packet counts its header too) have been sent. Returns whether more could be sent at once,
    /// if there were buffers or budget.
    pub fn transmit(&mut self, now: Tick, buffers: &mut dyn GuestBuffers, budget: usize) -> bool {
        let _ = (now, buffers, budget);
        false
    }

    /// An event loop reports readiness of what belongs to the token. An unknown or outdated token is
    /// ignored.
    pub fn on_event(&mut self, now: Tick, token: Token, ready: Readiness) {
        let _ = (now, token, ready);
    }

    /// When [`on_timeout`](Self::on_timeout) is to be called.
    #[must_use]
    pub fn deadline(&self) -> Option<Tick> {
        None
    }

    /// Does what is due. Called too early, it does nothing.
    pub fn on_timeout(&mut self, now: Tick) {
        let _ = now;
    }

    /// The next thing for the driver to do; to be asked after every call that takes `now`, until
    /// there is none.
    pub fn next_action(&mut self) -> Option<Action> {
        None
    }

    /// The guest.
    #[must_use]
    pub const fn guest_cid(&self) -> GuestCid {
        self.guest
    }

    /// What has been counted.
    #[must_use]
    pub fn counters(&self) -> Counters {
        Counters::default()
    }
}
