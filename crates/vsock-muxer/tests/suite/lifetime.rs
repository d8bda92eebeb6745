// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Reset, transport reset, save and restore.

use std::time::Duration;

use vsock_muxer::MuxerState;
use vsock_proto::{Config, Ending, Op, SocketTypes};

use crate::world::{WRITABLE, World, header, op, shutdown};

#[test]
fn t101_a_reset_closes_everything_and_a_second_activation_works() {
    let mut world = World::new();
    for round in 1..4 {
        let silent = world.client(b"CONNECT");
        let (first, _) = world.host_connects(9);
        let (second, request) = world.guest_connects(1, 52);
        world.guest_sends(&header(Op::ReadWrite, 77, 77), b"orphan");
        world.host_sends(&second, b"never delivered");
        world.muxer.reset(world.now);
        world.apply();
        for host in [&silent, &first, &second] {
            assert!(host.state().closed);
        }
        assert!(world.watched.is_empty(), "backends are not watched either");
        assert_eq!((world.ops(), world.muxer.deadline()), (vec![], None));
        world.guest_sends(&op(Op::ReadWrite, &request), b"late");
        assert_eq!(world.ops(), []);

        world.activate(SocketTypes::STREAM);
        assert_eq!(world.watched.len(), 1);
        assert_eq!(world.ended(Ending::Aborted), 2 * round);
    }
}

#[test]
fn t105_a_transport_reset_sends_no_packet_and_keeps_the_device_active() {
    let mut world = World::new();
    let silent = world.client(b"CONNECT");
    let (first, header) = world.host_connects(9);
    world.muxer.transport_reset(world.now);
    world.apply();
    assert!(first.state().closed && !silent.state().closed);
    assert_eq!(world.ops(), []);
    world.guest_sends(&op(Op::ReadWrite, &header), b"stale");
    assert_eq!(world.ops(), [Op::Reset]);
    world.host_sends(&silent, b" 9\n");
    assert_eq!(world.ops(), [Op::Request]);
}

#[test]
fn t105_a_transport_reset_keeps_clients_that_the_guest_has_not_heard_of() {
    let mut world = World::new();
    let (known, _) = world.host_connects(9);
    let unknown = world.client(b"CONNECT 9\n");
    world.muxer.transport_reset(world.now);
    world.apply();
    assert!(known.state().closed && !unknown.state().closed);
    assert_eq!(world.ops(), [Op::Request]);
    // Now the guest has the REQUEST.
    world.muxer.transport_reset(world.now);
    world.apply();
    assert!(unknown.state().closed);
    assert_eq!(world.ops(), []);
}

#[test]
fn t105_a_transport_reset_keeps_the_last_bytes_of_a_connection_that_the_guest_has_closed() {
    let (mut world, host, request) = World::connected();
    host.state().space = 0;
    world.guest_sends(&op(Op::ReadWrite, &request), b"last words");
    world.guest_sends(&shutdown(&request, 3), b"");
    world.guest_sends(&op(Op::Reset, &request), b"");
    world.muxer.transport_reset(world.now);
    world.apply();
    assert!(!host.state().closed);
    host.state().space = 99;
    world.event(host.fd, WRITABLE);
    assert_eq!(host.got(), b"last words");
    assert!(host.state().closed && !host.state().aborted);
    assert_eq!(world.ended(Ending::Clean), 1);
}

#[test]
fn t98_a_restore_closes_existing_connections_and_does_not_reuse_ports_soon() {
    let mut world = World::new();
    let (host, first) = world.host_connects(9);
    let state = world.muxer.save();
    let mut expected = MuxerState::default();
    expected.next_host_port = (1 << 30) + 1;
    expected.connections = 1;
    assert_eq!(state, expected);
    assert!(!host.state().closed, "saving closes nothing (T108)");

    let mut restored = World::asleep(Config::default());
    restored.muxer.restore(restored.now, &state).unwrap();
    restored.muxer.activate(restored.now, SocketTypes::STREAM);
    restored.apply();
    world.muxer.restore(world.now, &state).unwrap();
    world.apply();
    assert!(host.state().closed);
    for mut world in [restored, world] {
        let (_, second) = world.host_connects(9);
        assert_eq!(second.dst_port, first.dst_port + 1);
    }
}

#[test]
fn t95_a_client_that_survives_a_restore_keeps_its_port() {
    let mut world = World::new();
    let state = world.muxer.save();
    let _client = world.client(b"CONNECT 9\n");
    world.muxer.restore(world.now, &state).unwrap();
    let _another = world.client(b"CONNECT 10\n");
    let packets = world.receive(2);
    let ports: Vec<u32> = packets
        .iter()
        .map(|(request, _)| request.src_port)
        .collect();
    assert_eq!(ports, [1 << 30, (1 << 30) + 1]);
}

#[test]
fn a_state_of_an_unknown_version_is_refused_and_closes_no_connection() {
    let mut world = World::new();
    let (host, _) = world.host_connects(9);
    let mut state = world.muxer.save();
    for found in [0, MuxerState::VERSION + 1, u32::MAX] {
        state.version = found;
        let refused = world.muxer.restore(world.now, &state).unwrap_err();
        assert_eq!(refused.found, found);
        world.apply();
        assert!(!host.state().closed);
    }
}

#[test]
fn t98_a_closed_connections_port_is_the_last_to_be_used_again() {
    let mut world = World::limited(|limits| limits.host_ports(100..110));
    let mut seen = Vec::new();
    for _ in 0..10 {
        let (_, header) = world.host_connects(9);
        seen.push(header.dst_port);
        world.guest_sends(&op(Op::Reset, &header), b"");
    }
    seen.dedup();
    assert_eq!(seen.len(), 10);
}

#[test]
fn activating_twice_resets_first() {
    let mut world = World::new();
    let (host, _) = world.host_connects(9);
    world.activate(SocketTypes::STREAM);
    assert!(host.state().closed);
    world.pass(Duration::from_secs(1));
    world.host_connects(9);
}

#[test]
fn a_guest_without_streams_gets_no_stream() {
    let mut world = World::asleep(Config::default());
    let seqpacket = SocketTypes::F_SEQPACKET | SocketTypes::F_NO_IMPLIED_STREAM;
    world
        .muxer
        .activate(world.now, SocketTypes::from_features(seqpacket));
    world.apply();
    let host = world.client(b"CONNECT 9\n");
    assert!(host.state().closed);
    world.guest_sends(&header(Op::Request, 1, 52), b"");
    assert_eq!(world.ops(), [Op::Reset]);
}

#[test]
fn the_debug_text_names_the_guest_and_no_bytes() {
    let mut world = World::new();
    world.host_connects(9);
    let text = format!("{:?}", world.muxer);
    assert!(text.contains("connections: 1"), "{text}");
}
