// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

use vsock_muxer::{Driven, GuestBuffers, GuestPayload, Muxer};
use vsock_proto::{Header, SocketTypes, Tick};

/// A muxer under test. [`Muxer`] implements this trait; write an adapter to simulate another one.
///
/// Each method has the same meaning as the method of [`Muxer`] with the same name.
pub trait DeviceUnderTest: Driven {
    /// See [`Muxer::activate`].
    fn activate(&mut self, now: Tick, types: SocketTypes);
    /// See [`Muxer::reset`].
    fn reset(&mut self, now: Tick);
    /// See [`Muxer::transport_reset`].
    fn transport_reset(&mut self, now: Tick);
    /// See [`Muxer::begin_shutdown`].
    fn begin_shutdown(&mut self, now: Tick);
    /// See [`Muxer::can_take_packet`].
    fn can_take_packet(&self) -> bool;
    /// See [`Muxer::on_packet`].
    fn on_packet(&mut self, now: Tick, header: &Header, payload: &mut dyn GuestPayload);
    /// See [`Muxer::on_packet_of_batch`]. The default implementation handles each packet alone.
    fn on_packet_of_batch(&mut self, now: Tick, header: &Header, payload: &mut dyn GuestPayload) {
        self.on_packet(now, header, payload);
    }
    /// See [`Muxer::end_batch`].
    fn end_batch(&mut self, _now: Tick) {}
    /// See [`Muxer::wants_transmit`].
    fn wants_transmit(&self) -> bool;
    /// See [`Muxer::transmit`].
    fn transmit(&mut self, now: Tick, buffers: &mut dyn GuestBuffers, budget: usize) -> bool;
}

impl DeviceUnderTest for Muxer {
    fn activate(&mut self, now: Tick, types: SocketTypes) {
        self.activate(now, types);
    }

    fn reset(&mut self, now: Tick) {
        self.reset(now);
    }

    fn transport_reset(&mut self, now: Tick) {
        self.transport_reset(now);
    }

    fn begin_shutdown(&mut self, now: Tick) {
        self.begin_shutdown(now);
    }

    fn can_take_packet(&self) -> bool {
        self.can_take_packet()
    }

    fn on_packet(&mut self, now: Tick, header: &Header, payload: &mut dyn GuestPayload) {
        self.on_packet(now, header, payload);
    }

    fn on_packet_of_batch(&mut self, now: Tick, header: &Header, payload: &mut dyn GuestPayload) {
        self.on_packet_of_batch(now, header, payload);
    }

    fn end_batch(&mut self, now: Tick) {
        self.end_batch(now);
    }

    fn wants_transmit(&self) -> bool {
        self.wants_transmit()
    }

    fn transmit(&mut self, now: Tick, buffers: &mut dyn GuestBuffers, budget: usize) -> bool {
        self.transmit(now, buffers, budget)
    }
}
