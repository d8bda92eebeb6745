// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

use virtio_queue::Queue;
use vsock_proto::Tick;

/// The device's queues, for one call (virtio 1.3, 5.10.2).
///
/// They stay with whoever owns them: a VMM lends its `Queue`s, or what it has locked of its
/// `QueueSync`s; a vhost-user device `get_queue_mut` of its locked vrings.
#[derive(Debug)]
pub struct Queues<'q> {
    /// Queue 0.
    pub rx: &'q mut Queue,
    /// Queue 1.
    pub tx: &'q mut Queue,
    /// Queue 2; `None` where somebody else serves it, as QEMU does for a vhost-user device.
    pub event: Option<&'q mut Queue>,
}

/// What a call of [`VsockDevice::process`](crate::VsockDevice::process) leaves to its caller.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
#[must_use = "a guest that is not notified waits for ever"]
pub struct Outcome {
    /// The guest is to be notified of the receive queue.
    pub notify_rx: bool,
    /// The guest is to be notified of the transmit queue.
    pub notify_tx: bool,
    /// The guest is to be notified of the event queue.
    pub notify_event: bool,
    /// What the caller does before it calls [`process`](crate::VsockDevice::process) again.
    pub next: Next,
}

/// What is done between two calls of [`VsockDevice::process`](crate::VsockDevice::process).
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub enum Next {
    /// Wait for a kick, a ready descriptor or the [deadline](crate::VsockDevice::deadline), for as long as it takes.
    #[default]
    Wait,
    /// Do not sleep: the driver was asked for no kicks. Look, without waiting, for descriptors that are ready and
    /// for the deadline, report what there is, and call again. The call after `until`, or before, turns
    /// kicks on again.
    ///
    /// See [`VsockDeviceBuilder::poll_budget`](crate::VsockDeviceBuilder::poll_budget).
    Poll {
        /// Until when something is expected to come soon.
        until: Tick,
    },
    /// Do not sleep: the budget was used up before the work, and no kick will come for what is left. Call again,
    /// after whatever else waits for this thread.
    Continue,
}
