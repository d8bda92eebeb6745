// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Explores every interleaving of a driver and a device that publish chains, ask for notifications
//! and go to sleep.
//!
//! The device runs the production code on modelled fields. The driver follows the specification
//! (virtio 1.3, 2.7.7.1 and 2.7.10.1), with the full barrier that it requires.

use std::sync::Arc;

use loom::sync::atomic::{AtomicBool, AtomicU16, Ordering, fence};
use loom::thread;

use super::{Kicks, NO_INTERRUPT, Suppression};
use crate::fields::{Inaccessible, SharedFields};

/// The first index of both rings, just before the counters wrap around.
const START: u16 = u16::MAX;

/// The fields of a queue in guest memory.
#[derive(Debug)]
struct Fields {
    available: AtomicU16,
    available_flags: AtomicU16,
    used_event: AtomicU16,
    used: AtomicU16,
    used_flags: AtomicU16,
    avail_event: AtomicU16,
}

impl Fields {
    /// Creates the fields of a queue in which neither side wants notifications.
    fn quiet() -> Arc<Self> {
        Arc::new(Self {
            available: AtomicU16::new(START),
            available_flags: AtomicU16::new(NO_INTERRUPT),
            used_event: AtomicU16::new(START.wrapping_sub(1)),
            used: AtomicU16::new(START),
            used_flags: AtomicU16::new(super::NO_NOTIFY),
            avail_event: AtomicU16::new(START.wrapping_sub(1)),
        })
    }

    /// Driver: makes the next chain available, and returns whether to kick.
    fn offer(&self, suppression: Suppression, count: u16) -> bool {
        // ORDER: Release; partner: the device's acquire in `available_index`.
        self.available.store(count, Ordering::Release);
        // ORDER: SeqCst; partner: the device's `full_fence` in `ask_for_kick`.
        fence(Ordering::SeqCst);
        match suppression {
            // ORDER: Relaxed; the fence orders it; partner: the device's store.
            Suppression::Flags => self.used_flags.load(Ordering::Relaxed) == 0,
            // ORDER: Relaxed; likewise.
            Suppression::EventIdx => {
                self.avail_event.load(Ordering::Relaxed).wrapping_add(1) == count
            }
        }
    }

    /// Driver: asks for an interrupt before it sleeps, after it has seen `seen` used chains.
    /// Returns whether there are more.
    fn enable_interrupt(&self, suppression: Suppression, seen: u16) -> bool {
        match suppression {
            // ORDER: Relaxed; the fence orders it; partner: the device's load in `wants_interrupt`.
            Suppression::Flags => self.available_flags.store(0, Ordering::Relaxed),
            // ORDER: Relaxed; likewise.
            Suppression::EventIdx => self.used_event.store(seen, Ordering::Relaxed),
        }
        // ORDER: SeqCst; partner: the device's `full_fence` in `wants_interrupt`.
        fence(Ordering::SeqCst);
        // ORDER: Acquire; partner: the device's release of the used index.
        self.used.load(Ordering::Acquire) != seen
    }
}

impl SharedFields for Fields {
    fn available_index(&self, order: Ordering) -> Result<u16, Inaccessible> {
        Ok(self.available.load(order))
    }

    fn available_flags(&self, order: Ordering) -> Result<u16, Inaccessible> {
        Ok(self.available_flags.load(order))
    }

    fn used_event(&self, order: Ordering) -> Result<u16, Inaccessible> {
        Ok(self.used_event.load(order))
    }

    fn set_used_flags(&self, flags: u16, order: Ordering) -> Result<(), Inaccessible> {
        self.used_flags.store(flags, order);
        Ok(())
    }

    fn set_avail_event(&self, count: u16, order: Ordering) -> Result<(), Inaccessible> {
        self.avail_event.store(count, order);
        Ok(())
    }

    fn full_fence(&self) {
        // ORDER: SeqCst; partner: the driver's fences above.
        fence(Ordering::SeqCst);
    }
}

/// Runs a device that polls `polls` times with kicks off, and then goes to sleep. Returns how many
/// chains it has taken.
fn poll_and_sleep(fields: &Fields, suppression: Suppression, polls: usize) -> u16 {
    let mut kicks = Kicks::Unknown;
    let mut next = START;
    let look = |next: &mut u16| {
        // ORDER: Acquire; partner: the driver's release of its index.
        *next = fields.available_index(Ordering::Acquire).unwrap();
    };
    for _ in 0..polls {
        look(&mut next);
        kicks.turn_off(suppression, fields).unwrap();
    }
    while kicks.turn_on(suppression, fields, next).unwrap() {
        kicks.turn_off(suppression, fields).unwrap();
        look(&mut next);
    }
    // After another call that found nothing, the earlier request is still in force.
    assert!(!kicks.turn_on(suppression, fields, next).unwrap());
    next
}

#[test]
fn loom_a_chain_is_taken_or_causes_a_kick() {
    for suppression in [Suppression::Flags, Suppression::EventIdx] {
        loom::model(move || {
            let fields = Fields::quiet();
            let kicked = Arc::new(AtomicBool::new(false));
            let driver = {
                let (fields, kicked) = (Arc::clone(&fields), Arc::clone(&kicked));
                thread::spawn(move || {
                    for count in [START.wrapping_add(1), START.wrapping_add(2)] {
                        if fields.offer(suppression, count) {
                            // ORDER: Relaxed; partner: the load after the join.
                            kicked.store(true, Ordering::Relaxed);
                        }
                    }
                })
            };
            let taken = poll_and_sleep(&fields, suppression, 1);
            driver.join().unwrap();
            // ORDER: Relaxed; partner: the store before the join.
            let kicked = kicked.load(Ordering::Relaxed);
            let all = START.wrapping_add(2);
            assert!(
                taken == all || kicked,
                "a chain is available, and both sides sleep"
            );
        });
    }
}

#[test]
fn loom_a_used_chain_is_noticed_or_causes_an_interrupt() {
    for suppression in [Suppression::Flags, Suppression::EventIdx] {
        // An interrupt for each chain, or one for both.
        for batch in [1, 2] {
            loom::model(move || {
                let fields = Fields::quiet();
                let device = {
                    let fields = Arc::clone(&fields);
                    thread::spawn(move || {
                        let mut interrupted = false;
                        for count in 1..=2_u16 {
                            let used = START.wrapping_add(count);
                            // ORDER: Release; partner: the driver's acquire in `enable_interrupt`.
                            fields.used.store(used, Ordering::Release);
                            if count % batch == 0 {
                                interrupted |=
                                    suppression.wants_interrupt(&*fields, used, batch).unwrap();
                            }
                        }
                        interrupted
                    })
                };
                let mut seen = START;
                while fields.enable_interrupt(suppression, seen) {
                    // ORDER: Acquire; partner: the device's release of the used index.
                    seen = fields.used.load(Ordering::Acquire);
                }
                let interrupted = device.join().unwrap();
                let all = START.wrapping_add(2);
                assert!(
                    seen == all || interrupted,
                    "a chain has been used, and both sides sleep"
                );
            });
        }
    }
}
