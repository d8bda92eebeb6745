// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! End-to-end credit: a guest can send as much as the program in the other guest has room for.

use std::time::Duration;

use vsock_muxer_harness::guest::{GuestConfig, GuestRead, SocketId, SocketState};
use vsock_proto::{Config, MessageFlags, ShutdownFlags, SocketType};
use vsock_siblings::{Capacity, Siblings, VsockInnerConfig};

use crate::node::Trigger;
use crate::world::{World, guest};

const STREAM: SocketType = SocketType::Stream;
const SEQPACKET: SocketType = SocketType::SeqPacket;
const BOTH: [Trigger; 2] = [Trigger::Edge, Trigger::Level];

/// Returns a guest with a buffer of this size.
fn with_buffer(buf_alloc: u32) -> GuestConfig {
    GuestConfig {
        buf_alloc,
        ..GuestConfig::default()
    }
}

fn world(trigger: Trigger, kind: impl Fn(usize) -> GuestConfig) -> World {
    let siblings = Siblings::new();
    World::of(&siblings, &["a", "a"], trigger, &Config::default(), kind)
}

/// Writes until no more bytes are accepted, even after a while.
fn fill(world: &mut World, node: usize, socket: SocketId) -> usize {
    world.settle();
    let mut taken = 0;
    loop {
        let sent = world.nodes[node]
            .guest
            .write(socket, &[7; 100_000])
            .unwrap();
        world.pass(Duration::from_secs(1));
        taken += sent;
        if sent == 0 {
            return taken;
        }
    }
}

/// Reads until no more bytes arrive, even after a while.
fn drain(world: &mut World, node: usize, socket: SocketId) -> usize {
    let mut got = 0;
    while let Ok(GuestRead::Bytes(bytes)) = world.nodes[node].guest.read(socket, usize::MAX) {
        got += bytes.len();
        world.pass(Duration::from_millis(10));
    }
    got
}

#[test]
fn t48_a_guest_sends_no_more_than_the_other_guests_buffer_holds() {
    for trigger in BOTH {
        for (near_buffer, far_buffer) in [(256, 256), (256, 16), (1024, 4), (1024, 1024), (8, 256)]
        {
            let buffers = [near_buffer * 1024, far_buffer * 1024];
            let mut world = world(trigger, |number| with_buffer(buffers[number]));
            let (near, far) = world.connected(0, 1, STREAM);
            // In both directions. New kernels also cap their bytes in flight at their own buffer.
            let least = buffers[0].min(buffers[1]) as usize;
            let taken = fill(&mut world, 0, near);
            assert_eq!(taken, least, "{trigger:?}, {buffers:?}");
            assert_eq!(
                fill(&mut world, 1, far),
                least,
                "{trigger:?}, {buffers:?}, back"
            );
            // Reading makes room for the same number of bytes, and no more.
            let some = world.nodes[1].guest.read(far, least / 2).unwrap();
            let GuestRead::Bytes(some) = some else {
                panic!("{some:?}");
            };
            let more = fill(&mut world, 0, near);
            assert!(more <= some.len(), "{more} of {}", some.len());
            assert_eq!(drain(&mut world, 1, far), taken - some.len() + more);
            assert_eq!(drain(&mut world, 0, near), least);
            // The connection continues to work.
            assert_eq!(fill(&mut world, 0, near), least);
        }
    }
}

#[test]
fn t51_a_change_of_the_buffer_size_reaches_the_sender() {
    for trigger in BOTH {
        let mut world = world(trigger, |number| with_buffer([1 << 20, 64 * 1024][number]));
        let (near, far) = world.connected(0, 1, STREAM);
        assert_eq!(fill(&mut world, 0, near), 64 * 1024);
        world.nodes[1].guest.set_buffer(far, 512 * 1024);
        assert_eq!(fill(&mut world, 0, near), (512 - 64) * 1024);
        world.nodes[1].guest.set_buffer(far, 10_000);
        assert_eq!(fill(&mut world, 0, near), 0);
        assert_eq!(drain(&mut world, 1, far), 512 * 1024);
        assert_eq!(fill(&mut world, 0, near), 10_000);
    }
}

#[test]
fn t50_a_guest_that_sends_no_updates_is_asked_for_credit() {
    // The sender caps its bytes at its own small buffer. The receiver only sends a credit update
    // when its large buffer is nearly full, which never happens.
    let silent = GuestConfig {
        updates_when_empty: false,
        ..with_buffer(1 << 20)
    };
    for trigger in BOTH {
        let kinds = [with_buffer(8 * 1024), silent.clone()];
        let mut world = world(trigger, |number| kinds[number].clone());
        let (near, far) = world.connected(0, 1, STREAM);
        let much = vec![1; 300_000];
        assert!(world.transfer((0, near), (1, far), &much) == much);
        // While the receiver does not read, the credit requests become rare.
        fill(&mut world, 0, near);
        let asked = world.nodes[1].muxer.counters().packets_to_guest;
        world.pass(Duration::from_secs(60));
        let asked = world.nodes[1].muxer.counters().packets_to_guest - asked;
        assert!((1..100).contains(&asked), "{asked}");
    }
}

#[test]
fn our_own_buffers_limit_the_bytes_between_guests_with_huge_buffers() {
    const OWN: usize = 20_000;
    let capacity = Capacity::Bytes(OWN);
    let limits = VsockInnerConfig::default();
    let siblings = Siblings::with_config(limits.to_device(capacity).to_application(capacity));
    let config = Config::builder().buf_alloc(20_000).build().unwrap();
    for trigger in BOTH {
        let kind = |_| with_buffer(1 << 30);
        let mut world = World::of(&siblings, &["a", "a"], trigger, &config, kind);
        // The receiver advertises a buffer of a gigabyte, and accepts no packet.
        let (near, _far) = world.connected(0, 1, STREAM);
        world.nodes[1].guest.starve();
        world.nodes[1].guest.rx_queue().clear();
        let taken = fill(&mut world, 0, near);
        assert!(taken <= 2 * OWN + 2000, "{taken}");
        world.nodes[0].reboot(world.now);
        world.nodes[1].reboot(world.now);
        world.settle();
    }
}

#[test]
fn a_blocked_direction_does_not_block_the_other() {
    for trigger in BOTH {
        let mut world = world(trigger, guest);
        let (near, far) = world.connected(0, 1, STREAM);
        // These bytes are never read, so that the receiver's muxer stops reading.
        fill(&mut world, 1, far);
        let much = vec![3; 2_000_000];
        assert!(
            world.transfer((0, near), (1, far), &much) == much,
            "{trigger:?}"
        );
    }
}

#[test]
fn a_guest_that_stops_reading_or_resets_withholds_no_credit() {
    for trigger in BOTH {
        let mut world = world(trigger, guest);
        let (near, far) = world.connected(0, 1, STREAM);
        fill(&mut world, 0, near);
        world.nodes[1]
            .guest
            .shutdown(far, ShutdownFlags::RECEIVE)
            .unwrap();
        world.settle();
        world.nodes[0].guest.write(near, b"x").unwrap_err();
        let back = vec![4; 600_000];
        assert!(world.transfer((1, far), (0, near), &back) == back);
        world.nodes[1].guest.reset(far);
        world.pass(Duration::from_secs(10));
        for node in &world.nodes {
            assert_eq!(node.muxer.connections().count(), 0);
        }
    }
}

#[test]
fn a_message_longer_than_the_other_guests_buffer_is_refused() {
    for trigger in BOTH {
        let mut world = world(trigger, |number| with_buffer([256 * 1024, 10_000][number]));
        let (near, far) = world.connected(0, 1, SEQPACKET);
        let end = MessageFlags::END_OF_MESSAGE;
        for len in [9000, 9999, 5000] {
            let got = world.exchange((0, near), (1, far), &vec![1; len], end);
            assert_eq!(got.map(|(bytes, _)| bytes.len()), Some(len));
        }
        let too_long = world.nodes[0].guest.send(near, &[1; 10_001], end);
        too_long.unwrap_err();
        let got = world.exchange((0, near), (1, far), &[2; 9999], end);
        assert_eq!(got.map(|(bytes, _)| bytes.len()), Some(9999));
    }
}

#[test]
fn messages_can_fill_the_other_guests_buffer_even_if_ours_is_smaller() {
    const LEN: usize = 32 * 1024;
    for trigger in BOTH {
        let mut world = world(trigger, |_| with_buffer(2 << 20));
        let (near, _far) = world.connected(0, 1, SEQPACKET);
        let end = MessageFlags::END_OF_MESSAGE;
        let mut taken = 0;
        while world.nodes[0].guest.send(near, &[1; LEN], end).unwrap() {
            taken += 1;
            world.pass(Duration::from_secs(1));
        }
        // The last message waits in the sending guest for credit.
        assert_eq!(taken, (2 << 20) / LEN + 1, "{trigger:?}");
    }
}

#[test]
fn a_guest_without_credit_learns_that_its_peer_has_gone() {
    for trigger in BOTH {
        let mut world = world(trigger, guest);
        let (near, far) = world.connected(0, 1, STREAM);
        let other = &mut world.nodes[1].guest;
        other.shutdown(far, ShutdownFlags::SEND).unwrap();
        fill(&mut world, 0, near);
        world.nodes[1].guest.reset(far);
        world.pass(Duration::from_secs(1));
        assert_ne!(world.state(0, near), SocketState::Connected, "{trigger:?}");
    }
}
