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
const PART_OF_RING: u16 = 4;
const PART_OF_WINDOW: usize = 2;

/// So many descriptors, or more, a guest uses without an answer if it does not ask for any; and twice as many
/// as it used before the last answer, up to so many: for that could be one question.
const STREAM: usize = 256;
const LONG_STREAM: usize = 4096;

/// So many packets are asked for one by one after a batch of which none came: that cost a timer, and no packet
/// waited.
const PAUSE: usize = 16;

/// After so many full batches in a row they may be half as large again, and one in vain costs no more than
/// the first: a guest whose processor is taken away now and then is no guest that sends in bursts.
const RECOVERY: u16 = 32;

/// What the driver was asked for.
#[derive(Clone, Copy, Debug)]
enum Asked {
    /// Nobody knows.
    Unknown,
    /// For nothing: the device is at work on the ring.
    Nothing,
    /// For a kick with the next packet.
    Next,
    /// For one with the last packet of a batch.
    Batch(Batch),
}

#[derive(Clone, Copy, Debug)]
struct Batch {
    packets: u16,
    /// When the device looks by itself.
    due: Tick,
    /// It was told that it is time.
    is_due: bool,
}

impl Batch {
    fn is_late(&self, now: Tick) -> bool {
        self.is_due || self.due <= now
    }
}

/// What came of a batch that was asked for.
#[derive(Clone, Copy, Debug)]
struct Tried {
    packets: usize,
    is_late: bool,
}

/// Packets that were taken since the driver was asked last.
#[derive(Clone, Copy, Debug)]
struct Burst {
    packets: usize,
    /// Descriptors of the longest of them, bytes of the largest.
    descriptors: usize,
    bytes: usize,
    /// The smallest buffer that the guest has, by its own word, on a connection of theirs.
    window: usize,
    /// One of them had no payload.
    has_control: bool,
}

impl Burst {
    const NONE: Self = Self {
        packets: 0,
        descriptors: 0,
        bytes: 0,
        window: usize::MAX,
        has_control: false,
    };
}

/// The kicks of the transmit queue.
///
/// They wait if the guest does nothing but stream: all that it sent just now was payload, and it has
/// got no answer for long. A batch is as large as one that becomes full in its time. Where it was half full or
/// less, packets waited in vain, and the guest is asked for each of its next packets: 256 of them, and
/// four times as many each time that it is so again, up to 4,096.
#[derive(Clone, Copy, Debug)]
pub(crate) struct TxKicks {
    delay: Duration,
    /// Bytes that the guest may have under way on a connection, by our word.
    window: usize,
    asked: Asked,
    burst: Burst,
    /// What came of the batch that the burst is of, if it is of one.
    tried: Option<Tried>,
    /// Descriptors that the guest has used since it got an answer, and before that since the last but one.
    since_answer: usize,
    before_answer: usize,
    /// Packets of a batch at most, and how many batches were full in a row.
    most: u16,
    full: u16,
    /// Packets that are still asked for one by one.
    prompt: usize,
    /// How many the next time.
    next_prompt: usize,
}

impl TxKicks {
    /// For a guest that may have `window` bytes under way on each connection.
    pub(crate) const fn new(delay: Duration, window: u32) -> Self {
        Self {
            delay,
            window: window as usize,
            asked: Asked::Unknown,
            burst: Burst::NONE,
            tried: None,
            since_answer: 0,
            before_answer: 0,
            most: u16::MAX,
            full: 0,
            prompt: 0,
            next_prompt: PROMPT,
        }
    }

    /// The ring is another one, or there is none; and the driver may be another one.
    pub(crate) const fn restart(&mut self) {
        *self = Self {
            window: self.window,
            ..Self::new(self.delay, 0)
        };
    }

    /// When the device is to look at the ring by itself.
    pub(crate) const fn due(&self) -> Option<Tick> {
        match self.asked {
            Asked::Batch(batch) if !batch.is_due => Some(batch.due),
            _ => None,
        }
    }

    /// Leaves what is due to the next call, so that no timer fires again and again while the queue is not
    /// served.
    pub(crate) fn on_timeout(&mut self, now: Tick) {
        if let Asked::Batch(batch) = &mut self.asked {
            batch.is_due = batch.is_late(now);
        }
    }

    /// Whether the driver was asked for a kick, and it may still come, so that the device may leave the
    /// empty ring.
    pub(crate) fn is_asked(&self, now: Tick) -> bool {
        match self.asked {
            Asked::Next => true,
            Asked::Batch(batch) => !batch.is_late(now),
            Asked::Unknown | Asked::Nothing => false,
        }
    }

    /// A packet was found in the ring. Returns whether the driver is to be asked for no kicks.
    pub(crate) fn found(&mut self, now: Tick) -> bool {
        if matches!(self.asked, Asked::Nothing) {
            return false;
        }
        self.end_batch(now);
        true
    }

    /// A packet was taken, of so many descriptors and bytes of payload, from a guest with so large a buffer
    /// of its own.
    pub(crate) fn took(&mut self, descriptors: usize, bytes: usize, window: usize) {
        let burst = &mut self.burst;
        burst.packets += 1;
        burst.descriptors = burst.descriptors.max(descriptors);
        burst.bytes = burst.bytes.max(bytes);
        burst.window = burst.window.min(window);
        burst.has_control |= bytes == 0;
        self.since_answer = self.since_answer.saturating_add(descriptors);
    }

    /// The guest was sent something that it may have waited for. Returns whether the driver is to be asked for
    /// its next packet: the guest may reply, and wait again.
    pub(crate) const fn on_answer(&mut self) -> bool {
        self.before_answer = self.since_answer;
        self.since_answer = 0;
        let had_batch = matches!(self.asked, Asked::Batch(_));
        if had_batch {
            self.asked = Asked::Next;
        }
        had_batch
    }

    /// The ring, of `size` descriptors, is empty, and the driver is asked to kick: with which of its next
    /// packets, counted from one. It is the first unless the ring `can_wait` for others.
    pub(crate) fn ask(&mut self, now: Tick, size: u16, can_wait: bool) -> u16 {
        self.end_batch(now);
        let burst = std::mem::replace(&mut self.burst, Burst::NONE);
        match self.tried.take() {
            Some(tried) if tried.is_late && burst.packets == 0 => self.prompt = PAUSE,
            Some(tried) if tried.is_late && burst.packets * 2 <= tried.packets => {
                self.full = 0;
                self.prompt = self.next_prompt;
                self.next_prompt = MOST_PROMPT.min(self.next_prompt * 4);
            }
            Some(tried) if burst.packets >= tried.packets => {
                self.full += 1;
                if self.full == RECOVERY {
                    self.full = 0;
                    self.next_prompt = PROMPT;
                    self.most = self.most.saturating_add(self.most / 2);
                }
            }
            Some(tried) if tried.is_late => {
                self.full = 0;
                // With room to spare, or every other batch would be late.
                let fit = burst.packets - burst.packets / 4;
                self.most = u16::try_from(fit).unwrap_or(self.most);
            }
            _ => self.prompt = self.prompt.saturating_sub(burst.packets),
        }
        let long = self.before_answer.saturating_mul(2);
        let streams = self.since_answer >= long.clamp(STREAM, LONG_STREAM);
        let packets = if can_wait && streams && self.prompt == 0 && !self.delay.is_zero() {
            self.batch_of(burst, size)
        } else {
            1
        };
        self.asked = if packets > 1 {
            Asked::Batch(Batch {
                packets,
                due: now.saturating_add(self.delay),
                is_due: false,
            })
        } else {
            Asked::Next
        };
        packets
    }

    /// The driver is asked for nothing any more.
    fn end_batch(&mut self, now: Tick) {
        if let Asked::Batch(batch) = self.asked {
            self.tried = Some(Tried {
                packets: batch.packets.into(),
                is_late: batch.is_late(now),
            });
        }
        self.asked = Asked::Nothing;
    }

    /// How many packets like these make a batch; one if nothing is to wait.
    fn batch_of(&self, burst: Burst, size: u16) -> u16 {
        if burst.packets == 0 || burst.has_control {
            return 1;
        }
        let part = size / PART_OF_RING;
        let fit = self.window.min(burst.window) / PART_OF_WINDOW / burst.bytes;
        let most = (usize::from(part) / burst.descriptors.max(1)).min(fit);
        u16::try_from(most).unwrap_or(part).clamp(1, self.most)
    }
}
