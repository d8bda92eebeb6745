// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Figures and connections of a device, for inspection.

use log::Level;
use vsock_epoll::DriverEvents;
use vsock_muxer::{ConnectionId, ListPosition, MuxerCounters};
use vsock_virtio::{DeviceCounters, PacketTap, QueueDepths, Queues};

use super::Worker;
use crate::inspector::{ConnectionList, DeviceReport};
use crate::journal::Line;

/// How many slots of the connection table a step lists, before the device moves bytes again.
const PART: usize = 256;

impl Worker {
    /// Returns all figures.
    pub(crate) fn report(&mut self) -> DeviceReport {
        let depths = self.depths();
        let device = self.lifecycle.device();
        DeviceReport {
            is_active: device.is_active(),
            connections: device.muxer().counters(),
            gauges: device.muxer().gauges(),
            queues: device.counters(),
            depths,
            kicks: self.kicks,
        }
    }

    pub(crate) fn features(&self) -> u64 {
        self.lifecycle.device().device_features()
    }

    pub(crate) fn config(&self, offset: u32, data: &mut [u8]) {
        self.lifecycle.device().read_config(offset.into(), data);
    }

    pub(crate) fn is_active(&self) -> bool {
        self.lifecycle.device().is_active()
    }

    pub(crate) fn counters(&self) -> MuxerCounters {
        self.lifecycle.device().muxer().counters()
    }

    pub(crate) fn queue_counters(&self) -> DeviceCounters {
        self.lifecycle.device().counters()
    }

    /// Logs why connections were refused, with a separate limit for each reason.
    pub(super) fn tell_refusals(&mut self) {
        while let Some(refusal) = self.lifecycle.device_mut().muxer_mut().next_refusal() {
            let line = Line {
                level: Level::Debug,
                target: module_path!(),
                text: refusal.reason.name(),
            };
            self.journal.say(line, format_args!("refused {refusal}"));
        }
    }

    fn depths(&mut self) -> QueueDepths {
        let Some(memory) = &self.memory else {
            return QueueDepths::default();
        };
        let [rx, tx, event] = &mut self.vrings;
        if !(rx.runs() && tx.runs()) {
            return QueueDepths::default();
        }
        let lends_event_queue = event.runs();
        let mut queues = Queues {
            rx: rx.queue_mut(),
            tx: tx.queue_mut(),
            event: lends_event_queue.then(|| event.queue_mut()),
        };
        self.lifecycle.device().queue_depths(memory, &mut queues)
    }

    /// Adds the next part of the connections to a list. Returns where to continue, or `None` if the
    /// list is complete.
    pub(crate) fn list(
        &self,
        position: ListPosition,
        list: &mut ConnectionList,
    ) -> Option<ListPosition> {
        list.at = self.lifecycle.guest_time(self.event_loop.now());
        let muxer = self.lifecycle.device().muxer();
        muxer.connections_from(position, PART, &mut list.connections)
    }

    /// Closes a connection on both sides; returns whether it existed.
    pub(crate) fn reset(&mut self, id: ConnectionId, events: &mut DriverEvents) -> bool {
        let now = self.event_loop.now();
        let guest_time = self.lifecycle.guest_time(now);
        let muxer = self.lifecycle.device_mut().muxer_mut();
        let found = muxer.reset_connection(guest_time, id);
        events.set_next_call(self.serve(now));
        self.carry_out(now);
        found
    }

    /// Installs a packet tap, or removes it; returns the previous one.
    pub(crate) fn set_tap(
        &mut self,
        tap: Option<Box<dyn PacketTap>>,
    ) -> Option<Box<dyn PacketTap>> {
        self.lifecycle.device_mut().set_tap(tap)
    }
}
