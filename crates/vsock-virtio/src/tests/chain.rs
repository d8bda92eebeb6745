// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

use vsock_driver::{Descriptor, DriverQueue, Memory, filled, memory};

use crate::chain::{BadChain, Part};
use crate::scatter::Slices;
use crate::virtqueue::Virtqueue;
use crate::{DeviceFault, FaultCause, QueueName};

const SIZE: u16 = 16;
const TABLE: u64 = 0x4000;
const DATA: u64 = 0x8000;

/// Two regions that follow one another, and a third behind a gap.
pub(super) fn regions() -> Memory {
    memory(&[(0, 0x1_0000), (0x1_0000, 0x1_0000), (0x4_0000, 0x1_0000)])
}

/// What becomes of the chain that begins at descriptor 0.
fn gathered(part: Part, prepare: impl FnOnce(&Memory, &DriverQueue)) -> Result<usize, BadChain> {
    let memory = regions();
    let mut driver = DriverQueue::new(0x1000, SIZE);
    prepare(&memory, &driver);
    driver.offer(&memory, 0);
    let mut queue = driver.queue();
    let mut virtqueue = Virtqueue::new(&memory, &mut queue, QueueName::Tx);
    let mut slices = Slices::<Memory>::new();
    let total = virtqueue.take(part, &mut slices).unwrap().unwrap().len?;
    assert_eq!(slices.iter().map(|slice| slice.len()).sum::<usize>(), total);
    Ok(total)
}

fn table(memory: &Memory, at: u64, descriptors: &[Descriptor]) {
    for (at, descriptor) in (at..).step_by(16).zip(descriptors) {
        filled(memory, at, &descriptor.encode());
    }
}

#[test]
fn t15_a_range_may_span_regions_that_follow_one_another() {
    let total = gathered(Part::Readable, |memory, driver| {
        driver.describe(memory, 0, Descriptor::readable(0xff00, 0x200));
    });
    assert_eq!(total, Ok(0x200));
}

#[test]
fn t15_a_range_over_a_hole_spoils_its_chain() {
    for (addr, len) in [
        (0x1_ff00, 0x200),
        (0x1_ff00, 0x2_8000),
        (0x3_0000, 1),
        (u64::MAX - 3, 8),
        (u64::MAX, 1),
        (0x8000, u32::MAX),
    ] {
        let total = gathered(Part::Readable, |memory, driver| {
            driver.describe(memory, 0, Descriptor::readable(addr, len));
        });
        assert_eq!(total, Err(BadChain), "{addr:#x}, {len}");
    }
}

#[test]
fn t16_a_loop_spoils_its_chain() {
    let total = gathered(Part::Readable, |memory, driver| {
        driver.describe(memory, 0, Descriptor::readable(DATA, 8).then(1));
        driver.describe(memory, 1, Descriptor::readable(DATA, 8).then(0));
    });
    assert_eq!(total, Err(BadChain));
}

#[test]
fn t16_a_next_outside_of_the_table_spoils_its_chain() {
    let total = gathered(Part::Readable, |memory, driver| {
        driver.describe(memory, 0, Descriptor::readable(DATA, 8).then(SIZE));
    });
    assert_eq!(total, Err(BadChain));
}

#[test]
fn t16_a_chain_of_all_descriptors_is_whole() {
    let total = gathered(Part::Readable, |memory, driver| {
        driver.chain(memory, 0, &[Descriptor::readable(DATA, 3); SIZE as usize]);
    });
    assert_eq!(total, Ok(3 * usize::from(SIZE)));
}

#[test]
fn t16_a_wrong_direction_spoils_its_chain() {
    let readable = Descriptor::readable(DATA, 8);
    let writable = Descriptor::writable(DATA, 8);
    for (part, pieces, expected) in [
        (Part::Readable, [readable, writable], Ok(8)),
        (Part::Readable, [writable, readable], Err(BadChain)),
        (Part::Readable, [writable, writable], Ok(0)),
        (Part::Writable, [readable, writable], Err(BadChain)),
        (Part::Writable, [writable, readable], Err(BadChain)),
        (Part::Writable, [writable, writable], Ok(16)),
    ] {
        let total = gathered(part, |memory, driver| driver.chain(memory, 0, &pieces));
        assert_eq!(total, expected, "{part:?} {pieces:?}");
    }
}

#[test]
fn t16_a_table_of_its_own_is_a_chain() {
    let total = gathered(Part::Readable, |memory, driver| {
        let pieces = [
            Descriptor::readable(DATA, 8).then(1),
            Descriptor::readable(DATA, 9),
        ];
        table(memory, TABLE, &pieces);
        driver.describe(memory, 0, Descriptor::readable(DATA, 5).then(1));
        driver.describe(memory, 1, Descriptor::table(TABLE, 32));
    });
    assert_eq!(total, Ok(22));
}

#[test]
fn t15_a_table_may_lie_across_regions() {
    let total = gathered(Part::Readable, |memory, driver| {
        let pieces = [
            Descriptor::readable(DATA, 8).then(1),
            Descriptor::readable(DATA, 9),
        ];
        // The seam is within the first descriptor.
        table(memory, 0xfff8, &pieces);
        driver.describe(memory, 0, Descriptor::table(0xfff8, 32));
    });
    assert_eq!(total, Ok(17));
}

#[test]
fn t16_a_bad_table_spoils_its_chain() {
    let piece = Descriptor::readable(DATA, 8);
    let inner = Descriptor::table(TABLE, 16);
    for (entries, head) in [
        // Odd, empty, and nowhere.
        ([piece; 2], Descriptor::table(TABLE, 24)),
        ([piece; 2], Descriptor::table(TABLE, 0)),
        ([piece; 2], Descriptor::table(0x3_0000, 16)),
        // A table within, at once and behind a piece.
        ([inner; 2], Descriptor::table(TABLE, 32)),
        ([piece.then(1), inner], Descriptor::table(TABLE, 32)),
        // An index behind the end, and a loop.
        ([piece.then(2), piece], Descriptor::table(TABLE, 32)),
        ([piece.then(1), piece.then(0)], Descriptor::table(TABLE, 32)),
    ] {
        let total = gathered(Part::Readable, |memory, driver| {
            table(memory, TABLE, &entries);
            driver.describe(memory, 0, head);
        });
        assert_eq!(total, Err(BadChain), "{entries:?}");
    }
}

#[test]
fn t16_a_table_longer_than_the_queue_spoils_its_chain() {
    let total = gathered(Part::Readable, |memory, driver| {
        let pieces: Vec<_> = (1..=SIZE + 1)
            .map(|next| Descriptor::readable(DATA, 1).then(next))
            .chain([Descriptor::readable(DATA, 1)])
            .collect();
        table(memory, TABLE, &pieces);
        let len = u32::try_from(16 * pieces.len()).unwrap();
        driver.describe(memory, 0, Descriptor::table(TABLE, len));
    });
    assert_eq!(total, Err(BadChain));
}

#[test]
fn pieces_without_bytes_are_passed_over() {
    let total = gathered(Part::Readable, |memory, driver| {
        let empty = Descriptor::readable(0xdead_0000, 0);
        let pieces = [empty, Descriptor::readable(DATA, 7), empty];
        driver.chain(memory, 0, &pieces);
    });
    assert_eq!(total, Ok(7));
}

fn fault_of(prepare: impl FnOnce(&Memory, &mut DriverQueue)) -> DeviceFault {
    let memory = regions();
    let mut driver = DriverQueue::new(0x1000, SIZE);
    prepare(&memory, &mut driver);
    let mut queue = driver.queue();
    Virtqueue::new(&memory, &mut queue, QueueName::Rx)
        .take(Part::Writable, &mut Slices::<Memory>::new())
        .unwrap_err()
}

#[test]
fn t23_an_available_index_too_far_ahead_is_a_fault() {
    let fault = fault_of(|memory, driver| driver.set_available(memory, SIZE + 1));
    assert_eq!(
        (fault.queue, fault.cause),
        (QueueName::Rx, FaultCause::AvailIndex)
    );
}

#[test]
fn a_head_that_is_no_descriptor_is_a_fault() {
    let fault = fault_of(|memory, driver| driver.offer(memory, SIZE));
    assert_eq!(fault.cause, FaultCause::HeadIndex);
}

#[test]
fn t15_a_queue_may_lie_across_regions() {
    // Each of the parts in turn reaches from one region into the next.
    for before in [0x80, 0x110, 0x140] {
        let memory = regions();
        let mut driver = DriverQueue::new(0x1_0000 - before, SIZE);
        let mut queue = driver.queue();
        for round in 0..3 * SIZE {
            let head = round % SIZE;
            driver.describe(
                &memory,
                head,
                Descriptor::writable(DATA, u32::from(head) + 1),
            );
            driver.offer(&memory, head);
            let mut virtqueue = Virtqueue::new(&memory, &mut queue, QueueName::Rx);
            let mut slices = Slices::<Memory>::new();
            let taken = virtqueue
                .take(Part::Writable, &mut slices)
                .unwrap()
                .unwrap();
            assert_eq!((taken.head, taken.len), (head, Ok(usize::from(head) + 1)));
            assert!(
                virtqueue
                    .take(Part::Writable, &mut slices)
                    .unwrap()
                    .is_none()
            );
            virtqueue.give_back(taken.head, 7).unwrap();
            assert_eq!(virtqueue.wants_interrupt(1), Ok(true));
            assert_eq!(driver.used(&memory), [(u32::from(head), 7)]);
        }
    }
}

#[test]
fn t23_an_available_index_that_goes_back_is_looked_at_when_it_counts() {
    let memory = regions();
    let mut driver = DriverQueue::new(0x1000, SIZE);
    driver.describe(&memory, 0, Descriptor::writable(DATA, 9));
    driver.offer(&memory, 0);
    driver.offer(&memory, 0);
    let mut queue = driver.queue();
    let mut virtqueue = Virtqueue::new(&memory, &mut queue, QueueName::Rx);
    let mut slices = Slices::<Memory>::new();
    assert!(
        virtqueue
            .take(Part::Writable, &mut slices)
            .unwrap()
            .is_some()
    );
    // One that was seen stays available; behind it the index is a lie.
    driver.set_available(&memory, 0);
    assert!(
        virtqueue
            .take(Part::Writable, &mut slices)
            .unwrap()
            .is_some()
    );
    let fault = virtqueue.take(Part::Writable, &mut slices).unwrap_err();
    assert_eq!(fault.cause, FaultCause::AvailIndex);
}

#[test]
fn a_queue_at_an_odd_address_is_a_fault() {
    // A front-end may say that a region begins anywhere.
    let memory = memory(&[(1, 0x1_0000)]);
    let mut driver = DriverQueue::new(0x1000, SIZE);
    driver.offer(&memory, 0);
    let mut queue = driver.queue();
    let fault = Virtqueue::new(&memory, &mut queue, QueueName::Rx)
        .take(Part::Writable, &mut Slices::<Memory>::new())
        .unwrap_err();
    assert_eq!(fault.cause, FaultCause::Memory);
}
