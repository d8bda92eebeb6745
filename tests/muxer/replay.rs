// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! A run can be made again from its seed.

use vsock_muxer_harness::guest::GuestConfig;
use vsock_muxer_harness::scenario::{Delivery, Scenario, from_seed, rough};
use vsock_muxer_harness::sim::{SimConfig, TracedPacket};

fn trace(seed: u64) -> Vec<TracedPacket> {
    let mut scenario = Scenario::new(SimConfig::default(), GuestConfig::default()).unwrap();
    scenario.sim().record();
    for op in from_seed(rough(), seed, 600) {
        scenario.apply(&op).unwrap();
    }
    let trace = scenario.sim().trace().to_vec();
    scenario.wind_down(Delivery::Partial).unwrap();
    trace
}

#[test]
fn a_seed_makes_the_same_packets_again() {
    let first = trace(1);
    assert!(first.len() > 40, "{} packets", first.len());
    assert_eq!(trace(1), first);
    assert_ne!(trace(2), first);
}
