// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

use std::time::Duration;

use vsock_driver::Descriptor;
use vsock_inner::VsockInnerBackend;
use vsock_muxer::Muxer;
use vsock_proto::{Config, GuestCid, Op};
use vsock_virtio::{F_VERSION_1, Outcome, VsockDevice};

use crate::rig::{Rig, SIZE, has_more, packet};

#[test]
fn t103_each_queue_is_notified_for_itself() {
    let mut rig = Rig::new();
    assert_eq!(rig.process(), Outcome::default());
    rig.send(packet(Op::Reset, 1024, 80), b"");
    let outcome = rig.process();
    assert!(outcome.notify_tx && !outcome.notify_rx && !outcome.notify_event);
    rig.send(packet(Op::Request, 1024, 80), b"");
    assert!(!rig.process().notify_rx, "there is no buffer");
    rig.post(1);
    let outcome = rig.process();
    assert!(outcome.notify_rx && !outcome.notify_tx && !outcome.notify_event);
}

#[test]
fn a_driver_that_does_not_want_to_be_notified_is_not() {
    let mut rig = Rig::new();
    rig.tx.set_no_interrupt(&rig.memory, true);
    rig.send(packet(Op::Reset, 1024, 80), b"");
    assert!(!rig.process().notify_tx);
    assert_eq!(rig.tx.used(&rig.memory).len(), 1);
    rig.tx.set_no_interrupt(&rig.memory, false);
    rig.send(packet(Op::Reset, 1024, 80), b"");
    assert!(rig.process().notify_tx);
}

#[test]
fn t104_the_used_event_decides_once_for_a_batch() {
    let mut rig = Rig::event_idx();
    rig.tx.set_used_event(&rig.memory, 2);
    for _ in 0..2 {
        rig.send(packet(Op::Reset, 1024, 80), b"");
    }
    assert!(!rig.process().notify_tx, "the third is asked for");
    for _ in 0..3 {
        rig.send(packet(Op::Reset, 1024, 80), b"");
    }
    assert!(rig.process().notify_tx);
    rig.send(packet(Op::Reset, 1024, 80), b"");
    assert!(!rig.process().notify_tx, "it has been told");
}

#[test]
fn t104_a_drained_transmit_queue_asks_for_the_next_chain() {
    let mut rig = Rig::event_idx();
    for _ in 0..5 {
        rig.send(packet(Op::Reset, 1024, 80), b"");
    }
    let _ = rig.process();
    assert_eq!(rig.tx.avail_event(&rig.memory), 5);
    let mut rig = Rig::new();
    rig.send(packet(Op::Reset, 1024, 80), b"");
    let _ = rig.process();
    assert!(rig.tx.wants_kicks(&rig.memory));
}

#[test]
fn buffers_are_asked_for_only_when_they_are_needed() {
    let mut rig = Rig::new();
    rig.post(1);
    let _ = rig.process();
    assert!(!rig.rx.wants_kicks(&rig.memory));
    for port in 0..2 {
        rig.send(packet(Op::Request, 1024 + port, 80), b"");
    }
    let _ = rig.process();
    assert!(rig.rx.wants_kicks(&rig.memory), "an RST waits");
    assert_eq!(rig.received().len(), 1);
    let _ = rig.process();
    assert!(!rig.rx.wants_kicks(&rig.memory));
    assert_eq!(rig.received().len(), 1);

    let mut rig = Rig::event_idx();
    rig.post(1);
    for port in 0..2 {
        rig.send(packet(Op::Request, 1024 + port, 80), b"");
    }
    let _ = rig.process();
    assert_eq!(rig.rx.avail_event(&rig.memory), 1);
}

fn with_budget(bytes: usize) -> Rig {
    let config = Config::builder().build().unwrap();
    let mut muxer = Muxer::new(GuestCid::try_from(3).unwrap(), config);
    let backend = VsockInnerBackend::new().unwrap();
    muxer.add_backend(Box::new(backend)).unwrap();
    let device = VsockDevice::builder(muxer)
        .budget(bytes)
        .poll_budget(Duration::ZERO)
        .build();
    let mut rig = Rig::around(device);
    rig.device.ack_features(F_VERSION_1).unwrap();
    rig.activate();
    rig
}

#[test]
fn t76_a_call_ends_with_its_budget_and_says_that_there_is_more() {
    let mut rig = with_budget(2048 * 4);
    for _ in 0..10 {
        rig.send(packet(Op::Reset, 1024, 80), b"");
    }
    for (taken, more) in [(4, true), (4, true), (2, false), (0, false)] {
        let outcome = rig.process();
        assert_eq!(
            (rig.tx.used(&rig.memory).len(), has_more(outcome)),
            (taken, more)
        );
    }
}

#[test]
fn t76_a_chain_costs_more_of_the_budget_the_more_descriptors_it_has() {
    // As many as the queue has, and a loop: a descriptor counts for 64 bytes.
    for next in [None, Some(0)] {
        let mut rig = with_budget(64 * 64 * 4);
        let empty = vec![Descriptor::readable(0, 0); SIZE.into()];
        rig.tx.chain(&rig.memory, 0, &empty);
        if let Some(next) = next {
            let last = Descriptor::readable(0, 0).then(next);
            rig.tx.describe(&rig.memory, SIZE - 1, last);
        }
        for _ in 0..10 {
            rig.tx.offer(&rig.memory, 0);
        }
        let outcome = rig.process();
        assert_eq!(rig.tx.used(&rig.memory).len(), 4);
        assert!(has_more(outcome));
        assert_eq!(rig.device.counters().malformed_packets, 4);
    }
}

#[test]
fn t76_a_buffer_of_no_use_costs_more_of_the_budget_the_more_descriptors_it_has() {
    let mut rig = with_budget(64 * 64 * 4);
    let empty = vec![Descriptor::writable(0, 0); SIZE.into()];
    rig.rx.chain(&rig.memory, 0, &empty);
    for _ in 0..10 {
        rig.rx.offer(&rig.memory, 0);
    }
    rig.send(packet(Op::ReadWrite, 1, 2), b"");
    let outcome = rig.process();
    assert_eq!(rig.rx.used(&rig.memory).len(), 4);
    assert!(has_more(outcome));
}

#[test]
fn t76_a_buffer_that_is_filled_costs_more_of_the_budget_the_more_descriptors_it_has() {
    let mut rig = with_budget(64 * 64 * 4);
    let mut row = vec![Descriptor::writable(0, 0); SIZE.into()];
    row[usize::from(SIZE) - 1] = Descriptor::writable(0x80_0000, 44);
    rig.rx.chain(&rig.memory, 0, &row);
    for _ in 0..10 {
        rig.rx.offer(&rig.memory, 0);
    }
    for port in 0..6 {
        rig.send(packet(Op::ReadWrite, 1024 + port, 80), b"");
    }
    for (filled, more) in [(4, true), (2, false)] {
        let outcome = rig.process();
        assert_eq!(
            (rig.rx.used(&rig.memory).len(), has_more(outcome)),
            (filled, more)
        );
    }
}

#[test]
fn t76_a_buffer_too_small_for_an_event_costs_more_of_the_budget_the_more_descriptors_it_has() {
    let mut rig = with_budget(64 * 64 * 4);
    let empty = vec![Descriptor::writable(0, 0); SIZE.into()];
    rig.event.chain(&rig.memory, 0, &empty);
    for _ in 0..10 {
        rig.event.offer(&rig.memory, 0);
    }
    rig.device.transport_reset(rig.now);
    for (taken, more) in [(4, true), (4, true), (2, false), (0, false)] {
        let outcome = rig.process();
        assert_eq!(
            (rig.event.used(&rig.memory).len(), has_more(outcome)),
            (taken, more)
        );
    }
    rig.post_events(1, 8);
    assert!(!has_more(rig.process()));
    assert_eq!(rig.device.counters().transport_resets, 1);
}

#[test]
fn t74_t75_unanswered_packets_stop_the_transmit_queue_and_buffers_let_it_go_on() {
    let config = Config::builder().max_resets(4).build().unwrap();
    let backend = VsockInnerBackend::new().unwrap();
    let mut rig = Rig::around(crate::rig::device(backend, config));
    rig.device.ack_features(F_VERSION_1).unwrap();
    rig.activate();
    for port in 0..20 {
        rig.send(packet(Op::ReadWrite, 1024 + port, 80), b"orphan");
    }
    let outcome = rig.process();
    assert!(!has_more(outcome), "only buffers help");
    assert_eq!(rig.tx.used(&rig.memory).len(), 4);
    rig.post(30);
    let outcome = rig.process();
    assert!(outcome.notify_rx && outcome.notify_tx && !has_more(outcome));
    assert_eq!(rig.tx.used(&rig.memory).len(), 16, "all the others at once");
    assert_eq!(rig.received().len(), 20);
}
