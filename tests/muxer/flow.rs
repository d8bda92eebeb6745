// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Backpressure, fairness and bounds.

use std::time::Duration;

use vsock_compliance::pattern::Pattern;
use vsock_muxer_harness::guest::{GuestConfig, GuestRead};
use vsock_muxer_harness::host::{HostEnd, HostRead, StreamKind};
use vsock_muxer_harness::sim::{SimConfig, TracedPacket};
use vsock_proto::{Config, Op};

use crate::{WAYS, connected, sim, sim_with};

#[test]
fn t78_a_host_that_does_not_read_stops_the_guest_and_loses_no_byte() {
    for way in WAYS {
        let (mut sim, backend) = sim(way, 10_000);
        let (socket, host) = connected(&mut sim, &backend, 80);
        let (mut sent, mut got) = (Pattern::default(), Pattern::default());
        for _ in 0..100 {
            let written = sim.guest.write(socket, &sent.peek(64 * 1024)).unwrap();
            sent.advance(written);
            sim.pass(Duration::from_secs(2)).unwrap();
        }
        // After three minutes, the guest has sent what the window and the stream hold, and no more.
        assert!(
            sent.position() <= 256 * 1024 + 10_000,
            "{}",
            sent.position()
        );
        let waiting: usize = sim.device().connections().map(|conn| conn.waiting).sum();
        assert!(waiting <= 256 * 1024, "{waiting}");
        while let HostRead::Bytes(bytes) = host.read(usize::MAX) {
            got.verify(&bytes).unwrap();
            sim.settle().unwrap();
        }
        assert_eq!(got, sent);
    }
}

#[test]
fn t50_t53_bytes_pass_through_the_tiniest_windows() {
    for buf_alloc in [1, 100, 1024, 4096] {
        for updates_when_empty in [true, false] {
            let guest = GuestConfig {
                buf_alloc,
                updates_when_empty,
                ..GuestConfig::default()
            };
            let (mut sim, backend) =
                sim_with(StreamKind::Socket, 3000, SimConfig::default(), guest);
            let (socket, host) = connected(&mut sim, &backend, 80);
            let (mut up, mut down) = (Pattern::default(), Pattern::default());
            let (mut up_got, mut down_got) = (Pattern::default(), Pattern::default());
            let total = u64::from(buf_alloc) * 20;
            while up_got.position() < total || down_got.position() < total {
                let sent = sim.guest.write(socket, &up.peek(5000)).unwrap();
                up.advance(sent);
                down.advance(host.write(&down.peek(5000)).unwrap());
                sim.settle().unwrap();
                let before = (up_got.position(), down_got.position());
                if let HostRead::Bytes(bytes) = host.read(usize::MAX) {
                    up_got.verify(&bytes).unwrap();
                }
                if let GuestRead::Bytes(bytes) = sim.guest.read(socket, usize::MAX).unwrap() {
                    down_got.verify(&bytes).unwrap();
                }
                sim.settle().unwrap();
                let after = (up_got.position(), down_got.position());
                assert!(
                    after.0 > before.0 && after.1 > before.1,
                    "{buf_alloc}: stalled"
                );
            }
        }
    }
}

#[test]
fn t72_t73_a_small_stream_is_served_among_busy_ones() {
    const BUSY: usize = 300;
    let config = SimConfig {
        rx_bytes: 64 * 1024,
        ..SimConfig::default()
    };
    let guest = GuestConfig {
        buf_alloc: 1 << 20,
        ..GuestConfig::default()
    };
    let (mut sim, backend) = sim_with(StreamKind::Socket, 1 << 20, config, guest);
    let mut busy = Vec::new();
    for _ in 0..BUSY {
        busy.push(connected(&mut sim, &backend, 80));
    }
    let (small, small_host) = connected(&mut sim, &backend, 80);
    for (_, host) in &busy {
        host.write(&vec![0; 1 << 20]).unwrap();
    }
    sim.step().unwrap();
    sim.record();
    small_host.write(b"hello").unwrap();
    while sim.guest.queued(small) == 0 {
        assert!(
            sim.step().unwrap(),
            "the simulation came to rest before the small stream was served"
        );
        for (socket, _) in &busy {
            sim.guest.read(*socket, usize::MAX).unwrap();
        }
    }
    let (port, _) = sim.guest.ports(small).unwrap();
    let before = sim
        .trace()
        .iter()
        .filter_map(|traced| match traced {
            TracedPacket::ToGuest(header) => Some(header),
            TracedPacket::FromGuest(_) => None,
        })
        .filter(|header| header.op == u16::from(Op::ReadWrite))
        .take_while(|header| header.dst_port != port)
        .count();
    // Before it, each busy stream has one turn of at most a few packets.
    assert!(before <= BUSY * 20, "{before} packets came first");
}

#[test]
fn t75_no_deadlock_while_both_queues_are_full() {
    let guest = GuestConfig {
        rx_buffers: 2,
        tx_packets: 2,
        ..GuestConfig::default()
    };
    for way in WAYS {
        let config = SimConfig {
            trigger: way.1,
            tx_packets: 1,
            muxer: Config::builder().max_resets(2).build().unwrap(),
            ..SimConfig::default()
        };
        let (mut sim, backend) = sim_with(way.0, 100_000, config, guest.clone());
        let mut links = Vec::new();
        for port in 0..8 {
            links.push(connected(&mut sim, &backend, port));
        }
        // Every connection sends and is answered, while other packets for no connection arrive.
        for (socket, host) in &links {
            sim.guest.write(*socket, &[1; 50_000]).unwrap();
            sim.guest.request_credit(*socket);
            host.write(&[2; 50_000]).unwrap();
        }
        let now = sim.now();
        for port in 0..50 {
            sim.guest.connect(now, 5000 + port);
        }
        sim.settle().unwrap();
        for (socket, host) in &links {
            assert_eq!(sim.guest.queued(*socket), 50_000);
            assert_eq!(host.unread(), 50_000);
        }
    }
}

#[test]
fn t69_a_guest_without_buffers_costs_no_wake_ups() {
    for way in WAYS {
        let (mut sim, backend) = sim(way, 100_000);
        let (socket, host) = connected(&mut sim, &backend, 80);
        sim.guest.starve();
        host.write(&[7; 100_000]).unwrap();
        // The buffers run out. The simulation can settle only if the stream is no longer reported.
        while sim.guest.posted() > 0 {
            host.write(&[7; 100_000]).unwrap();
            sim.settle().unwrap();
            sim.guest.read(socket, usize::MAX).unwrap();
        }
        sim.settle().unwrap();
        sim.guest.feed();
        sim.settle().unwrap();
        assert!(sim.guest.queued(socket) > 0);
    }
}

#[test]
fn t80_a_descriptor_that_is_used_again_belongs_to_its_new_stream() {
    for way in WAYS {
        let (mut sim, backend) = sim(way, 1000);
        let mut before: Vec<(_, HostEnd)> = Vec::new();
        for round in 0..100_u8 {
            // The old streams are closed and the new ones opened within one wake-up. So events of
            // the old streams are reported after their numbers belong to the new ones.
            for (socket, host) in before.drain(..) {
                host.write(b"late").unwrap();
                sim.guest.reset(socket);
                host.reset();
            }
            let mut links = Vec::new();
            backend.listen(80, 8);
            let now = sim.now();
            let sockets: Vec<_> = (0..3).map(|_| sim.guest.connect(now, 80)).collect();
            sim.settle().unwrap();
            for socket in sockets {
                links.push((socket, backend.accept(80).unwrap()));
            }
            for (at, (_, host)) in links.iter().enumerate() {
                host.write(&[round, u8::try_from(at).unwrap()]).unwrap();
            }
            sim.settle().unwrap();
            for (at, (socket, _)) in links.iter().enumerate() {
                let want = GuestRead::Bytes(vec![round, u8::try_from(at).unwrap()]);
                assert_eq!(sim.guest.read(*socket, 9).unwrap(), want);
            }
            before = links;
        }
        assert!(sim.host.open_fds() <= 1 + 3 * 2);
    }
}
