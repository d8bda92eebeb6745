// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! The muxer between a simulated guest and simulated host components.

#![forbid(unsafe_code)]
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod faults;
mod flow;
mod hostile;
mod machine;
mod types;
mod window;

use proptest::prelude::ProptestConfig;
use vsock_muxer_harness::guest::{GuestConfig, SocketId};
use vsock_muxer_harness::host::{HostBackend, HostEnd, StreamKind};
use vsock_muxer_harness::sim::{Sim, SimConfig, SimTrigger};

/// Every kind of stream and of event notification.
const WAYS: [(StreamKind, SimTrigger); 4] = [
    (StreamKind::Socket, SimTrigger::Edge),
    (StreamKind::Socket, SimTrigger::Level),
    (StreamKind::Channel, SimTrigger::Edge),
    (StreamKind::Channel, SimTrigger::Level),
];

/// The settings of a property that runs `default` times, unless `PROPTEST_CASES` is set.
fn cases(default: u32) -> ProptestConfig {
    ProptestConfig {
        max_shrink_iters: 20_000,
        ..vsock_properties::cases(default)
    }
}

/// Creates a simulation with a backend whose streams hold this many bytes.
fn sim((kind, trigger): (StreamKind, SimTrigger), capacity: usize) -> (Sim, HostBackend) {
    let config = SimConfig {
        trigger,
        ..SimConfig::default()
    };
    sim_with(kind, capacity, config, GuestConfig::default())
}

fn sim_with(
    kind: StreamKind,
    capacity: usize,
    config: SimConfig,
    guest: GuestConfig,
) -> (Sim, HostBackend) {
    let mut sim = Sim::new(config, guest).unwrap();
    let backend = sim.add_backend(kind, capacity).unwrap();
    (sim, backend)
}

/// Opens a connection from the guest.
fn connected(sim: &mut Sim, backend: &HostBackend, port: u32) -> (SocketId, HostEnd) {
    backend.listen(port, 64);
    let now = sim.now();
    let socket = sim.guest.connect(now, port);
    sim.settle().unwrap();
    (socket, backend.accept(port).unwrap())
}
