// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! The work of one call of [`VsockDevice::process`].
//!
//! The call publishes a pending event, then alternates between taking packets and filling buffers
//! until nothing moves or a budget is used up. At the end it decides when the next call is due
//! (immediately, while polling, or after an event), and which interrupts the guest needs.

use virtio_queue::Queue;
use vm_memory::GuestMemory;
use vsock_muxer::{GuestBuffers, NextCall};
use vsock_proto::Tick;

use super::VsockDevice;
use crate::chain::{DESCRIPTOR_COST, Part};
use crate::notification::Moved;
use crate::rx::{RxBuffers, Tools};
use crate::scatter::Slices;
use crate::tx::{self, TxPayload};
use crate::virtqueue::Virtqueue;
use crate::{DeviceFault, Outcome, PacketDirection, QueueName, Queues};

/// The minimum cost of a packet from the guest, charged to the budget of a call.
const LEAST_COST: usize = 2048;

/// The payload that a call takes while a packet for the guest is waiting: half of the default
/// window. That packet is mostly a credit update, without which the guest soon has to stop.
const TURN: usize = 128 * 1024;

/// The remaining budgets of a call, and its counts.
struct Call {
    tx_budget: usize,
    rx_budget: usize,
    /// How many descriptors of the guest's packets the call has taken.
    taken: usize,
}

/// Why work on a queue has stopped.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Rest {
    /// The transmit queue is empty, or there is nothing to send to the guest.
    Idle,
    /// The transmit queue waits because the muxer has too many replies that wait for buffers, or
    /// the receive queue has no buffer for a packet that waits.
    Starved,
    /// The budget is used up, or, of the transmit queue, something for the guest comes first.
    Spent,
}

impl<M: GuestMemory> VsockDevice<M> {
    pub(super) fn work(
        &mut self,
        now: Tick,
        mem: &M,
        queues: &mut Queues<'_>,
    ) -> Result<Outcome, DeviceFault> {
        let mut outcome = Outcome::default();
        let event = queues.event.as_deref_mut();
        let events_left = self.serve_events(now, mem, event, &mut outcome)?;
        self.events.begin_wait(now);
        if self.events.comes_first() {
            // Both packet queues wait, until the event is published or its deadline passes. The
            // notifications of these queues can stay as they are.
            if events_left {
                outcome.next = NextCall::Immediately;
            }
            return Ok(outcome);
        }
        let mut rx = Virtqueue::new(mem, queues.rx, QueueName::Rx);
        let mut tx = Virtqueue::new(mem, queues.tx, QueueName::Tx);
        let mut call = Call {
            tx_budget: self.budget,
            rx_budget: self.budget,
            taken: 0,
        };
        outcome.next = loop {
            let tx_rest = self.take_packets(now, &mut tx, &mut call)?;
            let rx_rest = self.fill_buffers(now, &mut rx, &mut call)?;
            // Filling buffers may have sent the replies that kept the device from taking packets.
            if tx_rest == Rest::Starved && self.muxer.can_take_packet() {
                continue;
            }
            if events_left || tx_rest == Rest::Spent || rx_rest == Rest::Spent {
                break NextCall::Immediately;
            }
            let moved = match (tx.used(), rx.used()) {
                (0, 0) => Moved::Nothing,
                _ => Moved::Something,
            };
            let notifications = &mut self.notifications;
            // Poll with kicks off, if that promises to find something soon.
            if let Some(until) = notifications.polling.next(now, moved) {
                tx.turn_kicks_off(&mut notifications.tx_kicks)?;
                rx.turn_kicks_off(&mut notifications.rx_kicks)?;
                break NextCall::Poll { until };
            }
            // Before the device sleeps, it asks for a kick on each queue that it waits for. Packets
            // that the muxer cannot take now, and buffers that nothing needs, must not wake it.
            let has_packet =
                tx_rest == Rest::Idle && tx.turn_kicks_on(&mut notifications.tx_kicks)?;
            let has_buffer = if rx_rest == Rest::Starved {
                rx.turn_kicks_on(&mut notifications.rx_kicks)?
            } else {
                rx.turn_kicks_off(&mut notifications.rx_kicks)?;
                false
            };
            // A chain that came before the kicks were on may get no kick: repeat the work for it.
            if !(has_packet || has_buffer) {
                break NextCall::OnEvent;
            }
        };
        // Taken packets may be reported later, several with one interrupt. Filled buffers are
        // reported now: the guest waits for them.
        self.notifications.taken.add(now, tx.used(), call.taken);
        self.counters.tx.chains_used += u64::from(tx.used());
        if self.notifications.is_batch_due(now, tx.size()) {
            let taken = self.notifications.taken.take();
            outcome.notify_tx = tx.wants_interrupt(taken)?;
            self.counters.tx.decided(taken, outcome.notify_tx);
        }
        outcome.notify_rx = rx.wants_interrupt(rx.used())?;
        self.counters.rx.chains_used += u64::from(rx.used());
        self.counters.rx.decided(rx.used(), outcome.notify_rx);
        Ok(outcome)
    }

    /// Publishes a pending event, and decides whether to notify the guest of it. Returns whether
    /// the event is still pending and there are buffers that the device has not tried yet.
    fn serve_events(
        &mut self,
        now: Tick,
        mem: &M,
        event: Option<&mut Queue>,
        outcome: &mut Outcome,
    ) -> Result<bool, DeviceFault> {
        let Some(event) = event else {
            return Ok(false);
        };
        let mut event = Virtqueue::new(mem, event, QueueName::Event);
        let events_left = self.publish_event(now, &mut event)?;
        outcome.notify_event = event.wants_interrupt(event.used())?;
        let counters = &mut self.counters.event;
        counters.chains_used += u64::from(event.used());
        counters.decided(event.used(), outcome.notify_event);
        Ok(events_left)
    }

    /// Publishes a pending event. Returns whether it is still pending and there are buffers that
    /// the device has not tried yet.
    fn publish_event(
        &mut self,
        now: Tick,
        event: &mut Virtqueue<'_, '_, M>,
    ) -> Result<bool, DeviceFault> {
        let is_published = self
            .events
            .proceed(now, event, &mut self.counters, self.budget)?;
        if is_published {
            // The event also closes connections that were opened since the reset was scheduled.
            self.muxer.transport_reset(now);
        }
        self.events.want_more(event)
    }

    /// Takes packets from the transmit queue. When this returns, even with an error, the muxer has
    /// no gathered payload left.
    fn take_packets(
        &mut self,
        now: Tick,
        tx: &mut Virtqueue<'_, '_, M>,
        call: &mut Call,
    ) -> Result<Rest, DeviceFault> {
        let rest = self.take_batches(now, tx, call);
        self.muxer.end_batch(now);
        rest
    }

    /// Like [`take_packets`](Self::take_packets), but may leave gathered payload of the last
    /// packets in the muxer.
    ///
    /// A batch consists of the packets that one look at the queue has found, so no payload waits
    /// for packets that have yet to arrive.
    fn take_batches(
        &mut self,
        now: Tick,
        tx: &mut Virtqueue<'_, '_, M>,
        call: &mut Call,
    ) -> Result<Rest, DeviceFault> {
        let mut slices = Slices::<M>::new();
        let mut is_batch = false;
        let mut payload_taken = 0;
        loop {
            let follows = tx.has_seen_more();
            // The batch is complete: its payload goes out before the next look at the queue.
            if is_batch && !follows {
                self.muxer.end_batch(now);
            }
            if !self.muxer.can_take_packet() {
                return Ok(Rest::Starved);
            }
            let is_turn_over = payload_taken >= TURN && self.muxer.wants_transmit();
            if call.tx_budget == 0 || is_turn_over {
                return Ok(Rest::Spent);
            }
            slices.clear();
            let Some(taken) = tx.take(Part::Readable, &mut slices)? else {
                return Ok(Rest::Idle);
            };
            // A packet found alone is passed on directly; it would gain nothing from gathering.
            is_batch = follows || tx.has_seen_more();
            tx.turn_kicks_off(&mut self.notifications.tx_kicks)?;
            let mut cost = taken.cost;
            call.taken += cost / DESCRIPTOR_COST;
            let parsed = taken.len.and_then(|readable| tx::header(&slices, readable));
            match parsed {
                Ok((header, cursor)) => {
                    let carried = header.len as usize;
                    cost = cost.max(carried);
                    payload_taken += carried;
                    self.tap.pass(PacketDirection::FromGuest, &header, &slices);
                    let mut payload = TxPayload {
                        slices: &slices,
                        cursor,
                        left: carried,
                        direct: &self.direct,
                        scratch: &mut self.scratch,
                    };
                    if is_batch {
                        self.muxer.on_packet_of_batch(now, &header, &mut payload);
                    } else {
                        self.muxer.on_packet(now, &header, &mut payload);
                    }
                }
                Err(_) => self.counters.malformed_packets += 1,
            }
            // Even a malformed packet costs something, so that a call always ends.
            call.tx_budget = call.tx_budget.saturating_sub(cost.max(LEAST_COST));
            tx.give_back(taken.head, 0)?;
        }
    }

    /// Fills buffers of the receive queue with what the muxer has to send.
    fn fill_buffers(
        &mut self,
        now: Tick,
        rx: &mut Virtqueue<'_, '_, M>,
        call: &mut Call,
    ) -> Result<Rest, DeviceFault> {
        if self.events.holds_back() || !self.muxer.wants_transmit() {
            return Ok(Rest::Idle);
        }
        if call.rx_budget == 0 {
            return Ok(Rest::Spent);
        }
        let tools = Tools {
            direct: &self.direct,
            scratch: &mut self.scratch,
            reserved: &mut self.reserved,
            tap: &mut self.tap,
            counters: &mut self.counters,
        };
        let mut buffers = RxBuffers::new(rx, tools, call.rx_budget);
        let rest = loop {
            let left = call.rx_budget.saturating_sub(buffers.cost());
            self.muxer.transmit(now, &mut buffers, left);
            if !self.muxer.wants_transmit() {
                break Rest::Idle;
            }
            match buffers.room() {
                None if buffers.is_spent() => break Rest::Spent,
                None => break Rest::Starved,
                // Payload waits, and this buffer has room only for a header: return it unused.
                Some(0) if buffers.refuse_roomless() => {}
                Some(_) => break Rest::Spent,
            }
        };
        call.rx_budget = call.rx_budget.saturating_sub(buffers.cost());
        buffers.finish()?;
        Ok(rest)
    }
}
