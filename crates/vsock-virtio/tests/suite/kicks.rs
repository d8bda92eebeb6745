// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Kicks that wait: which of its next packets the driver is asked to kick with.

use std::io::{Read, Write};
use std::time::Duration;

use vsock_backend_api::{VsockBackend, VsockStream};
use vsock_driver::{Descriptor, DriverRing, Interrupting, filled, memory};
use vsock_inner::{VsockInnerBackend, VsockInnerStream};
use vsock_muxer::Muxer;
use vsock_proto::{Config, GuestCid, Header, Op};
use vsock_virtio::{F_EVENT_IDX, F_VERSION_1, QueueName, VsockDevice};

use crate::rig::{CID, PACKET, Rig, SIZE, packet};

const GUEST: u32 = 1024;
const PORT: u32 = 80;
const DELAY: Duration = Duration::from_millis(1);
/// A quarter of the ring.
const BATCH: u16 = SIZE / 4;
const WINDOW: u32 = 256 * 1024;
/// The transmit ring, and where packets lie.
const RING: u64 = 0x100_0000;
const DATA: u64 = 0x200_0000;

/// A guest with a connection to a host that reads all.
struct Guest {
    rig: Rig,
    host: VsockInnerStream,
    /// The guest's own buffer.
    buf_alloc: u32,
    /// Bytes that were sent, that the host has read, and that the guest knows to be read.
    sent: u32,
    read: usize,
    told: u32,
    /// Times that the device looked at the ring by itself, and that it found something.
    timers: usize,
    late: usize,
}

/// A guest whose connection to this backend is asked for.
fn connecting(
    backend: impl VsockBackend + 'static,
    size: u16,
    delay: Duration,
    features: u64,
) -> Rig {
    let config = Config::builder().buf_alloc(WINDOW).build().unwrap();
    let mut muxer = Muxer::new(GuestCid::try_from(CID).unwrap(), config);
    muxer.add_backend(Box::new(backend)).unwrap();
    // Of notifications, other tests tell.
    let device = VsockDevice::builder(muxer)
        .rx_notification_delay(Duration::ZERO)
        .tx_notification_delay(Duration::ZERO)
        .tx_kick_delay(delay)
        .build();
    let mut rig = Rig::around(device);
    let end = DATA + PACKET * u64::from(size);
    rig.memory = memory(&[(0, usize::try_from(end).unwrap())]);
    rig.tx = DriverRing::new(RING, size);
    rig.queues[QueueName::Tx.index()] = rig.tx.queue();
    rig.device.ack_features(F_VERSION_1 | features).unwrap();
    rig.start();
    rig.post(SIZE);
    rig.tx_data = DATA;
    rig.send(packet(Op::Request, GUEST, PORT), b"");
    rig.settle();
    rig
}

fn connected(size: u16, delay: Duration, features: u64) -> Guest {
    let backend = VsockInnerBackend::new().unwrap();
    let listener = backend.listen(PORT).unwrap();
    let mut rig = connecting(backend, size, delay, features);
    let mut host = listener.accept().unwrap();
    host.set_nonblocking(true).unwrap();
    rig.settle();
    rig.tx.used(&rig.memory);
    Guest {
        rig,
        host,
        buf_alloc: WINDOW,
        sent: 0,
        read: 0,
        told: 0,
        timers: 0,
        late: 0,
    }
}

/// One that has streamed for so long that its kicks may wait.
fn streaming() -> Guest {
    let mut guest = connected(SIZE, DELAY, F_EVENT_IDX);
    guest.stream(300);
    assert_eq!(guest.awaited(), BATCH);
    guest
}

impl Guest {
    /// The guest sends a packet, and the device is not called.
    fn sends(&mut self, len: usize) {
        let header = Header {
            buf_alloc: self.buf_alloc,
            ..packet(Op::ReadWrite, GUEST, PORT)
        };
        self.rig.send(header, &vec![0; len]);
        self.sent += u32::try_from(len).unwrap();
    }

    /// The same, and it kicks if it was asked to.
    fn sends_and_kicks(&mut self, len: usize) {
        let is_awaited = self.awaited() == 1;
        self.sends(len);
        if is_awaited {
            self.process();
        }
    }

    /// The device is called, for whatever reason, and the host reads.
    fn process(&mut self) {
        let _ = self.notified();
    }

    /// The same; returns whether the guest was notified of something that was sent to it.
    fn notified(&mut self) -> bool {
        let mut notified = false;
        // The second time, the host's reading is known.
        for _ in 0..2 {
            loop {
                let outcome = self.rig.process();
                notified |= outcome.notify_rx;
                if !outcome.more {
                    break;
                }
            }
            let mut buf = [0; 4096];
            while let Ok(len @ 1..) = self.host.read(&mut buf) {
                self.read += len;
            }
            self.rig.ready();
        }
        self.rig.tx.used(&self.rig.memory);
        if let Some((header, _)) = self.rig.received().last() {
            self.told = header.fwd_cnt;
        }
        let seen = self.rig.rx.seen();
        self.rig.rx.set_used_event(&self.rig.memory, seen);
        notified
    }

    /// The host sends a byte, and the guest is notified.
    fn is_answered(&mut self) {
        self.host.write_all(b"!").unwrap();
        self.rig.ready();
        assert!(self.notified());
    }

    /// Sends so many packets of a byte, for each of which the device is called.
    fn stream(&mut self, packets: usize) {
        for _ in 0..packets {
            self.sends(1);
            self.process();
        }
    }

    /// With which of its next packets the driver is to kick, counted from one.
    fn awaited(&self) -> u16 {
        let event = self.rig.tx.avail_event(&self.rig.memory);
        event.wrapping_sub(self.rig.tx.available()).wrapping_add(1)
    }

    /// The timer fires, and the device is called.
    fn timer(&mut self) {
        self.rig.now = self.rig.device.deadline().unwrap();
        self.rig.device.on_timeout(self.rig.now);
        self.timers += 1;
        self.late += usize::from(self.rig.tx.available() != self.rig.tx.seen());
        self.process();
    }

    fn pass(&mut self, time: Duration) {
        let until = self.rig.now.saturating_add(time);
        let is_due = |rig: &Rig| rig.device.deadline().is_some_and(|due| due <= until);
        // One takes what is there, the other finds that nothing more has come.
        for _ in 0..2 {
            if is_due(&self.rig) {
                self.timer();
            }
        }
        assert!(!is_due(&self.rig));
        self.rig.now = until;
    }

    /// Sends one packet after the other until one of them leaves the driver asked for a later one than the
    /// next; returns how many they were.
    fn asked_one_by_one(&mut self) -> usize {
        for count in 1..10_000 {
            self.stream(1);
            if self.awaited() > 1 {
                return count;
            }
        }
        panic!("it is never asked for a batch");
    }

    /// Sends a batch of which the last packet kicks.
    fn fills_a_batch(&mut self) {
        for _ in 0..self.awaited() {
            self.sends_and_kicks(1);
        }
        assert!(self.awaited() > 1);
    }
}

#[test]
fn a_guest_that_streams_is_asked_to_kick_with_the_last_packet_of_a_batch() {
    let mut guest = connected(SIZE, DELAY, F_EVENT_IDX);
    guest.stream(255);
    assert_eq!(guest.awaited(), 1, "so many it may send before an answer");
    guest.stream(1);
    for _ in 0..3 {
        let due = guest.rig.now.saturating_add(DELAY);
        assert_eq!(guest.rig.device.deadline(), Some(due));
        for left in (1..=BATCH).rev() {
            assert_eq!(guest.awaited(), left);
            guest.sends(1);
        }
        let before = guest.read;
        guest.rig.now = guest.rig.now.saturating_add(DELAY / 2);
        guest.process();
        assert_eq!(guest.read - before, usize::from(BATCH));
    }
}

#[test]
fn packets_that_make_no_batch_are_taken_when_its_time_has_come() {
    let mut guest = streaming();
    let due = guest.rig.now.saturating_add(DELAY);
    for _ in 0..BATCH - 1 {
        guest.sends(1);
    }
    let before = guest.read;
    guest.timer();
    assert_eq!(guest.rig.now, due);
    assert_eq!(guest.read - before, usize::from(BATCH - 1));
    assert_eq!(guest.awaited(), 12, "that was not in vain");
}

#[test]
fn a_call_for_something_else_takes_what_is_there_and_the_time_begins_anew() {
    let mut guest = streaming();
    guest.sends(1);
    guest.rig.now = guest.rig.now.saturating_add(DELAY / 2);
    guest.process();
    assert_eq!(guest.awaited(), BATCH);
    let due = guest.rig.now.saturating_add(DELAY);
    assert_eq!(guest.rig.device.deadline(), Some(due));
}

#[test]
fn a_call_that_finds_nothing_leaves_the_time_as_it_is() {
    let mut guest = streaming();
    let due = guest.rig.device.deadline();
    guest.rig.now = guest.rig.now.saturating_add(DELAY / 2);
    guest.process();
    assert_eq!(guest.awaited(), BATCH);
    assert_eq!(guest.rig.device.deadline(), due);
}

#[test]
fn a_guest_that_has_stopped_is_asked_for_its_next_packet_and_has_no_timer() {
    for on_timeout in [true, false] {
        let mut guest = streaming();
        if on_timeout {
            guest.timer();
        } else {
            guest.rig.now = guest.rig.now.saturating_add(DELAY);
            guest.process();
        }
        assert_eq!(guest.awaited(), 1);
        assert_eq!(guest.rig.device.deadline(), None);
    }
}

#[test]
fn a_batch_is_a_quarter_of_the_ring_in_descriptors() {
    let mut guest = streaming();
    let (head, addr) = (0, DATA - 100);
    let header = Header {
        len: 1,
        buf_alloc: WINDOW,
        ..packet(Op::ReadWrite, GUEST, PORT)
    };
    filled(
        &guest.rig.memory,
        addr,
        &[&header.encode()[..], b"x"].concat(),
    );
    let row = [(0, 40), (40, 3), (43, 2)].map(|(at, len)| Descriptor::readable(addr + at, len));
    guest.rig.tx.chain(&guest.rig.memory, head, &row);
    guest.rig.tx.offer(&guest.rig.memory, head);
    guest.process();
    assert_eq!(guest.awaited(), BATCH / 3);
}

#[test]
fn a_batch_is_half_of_the_window_of_the_largest_packet() {
    let mut guest = streaming();
    guest.sends(WINDOW as usize / 8);
    guest.sends(1);
    guest.process();
    assert_eq!(guest.awaited(), 4);
    guest.sends(WINDOW as usize / 4 + 1);
    guest.process();
    assert_eq!(guest.awaited(), 1);
    assert_eq!(guest.rig.device.deadline(), None);
}

#[test]
fn a_batch_is_half_of_the_guests_own_buffer_if_that_is_smaller() {
    let mut guest = streaming();
    guest.buf_alloc = 10;
    guest.stream(1);
    guest.buf_alloc = WINDOW;
    guest.stream(1);
    assert_eq!(guest.awaited(), BATCH, "of the last burst alone");
    guest.buf_alloc = 10;
    guest.sends(1);
    guest.buf_alloc = WINDOW;
    guest.sends(1);
    guest.process();
    assert_eq!(guest.awaited(), 5, "of the smallest in a burst");
    guest.buf_alloc = 1;
    guest.stream(1);
    assert_eq!(guest.awaited(), 1);
}

/// Linux has no more under way than its own buffer takes.
#[test]
fn a_guest_with_a_small_buffer_does_not_wait_for_the_timer_in_its_stream() {
    for (buf_alloc, len) in [(16, 1), (24, 1), (64, 4), (96, 4), (256, 1), (256, 30)] {
        let (buf_alloc, len) = (buf_alloc * 1024, len * 1024);
        let mut guest = connected(128, DELAY, F_EVENT_IDX);
        guest.buf_alloc = buf_alloc;
        let packet = u32::try_from(len).unwrap();
        while guest.sent < 2 * 1024 * 1024 {
            let outstanding = guest.rig.tx.available() - guest.rig.tx.seen();
            if guest.sent - guest.told + packet > buf_alloc || outstanding == 128 {
                guest.timer();
            } else {
                guest.sends_and_kicks(len);
            }
        }
        assert!(guest.timers < 3, "{buf_alloc}, {len}: {}", guest.timers);
    }
}

#[test]
fn a_guest_that_sends_something_else_than_payload_is_asked_for_each() {
    let mut guest = streaming();
    guest.sends(1);
    guest.rig.send(packet(Op::CreditUpdate, GUEST, PORT), b"");
    guest.sends(1);
    guest.process();
    assert_eq!(guest.awaited(), 1);
    guest.stream(1);
    assert_eq!(guest.awaited(), BATCH);

    let head = guest.rig.tx.available() % SIZE;
    let short = Descriptor::readable(DATA, 43);
    guest.rig.tx.describe(&guest.rig.memory, head, short);
    guest.rig.tx.offer(&guest.rig.memory, head);
    guest.process();
    assert_eq!(guest.awaited(), 1, "a packet without a whole header");
}

#[test]
fn a_guest_that_gets_an_answer_is_asked_for_its_next_packet() {
    let mut guest = streaming();
    guest.is_answered();
    assert_eq!(
        guest.awaited(),
        1,
        "that may be its reply, for which it waits"
    );
    assert_eq!(guest.rig.device.deadline(), None);
}

#[test]
fn a_packet_that_comes_with_the_answer_is_not_left_in_the_ring() {
    let mut guest = streaming();
    guest.sends(1);
    guest.is_answered();
    assert_eq!(guest.read, 301);
    assert_eq!(guest.awaited(), 1);
}

#[test]
fn a_packet_that_comes_while_the_answer_is_sent_is_not_left_in_the_ring() {
    let host = Interrupting::default();
    let mut rig = connecting(host.clone(), SIZE, DELAY, F_EVENT_IDX);
    rig.received();
    rig.rx.set_used_event(&rig.memory, rig.rx.seen());
    for _ in 0..300 {
        rig.send(packet(Op::ReadWrite, GUEST, PORT), b"?");
        assert!(!rig.process().more);
        rig.tx.used(&rig.memory);
    }
    let header = Header {
        len: 1,
        ..packet(Op::ReadWrite, GUEST, PORT)
    };
    filled(&rig.memory, DATA, &[&header.encode()[..], b"?"].concat());
    rig.tx
        .describe(&rig.memory, 0, Descriptor::readable(DATA, 45));
    let (mut ring, memory) = (rig.tx.clone(), rig.memory.clone());
    host.interrupt(move || ring.offer(&memory, 0));
    rig.ready();
    let outcome = rig.process();
    assert!(outcome.notify_rx && outcome.more);
    assert_eq!(rig.tx.used(&rig.memory), []);
    let _ = rig.process();
    assert_eq!(rig.tx.used(&rig.memory), [(0, 0)]);
}

#[test]
fn a_guest_streams_again_when_it_has_sent_twice_as_much_as_before_an_answer() {
    for (before, threshold) in [(1, 256), (100, 256), (300, 600), (5000, 4096)] {
        let mut guest = connected(SIZE, DELAY, F_EVENT_IDX);
        guest.stream(before);
        guest.is_answered();
        assert_eq!(guest.asked_one_by_one(), threshold, "{before}");
    }
}

#[test]
fn a_request_of_any_length_that_is_answered_does_not_wait() {
    for packets in [200, 270, 300, 550, 1000, 2000] {
        let mut guest = connected(SIZE, DELAY, F_EVENT_IDX);
        for request in 1..=10 {
            for _ in 0..packets {
                guest.sends_and_kicks(1);
            }
            if guest.read < request * packets {
                guest.timer();
            }
            assert_eq!(guest.read, request * packets);
            guest.is_answered();
        }
        assert!(guest.timers <= 1, "{packets}: {}", guest.timers);
    }
}

#[test]
fn a_driver_without_event_indices_kicks_with_each() {
    let mut guest = connected(SIZE, DELAY, 0);
    guest.stream(300);
    assert_eq!(guest.rig.device.deadline(), None);
    assert!(guest.rig.tx.wants_kicks(&guest.rig.memory));
}

#[test]
fn without_a_delay_every_packet_is_asked_for() {
    let mut guest = connected(SIZE, Duration::ZERO, F_EVENT_IDX);
    guest.stream(300);
    assert_eq!(guest.awaited(), 1);
    assert_eq!(guest.rig.device.deadline(), None);
}

#[test]
fn a_guest_that_makes_no_batches_is_tried_ever_more_rarely() {
    let mut guest = streaming();
    for expected in [256, 1024, 4096, 4096] {
        guest.sends(1);
        guest.timer();
        assert_eq!(guest.asked_one_by_one(), expected);
    }
}

#[test]
fn after_many_full_batches_one_in_vain_costs_no_more_than_the_first() {
    for (full, expected) in [(31, 1024), (32, 256)] {
        let mut guest = streaming();
        guest.sends(1);
        guest.timer();
        assert_eq!(guest.asked_one_by_one(), 256);
        for _ in 0..full {
            guest.fills_a_batch();
        }
        guest.sends(1);
        guest.timer();
        assert_eq!(guest.asked_one_by_one(), expected);
    }
}

#[test]
fn a_large_ring_has_large_batches() {
    let mut guest = connected(4096, DELAY, F_EVENT_IDX);
    guest.stream(256);
    assert_eq!(guest.awaited(), 1024);
    guest.fills_a_batch();
    guest.sends(1);
    guest.timer();
    assert_eq!(guest.asked_one_by_one(), 256);
}

#[test]
fn a_batch_that_was_half_full_was_in_vain_and_one_more_was_not() {
    for (sent, in_vain) in [(BATCH / 2, true), (BATCH / 2 + 1, false)] {
        let mut guest = streaming();
        for _ in 0..sent {
            guest.sends(1);
        }
        guest.timer();
        assert_eq!(guest.awaited() == 1, in_vain, "{sent}");
    }
}

#[test]
fn a_batch_of_which_no_packet_came_puts_the_next_one_off_by_a_few() {
    let mut guest = streaming();
    for _ in 0..3 {
        guest.timer();
        assert_eq!(guest.asked_one_by_one(), 16);
    }
    guest.sends(1);
    guest.timer();
    assert_eq!(guest.asked_one_by_one(), 256, "that was not in vain");
}

#[test]
fn a_batch_is_smaller_than_what_came_of_one_that_was_late() {
    let mut guest = streaming();
    for (came, next) in [(15, 12), (10, 8), (7, 6), (5, 4), (3, 3)] {
        for _ in 0..came {
            guest.sends(1);
        }
        guest.timer();
        assert_eq!(guest.awaited(), next);
    }
    for next in [4, 6, 9, 13, BATCH] {
        for _ in 0..32 {
            assert!(guest.awaited() < next);
            guest.fills_a_batch();
        }
        assert_eq!(guest.awaited(), next, "half as large again");
    }
    for _ in 0..32 {
        guest.fills_a_batch();
    }
    assert_eq!(guest.awaited(), BATCH, "a quarter of the ring");
}

/// Bursts of any length, with no answer.
#[test]
fn few_packets_of_bursts_wait_for_the_timer() {
    for burst in [4, 9, 15, 16, 28, 42, 55, 150, 1000] {
        let mut guest = streaming();
        let bursts = 6_000 / burst;
        for _ in 0..bursts {
            for _ in 0..burst {
                guest.sends_and_kicks(1);
            }
            guest.pass(5 * DELAY);
        }
        // One packet in hundreds.
        let late = guest.late;

        assert!(late < 6_000 / 300, "{burst}: {late} of {bursts}");
    }
}

/// A fast stream of a guest whose processor is taken away for 2 ms, once in so many packets.
#[test]
fn a_stream_that_pauses_now_and_then_still_comes_in_batches() {
    for (pause, each) in [(10_000, 12), (5000, 6), (1000, 2)] {
        let mut guest = streaming();
        let mut kicks = 0;
        for sent in 1..=10_000 {
            guest.pass(Duration::from_micros(10));
            kicks += usize::from(guest.awaited() == 1);
            guest.sends_and_kicks(1);
            // Every time at another place of a batch.
            if sent % pause == sent / pause {
                guest.pass(2 * DELAY);
            }
        }
        assert!(kicks * each < 10_000, "{pause}: {kicks}");
    }
}

#[test]
fn a_batch_that_is_taken_late_by_another_call_was_in_vain_too() {
    let mut guest = streaming();
    guest.sends(1);
    guest.rig.now = guest.rig.now.saturating_add(DELAY);
    guest.process();
    assert_eq!(guest.awaited(), 1);
}

#[test]
fn a_guest_that_trickles_has_no_timer_for_each_packet() {
    let mut guest = streaming();
    for _ in 0..2000 {
        guest.sends_and_kicks(1);
        guest.pass(2 * DELAY);
    }
    assert!(guest.timers <= 2000 / 16, "{}", guest.timers);
}

#[test]
fn the_next_driver_is_asked_for_each_and_nobody_waits_for_the_last_one() {
    let mut guest = streaming();
    guest.rig.device.reset(guest.rig.now);
    assert_eq!(guest.rig.device.deadline(), None);
    guest.rig.apply_actions();
    guest.rig.new_rings();
    guest
        .rig
        .device
        .ack_features(F_VERSION_1 | F_EVENT_IDX)
        .unwrap();
    guest.rig.start();
    assert_eq!(guest.awaited(), 1);
    assert_eq!(guest.rig.device.deadline(), None);
}

#[test]
fn a_device_whose_rings_are_broken_waits_for_no_batch() {
    let mut guest = streaming();
    guest.rig.tx.offer(&guest.rig.memory, SIZE);
    guest.rig.try_process().unwrap_err();
    let deadline = guest.rig.device.deadline();
    assert_eq!(deadline, None, "a loop would wake in vain");
}

#[test]
fn a_timer_does_not_fire_again_and_again_while_the_queue_is_not_served() {
    let mut guest = streaming();
    guest.sends(1);
    guest.rig.now = guest.rig.device.deadline().unwrap();
    guest.rig.device.on_timeout(guest.rig.now);
    assert_eq!(guest.rig.device.deadline(), None);
    guest.process();
    assert_eq!(guest.read, 301, "whenever that is");
}

#[test]
fn what_waits_arrives_whole_and_in_order() {
    let mut guest = streaming();
    for byte in 0..200_u8 {
        let header = packet(Op::ReadWrite, GUEST, PORT);
        let is_awaited = guest.awaited() == 1;
        guest.rig.send(header, &[byte; 3]);
        if is_awaited {
            let _ = guest.rig.process();
            guest.rig.tx.used(&guest.rig.memory);
        }
    }
    guest.rig.now = guest.rig.device.deadline().unwrap();
    guest.rig.device.on_timeout(guest.rig.now);
    let _ = guest.rig.process();
    let mut received = vec![0; 1000];
    let len = guest.host.read(&mut received).unwrap();
    let expected: Vec<u8> = (0..200).flat_map(|byte| [byte; 3]).collect();
    assert_eq!(received[..len], expected);
}
