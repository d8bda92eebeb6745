// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Paused guests.

use vsock_proto::{Op, SocketTypes};

use crate::world::{World, bytes, header};

#[test]
fn t108_no_client_is_accepted_in_a_pause_and_all_are_after_it() {
    let mut world = World::new();
    world.muxer.pause();
    world.apply();
    assert!(!world.accepts());
    let client = world.host();
    client.sends(b"CONNECT 9\n");
    world.queue_client(&client);
    world.muxer.resume();
    world.apply();
    world.backend_event();
    assert_eq!(world.receive(1)[0].0.dst_port, 9);
}

#[test]
fn t108_a_backend_that_is_added_in_a_pause_is_watched_after_it() {
    let mut world = World::without_backends();
    world.muxer.pause();
    let backend = Box::new(world.backend.clone());
    world.muxer.add_backend(backend).unwrap();
    world.apply();
    assert!(!world.accepts());
    world.muxer.resume();
    world.apply();
    assert!(world.accepts());
}

#[test]
fn t108_bytes_that_a_host_writes_in_a_pause_arrive_after_it() {
    let (mut world, host, _) = World::connected();
    world.receive(8);
    world.muxer.pause();
    world.apply();
    world.host_sends(&host, b"meanwhile");
    world.muxer.resume();
    world.apply();
    assert_eq!(bytes(&world.receive(8)), b"meanwhile");
}

#[test]
fn t114_another_driver_after_a_pause_finds_no_connection_of_its_predecessor() {
    let (mut world, host, _) = World::connected();
    world.muxer.pause();
    world.muxer.cut(world.now);
    world.apply();
    assert!(host.state().closed);
    assert!(world.muxer.wants_transmit());
    world.activate(SocketTypes::ALL);
    assert!(world.accepts());
    assert!(!world.muxer.wants_transmit());
    assert_eq!(world.muxer.connections().count(), 0);
}

#[test]
fn t116_a_connection_that_was_cut_gets_its_rst_and_the_same_ports_can_be_used_again() {
    let (mut world, host, first) = World::connected();
    world.receive(8);
    world.muxer.pause();
    world.muxer.cut(world.now);
    world.muxer.resume();
    world.apply();
    assert!(host.state().closed);
    assert_eq!(world.ops(), [Op::Reset]);
    let (_host, _) = world.guest_connects(first.src_port, first.dst_port);
    assert_eq!(world.muxer.connections().count(), 1);
}

#[test]
fn an_inactive_muxer_is_not_paused() {
    let mut world = World::asleep(vsock_proto::Config::default());
    world.muxer.pause();
    world.muxer.cut(world.now);
    world.muxer.resume();
    world.apply();
    assert!(!world.accepts());
    world.guest_sends(&header(Op::Request, 1, 52), b"");
    assert!(!world.muxer.wants_transmit());
}
