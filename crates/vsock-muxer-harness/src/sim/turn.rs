// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! The parts of one turn of the event loop.

use super::failure::{SimFailure, require};
use super::{Arrival, DeviceUnderTest, IDLE_WAKEUPS, Sim, TracedPacket};

impl<D: DeviceUnderTest> Sim<D> {
    /// Passes packets of the guest to the device.
    pub(super) fn take_packets(&mut self) -> Result<bool, SimFailure> {
        let mut taken = 0;
        while taken < self.config.tx_packets && self.device.can_take_packet() {
            let Some(packet) = self.guest.next_packet() else {
                break;
            };
            let mut payload = &packet.payload[..];
            self.checker.on_taken(&packet.header);
            if let Some(trace) = &mut self.trace {
                trace.push(TracedPacket::FromGuest(packet.header));
            }
            let (now, header) = (self.now, &packet.header);
            match self.config.arrival {
                Arrival::Alone => self.device.on_packet(now, header, &mut payload),
                Arrival::Together => self.device.on_packet_of_batch(now, header, &mut payload),
            }
            self.apply()?;
            taken += 1;
        }
        self.device.end_batch(self.now);
        self.apply()?;
        self.note_packets(taken as u64);
        Ok(taken > 0)
    }

    /// Reports readiness events to the device.
    pub(super) fn dispatch(&mut self) -> Result<bool, SimFailure> {
        let before = (self.host.activity(), self.packets);
        let events = self.event_loop.wait(self.config.events);
        let mut busy = false;
        for (token, ready) in &events {
            // As in a kernel, an event is reported even if an earlier one has closed the stream.
            self.device.on_event(self.now, *token, *ready);
            busy |= self.apply()?;
        }
        busy |= self.transmit()?;
        busy |= (self.host.activity(), self.packets) != before;
        if events.is_empty() || busy {
            self.idle_wakeups = 0;
            return Ok(busy);
        }
        self.idle_wakeups += 1;
        // Each stream may have one event that cannot be used yet.
        let allowed = IDLE_WAKEUPS + self.event_loop.registered();
        require(self.idle_wakeups <= allowed, || {
            format!("the event loop spins: {events:?} are reported again and again")
        })?;
        Ok(true)
    }

    /// Lets the device fill the guest's buffers.
    pub(super) fn transmit(&mut self) -> Result<bool, SimFailure> {
        let rx_queue = self.guest.rx_queue();
        let (before, posted) = (rx_queue.used(), rx_queue.posted());
        if posted == 0 || !self.device.wants_transmit() {
            return Ok(false);
        }
        let budget = self.config.rx_bytes;
        self.device.transmit(self.now, rx_queue, budget);
        let mut put = 0;
        for index in before..self.guest.rx_queue().used() {
            let packet = self.guest.rx_queue().at(index).flatten();
            if let Some((header, payload)) = packet {
                require(header.len as usize == payload.len(), || {
                    format!("{header:?} came with {} bytes of payload", payload.len())
                })?;
                let header = *header;
                if let Some(trace) = &mut self.trace {
                    trace.push(TracedPacket::ToGuest(header));
                }
                self.checker.on_put(&header)?;
                put += 1;
            }
        }
        self.note_packets(put);
        Ok(self.apply()? || self.guest.rx_queue().used() > before)
    }

    pub(super) fn note_packets(&mut self, count: u64) {
        self.packets = self.packets.wrapping_add(count);
    }

    /// Executes the device's actions. Returns whether there were any.
    pub(super) fn apply(&mut self) -> Result<bool, SimFailure> {
        let mut any = false;
        while let Some(action) = self.device.next_action() {
            self.event_loop.apply(action)?;
            any = true;
        }
        self.event_loop.check_closed()?;
        Ok(any)
    }
}
