// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! The muxer allocates nothing for a packet in either direction, for any number of connections.

use stats_alloc::Region;
use vsock_tests::alone::alone;
use vsock_tests::bare::Bare;

use crate::{ALLOCATOR, allocations};

#[test]
fn packets_allocate_nothing() {
    alone(|| {
        for (connections, payload) in [(1, 64), (1, 65_536), (100, 4096), (1000, 64)] {
            let mut bare = Bare::new(connections, payload).unwrap();
            bare.to_host(5000);
            bare.to_guest(5000);
            let count = allocations(|| {
                let region = Region::new(ALLOCATOR);
                bare.to_host(5000);
                bare.to_guest(5000);
                region.change()
            });
            assert_eq!(count, 0, "{connections} connections, {payload} bytes");
        }
    });
}
