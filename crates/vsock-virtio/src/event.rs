// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! The event queue, through which the guest learns that its connections are gone (virtio 1.3,
//! 5.10.6.7).
//!
//! There is one event, the transport reset. Until the guest has a buffer for it, packets wait in
//! both directions: the guest would drop connections that it opened before the event. After the
//! event is published, packets to the guest wait until it acknowledges the event. Both waits have
//! a time limit.

use std::num::Wrapping;
use std::time::Duration;

use vm_memory::GuestMemory;
use vsock_proto::Tick;

use crate::chain::Part;
use crate::rx::REFUSAL_COST;
use crate::scatter::{Cursor, Slices};
use crate::virtqueue::Virtqueue;
use crate::{DeviceCounters, DeviceFault};

/// `struct virtio_vsock_event` with `VIRTIO_VSOCK_EVENT_TRANSPORT_RESET`.
const TRANSPORT_RESET: [u8; 4] = 0_u32.to_le_bytes();

/// How long packets wait for the guest to acknowledge the event: much longer than an interrupt
/// takes, and short for a program that waits for its connection.
const PATIENCE: Duration = Duration::from_millis(500);

/// How long packets wait for the guest to provide a buffer for the event: long enough for a
/// front-end that starts the event queue after the others, and short for a guest that never
/// provides one.
const EVENT_QUEUE_WAIT: Duration = Duration::from_millis(100);

/// The progress of the transport reset event.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub(crate) enum Events {
    /// No event is pending.
    #[default]
    Quiet,
    /// A transport reset is pending: the guest has not provided a buffer for it yet.
    Owed(Wait),
    /// The event is published, and the guest has not acknowledged it. A guest that has not made a
    /// further buffer available may not have seen the event. It would treat packets on the receive
    /// queue as part of its old connections. The time limit is for a guest that never provides
    /// another buffer.
    Published {
        /// The available index before the event was published.
        available: Wrapping<u16>,
        /// When the guest gets packets again even if it makes no buffer available.
        until: Tick,
    },
}

/// Whether packets wait for a pending event. A connection that the guest opens before it gets the
/// event would be closed by it.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Wait {
    /// Packets wait. The time limit starts with the next look at the queues.
    Ahead,
    /// Packets wait until then.
    Until(Tick),
    /// The wait is over, and the event is still pending.
    Over,
}

impl Events {
    /// Schedules a transport reset.
    pub(crate) const fn owe(&mut self) {
        *self = Self::Owed(Wait::Ahead);
    }

    /// Starts the time limit of a wait for an event, when the device looks at its queues.
    pub(crate) fn begin_wait(&mut self, now: Tick) {
        if *self == Self::Owed(Wait::Ahead) {
            *self = Self::Owed(Wait::Until(now.saturating_add(EVENT_QUEUE_WAIT)));
        }
    }

    /// Ends the wait if it is due by now.
    pub(crate) fn on_timeout(&mut self, now: Tick) {
        if self.deadline().is_some_and(|until| until <= now) {
            *self = match self {
                Self::Owed(_) => Self::Owed(Wait::Over),
                Self::Quiet | Self::Published { .. } => Self::Quiet,
            };
        }
    }

    /// When to call [`on_timeout`](Self::on_timeout).
    pub(crate) const fn deadline(self) -> Option<Tick> {
        match self {
            Self::Owed(Wait::Until(until)) | Self::Published { until, .. } => Some(until),
            Self::Quiet | Self::Owed(Wait::Ahead | Wait::Over) => None,
        }
    }

    /// Whether packets must wait in both directions, because the event must be published first.
    pub(crate) const fn comes_first(self) -> bool {
        matches!(self, Self::Owed(Wait::Ahead | Wait::Until(_)))
    }

    /// Whether packets for the guest must wait, because it may not have seen the event.
    pub(crate) const fn holds_back(self) -> bool {
        matches!(self, Self::Published { .. })
    }

    /// Whether the event is still pending and there are buffers that the device has not tried yet.
    pub(crate) fn want_more<M: GuestMemory>(
        self,
        queue: &Virtqueue<'_, '_, M>,
    ) -> Result<bool, DeviceFault> {
        Ok(matches!(self, Self::Owed(_))
            && queue.ready()
            && queue.available()?.0 != queue.next_available())
    }

    /// Makes as much progress as the guest's buffers and the budget for unusable buffers allow.
    /// Returns whether this call published the event.
    pub(crate) fn proceed<M: GuestMemory>(
        &mut self,
        now: Tick,
        queue: &mut Virtqueue<'_, '_, M>,
        counters: &mut DeviceCounters,
        mut budget: usize,
    ) -> Result<bool, DeviceFault> {
        if *self == Self::Quiet || !queue.ready() {
            return Ok(false);
        }
        let mut published = false;
        if matches!(self, Self::Owed(_)) {
            published = self.publish(now, queue, counters, &mut budget)?;
            // No buffer yet: ask for a kick, and look again for a buffer that came meanwhile.
            if !published && queue.watch_available()?.0 != queue.next_available() {
                published = self.publish(now, queue, counters, &mut budget)?;
            }
        }
        if let Self::Published { available, .. } = *self {
            // A further buffer acknowledges the event. If there is none yet, ask for a kick, and
            // look again.
            if queue.available()? != available || queue.watch_available()? != available {
                *self = Self::Quiet;
            }
        }
        Ok(published)
    }

    /// Puts the event into the next buffer that can hold it.
    fn publish<M: GuestMemory>(
        &mut self,
        now: Tick,
        queue: &mut Virtqueue<'_, '_, M>,
        counters: &mut DeviceCounters,
        budget: &mut usize,
    ) -> Result<bool, DeviceFault> {
        let mut slices = Slices::<M>::new();
        while *budget > 0 {
            // Read the index before publishing the event, because the guest may acknowledge it
            // immediately afterwards.
            let available = queue.available()?;
            slices.clear();
            let Some(taken) = queue.take(Part::Writable, &mut slices)? else {
                return Ok(false);
            };
            // A malformed or too small buffer goes back, and the next one is tried.
            if taken.len.unwrap_or(0) < TRANSPORT_RESET.len() {
                *budget = budget.saturating_sub(taken.cost.max(REFUSAL_COST));
                counters.unusable_buffers += 1;
                queue.give_back(taken.head, 0)?;
                continue;
            }
            Cursor::default().copy_from(&slices, &TRANSPORT_RESET);
            queue.give_back(taken.head, 4)?;
            counters.transport_resets += 1;
            let until = now.saturating_add(PATIENCE);
            *self = Self::Published { available, until };
            return Ok(true);
        }
        Ok(false)
    }
}
