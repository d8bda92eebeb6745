// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! The resident memory of idle and of drained connections.

use std::fs;
use std::io::{Read, Write};
use std::os::fd::AsRawFd;

use vsock_backend_api::{VsockBackend, VsockStream};
use vsock_inner::{Capacity, VsockInnerBackend, VsockInnerConfig, VsockInnerStream};
use vsock_tests::alone::alone;

use crate::allow_fds;

const KIB: usize = 1024;
const MIB: usize = 1024 * KIB;

/// Returns this process's resident memory.
fn resident() -> usize {
    let rollup = fs::read_to_string("/proc/self/smaps_rollup").unwrap();
    let line = rollup
        .lines()
        .find_map(|line| line.strip_prefix("Rss:"))
        .unwrap();
    line.trim()
        .trim_end_matches(" kB")
        .parse::<usize>()
        .unwrap()
        * KIB
}

/// Opens connections that carry nothing, accepted at the backend.
fn idle(count: usize) -> Vec<(VsockInnerStream, Box<dyn VsockStream>)> {
    let mut backend = VsockInnerBackend::new().unwrap();
    let connector = backend.get_connector();
    let connect = || {
        (
            connector.connect_stream().unwrap(),
            backend.accept().unwrap(),
        )
    };
    std::iter::repeat_with(connect).take(count).collect()
}

/// Returns how many connections the descriptor limit allows, at most 10,000.
fn affordable() -> usize {
    let fds = usize::try_from(allow_fds(20_200)).unwrap();
    let connections = ((fds - 200) / 2).min(10_000);
    assert!(
        connections >= 400,
        "too few descriptors to measure anything: {fds}"
    );
    connections
}

fn assert_idle_costs_little(
    connections: &[(VsockInnerStream, Box<dyn VsockStream>)],
    before: usize,
) {
    let each = (resident() - before) / connections.len();
    assert!(
        each <= 4 * KIB,
        "{each} bytes for each of {} idle connections",
        connections.len()
    );
}

#[test]
fn an_idle_connection_costs_at_most_4_kib() {
    alone(|| {
        let count = affordable();
        drop(idle(1));
        let before = resident();
        let connections = idle(count);
        assert_idle_costs_little(&connections, before);
    });
}

#[test]
fn an_idle_connection_costs_at_most_4_kib_with_its_descriptors_polled() {
    alone(|| {
        let count = affordable() / 2; // the write fds take two more
        drop(idle(1));
        let before = resident();
        let connections = idle(count);
        for (near, far) in &connections {
            let _fds = (near.as_raw_fd(), far.as_raw_fd());
            near.write_ready_fd().unwrap();
            far.write_ready_fd().unwrap();
        }
        assert_idle_costs_little(&connections, before);
    });
}

/// How many connections are filled and drained.
const BUSY: usize = 1000;

/// The documented memory that this many drained directions keep: a block each, and the process's
/// stock.
fn keep(directions: usize) -> usize {
    directions * (16 * KIB + KIB) + 8 * MIB
}

#[test]
fn drained_connections_give_their_memory_back() {
    alone(|| {
        allow_fds(20_200);
        let mut connections = idle(BUSY);
        let before = resident();
        let mut buf = vec![1; 256 * KIB];
        for (near, far) in &mut connections {
            near.write_all(&buf).unwrap();
            far.write_all(&buf).unwrap();
        }
        let full = resident() - before;
        assert!(
            full >= BUSY * 2 * 256 * KIB,
            "only {full} bytes resident: too little to measure"
        );
        for (near, far) in &mut connections {
            near.read_exact(&mut buf).unwrap();
            far.read_exact(&mut buf).unwrap();
        }
        let kept = resident().saturating_sub(before);
        println!(
            "{} KiB resident full, {} KiB drained",
            full / KIB,
            kept / KIB
        );
        assert!(
            kept <= keep(2 * BUSY),
            "{kept} bytes of {full} are still resident"
        );
    });
}

#[test]
fn connections_drained_one_after_the_other_give_their_memory_back() {
    alone(|| {
        allow_fds(20_200);
        let mut connections = idle(BUSY);
        let before = resident();
        let mut buf = vec![1; 256 * KIB];
        for (near, far) in &mut connections {
            near.write_all(&buf).unwrap();
            far.read_exact(&mut buf).unwrap();
        }
        let kept = resident().saturating_sub(before);
        println!("{} KiB kept by {BUSY} drained directions", kept / KIB);
        assert!(kept <= keep(BUSY), "{kept} bytes are kept");
    });
}

#[test]
fn dropped_connections_give_their_memory_back() {
    alone(|| {
        allow_fds(20_200);
        let before = resident();
        let mut connections = idle(BUSY);
        for (near, _) in &mut connections {
            near.write_all(&vec![1; 256 * KIB]).unwrap();
        }
        drop(connections);
        let kept = resident().saturating_sub(before);
        assert!(
            kept <= 8 * MIB + BUSY * 4 * KIB,
            "{kept} bytes are kept after every connection was dropped"
        );
    });
}

#[test]
fn an_unbounded_queue_gives_its_memory_back_as_it_is_read() {
    alone(|| {
        let config = VsockInnerConfig::default().to_device(Capacity::Unbounded);
        let (mut near, mut far) = VsockInnerStream::pair_with(&config).unwrap();
        let mut buf = vec![1; MIB];
        let before = resident();
        (0..256).for_each(|_| near.write_all(&buf).unwrap());
        assert!(resident() - before >= 256 * MIB, "too little to measure");
        (0..128).for_each(|_| far.read_exact(&mut buf).unwrap());
        let half = resident() - before;
        (0..128).for_each(|_| far.read_exact(&mut buf).unwrap());
        let kept = resident().saturating_sub(before);
        println!(
            "{} KiB after half was read, {} KiB after all was read",
            half / KIB,
            kept / KIB
        );
        assert!(
            half <= 128 * MIB + keep(2),
            "{half} bytes are kept after half was read"
        );
        assert!(kept <= keep(2), "{kept} bytes are kept");
    });
}
