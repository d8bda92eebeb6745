// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! What passes between a device and its owner.

use virtio_queue::Queue;
use vsock_muxer::NextCall;

/// The device's queues, for one call (virtio 1.3, 5.10.2).
///
/// They stay with their owner: a VMM lends its `Queue`s, or what it has locked of its
/// `QueueSync`s; a vhost-user device `get_queue_mut` of its locked vrings.
#[derive(Debug)]
pub struct Queues<'q> {
    /// Queue 0.
    pub rx: &'q mut Queue,
    /// Queue 1.
    pub tx: &'q mut Queue,
    /// Queue 2; `None` where another process serves it, as QEMU does for a vhost-user device.
    pub event: Option<&'q mut Queue>,
}

/// What a call of [`VsockDevice::process`](crate::VsockDevice::process) leaves to its caller.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
#[must_use = "a guest that is not notified waits for ever, and a device that is not called leaves it waiting"]
pub struct Outcome {
    /// The guest is to be notified of the receive queue.
    pub notify_rx: bool,
    /// The guest is to be notified of the transmit queue.
    pub notify_tx: bool,
    /// The guest is to be notified of the event queue.
    pub notify_event: bool,
    /// When to call again. A caller that sleeps before that leaves the guest waiting.
    pub next: NextCall,
}

/// What a device has counted since it was made. What happened to connections, the muxer counts.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
#[non_exhaustive]
pub struct DeviceCounters {
    /// Chains of the transmit queue that were no packet: too short for a header or for what it
    /// promises, longer than the limit, or outside of guest memory. They went back unused.
    pub malformed_packets: u64,
    /// Chains of the receive queue and of the event queue that could not be used, and went back
    /// with a length of 0: too small, read-only, or outside of guest memory.
    pub unusable_buffers: u64,
    /// Transport resets that were published to the guest.
    pub transport_resets: u64,
    /// Of the receive queue.
    pub rx: QueueCounters,
    /// Of the transmit queue.
    pub tx: QueueCounters,
    /// Of the event queue.
    pub event: QueueCounters,
}

/// What a device has counted of one queue.
///
/// A device that polls, or whose guest does not want to be interrupted for each buffer, spares most
/// of the notifications.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
#[non_exhaustive]
pub struct QueueCounters {
    /// Chains that were given back to the driver.
    pub chains_used: u64,
    /// How often an [`Outcome`] asked its caller to notify the guest.
    pub notifications_sent: u64,
    /// Chains that were given back without a notification of their own, because the guest did not
    /// want one or one stood for several of them.
    pub notifications_spared: u64,
}

impl QueueCounters {
    /// It was decided whether to notify the guest of this many chains.
    pub(crate) fn decided(&mut self, chains: u16, notify: bool) {
        let sent = u64::from(notify);
        self.notifications_sent += sent;
        self.notifications_spared += u64::from(chains).saturating_sub(sent);
    }
}

/// How many chains the driver has made available in each queue that the device has not taken.
///
/// `None` where the queue is not served, or where its driver breaks the rules. Another moment has
/// other numbers: the guest goes on meanwhile.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
#[non_exhaustive]
pub struct QueueDepths {
    /// Buffers that packets for the guest may still fill.
    pub rx: Option<u16>,
    /// Packets of the guest that wait for the device.
    pub tx: Option<u16>,
    /// Buffers for events.
    pub event: Option<u16>,
}
