// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! The types that a device exchanges with its owner: queues, outcomes and counters.

use virtio_queue::Queue;
use vsock_muxer::NextCall;

/// The device's queues, lent for one call (virtio 1.3, 5.10.2).
///
/// A VMM lends its `Queue`s, or the locked `Queue`s of its `QueueSync`s. A vhost-user device lends
/// the result of `get_queue_mut` of its locked vrings.
#[derive(Debug)]
pub struct Queues<'q> {
    /// Queue 0.
    pub rx: &'q mut Queue,
    /// Queue 1.
    pub tx: &'q mut Queue,
    /// Queue 2; `None` if another process serves it, as QEMU does for a vhost-user device.
    pub event: Option<&'q mut Queue>,
}

/// What the caller of [`VsockDevice::process`](crate::VsockDevice::process) has to do next.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
#[must_use = "the guest may wait indefinitely unless it is notified and `process` is called again"]
pub struct Outcome {
    /// Notify the guest of the receive queue.
    pub notify_rx: bool,
    /// Notify the guest of the transmit queue.
    pub notify_tx: bool,
    /// Notify the guest of the event queue.
    pub notify_event: bool,
    /// When to call `process` again. If the caller sleeps longer, the guest waits.
    pub next: NextCall,
}

/// Counters of a device since its creation. The muxer counts events of connections.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
#[non_exhaustive]
pub struct DeviceCounters {
    /// Chains of the transmit queue that did not contain a valid packet, and were returned unused:
    /// too short for the header or its payload, longer than the limit, or outside guest memory.
    pub malformed_packets: u64,
    /// Chains of the receive and the event queue that were returned with a length of 0: too small,
    /// read-only, or outside guest memory.
    pub unusable_buffers: u64,
    /// Transport resets published to the guest.
    pub transport_resets: u64,
    /// Counters of the receive queue.
    pub rx: QueueCounters,
    /// Counters of the transmit queue.
    pub tx: QueueCounters,
    /// Counters of the event queue.
    pub event: QueueCounters,
}

/// Counters of one queue.
///
/// A device that polls needs few notifications, as does a guest that does not ask for an interrupt
/// for each buffer.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
#[non_exhaustive]
pub struct QueueCounters {
    /// Chains given back to the driver.
    pub chains_used: u64,
    /// How many times an [`Outcome`] requested a notification of the guest.
    pub notifications_sent: u64,
    /// Chains given back without a separate notification, because the driver did not want one
    /// or one notification covered several chains.
    pub notifications_spared: u64,
}

impl QueueCounters {
    /// Counts a decision whether to notify the guest of this many chains.
    pub(crate) fn decided(&mut self, chains: u16, notify: bool) {
        let sent = u64::from(notify);
        self.notifications_sent += sent;
        self.notifications_spared += u64::from(chains).saturating_sub(sent);
    }
}

/// How many chains wait in each queue: available, and not yet taken by the device.
///
/// `None` if the device does not serve the queue, or if the driver violates the rules. The numbers
/// are a snapshot, because the guest continues to run.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
#[non_exhaustive]
pub struct QueueDepths {
    /// Buffers for packets to the guest.
    pub rx: Option<u16>,
    /// Packets from the guest.
    pub tx: Option<u16>,
    /// Buffers for events.
    pub event: Option<u16>,
}
