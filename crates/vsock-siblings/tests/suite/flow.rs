// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Connections between guests, from the first packet to the last.

use std::time::Duration;

use vsock_muxer::{Ending, Initiator};
use vsock_muxer_harness::guest::{GuestRead, SocketState};
use vsock_proto::{Config, Header, MessageFlags, Op, ShutdownFlags, SocketType};
use vsock_siblings::{Capacity, Siblings, VsockInnerConfig};

use crate::node::Trigger;
use crate::world::{PORT, World};

const STREAM: SocketType = SocketType::Stream;
const SEQPACKET: SocketType = SocketType::SeqPacket;

/// Returns bytes whose position is recognisable.
fn bytes(len: usize) -> Vec<u8> {
    (0..len).map(|at| u8::try_from(at % 251).unwrap()).collect()
}

#[test]
fn bytes_pass_both_ways_with_either_kind_of_event_loop() {
    for trigger in [Trigger::Edge, Trigger::Level] {
        let siblings = Siblings::new();
        let mut world = World::with(&siblings, &["a", "a"], trigger, &Config::default());
        let (near, far) = world.connected(0, 1, STREAM);
        assert_eq!(
            world.nodes[1].guest.peer_cid(far),
            Some(world.nodes[0].cid())
        );
        let much = bytes(3_000_000);
        assert!(world.transfer((0, near), (1, far), &much) == much);
        assert!(world.transfer((1, far), (0, near), &much) == much);
    }
}

#[test]
fn t27_a_guest_gets_its_response_after_the_other_guest_has_sent_one() {
    let mut world = World::new(&["a", "a"]);
    world.nodes[1].guest.listen(PORT, 8).unwrap();
    let near = world.connect(0, 1, STREAM);
    let now = world.now;
    while world.nodes[0].step(now) {}
    assert_eq!(world.state(0, near), SocketState::Connecting);
    let info = world.nodes[0].muxer.connections().next().unwrap();
    assert_eq!(info.initiator, Initiator::Guest);
    assert_eq!(info.key.host_cid, world.nodes[1].cid());
    world.settle();
    assert_eq!(world.state(0, near), SocketState::Connected);
    let info = world.nodes[1].muxer.connections().next().unwrap();
    assert_eq!(info.initiator, Initiator::Host);
    assert_eq!(info.key.host_cid, world.nodes[0].cid());
}

#[test]
fn t26_without_a_listener_or_a_common_group_a_connection_is_refused() {
    let mut world = World::new(&["a", "a", "b"]);
    let refused = [
        world.connect(0, 1, STREAM),
        world.connect(0, 2, STREAM),
        world.connect(0, 1, SEQPACKET),
    ];
    world.settle();
    for socket in refused {
        assert_eq!(world.state(0, socket), SocketState::Refused);
    }
    let counters = world.nodes[0].muxer.counters();
    assert_eq!(counters.endings.of(Ending::HostRefused), 2);
    assert_eq!(counters.refused_by_backend, 1 + 2);
    for node in &world.nodes {
        assert_eq!(node.muxer.connections().count(), 0);
    }
}

#[test]
fn the_wait_for_an_answer_ends_after_the_configured_time() {
    let mut world = World::new(&["a", "a"]);
    world.nodes[1].guest.starve();
    let now = world.now;
    world.nodes[1].guest.rx_queue().clear();
    let near = world.connect(0, 1, STREAM);
    world.settle();
    assert_eq!(world.nodes[1].muxer.connections().count(), 1);
    let timeout = world.nodes[0].muxer.config().response_timeout();
    world.pass(timeout + Duration::from_millis(1));
    assert_eq!(world.state(0, near), SocketState::Refused);
    for node in &world.nodes {
        assert_eq!(node.muxer.connections().count(), 0, "since {now:?}");
    }
    // The guest never learns of the connection.
    world.nodes[1].guest.feed();
    world.settle();
    assert_eq!(world.nodes[1].guest.live().count(), 0);
}

#[test]
fn each_direction_ends_separately() {
    let mut world = World::new(&["a", "a"]);
    let (near, far) = world.connected(0, 1, STREAM);
    world.nodes[0].guest.write(near, b"the last").unwrap();
    world.nodes[0]
        .guest
        .shutdown(near, ShutdownFlags::SEND)
        .unwrap();
    world.settle();
    let other = &mut world.nodes[1].guest;
    assert_eq!(
        other.read(far, 64),
        Ok(GuestRead::Bytes(b"the last".to_vec()))
    );
    assert_eq!(other.read(far, 64), Ok(GuestRead::End));
    assert_eq!(
        world.transfer((1, far), (0, near), &bytes(400_000)),
        bytes(400_000)
    );
    let now = world.now;
    world.nodes[1].guest.close(now, far);
    world.settle();
    for node in &world.nodes {
        assert_eq!(node.muxer.counters().endings.total(), 1);
        assert_eq!(node.muxer.counters().endings.of(Ending::Clean), 1);
    }
}

#[test]
fn t82_a_guest_learns_that_its_peer_no_longer_reads() {
    for trigger in [Trigger::Edge, Trigger::Level] {
        for unread in [false, true] {
            let siblings = Siblings::new();
            let mut world = World::with(&siblings, &["a", "a"], trigger, &Config::default());
            let (near, far) = world.connected(0, 1, STREAM);
            if unread {
                // More than the other guest accepts, so that its muxer stops reading.
                let much = bytes(400_000);
                while world.nodes[0].guest.write(near, &much).unwrap() > 0 {
                    world.settle();
                }
            }
            world.nodes[0]
                .guest
                .shutdown(near, ShutdownFlags::RECEIVE)
                .unwrap();
            world.settle();
            if unread {
                // While the muxer does not read, a guest may only learn of this by writing.
                let _may_fail = world.nodes[1].guest.write(far, b"x");
                world.settle();
            }
            let is_known = world.nodes[1].guest.write(far, b"x").is_err();
            assert!(is_known, "{trigger:?}, unread: {unread}");
            // The other direction still works.
            if !unread {
                assert_eq!(
                    world.transfer((0, near), (1, far), &bytes(100_000)),
                    bytes(100_000)
                );
            }
        }
    }
}

#[test]
fn a_guest_that_does_not_read_stops_only_those_that_write_to_it() {
    let mut world = World::new(&["a", "a", "a"]);
    let (stuck, _unread) = world.connected(0, 1, STREAM);
    let (near, far) = world.connected(0, 2, STREAM);
    let mut taken = 0;
    loop {
        let sent = world.nodes[0].guest.write(stuck, &bytes(100_000)).unwrap();
        world.pass(Duration::from_secs(1));
        taken += sent;
        if sent == 0 {
            break;
        }
    }
    // As much as the reader's buffer holds, wherever the bytes wait.
    assert_eq!(taken, 256 * 1024);
    let much = bytes(1_000_000);
    assert!(world.transfer((0, near), (2, far), &much) == much);
    assert!(world.transfer((2, far), (0, near), &much) == much);
}

#[test]
fn the_same_ports_of_two_guests_are_two_connections() {
    let mut world = World::new(&["a", "a", "a"]);
    // Both guests use the same local port first.
    let (one, far_one) = world.connected(0, 2, STREAM);
    let (other, far_other) = world.connected(1, 2, STREAM);
    let guests = [&world.nodes[0].guest, &world.nodes[1].guest];
    assert_eq!(guests[0].ports(one), guests[1].ports(other));
    assert_eq!(
        world.transfer((0, one), (2, far_one), b"from the one"),
        b"from the one"
    );
    assert_eq!(
        world.transfer((1, other), (2, far_other), b"the other"),
        b"the other"
    );
    world.nodes[0].guest.reset(one);
    world.settle();
    assert_eq!(world.state(2, far_one), SocketState::Reset);
    assert_eq!(
        world.transfer((2, far_other), (1, other), b"lives"),
        b"lives"
    );
}

#[test]
fn t6_a_guest_cannot_use_another_guests_address() {
    let mut world = World::new(&["a", "a", "a"]);
    let (near, far) = world.connected(0, 1, STREAM);
    let (src_port, dst_port) = world.nodes[0].guest.ports(near).unwrap();
    let cids = [0, 1].map(|node: usize| u64::from(world.nodes[node].cid()));
    // Guest 2 sends packets with the address of guest 0.
    for op in [Op::Reset, Op::ReadWrite, Op::Request] {
        let forged = Header {
            src_cid: cids[0],
            dst_cid: cids[1],
            src_port,
            dst_port,
            socket_type: 1,
            op: op.into(),
            ..Header::default()
        };
        world.nodes[2].guest.send_raw(forged, Vec::new());
    }
    world.settle();
    assert_eq!(world.nodes[2].muxer.counters().packets_rejected, 3);
    assert_eq!(world.transfer((0, near), (1, far), b"lives"), b"lives");
}

#[test]
fn t31_a_stray_reset_affects_no_connection_with_a_sibling() {
    let mut world = World::new(&["a", "a"]);
    let (near, far) = world.connected(0, 1, STREAM);
    let (src_port, dst_port) = world.nodes[0].guest.ports(near).unwrap();
    let astray = Header {
        src_cid: world.nodes[0].cid().into(),
        dst_cid: 2, // the host has no such connection
        src_port,
        dst_port,
        socket_type: 1,
        op: Op::Reset.into(),
        ..Header::default()
    };
    world.nodes[0].guest.send_raw(astray, Vec::new());
    world.settle();
    assert_eq!(world.transfer((0, near), (1, far), b"lives"), b"lives");
    world.nodes[1].reboot(world.now);
    world.settle();
    assert_eq!(world.state(0, near), SocketState::Reset);
}

#[test]
fn a_reboot_resets_a_guests_connections_and_new_ones_work() {
    for rebooting in [0, 1] {
        let mut world = World::new(&["a", "a"]);
        let (near, far) = world.connected(0, 1, STREAM);
        let ends = [near, far];
        let stays = 1 - rebooting;
        let now = world.now;
        world.nodes[stays]
            .guest
            .write(ends[stays], &bytes(1000))
            .unwrap();
        world.nodes[rebooting].reboot(now);
        world.settle();
        assert_eq!(world.state(stays, ends[stays]), SocketState::Reset);
        // With the same ports again.
        let (near, far) = world.connected(0, 1, STREAM);
        assert_eq!(world.transfer((0, near), (1, far), b"again"), b"again");
    }
}

#[test]
fn t28_a_request_that_waited_in_a_pause_does_not_block_one_after_a_reboot() {
    let mut world = World::new(&["a", "a"]);
    world.nodes[1].guest.listen(PORT, 64).unwrap();
    world.nodes[1].pause();
    let old = world.connect(0, 1, STREAM);
    world.settle();
    let ports = world.nodes[0].guest.ports(old).unwrap();
    let now = world.now;
    world.nodes[0].reboot(now);
    let new = world.connect(0, 1, STREAM);
    assert_eq!(world.nodes[0].guest.ports(new).unwrap(), ports);
    world.settle();
    world.nodes[1].resume();
    world.settle();
    assert_eq!(world.state(0, new), SocketState::Connected);
}

#[test]
fn t28_a_connection_keeps_its_ports_until_its_last_bytes_have_arrived() {
    let mut world = World::new(&["a", "a"]);
    let (near, far) = world.connected(0, 1, STREAM);
    let (from, _) = world.nodes[0].guest.ports(near).unwrap();
    let sent = bytes(300_000);
    let taken = world.nodes[0].guest.write(near, &sent).unwrap();
    let now = world.now;
    world.nodes[0].guest.close(now, near);
    world.settle();
    // The first guest has forgotten the connection, and could use its ports again.
    let (cid, now) = (world.nodes[1].cid(), world.now);
    let again = world.nodes[0].guest.connect_to(now, cid, STREAM, PORT);
    let (other, _) = world.nodes[0].guest.ports(again).unwrap();
    assert_ne!(from, other);
    world.settle();
    assert_eq!(world.state(0, again), SocketState::Connected);
    let mut got = Vec::new();
    while let Ok(GuestRead::Bytes(more)) = world.nodes[1].guest.read(far, usize::MAX) {
        got.extend(more);
        world.settle();
    }
    assert!(got == sent[..taken], "{} of {taken}", got.len());
}

#[test]
fn messages_and_record_marks_pass_both_ways() {
    let mut world = World::new(&["a", "a"]);
    let (near, far) = world.connected(0, 1, SEQPACKET);
    let longest = 256 * 1024;
    for (len, end) in [
        (1, MessageFlags::END_OF_MESSAGE),
        (0, MessageFlags::END_OF_MESSAGE),
        (9000, MessageFlags::END_OF_RECORD),
        (200_000, MessageFlags::END_OF_MESSAGE),
        (longest - 1024, MessageFlags::END_OF_RECORD),
    ] {
        let got = world.exchange((0, near), (1, far), &bytes(len), end);
        assert!(got == Some((bytes(len), end)), "{len}");
        let got = world.exchange((1, far), (0, near), &bytes(len), end);
        assert!(got == Some((bytes(len), end)), "{len}, back");
    }
    let now = world.now;
    world.nodes[0].guest.close(now, near);
    world.settle();
    assert_eq!(world.nodes[1].muxer.counters().endings.of(Ending::Clean), 1);
}

#[test]
fn unreceived_messages_are_bounded_and_none_is_lost() {
    let siblings = Siblings::with_config(
        VsockInnerConfig::default()
            .to_device(Capacity::Bytes(10_000))
            .to_application(Capacity::Bytes(10_000)),
    );
    let config = Config::builder().buf_alloc(20_000).max_message(9000);
    let config = config.build().unwrap();
    let mut world = World::with(&siblings, &["a", "a"], Trigger::Edge, &config);
    let (near, far) = world.connected(0, 1, SEQPACKET);
    world.nodes[1].guest.set_buffer(far, 16_000);
    world.settle();
    let end = MessageFlags::END_OF_MESSAGE;
    let mut sent = 0;
    loop {
        let message = bytes(1000 + sent * 7 % 8000);
        if !world.nodes[0].guest.send(near, &message, end).unwrap() {
            break;
        }
        sent += 1;
        world.settle();
        assert!(sent < 1000, "there is no bound");
    }
    // One more message is in flight, in pieces.
    let mut got = 0;
    while got < sent {
        let Some((message, _)) = world.nodes[1].guest.receive_message(far) else {
            world.pass(Duration::from_millis(50));
            continue;
        };
        assert_eq!(message.len(), 1000 + got * 7 % 8000);
        got += 1;
        world.settle();
    }
    assert!(!world.nodes[0].guest.is_sending(near));
}
