// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Whether a guest has to be notified at once of what it was sent.

use std::time::Duration;

use vsock_proto::{Header, Op};

use crate::stream::Host;
use crate::world::{READABLE, World, op, shutdown};

const DELAY: Duration = Duration::from_millis(1);

/// A guest that was sent 1,000 bytes and notified of them, on one connection.
fn with_unread() -> (World, Host, Header) {
    let mut world = World::new();
    world.muxer.set_notification_delay(DELAY);
    let (host, request) = world.guest_connects(1, 52);
    answer(&mut world, &host, 1000);
    world.muxer.guest_notified();
    (world, host, request)
}

/// The host sends so many bytes, and they reach the guest's buffers.
fn answer(world: &mut World, host: &Host, len: usize) {
    host.sends(&vec![0; len]);
    world.event(host.fd, READABLE);
    assert_eq!(world.receive(8).len(), 1);
}

/// The guest asks, and says how many bytes it has read so far.
fn asks(world: &mut World, request: &Header, fwd_cnt: u32) {
    let question = Header {
        fwd_cnt,
        ..op(Op::ReadWrite, request)
    };
    world.guest_sends(&question, b"?");
}

#[test]
fn nothing_that_was_sent_waits_for_nothing() {
    let (world, ..) = with_unread();
    assert!(!world.muxer.notification_may_wait());
}

#[test]
fn a_guest_that_has_read_all_is_told_at_once() {
    let (mut world, host, request) = with_unread();
    asks(&mut world, &request, 1000);
    answer(&mut world, &host, 10);
    assert!(!world.muxer.notification_may_wait());
}

#[test]
fn a_guest_with_enough_to_read_is_told_later() {
    let (mut world, host, request) = with_unread();
    asks(&mut world, &request, 200);
    answer(&mut world, &host, 300);
    assert!(world.muxer.notification_may_wait());
    answer(&mut world, &host, 100);
    assert!(world.muxer.notification_may_wait(), "half of what it has");
    answer(&mut world, &host, 1);
    assert!(!world.muxer.notification_may_wait());
}

#[test]
fn a_guest_that_reads_on_is_told_before_it_has_read_all() {
    let (mut world, host, request) = with_unread();
    asks(&mut world, &request, 200);
    answer(&mut world, &host, 200);
    asks(&mut world, &request, 600);
    assert!(world.muxer.notification_may_wait());
    asks(&mut world, &request, 601);
    assert!(!world.muxer.notification_may_wait());
}

#[test]
fn a_guest_that_has_read_some_of_what_it_was_not_told_of_is_told_of_the_rest() {
    let (mut world, host, request) = with_unread();
    asks(&mut world, &request, 200);
    answer(&mut world, &host, 500);
    asks(&mut world, &request, 1001);
    assert!(!world.muxer.notification_may_wait());
}

#[test]
fn a_host_that_is_ready_in_vain_presses_nobody() {
    let (mut world, host, request) = with_unread();
    asks(&mut world, &request, 0);
    answer(&mut world, &host, 1);
    world.pass(DELAY);
    world.event(host.fd, READABLE);
    assert!(world.receive(8).is_empty());
    assert!(world.muxer.notification_may_wait());
}

#[test]
fn what_the_guest_was_told_of_counts_as_told_from_then_on() {
    let (mut world, host, request) = with_unread();
    asks(&mut world, &request, 0);
    answer(&mut world, &host, 1000);
    world.muxer.guest_notified();
    assert!(!world.muxer.notification_may_wait());
    answer(&mut world, &host, 1000);
    assert!(world.muxer.notification_may_wait());
}

#[test]
fn an_old_word_of_the_guest_is_worth_nothing() {
    let (mut world, host, request) = with_unread();
    asks(&mut world, &request, 0);
    world.pass(DELAY);
    answer(&mut world, &host, 1);
    assert!(!world.muxer.notification_may_wait());
}

#[test]
fn a_guest_that_has_said_nothing_is_told_at_once() {
    let (mut world, host, _) = with_unread();
    world.pass(DELAY);
    answer(&mut world, &host, 1);
    assert!(!world.muxer.notification_may_wait());
}

#[test]
fn without_a_delay_nothing_waits() {
    let (mut world, host, request) = with_unread();
    world.muxer.set_notification_delay(Duration::ZERO);
    asks(&mut world, &request, 0);
    answer(&mut world, &host, 1);
    assert!(!world.muxer.notification_may_wait());
}

#[test]
fn one_connection_that_cannot_wait_decides_for_all() {
    let (mut world, host, request) = with_unread();
    let (other, other_request) = world.guest_connects(2, 52);
    world.muxer.guest_notified();
    asks(&mut world, &request, 0);
    answer(&mut world, &host, 1);
    assert!(world.muxer.notification_may_wait());
    asks(&mut world, &other_request, 0);
    assert!(
        world.muxer.notification_may_wait(),
        "nothing was sent there"
    );
    answer(&mut world, &other, 1);
    assert!(!world.muxer.notification_may_wait());
    answer(&mut world, &host, 1);
    assert!(!world.muxer.notification_may_wait());
}

#[test]
fn what_is_no_payload_is_told_at_once() {
    // An RST for a connection that is not there, and the answer to a question for credit.
    for (what, ports) in [(Op::ReadWrite, 99), (Op::CreditRequest, 1)] {
        let (mut world, host, request) = with_unread();
        asks(&mut world, &request, 0);
        answer(&mut world, &host, 1);
        assert!(world.muxer.notification_may_wait());
        let packet = Header {
            src_port: ports,
            ..op(what, &request)
        };
        world.guest_sends(&packet, b"");
        assert_eq!(world.receive(1).len(), 1);
        assert!(!world.muxer.notification_may_wait());
    }
}

#[test]
fn an_end_is_told_at_once() {
    let (mut world, host, request) = with_unread();
    asks(&mut world, &request, 0);
    answer(&mut world, &host, 1);
    world.guest_sends(&shutdown(&request, 3), b"");
    assert_eq!(world.ops(), [Op::Reset]);
    assert!(!world.muxer.notification_may_wait());
}

#[test]
fn what_comes_after_a_question_is_an_answer_unless_it_is_credit() {
    let (mut world, host, request) = with_unread();
    answer(&mut world, &host, 1);
    assert!(!world.muxer.answers_guest(), "nobody has asked");
    world.muxer.guest_notified();
    world.guest_sends(&op(Op::CreditUpdate, &request), b"");
    answer(&mut world, &host, 1);
    assert!(!world.muxer.answers_guest(), "that is no question");
    world.muxer.guest_notified();

    asks(&mut world, &request, 0);
    world.guest_sends(&op(Op::CreditRequest, &request), b"");
    assert_eq!(world.ops(), [Op::CreditUpdate]);
    assert!(!world.muxer.answers_guest());
    world.muxer.guest_notified();
    answer(&mut world, &host, 1);
    assert!(world.muxer.answers_guest());
    world.muxer.guest_notified();
    assert!(!world.muxer.answers_guest());
    answer(&mut world, &host, 1);
    assert!(!world.muxer.answers_guest(), "it was answered");
}

#[test]
fn an_rst_is_an_answer() {
    let (mut world, _, request) = with_unread();
    let orphan = Header {
        src_port: 99,
        ..op(Op::ReadWrite, &request)
    };
    world.guest_sends(&orphan, b"");
    assert_eq!(world.ops(), [Op::Reset]);
    assert!(world.muxer.answers_guest());
}
