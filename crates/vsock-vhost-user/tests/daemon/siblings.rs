// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Connections between guests, each of which has its own device, threads and front-end.

use vsock_proto::{Header, MessageFlags, Op, ShutdownFlags};
use vsock_vhost_user::Siblings;

use crate::guest::{Guest, Socket};
use crate::host::Host;

/// Creates two guests in these groups, whose drivers are up and support messages.
fn pair(groups: [&str; 2]) -> [(Host, Guest); 2] {
    let siblings = Siblings::new();
    let hosts = groups.map(|groups| Host::sibling(&siblings, groups));
    let cids = [hosts[0].cid, hosts[1].cid];
    hosts.map(|host| {
        let mut guest = Guest::boot_for_messages(&host.socket(), host.cid);
        guest.siblings = cids.to_vec();
        (host, guest)
    })
}

/// Connects the first guest's port 1000 to the second one's port 80; returns both ends.
fn connected(guests: &mut [(Host, Guest); 2], socket_type: u16) -> [Socket; 2] {
    let [(_, one), (host, other)] = guests;
    let near = one.request_at(host.cid, socket_type, 1000, 80);
    let far = other.accept(80);
    let (response, _) = one.expect(Op::Response);
    assert_eq!(response.src_cid, host.cid);
    assert_eq!(response.socket_type, socket_type);
    [near, far]
}

/// Creates bytes that identify their positions.
fn bytes(len: usize) -> Vec<u8> {
    (0..len).map(|at| u8::try_from(at % 251).unwrap()).collect()
}

#[test]
fn bytes_pass_between_guests_until_each_direction_ends() {
    let mut guests = pair(["a", "a+b"]);
    let [mut near, mut far] = connected(&mut guests, 1);
    let [(first, one), (_, other)] = &mut guests;
    assert_eq!((far.host_cid, far.host_port), (first.cid, 1000));
    one.write(&near, &bytes(100_000));
    assert_eq!(other.read(&mut far, 100_000), bytes(100_000));
    one.finish(&near);
    assert_eq!(
        other.expect(Op::Shutdown).0.flags,
        ShutdownFlags::SEND.bits()
    );
    other.write(&far, b"after the half-close");
    assert_eq!(one.read(&mut near, 20), b"after the half-close");
    other.finish(&far);
    assert_eq!(one.expect(Op::Shutdown).0.flags, ShutdownFlags::SEND.bits());
    // Both directions have ended.
    one.expect(Op::Reset);
    other.expect(Op::Reset);
}

#[test]
fn a_guest_learns_that_another_one_has_stopped_reading() {
    let mut guests = pair(["a", "a"]);
    let [near, far] = connected(&mut guests, 1);
    let [(_, one), (_, other)] = &mut guests;
    let receive = ShutdownFlags::RECEIVE.bits();
    one.say(&near, Op::Shutdown, receive, &[]);
    assert_eq!(other.expect(Op::Shutdown).0.flags, receive);
    one.write(&near, b"and goes on sending");
    let (_, payload) = other.expect(Op::ReadWrite);
    assert_eq!(payload, b"and goes on sending");
    other.say(&far, Op::Reset, 0, &[]);
    // Neither side reads any more, so the connection ends.
    assert_eq!(one.expect(Op::Shutdown).0.flags, receive);
    one.expect(Op::Reset);
}

#[test]
fn t26_a_missing_or_refusing_guest_results_in_an_rst() {
    let mut guests = pair(["a", "a"]);
    let [(_, one), (host, other)] = &mut guests;
    one.siblings.push(99);
    one.request_at(99, 1, 1000, 80);
    assert_eq!(one.expect(Op::Reset).0.src_cid, 99);
    one.request_at(host.cid, 1, 1000, 80);
    let (request, _) = other.expect(Op::Request);
    let refusal = Header {
        src_cid: request.dst_cid,
        dst_cid: request.src_cid,
        src_port: request.dst_port,
        dst_port: request.src_port,
        op: Op::Reset.into(),
        ..request
    };
    other.send(&refusal, &[]);
    assert_eq!(one.expect(Op::Reset).0.src_cid, host.cid);
}

#[test]
fn guests_without_a_group_in_common_do_not_reach_each_other() {
    let mut guests = pair(["a", "b"]);
    let [(_, one), (host, other)] = &mut guests;
    one.request_at(host.cid, 1, 1000, 80);
    one.expect(Op::Reset);
    other.assert_refused();
}

#[test]
fn messages_pass_between_guests_with_their_records() {
    let mut guests = pair(["a", "a"]);
    let [near, mut far] = connected(&mut guests, 2);
    let [(_, one), (_, other)] = &mut guests;
    for len in [1, 9000, 100_000, 3] {
        one.send_message(&near, &bytes(len), 3000);
        assert!(other.receive_message(&mut far) == bytes(len), "{len}");
    }
    let end = MessageFlags::END_OF_MESSAGE.bits();
    one.say(&near, Op::ReadWrite, end, &[]);
    assert_eq!(other.receive_message(&mut far), b"");
    one.say(&near, Op::ReadWrite, 3, b"a record");
    let (header, payload) = other.expect(Op::ReadWrite);
    assert_eq!((header.flags, &payload[..]), (3, &b"a record"[..]));
}

#[test]
fn a_guest_that_dies_resets_its_connections() {
    let mut guests = pair(["a", "a"]);
    let [mut near, far] = connected(&mut guests, 1);
    let [(_, one), (_, other)] = &mut guests;
    other.write(&far, b"the last");
    assert_eq!(one.read(&mut near, 8), b"the last");
    other.vmm.hang_up();
    one.expect(Op::Reset);
}
