// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Connections with siblings, at the interface of the muxer.

use std::io::ErrorKind;

use vsock_backend_api::VsockAddr;
use vsock_muxer::{Initiator, MuxerError};
use vsock_proto::{Config, Ending, Header, Op};

use crate::stream::Host;
use crate::world::{GUEST, READABLE, Scripted, WRITABLE, World, header, op, reply, with};

const SIBLING: u64 = 7;

fn to(cid: u64, header: Header) -> Header {
    with(header, |header| header.dst_cid = cid)
}

const fn at(cid: u64, port: u32) -> VsockAddr {
    VsockAddr { cid, port }
}

/// A client of the backend: the sibling with this address, which requests port 80.
fn sibling(world: &mut World, from: VsockAddr) -> Host {
    let host = world.host();
    {
        let mut state = host.state();
        state.requested = Some(80);
        state.peer = Some(from);
    }
    world.comes(&host);
    host
}

#[test]
fn the_backend_is_asked_with_both_addresses_for_each_cid_that_a_guest_can_have() {
    let mut world = World::of_siblings();
    let request = header(Op::Request, 1, 52);
    for cid in [0, 1, 2, GUEST, u64::from(u32::MAX), 1 << 32 | SIBLING] {
        world.guest_sends(&to(cid, request), b"");
    }
    assert_eq!(world.script().asked_from, []);
    // From each CID except those that cannot send an answer.
    let mut from: Vec<_> = world
        .receive(64)
        .iter()
        .map(|(rst, _)| rst.src_cid)
        .collect();
    from.sort_unstable();
    assert_eq!(from, [0, 1, 2, GUEST, u64::from(u32::MAX)]);
    let host = world.host();
    world.answer(Ok(&host));
    world.guest_sends(&to(SIBLING, request), b"");
    assert_eq!(world.script().asked_from, [(at(GUEST, 1), at(SIBLING, 52))]);
    let (response, _) = world.receive(1)[0];
    assert_eq!(
        (response.src_cid, response.op),
        (SIBLING, Op::Response.into())
    );
    let data = to(SIBLING, header(Op::ReadWrite, 1, 52));
    world.guest_sends(&data, b"for the sibling");
    assert_eq!(host.got(), b"for the sibling");
}

#[test]
fn without_the_backend_other_cids_do_not_exist() {
    let mut world = World::new();
    for kind in [Op::ReadWrite, Op::Reset, Op::Request] {
        world.guest_sends(&to(SIBLING, header(kind, 1, 52)), b"");
    }
    let rsts = world.receive(64);
    assert_eq!(rsts.len(), 1, "only for the REQUEST");
    assert_eq!(rsts[0].0.src_cid, SIBLING);
    assert_eq!(world.muxer.counters().packets_rejected, 3);
    // A client of a backend for host processes is never a guest, whatever address it claims.
    let client = sibling(&mut world, at(SIBLING, 1000));
    let (asked, _) = world.receive(1)[0];
    assert_eq!(asked.src_cid, 2);
    assert!(!client.state().closed);
}

#[test]
fn there_is_one_backend_for_other_guests() {
    let mut world = World::of_siblings();
    let another = Box::new(Scripted::new(1));
    let refused = world.muxer.add_sibling_backend(another).unwrap_err();
    assert_eq!(refused, MuxerError::SiblingsTaken);
    drop(world.muxer.remove_backends(world.now));
    world.apply();
    world
        .muxer
        .activate(world.now, vsock_proto::SocketTypes::ALL);
    world.guest_sends(&to(SIBLING, header(Op::ReadWrite, 1, 52)), b"");
    assert_eq!(world.ops(), [], "the route was removed with the backend");
}

#[test]
fn an_accepted_stream_is_a_connection_from_its_peer_address() {
    let mut world = World::of_siblings();
    let host = sibling(&mut world, at(SIBLING, 1000));
    let (request, _) = world.receive(1)[0];
    assert_eq!((request.src_cid, request.src_port), (SIBLING, 1000));
    assert_eq!((request.dst_cid, request.dst_port), (GUEST, 80));
    let info = world.muxer.connections().next().unwrap();
    assert_eq!(info.initiator, Initiator::Host);
    let response = to(SIBLING, header(Op::Response, 80, 1000));
    // A packet to the host, or to another sibling, is not an answer.
    for cid in [2, SIBLING + 1] {
        world.guest_sends(&to(cid, response), b"");
    }
    assert_eq!(world.ops(), [Op::Reset, Op::Reset]);
    assert_eq!(host.state().confirmed_from, None);
    world.guest_sends(&response, b"");
    let addresses = Some((at(GUEST, 80), at(SIBLING, 1000)));
    assert_eq!(host.state().confirmed_from, addresses);
}

#[test]
fn t95_impossible_addresses_and_addresses_in_use_are_refused() {
    let mut world = World::of_siblings();
    let first = sibling(&mut world, at(SIBLING, 1000));
    for from in [
        at(SIBLING, 1000),
        at(GUEST, 1),
        at(1, 1),
        at(u64::from(u32::MAX), 1),
        at(1 << 32 | SIBLING, 1),
        at(SIBLING, u32::MAX),
    ] {
        let refused = sibling(&mut world, from);
        assert!(refused.state().closed, "{from}");
    }
    assert_eq!(world.muxer.counters().refused_without_port, 6);
    assert!(!first.state().closed);
    // The same ports of another sibling and of the host are free.
    let other = sibling(&mut world, at(SIBLING + 1, 1000));
    let host = sibling(&mut world, at(2, 1000));
    assert!(!other.state().closed && !host.state().closed);
    let mut from: Vec<_> = world.receive(3).iter().map(|(h, _)| h.src_cid).collect();
    from.sort_unstable();
    assert_eq!(from, [2, SIBLING, SIBLING + 1]);
}

#[test]
fn other_guests_have_at_most_half_of_the_connections() {
    let config = Config::builder().max_connections(5).build().unwrap();
    let mut world = World::of_siblings_with(config);
    // Three of five, whether the guest answers or not, and for all siblings together.
    let siblings = [SIBLING, SIBLING + 1, SIBLING + 2];
    let clients = siblings.map(|cid| sibling(&mut world, at(cid, 1000)));
    let request = world.receive(3)[0].0;
    let answer = |op| to(request.src_cid, reply(&request, op));
    world.guest_sends(&answer(Op::Response), b"");
    assert!(clients.iter().all(|client| !client.state().closed));
    let refused = sibling(&mut world, at(SIBLING, 1001));
    assert!(refused.state().closed);
    assert_eq!(world.muxer.counters().refused_at_limit, 1);
    // The host and the guest itself have the rest.
    let host = sibling(&mut world, at(2, 1000));
    assert!(!host.state().closed);
    let own = world.host();
    world.answer(Ok(&own));
    world.guest_sends(&to(SIBLING, header(Op::Request, 1, 52)), b"");
    assert!(!own.state().closed);
    assert_eq!(world.muxer.connections().count(), 5);
    // A released place is available to siblings again, even after a reset.
    world.guest_sends(&answer(Op::Reset), b"");
    let next = sibling(&mut world, at(SIBLING, 1002));
    assert!(!next.state().closed);
    world.muxer.reset(world.now);
    world.activate(vsock_proto::SocketTypes::ALL);
    let clients = siblings.map(|cid| sibling(&mut world, at(cid, 2000)));
    assert!(clients.iter().all(|client| !client.state().closed));
}

/// Connections from these CIDs, which the guest has accepted.
fn accepted<const N: usize>(world: &mut World, cids: [u64; N]) -> [Host; N] {
    cids.map(|cid| {
        let client = sibling(world, at(cid, 1000));
        let request = world.receive(1)[0].0;
        world.guest_sends(&to(cid, reply(&request, Op::Response)), b"");
        client
    })
}

#[test]
fn t73_the_host_does_not_wait_for_all_connections_of_other_guests() {
    let mut world = World::of_siblings();
    let cids = [SIBLING, SIBLING + 1, SIBLING + 2, SIBLING + 3, 2];
    let clients = accepted(&mut world, cids);
    for client in &clients {
        world.host_sends(client, b"first come");
    }
    let from: Vec<_> = world.receive(64).iter().map(|(h, _)| h.src_cid).collect();
    assert!(from[..2].contains(&2), "{from:?}");
    assert_eq!(from.len(), cids.len());
}

#[test]
fn a_packet_for_a_small_buffer_is_found_past_payload_of_other_peers() {
    let mut world = World::of_siblings();
    let cids = [2, SIBLING, SIBLING + 1, SIBLING + 2, SIBLING + 3];
    let clients = accepted(&mut world, cids);
    for client in &clients {
        world.host_sends(client, b"payload");
    }
    let asks = to(SIBLING + 3, header(Op::CreditRequest, 80, 1000));
    world.guest_sends(&asks, b"");
    world.guest.rooms.extend([0; 4]);
    world.transmit(usize::MAX);
    let packets: Vec<_> = world.guest.packets.drain(..).collect();
    assert_eq!(packets.len(), 1, "{packets:?}");
    assert_eq!(packets[0].0.src_cid, SIBLING + 3);
}

#[test]
fn a_request_to_another_cid_does_not_cancel_a_pending_rst() {
    let mut world = World::of_siblings();
    for cid in [2, SIBLING] {
        world.guest_sends(&to(cid, header(Op::ReadWrite, 1, 52)), b"stray");
    }
    let host = world.host();
    world.answer(Ok(&host));
    world.guest_sends(&to(SIBLING, header(Op::Request, 1, 52)), b"");
    let packets = world.receive(64);
    let came: Vec<_> = packets.iter().map(|(h, _)| (h.src_cid, h.op)).collect();
    assert_eq!(
        came,
        [(2, Op::Reset.into()), (SIBLING, Op::Response.into())]
    );
}

#[test]
fn the_answer_to_a_sibling_waits_until_its_connection_succeeds() {
    let mut world = World::of_siblings();
    let host = world.host();
    host.state().unconnected = Some(ErrorKind::WouldBlock);
    host.state().write_fd = Some(5000);
    world.answer(Ok(&host));
    world.guest_sends(&to(SIBLING, header(Op::Request, 1, 52)), b"");
    assert_eq!(world.ops(), []);
    host.state().unconnected = None;
    world.event(5000, WRITABLE);
    assert_eq!(world.ops(), [Op::Response]);
}

#[test]
fn a_busy_sibling_does_not_delay_the_same_port_of_another() {
    let mut world = World::of_siblings();
    world.is_busy(true);
    world.guest_sends(&to(SIBLING, header(Op::Request, 1, 52)), b"");
    world.is_busy(false);
    let host = world.host();
    world.answer(Err(ErrorKind::WouldBlock)); // The first is asked again.
    world.answer(Ok(&host));
    world.guest_sends(&to(SIBLING + 1, header(Op::Request, 1, 52)), b"");
    world.pass(std::time::Duration::from_millis(1));
    let asked = world.script().asked_from.len();
    assert!(asked >= 2, "{asked}");
}

#[test]
fn t82_an_event_reports_that_a_sibling_has_stopped_reading() {
    let mut world = World::of_siblings();
    let host = world.host();
    world.answer(Ok(&host));
    let request = to(SIBLING, header(Op::Request, 1, 52));
    world.guest_sends(&request, b"");
    assert_eq!(world.ops(), [Op::Response]);
    host.state().peer_stopped_reading = true;
    world.event(host.fd, READABLE);
    let packets = world.receive(4);
    assert_eq!(packets.len(), 1);
    assert_eq!(
        (packets[0].0.op, packets[0].0.flags),
        (Op::Shutdown.into(), 1)
    );
    assert_eq!(
        world.watch_of(&host),
        Some((true, false)),
        "watched for what it sends"
    );
    world.host_sends(&host, b"still");
    assert_eq!(world.receive(1)[0].1, b"still");
    // Bytes in flight do not count against the guest.
    world.guest_sends(&op(Op::ReadWrite, &request), b"late");
    assert_eq!(world.ended(Ending::Violated), 0);
}

#[test]
fn a_host_component_is_not_polled_for_the_end_of_its_reading() {
    let (mut world, host, _) = World::connected();
    world.ops();
    host.state().peer_stopped_reading = true;
    world.event(host.fd, READABLE);
    assert_eq!(world.ops(), []);
}
