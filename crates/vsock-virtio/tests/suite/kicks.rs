// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Kicks that wait: which of its next packets the driver is asked to kick with.

use std::io::{Read, Write};
use std::time::Duration;

use vsock_backend_api::VsockStream;
use vsock_driver::{Descriptor, filled};
use vsock_inner::{VsockInnerBackend, VsockInnerStream};
use vsock_muxer::Muxer;
use vsock_proto::{Config, GuestCid, Header, Op};
use vsock_virtio::{F_EVENT_IDX, F_VERSION_1, VsockDevice};

use crate::rig::{CID, Rig, SIZE, packet};

const GUEST: u32 = 1024;
const PORT: u32 = 80;
const DELAY: Duration = Duration::from_millis(1);
/// A quarter of the ring.
const BATCH: u16 = SIZE / 4;
const WINDOW: u32 = 64 * 1024;

/// A guest with a connection to a host that reads all.
struct Guest {
    rig: Rig,
    host: VsockInnerStream,
    read: usize,
}

fn connected(delay: Duration, features: u64) -> Guest {
    let backend = VsockInnerBackend::new().unwrap();
    let listener = backend.listen(PORT).unwrap();
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
    rig.device.ack_features(F_VERSION_1 | features).unwrap();
    rig.start();
    rig.post(SIZE);
    rig.send(packet(Op::Request, GUEST, PORT), b"");
    rig.settle();
    let mut host = listener.accept().unwrap();
    host.set_nonblocking(true).unwrap();
    rig.settle();
    let read = 0;
    Guest { rig, host, read }
}

/// One that has streamed for so long that its kicks may wait.
fn streaming() -> Guest {
    let mut guest = connected(DELAY, F_EVENT_IDX);
    guest.stream(300);
    assert_eq!(guest.awaited(), BATCH);
    guest
}

impl Guest {
    /// The guest sends a packet, and the device is not called.
    fn sends(&mut self, len: usize) {
        self.rig
            .send(packet(Op::ReadWrite, GUEST, PORT), &vec![0; len]);
    }

    /// The device is called, for whatever reason, and the host reads.
    fn process(&mut self) {
        let _ = self.answered();
    }

    /// The same; returns whether the guest was notified of something that was sent to it.
    fn answered(&mut self) -> bool {
        let outcome = self.rig.process();
        self.rig.tx.used(&self.rig.memory);
        let mut buf = [0; WINDOW as usize];
        while let Ok(len @ 1..) = self.host.read(&mut buf) {
            self.read += len;
        }
        self.rig.received();
        let seen = self.rig.rx.seen();
        self.rig.rx.set_used_event(&self.rig.memory, seen);
        outcome.notify_rx
    }

    /// Sends so many packets of a byte, each of which the device is called for.
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
        let due = self.rig.device.deadline().unwrap();
        self.rig.now = due;
        self.rig.device.on_timeout(due);
        self.process();
    }

    /// The guest sends one packet in the time of a batch.
    fn is_tried_in_vain(&mut self) {
        assert_eq!(self.awaited(), BATCH);
        self.sends(1);
        self.timer();
    }

    /// Sends packets until one of them leaves the driver asked for more than the next; returns how many
    /// others there were.
    fn asked_one_by_one(&mut self) -> usize {
        let mut count = 0;
        loop {
            self.stream(1);
            if self.awaited() > 1 {
                return count;
            }
            count += 1;
        }
    }
}

#[test]
fn a_guest_that_streams_is_asked_to_kick_with_the_last_packet_of_a_batch() {
    let mut guest = connected(DELAY, F_EVENT_IDX);
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
    assert_eq!(guest.awaited(), BATCH, "that was not in vain");
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
        guest.stream(1);
        assert_eq!(guest.awaited(), BATCH, "nothing had to wait");
    }
}

#[test]
fn a_batch_is_a_quarter_of_the_ring_in_descriptors() {
    let mut guest = streaming();
    let (head, addr) = (0, 0x18_0000);
    let header = Header {
        len: 1,
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
fn a_guest_that_sends_something_else_than_payload_is_asked_for_each() {
    let mut guest = streaming();
    guest.sends(1);
    guest.rig.send(packet(Op::CreditUpdate, GUEST, PORT), b"");
    guest.sends(1);
    guest.process();
    assert_eq!(guest.awaited(), 1);
    guest.stream(1);
    assert_eq!(guest.awaited(), BATCH);

    let head = guest.rig.send(packet(Op::ReadWrite, GUEST, PORT), b"");
    let short = Descriptor::readable(0x18_0000, 43);
    guest.rig.tx.describe(&guest.rig.memory, head, short);
    guest.process();
    assert_eq!(guest.awaited(), 1, "a packet without a whole header");
}

#[test]
fn a_guest_that_gets_answers_is_asked_for_each() {
    let mut guest = streaming();
    guest.host.write_all(b"!").unwrap();
    guest.rig.ready();
    assert!(guest.answered());
    guest.stream(255);
    assert_eq!(guest.awaited(), 1);
    guest.stream(1);
    assert_eq!(guest.awaited(), BATCH);
}

#[test]
fn a_driver_without_event_indices_kicks_with_each() {
    let mut guest = connected(DELAY, 0);
    guest.stream(300);
    assert_eq!(guest.rig.device.deadline(), None);
    assert!(guest.rig.tx.wants_kicks(&guest.rig.memory));
}

#[test]
fn without_a_delay_every_packet_is_asked_for() {
    let mut guest = connected(Duration::ZERO, F_EVENT_IDX);
    guest.stream(300);
    assert_eq!(guest.awaited(), 1);
    assert_eq!(guest.rig.device.deadline(), None);
}

#[test]
fn a_guest_that_makes_no_batches_is_tried_ever_more_rarely() {
    let mut guest = streaming();
    for expected in [256, 512, 1024, 2048, 4096, 4096] {
        guest.is_tried_in_vain();
        assert_eq!(guest.asked_one_by_one() + 1, expected);
    }
    // A full batch pays back as many packets as it had.
    for _ in 0..10 {
        for _ in 0..BATCH {
            guest.sends(1);
        }
        guest.process();
    }
    guest.is_tried_in_vain();
    assert_eq!(guest.asked_one_by_one() + 1, 4096 - 10 * usize::from(BATCH));
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
fn a_batch_that_is_taken_late_by_another_call_was_in_vain_too() {
    let mut guest = streaming();
    guest.sends(1);
    guest.rig.now = guest.rig.now.saturating_add(DELAY);
    guest.process();
    assert_eq!(guest.awaited(), 1);
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
    assert_eq!(
        guest.rig.device.deadline(),
        None,
        "a loop would wake in vain"
    );
}

#[test]
fn a_timer_does_not_fire_again_and_again_while_the_transmit_queue_is_blocked() {
    let mut guest = streaming();
    // Resets that find no buffer, beyond what the device keeps.
    let buffers = guest.rig.rx.available().wrapping_sub(guest.rig.rx.seen());
    let mut sent = 0;
    while guest.rig.device.muxer().can_take_packet() {
        let stray = packet(Op::ReadWrite, GUEST + 1 + u32::from(sent), PORT);
        guest.rig.send(stray, b"x");
        let _ = guest.rig.process();
        guest.rig.tx.used(&guest.rig.memory);
        sent += 1;
        assert!(sent < 10_000);
    }
    assert!(sent > buffers);
    guest.sends(1);
    for _ in 0..3 {
        guest.rig.now = guest.rig.now.saturating_add(DELAY);
        guest.rig.device.on_timeout(guest.rig.now);
        let _ = guest.rig.process();
        assert_eq!(guest.rig.device.deadline(), None);
    }
    let before = guest.read;
    guest.rig.received();
    guest.process();
    assert!(guest.read > before, "buffers let it go on");
}

/// The bytes come as they were sent, whatever they waited for.
#[test]
fn what_waits_arrives_whole_and_in_order() {
    let mut guest = streaming();
    let mut received = Vec::new();
    for byte in 0..200_u8 {
        guest
            .rig
            .send(packet(Op::ReadWrite, GUEST, PORT), &[byte; 3]);
        if guest.awaited() == 0 {
            let _ = guest.rig.process();
            guest.rig.tx.used(&guest.rig.memory);
        }
    }
    guest.rig.now = guest.rig.device.deadline().unwrap();
    guest.rig.device.on_timeout(guest.rig.now);
    let _ = guest.rig.process();
    let mut buf = [0; 1024];
    while let Ok(len @ 1..) = guest.host.read(&mut buf) {
        received.extend_from_slice(&buf[..len]);
    }
    let expected: Vec<u8> = (0..200).flat_map(|byte| [byte; 3]).collect();
    assert_eq!(received, expected);
}
