// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

use vsock_driver::{Descriptor, DriverQueue, Memory, filled, memory};

use crate::chain::{BadChain, Part};
use crate::scatter::Slices;
use crate::virtqueue::Virtqueue;
use crate::{DeviceFault, FaultCause, QueueName};

const SIZE: u16 = 16;
const TABLE: u64 = 0x4000;
const DATA: u64 = 0x8000;

/// Creates two adjacent regions, and a third one after a gap.
pub(super) fn regions() -> Memory {
    memory(&[(0, 0x1_0000), (0x1_0000, 0x1_0000), (0x4_0000, 0x1_0000)])
}

/// Gathers the chain that begins at descriptor 0, with these descriptors in the queue and in
/// another table.
fn gathered(
    part: Part,
    descriptors: &[Descriptor],
    table: (u64, &[Descriptor]),
) -> Result<usize, BadChain> {
    let memory = regions();
    let mut driver = DriverQueue::new(0x1000, SIZE);
    for (at, descriptor) in (0..).zip(descriptors) {
        driver.describe(&memory, at, *descriptor);
    }
    for (at, descriptor) in (table.0..).step_by(16).zip(table.1) {
        filled(&memory, at, &descriptor.encode());
    }
    driver.offer(&memory, 0);
    let mut queue = driver.queue();
    let mut virtqueue = Virtqueue::new(&memory, &mut queue, QueueName::Tx);
    let mut slices = Slices::<Memory>::new();
    let total = virtqueue.take(part, &mut slices).unwrap().unwrap().len?;
    assert_eq!(slices.iter().map(|slice| slice.len()).sum::<usize>(), total);
    Ok(total)
}

/// Creates a chain of readable descriptors with these lengths.
fn linked(lens: &[u32]) -> Vec<Descriptor> {
    let last = lens.len() - 1;
    let next = (1..).zip(lens).map(|(next, len)| {
        let piece = Descriptor::readable(DATA, *len);
        if usize::from(next) > last {
            piece
        } else {
            piece.then(next)
        }
    });
    next.collect()
}

#[test]
fn t15_t16_a_chain_of_any_layout_is_gathered_whole() {
    let inner = linked(&[8, 9]);
    let empty = Descriptor::readable(0xdead_0000, 0);
    let into_table = vec![
        Descriptor::readable(DATA, 5).then(1),
        Descriptor::table(TABLE, 32),
    ];
    let around_empty = vec![empty.then(1), Descriptor::readable(DATA, 7).then(2), empty];
    #[rustfmt::skip]
    let cases = [
        // Across adjacent regions.
        (vec![Descriptor::readable(0xff00, 0x200)], TABLE, 0x200),
        // All descriptors of the queue.
        (linked(&[3; SIZE as usize]), TABLE, 3 * usize::from(SIZE)),
        // An indirect table, also one whose first descriptor crosses two regions.
        (into_table, TABLE, 22),
        (vec![Descriptor::table(0xfff8, 32)], 0xfff8, 17),
        // Empty descriptors have no pieces.
        (around_empty, TABLE, 7),
    ];
    for (descriptors, table, total) in cases {
        let gathered = gathered(Part::Readable, &descriptors, (table, &inner));
        assert_eq!(gathered, Ok(total), "{descriptors:?}");
    }
}

#[test]
fn t15_a_range_over_a_hole_makes_its_chain_unusable() {
    for (addr, len) in [
        (0x1_ff00, 0x200),
        (0x1_ff00, 0x2_8000),
        (0x3_0000, 1),
        (u64::MAX - 3, 8),
        (u64::MAX, 1),
        (0x8000, u32::MAX),
    ] {
        let piece = Descriptor::readable(addr, len);
        let total = gathered(Part::Readable, &[piece], (TABLE, &[]));
        assert_eq!(total, Err(BadChain), "{addr:#x}, {len}");
    }
}

#[test]
fn t16_a_wrong_direction_makes_its_chain_unusable() {
    let readable = Descriptor::readable(DATA, 8);
    let writable = Descriptor::writable(DATA, 8);
    for (part, [first, second], expected) in [
        (Part::Readable, [readable, writable], Ok(8)),
        (Part::Readable, [writable, readable], Err(BadChain)),
        (Part::Readable, [writable, writable], Ok(0)),
        (Part::Writable, [readable, writable], Err(BadChain)),
        (Part::Writable, [writable, readable], Err(BadChain)),
        (Part::Writable, [writable, writable], Ok(16)),
    ] {
        let total = gathered(part, &[first.then(1), second], (TABLE, &[]));
        assert_eq!(total, expected, "{part:?} {first:?} {second:?}");
    }
}

#[test]
fn t16_a_loop_a_bad_index_or_a_bad_table_makes_its_chain_unusable() {
    let piece = Descriptor::readable(DATA, 8);
    let inner = Descriptor::table(TABLE, 16);
    let head = Descriptor::table(TABLE, 32);
    let long = linked(&[1; SIZE as usize + 2]);
    let whole_long = Descriptor::table(TABLE, 16 * u32::from(SIZE + 2));
    let cases: [(&[_], &[_]); 10] = [
        // A loop, and a next descriptor outside the queue's table.
        (&[piece.then(1), piece.then(0)], &[]),
        (&[piece.then(SIZE)], &[]),
        // A table with a partial descriptor, an empty one, one outside memory, and one longer than
        // the queue.
        (&[Descriptor::table(TABLE, 24)], &[piece; 2]),
        (&[Descriptor::table(TABLE, 0)], &[piece; 2]),
        (&[Descriptor::table(0x3_0000, 16)], &[piece; 2]),
        (&[whole_long], &long),
        // A nested table, as the first or second descriptor.
        (&[head], &[inner; 2]),
        (&[head], &[piece.then(1), inner]),
        // An index beyond the table, and a loop.
        (&[head], &[piece.then(2), piece]),
        (&[head], &[piece.then(1), piece.then(0)]),
    ];
    for (descriptors, table) in cases {
        let total = gathered(Part::Readable, descriptors, (TABLE, table));
        assert_eq!(total, Err(BadChain), "{descriptors:?} {table:?}");
    }
}

/// Returns the fault of the receive queue after the driver has prepared it like this.
fn fault_of(memory: &Memory, prepare: impl FnOnce(&mut DriverQueue)) -> DeviceFault {
    let mut driver = DriverQueue::new(0x1000, SIZE);
    prepare(&mut driver);
    let mut queue = driver.queue();
    Virtqueue::new(memory, &mut queue, QueueName::Rx)
        .take(Part::Writable, &mut Slices::<Memory>::new())
        .unwrap_err()
}

#[test]
fn t23_an_impossible_index_and_an_unreadable_queue_are_faults() {
    let regions = regions();
    // A region may begin anywhere.
    let odd = memory(&[(1, 0x1_0000)]);
    let ahead = fault_of(&regions, |driver| driver.set_available(&regions, SIZE + 1));
    let no_head = fault_of(&regions, |driver| driver.offer(&regions, SIZE));
    let misplaced = fault_of(&odd, |driver| driver.offer(&odd, 0));
    for (fault, cause) in [
        (ahead, FaultCause::AvailIndex),
        (no_head, FaultCause::HeadIndex),
        (misplaced, FaultCause::Memory),
    ] {
        let queue = QueueName::Rx;
        assert_eq!(fault, DeviceFault { queue, cause });
    }
}

#[test]
fn t15_a_queue_may_span_regions() {
    // Each of the queue's parts in turn crosses two regions.
    for before in [0x80, 0x110, 0x140] {
        let memory = regions();
        let mut driver = DriverQueue::new(0x1_0000 - before, SIZE);
        let mut queue = driver.queue();
        for round in 0..3 * SIZE {
            let head = round % SIZE;
            let buffer = Descriptor::writable(DATA, u32::from(head) + 1);
            driver.describe(&memory, head, buffer);
            driver.offer(&memory, head);
            let mut virtqueue = Virtqueue::new(&memory, &mut queue, QueueName::Rx);
            let mut slices = Slices::<Memory>::new();
            let mut take = || virtqueue.take(Part::Writable, &mut slices).unwrap();
            let taken = take().unwrap();
            assert_eq!((taken.head, taken.len), (head, Ok(usize::from(head) + 1)));
            assert!(take().is_none());
            virtqueue.give_back(taken.head, 7).unwrap();
            assert_eq!(virtqueue.wants_interrupt(1), Ok(true));
            assert_eq!(driver.used(&memory), [(u32::from(head), 7)]);
        }
    }
}

#[test]
fn t23_an_available_index_that_moves_backwards_is_noticed_when_it_is_needed() {
    let memory = regions();
    let mut driver = DriverQueue::new(0x1000, SIZE);
    driver.describe(&memory, 0, Descriptor::writable(DATA, 9));
    driver.offer(&memory, 0);
    driver.offer(&memory, 0);
    let mut queue = driver.queue();
    let mut virtqueue = Virtqueue::new(&memory, &mut queue, QueueName::Rx);
    let mut slices = Slices::<Memory>::new();
    let mut take = || virtqueue.take(Part::Writable, &mut slices);
    assert!(take().unwrap().is_some());
    // The chain that was seen stays available; after it, the index is invalid.
    driver.set_available(&memory, 0);
    assert!(take().unwrap().is_some());
    assert_eq!(take().unwrap_err().cause, FaultCause::AvailIndex);
}
