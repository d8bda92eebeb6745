// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Injects every fault of a stream at each of its calls, one at a time.

use std::net::Shutdown;
use std::time::Duration;

use vsock_compliance::pattern::Pattern;
use vsock_muxer_harness::guest::{GuestRead, SocketId};
use vsock_muxer_harness::host::StreamFault;
use vsock_muxer_harness::host::{HostEnd, HostRead};
use vsock_muxer_harness::sim::Sim;

use crate::{WAYS, connected, sim};

/// More calls of a stream than this job takes.
const CALLS: usize = 24;
const BYTES: usize = 30_000;

/// Returns every fault at every one of a stream's first calls.
fn faults() -> impl Iterator<Item = (usize, StreamFault)> {
    (0..CALLS).flat_map(|call| StreamFault::ALL.map(|fault| (call, fault)))
}

/// Reads everything at both ends. Returns whether there was anything.
fn read_both(
    sim: &mut Sim,
    socket: SocketId,
    host: &HostEnd,
    (at_guest, at_host): (&mut Pattern, &mut Pattern),
) -> bool {
    let mut any = false;
    if let Ok(GuestRead::Bytes(bytes)) = sim.guest.read(socket, 5000) {
        at_guest.verify(&bytes).unwrap();
        any = true;
    }
    if let HostRead::Bytes(bytes) = host.read(3000) {
        at_host.verify(&bytes).unwrap();
        any = true;
    }
    any
}

/// Sends bytes both ways and ends both directions, with a fault on the way. What arrives is a
/// prefix of what was sent, or all of it if the fault is harmless. No state is left over.
fn carry(way: usize, fail: impl Fn(&HostEnd), complete: bool) {
    let (mut sim, backend) = sim(WAYS[way], 2000);
    let (socket, host) = connected(&mut sim, &backend, 80);
    fail(&host);
    let (mut from_guest, mut from_host) = (Pattern::default(), Pattern::starting_at(7));
    let (mut at_host, mut at_guest) = (from_guest.clone(), from_host.clone());
    for _ in 0..2000 {
        let left = BYTES - usize::try_from(from_guest.position()).unwrap();
        if let Ok(sent) = sim.guest.write(socket, &from_guest.peek(left.min(4000))) {
            from_guest.advance(sent);
        }
        let left = BYTES + 7 - usize::try_from(from_host.position()).unwrap();
        if let Ok(sent) = host.write(&from_host.peek(left)) {
            from_host.advance(sent);
        }
        sim.settle().unwrap();
        let any = read_both(&mut sim, socket, &host, (&mut at_guest, &mut at_host));
        if !any && left == 0 {
            break;
        }
    }
    if complete {
        assert_eq!(at_host.position(), BYTES as u64);
        assert_eq!(at_guest.position(), BYTES as u64 + 7);
    }
    host.shutdown(Shutdown::Write);
    let now = sim.now();
    sim.guest.close(now, socket);
    sim.settle().unwrap();
    if complete {
        assert_eq!(host.read(1), HostRead::End);
    }
    drop(host);
    sim.pass(Duration::from_secs(60)).unwrap();
    assert_eq!((sim.host.connections(), sim.host.open_fds()), (0, 1));
    assert_eq!(sim.checker().connections(), 0);
    assert_eq!(sim.device().connections().count(), 0);
}

#[test]
fn a_read_may_fail_in_every_way_at_every_call() {
    for way in 0..WAYS.len() {
        for (call, fault) in faults() {
            carry(way, |host| host.fail_read(call, fault), fault.is_harmless());
        }
    }
}

#[test]
fn a_write_may_fail_in_every_way_at_every_call() {
    for way in 0..WAYS.len() {
        for (call, fault) in faults() {
            carry(
                way,
                |host| host.fail_write(call, fault),
                fault.is_harmless(),
            );
        }
    }
}

#[test]
fn t64_t68_calls_that_move_one_byte_or_none_lose_no_byte() {
    let fail = |host: &HostEnd| {
        for call in 0..3000 {
            let fault = [
                StreamFault::Short(1),
                StreamFault::WouldBlock,
                StreamFault::Interrupted,
            ][call % 3];
            host.fail_read(call, fault);
            host.fail_write(call, fault);
        }
    };
    for way in 0..WAYS.len() {
        carry(way, fail, true);
    }
}
