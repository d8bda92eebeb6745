// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Kicks that wait a while: a driver that streams is asked to notify the device of a batch of packets.
//!
//! A kick is an exit of the guest and a wake-up of the VMM's thread, which then wakes a reader. With
//! `VIRTIO_F_EVENT_IDX` the device says of which packet it wants to hear (virtio 1.3, 2.7.10), and that need
//! not be the next one. What comes before it is taken with it, or when the batch's time has come.

use std::time::Duration;

use vsock_proto::Tick;

use crate::notify::{MOST_PROMPT, PROMPT};

/// The part of the ring, and of the window that a guest has, that a batch takes at most: the guest has
/// enough of both to go on with meanwhile.
const PART_OF_RING: usize = 4;
const PART_OF_WINDOW: usize = 2;

/// So many descriptors, or more, a guest uses without an answer if it does not ask for any.
const STREAM: usize = 256;

/// What the driver was asked for.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Asked {
    /// Nobody knows.
    Unknown,
    /// For nothing: the device is at work on the ring.
    Nothing,
    /// For a kick with the next packet.
    Next,
    /// For one with the last of so many; the device looks by itself when they are due.
    Batch(u16, Tick),
    /// For such a batch, and it is due.
    Overdue(u16),
}

/// Packets that were taken since the driver was asked last.
#[derive(Clone, Copy, Debug, Default)]
struct Burst {
    packets: usize,
    /// Descriptors of the longest of them, bytes of the largest.
    descriptors: usize,
    bytes: usize,
    /// One of them had no payload.
    has_control: bool,
}

/// The kicks of the transmit queue.
///
/// They wait if the guest does nothing but stream: all that it sent just now was payload, and it has
/// got no answer for long. Where a batch was not even half full in its time, it was in vain, and the guest
/// is asked for each of its next packets: 256 of them, and twice as many each time that it is so again.
#[derive(Clone, Copy, Debug)]
pub(crate) struct TxKicks {
    delay: Duration,
    /// Bytes of a batch at most.
    most_bytes: usize,
    asked: Asked,
    burst: Burst,
    /// Descriptors that the guest has used since it got an answer.
    since_answer: usize,
    /// The batch that was asked for before the burst was taken, and whether that was late.
    tried: Option<(usize, bool)>,
    /// Packets that are still asked for one by one.
    prompt: usize,
    /// How many the next time.
    next_prompt: usize,
}

impl TxKicks {
    /// For a guest that may have `window` bytes under way on each connection.
    pub(crate) const fn new(delay: Duration, window: u32) -> Self {
        Self::idle(delay, window as usize / PART_OF_WINDOW)
    }

    const fn idle(delay: Duration, most_bytes: usize) -> Self {
        Self {
            delay,
            most_bytes,
            asked: Asked::Unknown,
            burst: Burst {
                packets: 0,
                descriptors: 0,
                bytes: 0,
                has_control: false,
            },
            since_answer: 0,
            tried: None,
            prompt: 0,
            next_prompt: PROMPT,
        }
    }

    /// The ring is another one, or there is none.
    pub(crate) const fn restart(&mut self) {
        *self = Self::idle(self.delay, self.most_bytes);
    }

    /// When the device is to look at the ring by itself.
    pub(crate) const fn due(&self) -> Option<Tick> {
        match self.asked {
            Asked::Batch(_, due) => Some(due),
            _ => None,
        }
    }

    /// The next call looks at the ring, whenever that is: no timer fires again and again until then.
    pub(crate) fn on_timeout(&mut self, now: Tick) {
        if let Asked::Batch(batch, due) = self.asked
            && due <= now
        {
            self.asked = Asked::Overdue(batch);
        }
    }

    /// Whether the driver was asked for a kick, and it may still come, so that the device may leave the
    /// empty ring.
    pub(crate) fn is_asked(&self, now: Tick) -> bool {
        match self.asked {
            Asked::Next => true,
            Asked::Batch(_, due) => due > now,
            Asked::Unknown | Asked::Nothing | Asked::Overdue(_) => false,
        }
    }

    /// A packet was found in the ring. Returns whether the driver is to be asked for no kicks.
    pub(crate) fn found(&mut self, now: Tick) -> bool {
        match self.asked {
            Asked::Nothing => return false,
            Asked::Batch(batch, due) => self.tried = Some((batch.into(), due <= now)),
            Asked::Overdue(batch) => self.tried = Some((batch.into(), true)),
            Asked::Unknown | Asked::Next => {}
        }
        self.asked = Asked::Nothing;
        true
    }

    /// A packet was taken, of so many descriptors and bytes of payload.
    pub(crate) fn took(&mut self, descriptors: usize, bytes: usize) {
        let burst = &mut self.burst;
        burst.packets += 1;
        burst.descriptors = burst.descriptors.max(descriptors);
        burst.bytes = burst.bytes.max(bytes);
        burst.has_control |= bytes == 0;
        self.since_answer = self.since_answer.saturating_add(descriptors);
    }

    /// The guest was sent something that it may have waited for.
    pub(crate) const fn on_answer(&mut self) {
        self.since_answer = 0;
    }

    /// The ring, of `size` descriptors, is empty, and the driver is asked to kick: with which of its next
    /// packets, counted from one. It is the first unless the ring `can_wait` for others.
    pub(crate) fn ask(&mut self, now: Tick, size: u16, can_wait: bool) -> u16 {
        let burst = std::mem::take(&mut self.burst);
        match self.tried.take() {
            Some((batch, true)) if burst.packets * 2 <= batch => {
                self.prompt = self.next_prompt;
                self.next_prompt = MOST_PROMPT.min(self.next_prompt * 2);
            }
            Some((batch, _)) if burst.packets >= batch => {
                self.next_prompt = PROMPT.max(self.next_prompt - batch);
            }
            Some(_) => {}
            None => self.prompt = self.prompt.saturating_sub(burst.packets),
        }
        let streams = self.since_answer >= STREAM && self.prompt == 0;
        let batch = if can_wait && streams && !self.delay.is_zero() {
            self.batch(burst, size)
        } else {
            1
        };
        self.asked = if batch > 1 {
            Asked::Batch(batch, now.saturating_add(self.delay))
        } else {
            Asked::Next
        };
        batch
    }

    /// How many packets like these make a batch; one if nothing is to wait.
    fn batch(&self, burst: Burst, size: u16) -> u16 {
        if burst.packets == 0 || burst.has_control {
            return 1;
        }
        let room = usize::from(size) / PART_OF_RING / burst.descriptors.max(1);
        let most = room.min(self.most_bytes / burst.bytes);
        u16::try_from(most).map_or(u16::MAX, |most| most.max(1))
    }
}
