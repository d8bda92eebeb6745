// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Shutdowns, one direction at a time and both, in every order.

use std::time::Duration;

use vsock_proto::HostAction::{Close, ShutdownRead, ShutdownWrite};
use vsock_proto::{Body, Config, Ending, Interest, Phase, ShutdownFlags, Violation};

use crate::rig::{BOTH, End, RECEIVE, RW, Rig, SEND, buf_alloc};

/// A connection with ten bytes of the guest, of which the host has accepted none.
fn with_backlog() -> Rig {
    let mut rig = Rig::connected();
    rig.host.space = 0;
    rig.data(b"0123456789");
    rig
}

#[test]
fn t81_flags_accumulate_over_packets_and_a_shutdown_without_flags_has_no_effect() {
    let none = Body::Shutdown(ShutdownFlags::NONE);
    let mut rig = Rig::connected();
    rig.guest(none);
    assert_eq!(rig.host.actions, []);
    rig.guest(RECEIVE);
    rig.guest(none);
    assert_eq!(rig.host.actions, [ShutdownRead]);
    rig.guest(SEND);
    assert_eq!(rig.host.actions, [ShutdownRead, ShutdownWrite, Close]);
    assert_eq!(rig.drain(), [Body::Reset]);
    assert_eq!(rig.conn.ending(), Some(Ending::Clean));

    let mut rig = Rig::connected();
    rig.guest(SEND);
    rig.guest(none);
    rig.host_sends(b"still here");
    assert_eq!(rig.drain_bytes(), b"still here");
}

#[test]
fn t82_a_guests_half_close_reaches_the_host_once_and_the_reply_comes_back() {
    let mut rig = Rig::connected();
    rig.data(b"request");
    rig.guest(SEND);
    rig.guest(SEND);
    assert_eq!(rig.host.actions, [ShutdownWrite]);
    rig.host_sends(b"reply");
    assert_eq!(rig.drain_bytes(), b"reply");
    rig.pass(Duration::from_secs(3600));
    rig.host_sends(b"and more");
    assert_eq!(rig.drain_bytes(), b"and more");
}

#[test]
fn t82_the_end_comes_after_all_bytes_sent() {
    let mut rig = with_backlog();
    rig.guest(SEND);
    assert_eq!(rig.host.actions, []);
    rig.host_takes(9);
    assert_eq!(rig.host.actions, []);
    rig.host_takes(1);
    assert_eq!(rig.host.got, b"0123456789");
    assert_eq!(rig.host.actions, [ShutdownWrite]);
}

#[test]
fn t82_a_half_close_waits_for_a_slow_reader_without_a_deadline() {
    let mut rig = with_backlog();
    rig.guest(SEND);
    assert_eq!(rig.conn.deadline(), None);
    rig.host_ends(End::Ended);
    assert_eq!(rig.drain(), [SEND]);
    assert_eq!(rig.conn.deadline(), None, "the guest has not closed");
}

#[test]
fn t83_a_hosts_half_close_leaves_the_direction_to_the_host_open() {
    let mut rig = Rig::connected();
    rig.host_sends(b"request");
    rig.host_ends(End::Ended);
    assert_eq!(rig.drain(), [RW, SEND]);
    rig.data(b"reply ");
    rig.pass(Duration::from_secs(3600));
    rig.data(b"to the end");
    assert_eq!(rig.host.got, b"reply to the end");
    assert_eq!(rig.host.actions, []);
}

#[test]
fn t83_a_full_close_sets_both_flags() {
    let mut rig = Rig::connected();
    rig.host_closes();
    assert_eq!(rig.next(), Some(RECEIVE));
    assert_eq!(rig.next(), Some(BOTH));
    assert_eq!(rig.conn.phase(), Phase::Lingering);
    assert!(rig.host.is_closed(), "nothing is left to read or to write");
}

#[test]
fn t84_whichever_side_ends_first_one_rst_ends_both() {
    let mut rig = Rig::connected();
    rig.guest(SEND);
    rig.host_sends(b"reply");
    rig.host_ends(End::Ended);
    assert_eq!(rig.drain(), [RW, SEND, Body::Reset]);

    let mut other = Rig::connected();
    other.host_ends(End::Ended);
    assert_eq!(other.drain(), [SEND]);
    other.data(b"reply");
    other.guest(SEND);
    assert_eq!(other.host.got, b"reply");
    assert_eq!(other.drain(), [Body::Reset], "the SHUTDOWN was sent before");

    for rig in [rig, other] {
        assert!(rig.conn.is_closed());
        assert_eq!(rig.conn.ending(), Some(Ending::Clean));
        assert_eq!(rig.host.actions, [ShutdownWrite, Close]);
    }
}

#[test]
fn t84_the_rst_waits_for_the_backlog() {
    let mut rig = with_backlog();
    rig.guest(SEND);
    rig.host_ends(End::Ended);
    assert_eq!(rig.drain(), [SEND]);
    rig.host_takes(5);
    assert_eq!(rig.drain(), []);
    rig.host_takes(5);
    assert_eq!(rig.host.got, b"0123456789");
    assert_eq!(rig.drain(), [Body::Reset]);
}

#[test]
fn t84_one_rst_ends_a_connection_on_which_neither_side_receives() {
    let mut rig = Rig::connected();
    rig.guest(RECEIVE);
    rig.host.deaf = true;
    rig.data(b"unread");
    assert_eq!(rig.drain(), [RECEIVE, Body::Reset]);
    assert!(rig.host.is_closed());
}

#[test]
fn t84_late_events_do_not_reopen_a_connection() {
    let mut rig = Rig::connected();
    rig.guest(SEND);
    rig.host_ends(End::Ended);
    rig.drain();
    assert!(rig.conn.is_closed());
    rig.host_sends(b"late");
    rig.flush();
    rig.conn.on_host_hangup(rig.now);
    rig.conn.on_host_connected(rig.now);
    rig.guest(Body::CreditRequest);
    rig.data(b"late");
    rig.guest(BOTH);
    rig.pass(Duration::from_secs(100));
    assert_eq!(rig.drain(), []);
    assert_eq!(rig.host.got, b"");
    assert_eq!(rig.conn.interest(), Interest::NONE);
}

#[test]
fn data_after_the_end_is_a_violation() {
    for mut rig in [Rig::connected(), with_backlog()] {
        rig.guest(SEND);
        let violation = rig.try_guest(RW, b"late").unwrap_err();
        assert_eq!(violation, Violation::DataAfterEnd);
        assert_eq!(rig.drain(), [Body::Reset]);
    }
}

#[test]
fn t85_all_bytes_that_the_host_wrote_arrive_before_its_close() {
    let mut rig = Rig::connected();
    let bytes: Vec<u8> = (0..1 << 20).map(|i: u32| (i % 253) as u8).collect();
    rig.host.sends.extend(&bytes);
    // The guest provides no buffer for a while.
    rig.host_closes();
    let mut got = Vec::new();
    let mut last = RW;
    while let Some((packet, payload)) = rig.transmit(4096) {
        last = packet.body;
        got.extend(payload);
        rig.guest_reads(packet.len);
    }
    assert!(got == bytes, "bytes differ");
    assert_eq!(last, BOTH);
}

#[test]
fn t85_all_bytes_that_the_host_wrote_arrive_before_its_reset() {
    let mut rig = Rig::connected();
    rig.host_sends(b"last words");
    rig.host.then = End::Broken;
    rig.host.deaf = true;
    // The guest writes to a stream that is already broken.
    rig.data(b"unread");
    assert_eq!(rig.next(), Some(RECEIVE));
    assert_eq!(rig.drain_bytes(), b"last words");
    assert_eq!(rig.conn.ending(), Some(Ending::HostReset));
    assert!(rig.conn.is_closed(), "an RST followed");
}

#[test]
fn t86_bytes_that_a_guest_sent_before_it_closed_are_delivered() {
    let mut rig = with_backlog();
    rig.guest(BOTH);
    assert_eq!(rig.drain(), [], "the RST waits for the host");
    assert!(!rig.host.is_closed());
    rig.host_takes(10);
    assert_eq!(rig.host.got, b"0123456789");
    assert_eq!(rig.drain(), [Body::Reset]);
    assert_eq!(rig.host.actions, [ShutdownRead, ShutdownWrite, Close]);
    assert_eq!(rig.conn.ending(), Some(Ending::Clean));
}

#[test]
fn t86_a_stuck_host_does_not_keep_a_closed_connection() {
    let mut rig = with_backlog();
    rig.guest(SEND);
    assert_eq!(rig.conn.deadline(), None);
    rig.guest(RECEIVE);
    rig.pass_until_deadline();
    assert_eq!(rig.now.as_nanos(), 30_000_000_000);
    // The guest did not end its sending in order, so the host sees a reset.
    assert_eq!(rig.host.actions, [ShutdownRead, Close]);
    assert_eq!(rig.conn.ending(), Some(Ending::Forfeited));
    assert_eq!(rig.drain(), [Body::Reset]);
    assert_eq!(rig.conn.memory(), 0);
}

#[test]
fn t87_only_a_flush_with_progress_extends_the_deadline() {
    let mut rig = with_backlog();
    rig.guest(BOTH);
    for _ in 0..10 {
        rig.pass(Duration::from_secs(29));
        rig.host_takes(1);
    }
    assert_eq!(rig.host.got, b"0123456789");
    assert_eq!(rig.drain(), [Body::Reset]);
    assert_eq!(rig.conn.ending(), Some(Ending::Clean));

    let mut rig = with_backlog();
    rig.guest(BOTH);
    rig.pass(Duration::from_secs(29));
    rig.flush();
    rig.pass(Duration::from_secs(1));
    assert_eq!(rig.conn.ending(), Some(Ending::Forfeited));
}

#[test]
fn t88_a_complete_shutdown_is_answered_by_an_rst() {
    let mut rig = Rig::connected();
    rig.guest(BOTH);
    assert_eq!(rig.drain(), [Body::Reset]);
    assert!(rig.conn.is_closed());
    assert!(!rig.conn.phase().has_tuple(), "the tuple must be free");
}

#[test]
fn t88_our_shutdown_waits_for_the_guests_rst() {
    let mut rig = Rig::connected();
    rig.host_closes();
    rig.drain();
    assert!(rig.conn.phase().has_tuple());
    rig.guest(Body::Reset);
    assert!(rig.conn.is_closed());
    assert_eq!(rig.drain(), []);
    assert_eq!(rig.conn.ending(), Some(Ending::Clean));
}

#[test]
fn t88_a_guest_that_never_answers_gets_an_rst_in_the_end() {
    let mut rig = Rig::connected();
    rig.host_closes();
    rig.drain();
    rig.pass(Config::default().close_timeout() - Duration::from_millis(1));
    assert_eq!(rig.drain(), []);
    rig.pass(Duration::from_millis(1));
    assert_eq!(rig.drain(), [Body::Reset]);
    assert!(rig.conn.is_closed());
}

#[test]
fn t88_one_rst_ends_both_directions_whatever_close_crosses_ours() {
    for theirs in [BOTH, SEND] {
        let mut rig = Rig::connected();
        rig.host_closes();
        rig.drain();
        rig.guest(theirs);
        assert_eq!(rig.drain(), [Body::Reset]);
        assert_eq!(rig.host.actions, [Close]);
    }
}

#[test]
fn a_half_close_that_crosses_an_unsent_close_is_answered_by_a_full_close() {
    let mut rig = Rig::connected();
    rig.host_closes();
    assert_eq!(rig.next(), Some(RECEIVE));
    assert_eq!(rig.conn.phase(), Phase::Connected);
    // The end of the stream was found, and the SHUTDOWN waits for a buffer.
    assert_eq!(rig.host.reads, 0);
    rig.guest(SEND);
    assert_eq!(rig.drain(), [BOTH, Body::Reset]);
}

#[test]
fn bytes_that_cross_our_close_are_discarded() {
    let mut rig = Rig::connected_with(buf_alloc(100));
    rig.host_closes();
    rig.drain();
    for _ in 0..10 {
        rig.data(&[0; 100]);
        assert_eq!(rig.drain(), [Body::CreditUpdate]);
    }
    assert_eq!(rig.conn.memory(), 0);
    assert_eq!(rig.host.got, b"");
}

#[test]
fn t87_a_guest_that_gave_up_waiting_does_not_stop_its_bytes() {
    let mut rig = with_backlog();
    rig.guest(BOTH);
    // A Linux guest waits 8 s for the RST and then sends its own.
    rig.pass(Duration::from_secs(8));
    rig.guest(Body::Reset);
    assert_eq!(rig.conn.phase(), Phase::Draining);
    assert!(
        !rig.conn.phase().has_tuple(),
        "the guest may reuse the tuple"
    );
    assert_eq!(rig.drain(), []);
    rig.pass(Duration::from_secs(4));
    assert!(rig.conn.interest().write);
    rig.host_takes(4);
    rig.pass(Duration::from_secs(29));
    rig.host_takes(6);
    assert_eq!(rig.host.got, b"0123456789");
    assert!(rig.conn.is_closed());
    assert!(rig.host.did(ShutdownWrite), "the end must be clean");
    assert_eq!(rig.conn.ending(), Some(Ending::Clean));
}

#[test]
fn a_drain_ends_when_the_host_does_or_makes_no_progress() {
    let ways: [fn(&mut Rig); 3] = [Rig::pass_until_deadline, Rig::host_closes, |rig| {
        rig.host.deaf = true;
        rig.flush();
    }];
    // After the guest's RST, and before ours.
    for (end, told) in ways.into_iter().flat_map(|end| [(end, true), (end, false)]) {
        let mut rig = with_backlog();
        rig.guest(if told { SEND } else { BOTH });
        if told {
            rig.guest(Body::Reset);
        }
        end(&mut rig);
        assert_eq!(rig.drain().len(), usize::from(!told), "exactly one RST");
        assert!(rig.conn.is_closed());
        assert!(!rig.host.did(ShutdownWrite));
        assert_eq!(rig.conn.ending(), Some(Ending::Forfeited));
    }
}

#[test]
fn t28_a_request_while_the_last_bytes_drain_frees_the_tuple() {
    let mut rig = with_backlog();
    rig.guest(SEND);
    rig.guest(Body::Request);
    assert_eq!(rig.conn.phase(), Phase::Draining);
    rig.host_takes(10);
    assert_eq!(rig.host.got, b"0123456789");
    assert!(rig.conn.is_closed());
}

#[test]
fn t83_a_guest_that_refuses_ends_the_hosts_writing() {
    let mut rig = Rig::connected();
    rig.host_sends(b"unwanted");
    rig.guest(RECEIVE);
    assert_eq!(rig.host.actions, [ShutdownRead]);
    assert_eq!(rig.drain(), []);
    assert!(!rig.conn.interest().read);
    rig.data(b"onwards");
    assert_eq!(rig.host.got, b"onwards");
}

#[test]
fn no_update_is_sent_to_a_guest_that_has_ended_its_sending() {
    let mut rig = Rig::connected_with(buf_alloc(100));
    rig.host.space = 0;
    rig.data(&[0; 100]);
    rig.guest(SEND);
    rig.host_takes(100);
    assert_eq!(rig.drain(), []);
}
