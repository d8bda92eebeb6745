// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! The device allocates nothing for a packet, in either direction. This is the only test of its
//! process, because the allocator counts all allocations.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

#[expect(dead_code, reason = "the suite uses the rest")]
#[path = "suite/rig.rs"]
mod rig;

use std::alloc::System;
use std::io::{Read, Write};

use stats_alloc::{INSTRUMENTED_SYSTEM, Region, StatsAlloc};
use vsock_inner::VsockInnerStream;
use vsock_proto::{Header, Op};
use vsock_virtio::VsockDevice;

use rig::{connected, muxer, packet};

#[global_allocator]
static ALLOCATOR: &StatsAlloc<System> = &INSTRUMENTED_SYSTEM;

const LEN: usize = 40_000;

#[test]
fn no_packet_allocates() {
    let payload = vec![7; LEN];
    let mut buffer = vec![0; 2 * LEN];
    for direct in [true, false] {
        // With and without registering the stream for direct copies.
        let device = |backend| {
            let builder = VsockDevice::builder(muxer(backend));
            if direct {
                builder.direct::<VsockInnerStream>(0)
            } else {
                builder
            }
            .build()
        };
        let (mut rig, mut host) = connected(device, 0);
        let mut forwarded = 0;
        let mut quietest = usize::MAX;
        for _ in 0..20 {
            rig.send(packet(Op::ReadWrite, 1024, 80), &payload);
            assert_eq!(host.write(&payload).unwrap(), LEN);
            // Only the device's allocations count, not those of the rig.
            let region = Region::new(ALLOCATOR);
            rig.settle();
            let change = region.change();
            quietest = quietest.min(change.allocations + change.reallocations);
            assert_eq!(host.read(&mut buffer).unwrap(), LEN);
            let received = rig.received();
            assert!(received.len() >= LEN / 4096);
            forwarded += LEN;
            let credit = Header {
                fwd_cnt: u32::try_from(forwarded).unwrap(),
                ..packet(Op::CreditUpdate, 1024, 80)
            };
            rig.send(credit, b"");
            rig.settle();
        }
        assert_eq!(quietest, 0, "direct: {direct}");
    }
}
