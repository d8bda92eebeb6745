// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! One call of [`VsockDevice::process`].

use vm_memory::GuestMemory;
use vsock_muxer::GuestBuffers;
use vsock_proto::Tick;

use super::VsockDevice;
use crate::chain::{DESCRIPTOR_COST, Part};
use crate::notify::Verdict;
use crate::ring::Ring;
use crate::rx::{RxBuffers, Tools};
use crate::scatter::Slices;
use crate::tx::{self, TxPayload};
use crate::{Fault, Outcome, QueueName, Queues};

/// What a packet of the guest costs at least, of the budget of a call.
const LEAST_COST: usize = 2048;

/// What a call has left of its budgets, and found out.
struct Call {
    tx_budget: usize,
    rx_budget: usize,
    /// Descriptors of the guest's packets.
    taken: usize,
    /// Something waits for buffers that the guest does not offer.
    starved: bool,
}

/// Why the transmit queue rests.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Rest {
    /// There is nothing more in it.
    Drained,
    /// The muxer has too many replies that wait for buffers.
    Blocked,
    /// The budget is used up.
    Spent,
}

impl<M: GuestMemory> VsockDevice<M> {
    pub(super) fn work(
        &mut self,
        now: Tick,
        mem: &M,
        queues: &mut Queues<'_>,
    ) -> Result<Outcome, Fault> {
        let mut outcome = Outcome::default();
        if let Some(event) = queues.event.as_deref_mut() {
            let mut ring = Ring::new(mem, event, QueueName::Event);
            if self
                .events
                .proceed(&mut ring, &mut self.counters, self.budget)?
            {
                // Those that were opened since the reset was owed are gone for the guest as well.
                self.muxer.transport_reset(now);
            }
            outcome.more = self.events.want_more(&ring)?;
            outcome.notify_event = ring.notification()?;
        }
        let mut rx = Ring::new(mem, queues.rx, QueueName::Rx);
        let mut tx = Ring::new(mem, queues.tx, QueueName::Tx);
        let mut call = Call {
            tx_budget: self.budget,
            rx_budget: self.budget,
            taken: 0,
            starved: false,
        };
        loop {
            let rest = self.take_packets(now, &mut tx, &mut call)?;
            let more = self.fill_buffers(now, &mut rx, &mut call)?;
            // The replies that were in the way may have left.
            if rest != Rest::Blocked || !self.muxer.can_take_packet() {
                outcome.more |= more || rest == Rest::Spent;
                break;
            }
        }
        let wanted = tx.notification()?;
        outcome.notify_tx = self
            .tx_notifications
            .decide(now, wanted, call.taken, tx.size());
        // A guest that has to offer buffers must know of those that are back.
        let may_wait = !call.starved && self.muxer.notification_may_wait();
        let (wanted, used) = (rx.notification()?, rx.used().into());
        let verdict = self
            .rx_notifications
            .decide(now, wanted, used, rx.size(), may_wait);
        outcome.notify_rx = verdict.notifies();
        if verdict != Verdict::Later {
            if self.muxer.answers_guest() {
                if self.tx_kicks.on_answer() {
                    outcome.more |= tx.enable_notification(1)?;
                }
                if outcome.notify_rx {
                    self.tx_notifications.on_answer();
                }
            }
            self.muxer.guest_notified();
        }
        Ok(outcome)
    }

    /// Takes packets from the transmit queue.
    fn take_packets(
        &mut self,
        now: Tick,
        tx: &mut Ring<'_, '_, M>,
        call: &mut Call,
    ) -> Result<Rest, Fault> {
        let mut slices = Slices::<M>::new();
        loop {
            if !self.muxer.can_take_packet() {
                return Ok(Rest::Blocked);
            }
            if call.tx_budget == 0 {
                return Ok(Rest::Spent);
            }
            slices.clear();
            let Some(chain) = tx.take(Part::Readable, &mut slices)? else {
                if self.tx_kicks.is_asked(now) {
                    return Ok(Rest::Drained);
                }
                let batch = self.tx_kicks.ask(now, tx.size(), tx.event_idx());
                if tx.enable_notification(batch)? {
                    continue;
                }
                return Ok(Rest::Drained);
            };
            if self.tx_kicks.found(now) {
                tx.disable_notification()?;
            }
            let mut cost = chain.cost;
            let descriptors = cost / DESCRIPTOR_COST;
            call.taken += descriptors;
            let (mut carried, mut window) = (0, 0);
            let parsed = chain.len.and_then(|readable| tx::header(&slices, readable));
            match parsed {
                Ok((header, cursor)) => {
                    carried = header.len as usize;
                    window = header.buf_alloc as usize;
                    cost = cost.max(carried);
                    let mut payload = TxPayload {
                        slices: &slices,
                        cursor,
                        left: carried,
                        direct: &self.direct,
                        scratch: &mut self.scratch,
                    };
                    self.muxer.on_packet(now, &header, &mut payload);
                }
                Err(_) => self.counters.malformed_packets += 1,
            }
            self.tx_kicks.took(descriptors, carried, window);
            call.tx_budget = call.tx_budget.saturating_sub(cost.max(LEAST_COST));
            tx.give_back(chain.head, 0)?;
        }
    }

    /// Fills buffers of the receive queue. Returns whether more could be sent with more budget.
    fn fill_buffers(
        &mut self,
        now: Tick,
        rx: &mut Ring<'_, '_, M>,
        call: &mut Call,
    ) -> Result<bool, Fault> {
        loop {
            if self.events.holds_back() || !self.muxer.wants_transmit() {
                self.expect_no_buffers(rx)?;
                return Ok(false);
            }
            if call.rx_budget == 0 {
                return Ok(true);
            }
            let tools = Tools {
                direct: &self.direct,
                scratch: &mut self.scratch,
                reserved: &mut self.reserved,
                counters: &mut self.counters,
            };
            let mut buffers = RxBuffers::new(rx, tools, call.rx_budget);
            let starved = loop {
                let left = call.rx_budget.saturating_sub(buffers.cost());
                self.muxer.transmit(now, &mut buffers, left);
                if !self.muxer.wants_transmit() {
                    break false;
                }
                match buffers.room() {
                    None => break !buffers.is_spent(),
                    // Payload waits, and this buffer has no room for any.
                    Some(0) if buffers.refuse_roomless() => {}
                    Some(_) => break false,
                }
            };
            call.rx_budget = call.rx_budget.saturating_sub(buffers.cost());
            buffers.finish()?;
            call.starved = starved;
            if starved {
                self.rx_kicks_off = false;
                if !rx.enable_notification(1)? {
                    return Ok(false);
                }
            } else if self.muxer.wants_transmit() {
                return Ok(true);
            }
        }
    }

    /// Buffers are not needed now: notifications of them would be for nothing.
    fn expect_no_buffers(&mut self, rx: &mut Ring<'_, '_, M>) -> Result<(), Fault> {
        if !self.rx_kicks_off {
            rx.disable_notification()?;
            self.rx_kicks_off = true;
        }
        Ok(())
    }
}
