// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! What a hostile guest can do, and that it costs the host no more than the limits.

use std::time::Duration;

use vsock_muxer_harness::guest::{Guest, GuestConfig};
use vsock_muxer_harness::host::StreamKind;
use vsock_muxer_harness::sim::{Sim, SimConfig};
use vsock_proto::{Config, Header, Op, Tick};

use crate::{WAYS, connected, sim, sim_with};

/// A kind of packet that requires an answer or has no meaning.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Flood {
    /// Credit requests on a connection.
    CreditRequests,
    /// Packets without a payload on a connection.
    EmptyPackets,
    /// Payload for connections that do not exist, a different one each time.
    Orphans,
    /// Requests to ports without a listener.
    Requests,
    /// RSTs for connections that do not exist.
    Resets,
    /// Unknown operations.
    Nonsense,
}

impl Flood {
    /// Every kind.
    const ALL: [Self; 6] = [
        Self::CreditRequests,
        Self::EmptyPackets,
        Self::Orphans,
        Self::Requests,
        Self::Resets,
        Self::Nonsense,
    ];
}

/// Returns a valid header from the guest to the host, with this operation.
fn header(guest: &Guest, (from, to): (u32, u32), op: u16) -> Header {
    Header {
        src_cid: guest.config().cid.into(),
        dst_cid: 2,
        src_port: from,
        dst_port: to,
        socket_type: 1,
        op,
        buf_alloc: 256 * 1024,
        ..Header::default()
    }
}

/// Sends `count` packets of a kind. `ports` are those of a connection, the guest's first.
fn flood(guest: &mut Guest, kind: Flood, ports: (u32, u32), count: u32) {
    for at in 0..count {
        let (ports, op) = match kind {
            Flood::CreditRequests => (ports, Op::CreditRequest.into()),
            Flood::EmptyPackets => (ports, Op::ReadWrite.into()),
            Flood::Orphans => ((at, 9), Op::CreditUpdate.into()),
            Flood::Requests => ((at, 7), Op::Request.into()),
            Flood::Resets => ((at, 9), Op::Reset.into()),
            Flood::Nonsense => (ports, 99),
        };
        let header = header(guest, ports, op);
        guest.send_raw(header, Vec::new());
    }
}

fn waiting(sim: &mut Sim) -> usize {
    sim.device().connections().map(|conn| conn.waiting).sum()
}

#[test]
fn t74_a_flood_of_questions_and_orphans_without_buffers_is_bounded() {
    for kind in Flood::ALL {
        let (mut sim, backend) = sim(WAYS[0], 1000);
        let (socket, _host) = connected(&mut sim, &backend, 80);
        sim.guest.starve();
        let (from, to) = sim.guest.ports(socket).unwrap();
        flood(&mut sim.guest, kind, (from, to), 100_000);
        sim.settle().unwrap();
        assert!(waiting(&mut sim) <= 256 * 1024, "{kind:?}");
        // Packets that cannot be answered are no longer taken.
        let bounded = sim.guest.tx_len() > 90_000 || sim.device().can_take_packet();
        assert!(bounded, "{kind:?}");
        sim.guest.feed();
        sim.settle().unwrap();
        assert_eq!(sim.guest.tx_len(), 0, "{kind:?}");
    }
}

#[test]
fn t49_t58_false_credit_opens_no_window_and_affects_no_other_connection() {
    let (mut sim, backend) = sim(WAYS[0], 1 << 20);
    let (honest, honest_host) = connected(&mut sim, &backend, 80);
    // Sizes and counters at which arithmetic could overflow.
    const EDGES: [u32; 7] = [0, 1, 4096, 1 << 20, i32::MAX as u32, 1 << 31, u32::MAX];
    for (buf_alloc, fwd_cnt) in EDGES
        .iter()
        .flat_map(|size| EDGES.map(|count| (*size, count)))
    {
        let (socket, host) = connected(&mut sim, &backend, 81);
        let _some = host.write(&[1; 300_000]);
        let ports = sim.guest.ports(socket).unwrap();
        let lie = Header {
            buf_alloc,
            fwd_cnt,
            ..header(&sim.guest, ports, Op::CreditUpdate.into())
        };
        sim.guest.send_raw(lie, Vec::new());
        sim.settle().unwrap(); // the checker compares every packet with the granted credit
        sim.guest.reset(socket);
    }
    honest_host.write(b"still here").unwrap();
    sim.settle().unwrap();
    assert_eq!(sim.guest.queued(honest), 10);
}

#[test]
fn t28_a_storm_of_reused_ports_leaves_one_connection() {
    for way in WAYS {
        let (mut sim, backend) = sim(way, 1000);
        backend.listen(80, 10_000);
        // Each time as if there had been no connection before.
        for _ in 0..500 {
            sim.guest.connect_from(Tick::ZERO, 50_000, 80);
        }
        sim.settle().unwrap();
        assert_eq!(sim.device().connections().count(), 1);
        while backend.accept(80).is_some() {}
        sim.pass(Duration::from_secs(60)).unwrap();
        assert_eq!((sim.host.connections(), sim.host.open_fds()), (0, 1));
    }
}

#[test]
fn t97_no_guest_has_more_connections_than_the_limit() {
    let config = SimConfig {
        muxer: Config::builder().max_connections(10).build().unwrap(),
        ..SimConfig::default()
    };
    let (mut sim, backend) = sim_with(StreamKind::Socket, 100, config, GuestConfig::default());
    backend.listen(80, 1000);
    let now = sim.now();
    let sockets: Vec<_> = (0..100).map(|_| sim.guest.connect(now, 80)).collect();
    sim.settle().unwrap();
    assert_eq!(sim.device().connections().count(), 10);
    assert_eq!(
        sim.guest.live().count(),
        10,
        "the others were refused immediately"
    );
    for socket in sockets {
        sim.guest.reset(socket);
    }
    sim.settle().unwrap();
    let now = sim.now();
    sim.guest.connect(now, 80);
    sim.settle().unwrap();
    assert_eq!(
        sim.device().connections().count(),
        1,
        "refused connections take no place"
    );
}

#[test]
fn t30_a_host_connection_avoids_ports_with_a_pending_rst() {
    const PORT: u32 = 1000;
    let config = SimConfig {
        muxer: Config::builder().host_ports(5000..5002).build().unwrap(),
        ..SimConfig::default()
    };
    let (mut sim, backend) = sim_with(StreamKind::Socket, 100, config, GuestConfig::default());
    let _taken = sim.guest.listen(PORT, 1);
    let stray = Header {
        len: 1,
        ..header(&sim.guest, (PORT, 5000), Op::ReadWrite.into())
    };
    // Use up the buffers, so that the RST has to wait.
    sim.guest.starve();
    while sim.guest.posted() > 0 {
        let other = Header {
            src_port: 1,
            ..stray
        };
        sim.guest.send_raw(other, vec![0]);
        sim.settle().unwrap();
    }
    sim.guest.send_raw(stray, vec![0]);
    sim.settle().unwrap();
    let host = backend.connect_to(PORT).unwrap();
    sim.settle().unwrap();
    // If the host's connection used this address pair, this would be another RST for it.
    sim.guest.send_raw(stray, vec![0]);
    sim.settle().unwrap();
    sim.guest.feed();
    sim.settle().unwrap();
    let socket = sim.guest.accept(PORT).unwrap();
    host.write(b"alive").unwrap();
    sim.settle().unwrap();
    assert_eq!(sim.guest.queued(socket), 5);
}
