// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Backends: when they are watched, and how their clients are accepted.

use std::io::ErrorKind;
use std::sync::Arc;
use std::time::Duration;

use vsock_muxer::{Muxer, MuxerError};
use vsock_proto::{Config, Ending, GuestCid, Op, SocketTypes};

use crate::world::{READABLE, Scripted, World, header};

#[test]
fn t36_nothing_is_watched_or_accepted_before_activation() {
    let mut world = World::asleep(Config::default());
    let host = world.host();
    world.queue_client(&host);
    world.apply();
    assert!(world.watched.is_empty());
    world.guest_sends(&header(Op::Request, 1, 2), b"");
    assert_eq!(world.ops(), [], "a kick while inactive is ignored (T102)");
    assert!(world.script().asked.is_empty());

    world.activate(SocketTypes::STREAM);
    assert_eq!(world.watched.len(), 1);
    world.backend_event();
    assert_eq!(world.muxer.handshakes(), 1);
}

#[test]
fn a_crowd_is_accepted_in_batches_without_another_edge() {
    let mut world = World::new();
    let clients: Vec<_> = (0..100).map(|_| world.host()).collect();
    for client in &clients {
        world.queue_client(client);
    }
    world.backend_event();
    assert_eq!(world.muxer.handshakes(), 32);
    for expected in [64, 96, 100] {
        assert_eq!(world.due(), Duration::ZERO, "more clients wait");
        world.pass(Duration::ZERO);
        assert_eq!(world.muxer.handshakes(), expected);
    }
    assert!(world.muxer.deadline() > Some(world.now));
}

#[test]
fn accepting_continues_after_an_error_and_pauses_instead_of_spinning() {
    let mut world = World::new();
    let host = world.host();
    {
        let mut script = world.script();
        script.clients.extend([
            Err(ErrorKind::Interrupted),
            Err(ErrorKind::ConnectionAborted),
            Err(ErrorKind::Other),
            Err(ErrorKind::Other),
            Ok(host.clone()),
        ]);
    }
    world.backend_event();
    let asked = world.script().accepts;
    assert_eq!(asked, 3);
    world.backend_event();
    assert_eq!(world.script().accepts, asked, "accepting must pause");
    let reads = |world: &World| world.watched.values().all(|watched| watched.interest.read);
    assert!(!reads(&world), "and the backend must not be watched");
    world.pass(Duration::from_millis(10));
    assert_eq!(world.muxer.handshakes(), 0);
    world.pass(Duration::from_millis(20));
    assert_eq!(world.muxer.handshakes(), 1);
    assert!(reads(&world));
    assert_eq!(world.muxer.counters().accept_failures, 3);
}

#[test]
fn a_port_has_one_backend_and_the_first_backend_has_all_other_ports() {
    let mut world = World::new();
    let second = Scripted::new(1);
    let id = world.muxer.add_backend(Box::new(second.clone())).unwrap();
    world.apply();
    assert_eq!(world.watched.len(), 2, "watched immediately");
    world.muxer.route_port(52, id).unwrap();
    let taken = world.muxer.route_port(52, world.backend_id);
    assert_eq!(taken, Err(MuxerError::PortTaken { port: 52 }));
    world.guest_sends(&header(Op::Request, 1, 52), b"");
    world.guest_sends(&header(Op::Request, 1, 53), b"");
    assert_eq!(second.0.lock().unwrap().asked, [52]);
    assert_eq!(world.script().asked, [53]);

    let mut other = Muxer::new(GuestCid::try_from(9).unwrap(), Config::default());
    assert_eq!(other.route_port(1, id), Err(MuxerError::UnknownBackend));
}

#[test]
fn a_backend_added_with_ports_gets_only_connections_to_those_ports() {
    let mut world = World::without_backends();
    let (first, second) = (Scripted::new(1), Scripted::new(2));
    let ports = [52, 53];
    world
        .muxer
        .add_backend_for(Box::new(first.clone()), &ports)
        .unwrap();
    world.apply();
    assert_eq!(world.watched.len(), 1, "for host-initiated connections");
    world.guest_sends(&header(Op::Request, 1, 54), b"");
    assert_eq!(world.ops(), [Op::Reset]);
    assert_eq!(world.muxer.counters().refused_by_backend, 1);
    let second_id = world.muxer.add_backend(Box::new(second.clone())).unwrap();
    for port in [52, 53, 54] {
        world.guest_sends(&header(Op::Request, 1, port), b"");
    }
    assert_eq!(first.0.lock().unwrap().asked, ports);
    assert_eq!(second.0.lock().unwrap().asked, [54]);

    let third = Scripted::new(3);
    let taken = world
        .muxer
        .add_backend_for(Box::new(third.clone()), &[60, 53]);
    assert_eq!(taken, Err(MuxerError::PortTaken { port: 53 }));
    let twice = world
        .muxer
        .add_backend_for(Box::new(third.clone()), &[60, 61, 60]);
    assert_eq!(twice, Err(MuxerError::PortTaken { port: 60 }));
    assert_eq!(Arc::strong_count(&third.0), 1, "the backend was not added");
    world.muxer.route_port(60, second_id).unwrap();
}

#[test]
fn backends_are_removed_with_their_connections_and_ports_and_can_be_added_again() {
    let mut world = World::new();
    world.muxer.route_port(52, world.backend_id).unwrap();
    let (host, _) = world.guest_connects(1, 52);
    let client = world.client(b"CONN");
    let backends = world.muxer.remove_backends(world.now);
    world.apply();
    assert!(host.state().closed && client.state().closed);
    assert!(world.watched.is_empty());
    assert_eq!(world.ended(Ending::Aborted), 1);
    assert_eq!(world.muxer.deadline(), None);
    // The caller keeps the backend until its watch is withdrawn.
    assert_eq!(Arc::strong_count(&world.backend.0), 2);
    drop(backends);

    world.activate(SocketTypes::STREAM);
    assert!(world.watched.is_empty());
    world.guest_sends(&header(Op::Request, 1, 52), b"");
    assert_eq!(world.ops(), [Op::Reset]);
    let next = Scripted::new(1);
    let id = world.muxer.add_backend(Box::new(next.clone())).unwrap();
    world.apply();
    assert_eq!(world.watched.len(), 1);
    world.muxer.route_port(52, id).unwrap();
    world.guest_sends(&header(Op::Request, 1, 52), b"");
    world.guest_sends(&header(Op::Request, 1, 53), b"");
    assert_eq!(next.0.lock().unwrap().asked, [52, 53]);
}

#[test]
fn backends_are_limited() {
    let mut muxer = Muxer::new(GuestCid::try_from(9).unwrap(), Config::default());
    for _ in 0..Muxer::MAX_BACKENDS {
        muxer.add_backend(Box::new(Scripted::new(1))).unwrap();
    }
    let limit = Muxer::MAX_BACKENDS;
    let more = muxer.add_backend(Box::new(Scripted::new(1)));
    assert_eq!(more, Err(MuxerError::TooManyBackends { limit }));
}

#[test]
fn t96_a_refused_client_gives_its_port_back() {
    let mut world = World::limited(|limits| limits.host_ports(100..102).max_connections(2));
    for round in 0..20 {
        let (first, header) = world.host_connects(1);
        let (second, _) = world.host_connects(1);
        let third = world.client(b"CONNECT 1\n");
        assert!(third.state().closed, "round {round}: at the limit (T97)");
        world.guest_sends(&crate::world::op(Op::Reset, &header), b"");
        assert!(first.state().closed);
        let again = world.client(b"CONNECT 1\n");
        world.answers(Op::Reset);
        assert!(again.state().closed);
        world.muxer.transport_reset(world.now);
        world.apply();
        assert!(second.state().closed);
    }
    assert_eq!(world.muxer.counters().refused_at_limit, 20);
    assert_eq!(world.muxer.counters().refused_without_port, 0);
}

#[test]
fn t95_a_guests_port_in_the_hosts_range_is_neither_freed_nor_assigned() {
    let mut world = World::limited(|limits| limits.host_ports(100..103));
    // The guest connects from port 7 to what will be the allocator's next port.
    let (guests, header) = world.guest_connects(7, 100);
    let (_, first) = world.host_connects(7);
    assert_eq!(first.dst_port, 101, "100 is taken with this peer");
    world.guest_sends(&crate::world::op(Op::Reset, &header), b"");
    assert!(guests.state().closed);
    let (_, second) = world.host_connects(7);
    assert_eq!(second.dst_port, 102);
    let (_, third) = world.host_connects(7);
    assert_eq!(third.dst_port, 100);
    let fourth = world.client(b"CONNECT 7\n");
    assert!(fourth.state().closed);
    assert_eq!(world.muxer.counters().refused_without_port, 1);
}

#[test]
fn an_unknown_or_outdated_token_is_ignored() {
    let mut world = World::new();
    let host = world.client(b"");
    let token = world.watched[&host.fd].token;
    host.state().after = crate::stream::After::End;
    world.event(host.fd, READABLE);
    let successor = world.client(b"CONN");
    let reads = successor.state().reads;
    // The same slot, in the same batch of events.
    for bits in [u64::from(token), 0, u64::MAX, 1 << 63, (1 << 62) + 77] {
        world.muxer.on_event(world.now, bits.into(), READABLE);
    }
    assert_eq!(successor.state().reads, reads, "T80");
}
