// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! RSTs from either side, after which nothing is left.

use std::time::Duration;

use vsock_proto::{
    Body, Config, Ending, HostAction, Interest, Packet, Phase, Progress, SlicePayload, SocketType,
    Transmit, Violation,
};

use crate::rig::{End, RECEIVE, RW, Rig, SEND, buf_alloc, packet};

#[test]
fn t30_an_rst_is_never_answered_by_an_rst() {
    for mut rig in [Rig::accepting(Config::default()), Rig::connected()] {
        rig.guest(Body::Reset);
        assert_eq!(rig.drain(), []);
        assert!(rig.conn.is_closed());
    }
}

#[test]
fn t30_an_rst_that_crosses_ours_cancels_ours() {
    let mut rig = Rig::connected_with(buf_alloc(1));
    rig.host.space = 0;
    rig.try_guest(RW, b"too much").unwrap_err();
    assert_eq!(rig.conn.phase(), Phase::Resetting);
    rig.guest(Body::Reset);
    assert_eq!(rig.drain(), []);
    assert!(rig.conn.is_closed());
}

#[test]
fn t89_an_rst_frees_everything_immediately() {
    let mut rig = Rig::connected();
    rig.host.space = 0;
    rig.data(&[0; 10_000]);
    rig.host_sends(b"unread");
    rig.guest(Body::Reset);
    assert_eq!(rig.host.actions, [HostAction::Close]);
    assert_eq!(rig.conn.memory(), 0);
    assert_eq!(rig.conn.deadline(), None);
    assert_eq!(rig.conn.interest(), Interest::NONE);
    assert!(rig.conn.is_closed());
    assert_eq!(rig.conn.ending(), Some(Ending::GuestReset));
}

#[test]
fn t70_t90_only_our_rst_waits_for_a_buffer_and_no_descriptor_is_watched() {
    let mut rig = Rig::connected();
    rig.host.space = 0;
    rig.data(&[0; 10_000]);
    assert!(rig.conn.interest().write);
    rig.host_ends(End::Broken);
    let Some(Transmit::Data(grant)) = rig.conn.poll_transmit(rig.now, 100) else {
        panic!("no grant");
    };
    grant.finish(Progress::Failed);
    assert!(rig.conn.take_actions().contains(HostAction::Close));
    assert_eq!(rig.conn.memory(), 0);
    assert_eq!(rig.conn.phase(), Phase::Resetting);
    assert_eq!(rig.conn.interest(), Interest::NONE);
    rig.pass(Duration::from_secs(3600));
    assert!(rig.conn.wants_transmit(), "the RST is still pending");
    assert_eq!(rig.drain(), [Body::Reset]);
    assert_eq!(rig.conn.interest(), Interest::NONE);
}

#[test]
fn t91_no_packet_follows_our_rst() {
    let mut rig = Rig::connected();
    rig.host_sends(b"never sent");
    rig.guest(Body::CreditRequest);
    rig.guest.fwd_cnt = 77;
    rig.try_guest(Body::CreditUpdate, &[]).unwrap_err();
    rig.guest.fwd_cnt = 0;
    rig.guest(Body::CreditRequest);
    assert_eq!(rig.drain(), [Body::Reset]);
    rig.guest(Body::CreditRequest);
    rig.host_sends(b"more");
    assert_eq!(rig.drain(), []);
}

#[test]
fn t92_a_write_error_is_reported_once() {
    let mut rig = Rig::connected();
    rig.host.deaf = true;
    for _ in 0..5 {
        rig.data(b"x");
        rig.flush();
    }
    assert_eq!(rig.host.writes, 1, "no second attempt");
    assert_eq!(rig.drain(), [RECEIVE]);
    rig.host_ends(End::Ended);
    let both = rig.next();
    assert_eq!(both, Some(crate::rig::BOTH));
    rig.guest(SEND);
    assert_eq!(rig.drain(), [Body::Reset]);
}

#[test]
fn t92_a_read_error_resets_after_the_bytes_read() {
    let mut rig = Rig::connected();
    rig.host_sends(b"whole");
    rig.host.then = End::Broken;
    assert_eq!(rig.drain(), [RW, Body::Reset]);
    assert_eq!(rig.conn.ending(), Some(Ending::HostReset));
}

#[test]
fn t111_a_packet_of_another_type_does_not_affect_the_connection() {
    let mut rig = Rig::connected();
    for body in [RW, SEND, Body::Reset, Body::Request] {
        let strange = Packet {
            socket_type: SocketType::SeqPacket,
            ..packet(body, 0, rig.guest)
        };
        let mut payload = SlicePayload::new(&[], |_: &[u8], _| unreachable!());
        let violation = rig.conn.on_packet(rig.now, &strange, &mut payload);
        assert_eq!(violation, Err(Violation::WrongType));
    }
    assert_eq!(rig.conn.phase(), Phase::Connected);
    rig.data(b"fine");
    assert_eq!(rig.host.got, b"fine");
}

#[test]
fn time_alone_does_not_change_a_connection() {
    let mut rig = Rig::connected();
    assert_eq!(rig.conn.deadline(), None);
    rig.pass(Duration::from_secs(1 << 30));
    rig.data(b"still here");
    assert_eq!(rig.host.got, b"still here");
}
