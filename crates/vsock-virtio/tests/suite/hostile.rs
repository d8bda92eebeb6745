// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

use proptest::collection::vec;
use proptest::prelude::{Just, Strategy, any};
use proptest::{prop_assert_eq, prop_oneof, proptest};
use virtio_queue::QueueT;
use vm_memory::{Bytes, GuestAddress};
use vsock_driver::{Descriptor, DriverQueue};
use vsock_proto::Op;

use crate::rig::{Rig, SIZE, has_more, packet};

/// Generates descriptors of a hostile guest, half of which are almost valid.
fn descriptor() -> impl Strategy<Value = Descriptor> {
    let addr = prop_oneof![
        0..0x100_u64,
        0x2_0000..0x3_0000_u64,
        0x1ff_ff00..0x200_0100_u64,
        0x200_0000..u64::MAX
    ];
    let len = prop_oneof![0..200_u32, Just(44), any::<u32>()];
    (addr, len, 0..8_u16, 0..SIZE + 2).prop_map(|(addr, len, flags, next)| Descriptor {
        addr,
        len,
        flags,
        next,
    })
}

/// An action of the guest between two kicks.
#[derive(Clone, Debug)]
enum Step {
    Describe(usize, u16, Descriptor),
    Offer(usize, u16),
    Scribble(u64, Vec<u8>),
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        (0..3_usize, 0..SIZE, descriptor()).prop_map(|(q, at, d)| Step::Describe(q, at, d)),
        (0..3_usize, 0..SIZE).prop_map(|(q, head)| Step::Offer(q, head)),
        (0..0x100_u64, vec(any::<u8>(), 1..64)).prop_map(|(at, b)| Step::Scribble(at, b)),
    ]
}

proptest! {
    #[test]
    fn t17_t110_every_chain_is_returned_once_and_in_order_whatever_its_descriptors(
        steps in vec(vec(step(), 1..40), 1..6),
        event_idx in any::<bool>(),
    ) {
        let mut rig = if event_idx { Rig::event_idx() } else { Rig::new() };
        let mut offered: [Vec<u32>; 3] = Default::default();
        let mut used: [Vec<u32>; 3] = Default::default();
        for step in steps.into_iter().flat_map(|steps| steps.into_iter().map(Some).chain([None])) {
            let rings: [&mut DriverQueue; 3] = [&mut rig.rx, &mut rig.tx, &mut rig.event];
            match step {
                Some(Step::Describe(q, at, d)) => rings[q].describe(&rig.memory, at, d),
                Some(Step::Offer(q, head)) => {
                    if offered[q].len() - used[q].len() < usize::from(SIZE) {
                        rings[q].offer(&rig.memory, head);
                        offered[q].push(u32::from(head));
                    }
                }
                Some(Step::Scribble(at, bytes)) => {
                    rig.memory.write_slice(&bytes, GuestAddress(at)).unwrap();
                }
                None => {
                    rig.device.transport_reset(rig.now);
                    let _ = rig.process();
                    rig.wait_out_the_event();
                    let _ = rig.process();
                    rig.apply_actions();
                    let rings: [&mut DriverQueue; 3] = [&mut rig.rx, &mut rig.tx, &mut rig.event];
                    for (ring, used) in rings.into_iter().zip(&mut used) {
                        used.extend(ring.used(&rig.memory).iter().map(|(head, _)| *head));
                    }
                }
            }
        }
        for (offered, used) in offered.iter().zip(&used) {
            prop_assert_eq!(&used[..], &offered[..used.len()]);
        }
        prop_assert_eq!(used[1].len(), offered[1].len(), "the transmit queue is never blocked");
    }

    #[test]
    fn no_contents_of_memory_cause_a_panic(
        rings in vec(any::<u8>(), 0..0x3000),
        data in vec(any::<u8>(), 0..0x400),
        event_idx in any::<bool>(),
    ) {
        let mut rig = if event_idx { Rig::event_idx() } else { Rig::new() };
        rig.memory.write_slice(&data, GuestAddress(0)).unwrap();
        for (at, bytes) in (0x1000..).step_by(0x1000).zip(rings.chunks(0x1000)) {
            rig.memory.write_slice(bytes, GuestAddress(at)).unwrap();
        }
        rig.device.transport_reset(rig.now);
        for available in [1, SIZE, SIZE / 2, u16::MAX] {
            for ring in [&mut rig.rx, &mut rig.tx, &mut rig.event] {
                ring.set_available(&rig.memory, available);
            }
            let _ = rig.try_process();
            rig.wait_out_the_event();
            let _ = rig.try_process();
            rig.apply_actions();
        }
    }
}

/// The rings overlap, so a buffer that is given back is immediately available again.
#[test]
fn t76_endless_unusable_buffers_do_not_block_the_thread() {
    let mut rig = Rig::new();
    let [rx, ..] = &mut rig.queues;
    let available = u32::try_from(rx.avail_ring()).unwrap();
    rx.set_used_ring_address(Some(available), Some(0));
    rx.set_next_used(1);
    // Every chain of these rings contains a read-only descriptor.
    rig.rx.offer(&rig.memory, 0);
    rig.send(packet(Op::ReadWrite, 1, 2), b"");
    let outcome = rig.process();
    assert!(
        has_more(outcome),
        "the call ends so that the thread can do other work"
    );
    assert!(rig.device.counters().unusable_buffers > 0);
}
