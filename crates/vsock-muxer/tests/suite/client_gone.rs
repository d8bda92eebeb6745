// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Host clients that leave before the guest has answered.

use std::io::ErrorKind;
use std::time::Duration;

use vsock_proto::{Ending, Op};

use crate::stream::{After, Host};
use crate::world::{HANGUP, READABLE, World, bytes, reply, seqpacket};

/// Closes the client; its stream reports this when queried.
fn leaves(host: &Host) {
    let mut state = host.state();
    (state.after, state.peer_gone) = (After::End, true);
}

/// A client that has sent this while it was in the backend's queue, and then left.
fn queue_gone(world: &mut World, sent: &[u8]) -> Host {
    let host = world.host();
    host.sends(sent);
    leaves(&host);
    world.queue_client(&host);
    host
}

fn ports_asked(world: &mut World) -> Vec<u32> {
    let packets = world.receive(64);
    packets
        .iter()
        .map(|(header, _)| {
            assert_eq!(header.op, u16::from(Op::Request));
            header.dst_port
        })
        .collect()
}

#[test]
fn t127_clients_that_leave_before_they_are_accepted_are_not_announced() {
    let mut world = World::new();
    let mut crowd: Vec<_> = (0..300)
        .map(|_| queue_gone(&mut world, b"CONNECT 9\n"))
        .collect();
    // Others send nothing, a part of the command, or the port out of band.
    crowd.extend([b"".as_slice(), b"CONN"].map(|sent| queue_gone(&mut world, sent)));
    let named = queue_gone(&mut world, b"");
    named.state().requested = Some(9);
    crowd.push(named);
    let alive = world.host();
    alive.sends(b"CONNECT 10\n");
    world.comes(&alive);
    let mut asked = Vec::new();
    while asked.is_empty() {
        // The guest provides buffers before the event loop reports any hang-up.
        asked.extend(ports_asked(&mut world));
        world.pass(Duration::ZERO);
    }
    assert_eq!(asked, [10]);
    assert!(crowd.iter().all(|host| host.state().closed));
    assert!(!alive.state().closed);
    let counters = world.muxer.counters();
    assert_eq!(counters.handshakes_abandoned, 2);
    assert_eq!(counters.endings.of(Ending::HostRefused), 301);
    assert_eq!(world.muxer.connections().count(), 1);
}

#[test]
fn t127_a_client_that_leaves_while_its_request_waits_is_not_announced() {
    let mut world = World::new();
    let seen = world.client(b"CONNECT 9\n");
    // A stream that does not know about its peer: only the event reports the hang-up.
    seen.state().after = After::End;
    world.event(seen.fd, HANGUP);
    assert!(seen.state().closed);
    let unseen = world.client(b"CONNECT 9\n");
    leaves(&unseen);
    assert_eq!(ports_asked(&mut world), [0_u32; 0]);
    assert!(unseen.state().closed);
    assert_eq!(world.muxer.deadline(), None);
}

#[test]
fn t127_a_hangup_that_comes_with_the_command_is_not_lost() {
    for knows in [false, true] {
        let mut world = World::new();
        let host = world.client(b"");
        host.sends(b"CONNECT 9\n");
        host.state().after = After::Failure(ErrorKind::ConnectionReset);
        host.state().peer_gone = knows;
        let event = if knows { READABLE } else { HANGUP };
        world.event(host.fd, event);
        assert!(host.state().closed, "there is no other edge");
        assert_eq!(ports_asked(&mut world), [0_u32; 0]);
    }
}

#[test]
fn t127_a_client_that_has_only_stopped_sending_is_alive() {
    let mut world = World::new();
    let host = world.client(b"CONNECT 9\n");
    host.state().after = After::End;
    world.event(host.fd, READABLE);
    let request = world.answers(Op::Response);
    world.guest_sends(&reply(&request, Op::ReadWrite), b"answer");
    assert_eq!(host.got(), b"OK 1073741824\nanswer");
}

#[test]
fn t85_t127_bytes_of_a_client_that_has_left_arrive_before_its_end() {
    for (before, after) in [("early", ""), ("", "late"), ("early, ", "late")] {
        for seen in [None, Some(Op::Request), Some(Op::Response)] {
            let mut world = World::new();
            let host = world.client(format!("CONNECT 9\n{before}").as_bytes());
            host.sends(after.as_bytes());
            let mut requests = Vec::new();
            if seen == Some(Op::Response) {
                requests = world.receive(1);
            }
            leaves(&host);
            if seen.is_some() {
                world.event(host.fd, HANGUP);
            }
            requests.extend(world.receive(9));
            assert_eq!(requests.len(), 1, "{seen:?}");
            world.guest_sends(&reply(&requests[0].0, Op::Response), b"");
            let packets = world.receive(9);
            assert_eq!(bytes(&packets), format!("{before}{after}").as_bytes());
            let last = packets.last().unwrap().0;
            assert_eq!((last.op, last.flags), (Op::Shutdown.into(), 3));
        }
    }
}

#[test]
fn t127_messages_of_a_client_that_has_left_count_even_if_empty() {
    for left in [None, Some(b"".as_slice()), Some(b"late")] {
        let mut world = World::new();
        let host = Host::of_messages(world.host().fd);
        host.sends_message(b"CONNECT 9\n", false);
        if let Some(message) = left {
            host.sends_message(message, true);
        }
        leaves(&host);
        world.comes(&host);
        let requests = world.receive(9);
        let Some(message) = left else {
            assert_eq!(requests, []);
            assert!(host.state().closed);
            continue;
        };
        let response = seqpacket(reply(&requests[0].0, Op::Response));
        world.guest_sends(&response, b"");
        let packets = world.receive(9);
        let data = packets
            .iter()
            .find(|(header, _)| header.op == u16::from(Op::ReadWrite));
        let (header, payload) = data.unwrap();
        assert_eq!((header.flags, payload.as_slice()), (3, message));
    }
}

#[test]
fn a_client_that_has_left_and_may_have_sent_bytes_is_announced() {
    let mut world = World::new();
    let host = world.client(b"CONNECT 9\n");
    host.state().peer_gone = true;
    // A read that finds neither bytes nor an end is inconclusive.
    assert_eq!(ports_asked(&mut world), [9]);
}
