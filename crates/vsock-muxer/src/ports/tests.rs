// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

use std::collections::BTreeSet;
use std::panic::{AssertUnwindSafe, catch_unwind};

use proptest::prelude::*;
use vsock_proto::Port;

use super::{NoPortLeft, PortAllocator};

#[test]
fn t94_the_search_ends_when_all_ports_are_taken() {
    let mut ports = PortAllocator::new(10..13);
    let leases: Vec<_> = (0..3).map(|_| ports.lease(|_| false).unwrap()).collect();
    assert_eq!(ports.lease(|_| false).unwrap_err(), NoPortLeft { ports: 3 });
    assert_eq!(ports.leased.len(), 3);
    leases.into_iter().for_each(|lease| ports.release(lease));
    assert_eq!(ports.leased.len(), 0);
}

#[test]
fn t94_a_first_port_in_use_is_skipped() {
    let mut ports = PortAllocator::new(10..12);
    let lease = ports.lease(|port| port == Port::new(10)).unwrap();
    assert_eq!(lease.port(), Port::new(11));
}

#[test]
fn t94_the_range_may_end_at_the_largest_port() {
    let mut ports = PortAllocator::new(u32::MAX - 1..u32::MAX);
    let last = Port::new(u32::MAX - 1);
    let lease = ports.lease(|_| false).unwrap();
    assert_eq!(lease.port(), last);
    assert_eq!(ports.lease(|_| false), Err(NoPortLeft { ports: 1 }));
    ports.release(lease);
    assert_eq!(ports.lease(|_| false).unwrap().port(), last);
}

#[test]
fn t95_a_port_that_the_guest_uses_is_neither_assigned_nor_freed() {
    let mut ports = PortAllocator::new(10..12);
    let in_use = |port| port == Port::new(11);
    let ours = ports.lease(in_use).unwrap();
    // The guest's connection ends. It has no lease, so it cannot free our port.
    assert_eq!(ports.lease(in_use), Err(NoPortLeft { ports: 2 }));
    let theirs = ports.lease(|_| false).unwrap();
    assert_ne!(ours.port(), theirs.port());
}

#[test]
fn t98_a_port_is_not_used_again_soon() {
    let mut ports = PortAllocator::new(10..15);
    let first = ports.lease(|_| false).unwrap();
    ports.release(first);
    for expected in 11..15 {
        let lease = ports.lease(|_| false).unwrap();
        assert_eq!(lease.port(), Port::new(expected));
        ports.release(lease);
    }
}

#[test]
fn t98_a_restored_allocator_continues_from_its_position() {
    let mut ports = PortAllocator::new(10..20);
    let lease = ports.lease(|_| false).unwrap();
    ports.release(lease);
    let saved = ports.next_port();
    let mut restored = PortAllocator::new(10..20).starting_at(saved);
    assert_eq!(restored.lease(|_| false).unwrap().port(), Port::new(11));
    let strange = PortAllocator::new(10..20).starting_at(Port::new(99));
    assert_eq!(strange.next_port(), Port::new(10));
}

proptest! {
    #[test]
    fn t95_no_port_is_ever_leased_twice(
        start in prop_oneof![Just(0_u32), Just(u32::MAX - 12), any::<u32>()],
        size in 1_u32..12,
        steps in proptest::collection::vec((any::<bool>(), 0_usize..12), 1..200),
    ) {
        let end = start.saturating_add(size);
        prop_assume!(start < end);
        let mut ports = PortAllocator::new(start..end);
        let mut held = Vec::new();
        let mut model = BTreeSet::new();
        for (lease, pick) in steps {
            if lease {
                match ports.lease(|_| false) {
                    Ok(lease) => {
                        prop_assert!((start..end).contains(&lease.port().into()));
                        prop_assert!(model.insert(lease.port()), "leased twice");
                        held.push(lease);
                    }
                    Err(_) => prop_assert_eq!(model.len(), (end - start) as usize),
                }
            } else if !held.is_empty() {
                let lease = held.swap_remove(pick % held.len());
                model.remove(&lease.port());
                ports.release(lease);
            }
            prop_assert_eq!(ports.leased.len(), model.len());
        }
    }
}

#[test]
fn t132_a_port_whose_check_panics_is_not_leased() {
    let mut ports = PortAllocator::new(5000..5002);
    let leased = catch_unwind(AssertUnwindSafe(|| {
        ports.lease(|_| panic!("this closure panics on purpose"))
    }));
    drop(leased.unwrap_err());
    assert_eq!(ports.leased.len(), 0);
    let _leases = [(); 2].map(|()| ports.lease(|_| false).unwrap());
    assert_eq!(ports.leased.len(), 2);
}
