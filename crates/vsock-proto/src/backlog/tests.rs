// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

use std::collections::VecDeque;
use std::panic::{AssertUnwindSafe, catch_unwind};

use super::{Backlog, BacklogFull};
use proptest::prelude::*;

fn all(backlog: &Backlog) -> Vec<u8> {
    let (first, second) = backlog.slices(usize::MAX);
    [first, second].concat()
}

#[test]
fn t62_bytes_stay_in_order_across_the_wrap() {
    let mut backlog = Backlog::new(512);
    backlog.push(&[1; 500]).unwrap();
    backlog.consume(490);
    let next: Vec<u8> = (0..200).collect();
    backlog.push(&next).unwrap();
    let (first, second) = backlog.slices(usize::MAX);
    assert_eq!(
        (first.len(), second.len()),
        (22, 188),
        "the bytes must wrap around"
    );
    assert_eq!(all(&backlog)[10..], next);
}

#[test]
fn bytes_beyond_the_limit_are_refused_as_a_whole() {
    let mut backlog = Backlog::new(10);
    backlog.push(&[0; 8]).unwrap();
    let full = BacklogFull {
        len: 8,
        more: 3,
        limit: 10,
    };
    assert_eq!(backlog.push(&[1; 3]), Err(full));
    assert_eq!(all(&backlog), [0; 8]);
    backlog.push(&[1; 2]).unwrap();
    assert_eq!(backlog.memory(), 10, "never more memory than the limit");
}

#[test]
fn memory_grows_and_shrinks_with_the_bytes() {
    let mut backlog = Backlog::new(1 << 20);
    assert_eq!(backlog.memory(), 0);
    backlog.push(&[0; 100]).unwrap();
    assert_eq!(backlog.memory(), 512);
    backlog.push(&[0; 60_000]).unwrap();
    assert_eq!(backlog.memory(), 65_536);
    backlog.consume(60_100);
    assert_eq!(backlog.memory(), 0);
}

#[test]
fn a_little_memory_is_kept_for_the_next_refusal() {
    let mut backlog = Backlog::new(1 << 20);
    backlog.push(&[0; 3000]).unwrap();
    backlog.consume(3000);
    assert!(backlog.is_empty());
    assert_eq!(backlog.memory(), Backlog::KEPT);
    backlog.clear();
    assert_eq!(backlog.memory(), 0);
}

#[derive(Clone, Debug)]
enum Op {
    Push(usize),
    Consume(usize),
    DropLast(usize),
    Look(usize),
}

fn op() -> impl Strategy<Value = Op> {
    prop_oneof![
        4 => (0_usize..900).prop_map(Op::Push),
        4 => (0_usize..900).prop_map(Op::Consume),
        1 => (0_usize..100).prop_map(Op::DropLast),
        2 => (0_usize..900).prop_map(Op::Look),
    ]
}

proptest! {
    #[test]
    fn t62_a_backlog_is_a_bounded_queue(
        limit in 1_usize..3000,
        ops in proptest::collection::vec(op(), 1..80),
    ) {
        let mut backlog = Backlog::new(limit);
        let mut model: VecDeque<u8> = VecDeque::new();
        let mut next = 0_u8;
        for op in ops {
            match op {
                Op::Push(len) => {
                    let bytes: Vec<u8> = (0..len)
                        .map(|_| { next = next.wrapping_add(1); next })
                        .collect();
                    let fits = model.len() + len <= limit;
                    prop_assert_eq!(backlog.push(&bytes).is_ok(), fits);
                    if fits {
                        model.extend(bytes);
                    }
                }
                Op::Consume(count) => {
                    backlog.consume(count);
                    model.drain(..count.min(model.len()));
                }
                Op::DropLast(count) => {
                    backlog.drop_last(count);
                    model.truncate(model.len().saturating_sub(count));
                }
                Op::Look(max) => {
                    let (first, second) = backlog.slices(max);
                    prop_assert_eq!(first.len() + second.len(), max.min(model.len()));
                }
            }
            prop_assert_eq!(backlog.len(), model.len());
            prop_assert_eq!(all(&backlog), model.iter().copied().collect::<Vec<_>>());
            prop_assert!(backlog.memory() <= limit);
        }
    }

    #[test]
    fn appending_in_place_equals_pushing(
        before in 0_usize..700,
        consumed in 0_usize..700,
        more in 0_usize..300,
    ) {
        let mut backlog = Backlog::new(1024);
        backlog.push(&vec![0; before]).unwrap();
        backlog.consume(consumed);
        let kept = backlog.len();
        let mut next = 0_u8;
        let mut calls = 0;
        backlog.append(more, |dst| {
            calls += 1;
            for byte in dst {
                next = next.wrapping_add(1);
                *byte = next;
            }
        }).unwrap();
        prop_assert!(calls <= 2);
        let expected: Vec<u8> = (1..=more).map(|i| i as u8).collect();
        prop_assert_eq!(&all(&backlog)[kept..], &expected[..]);
    }
}

#[test]
fn t132_a_panic_while_a_backlog_is_filled_leaves_it_unchanged() {
    let mut backlog = Backlog::new(1 << 20);
    backlog.push(b"hello").unwrap();
    let filled = catch_unwind(AssertUnwindSafe(|| {
        backlog.append(10_000, |_| panic!("this closure panics on purpose"))
    }));
    drop(filled.unwrap_err());
    assert_eq!(backlog.slices(usize::MAX).0, b"hello");
    backlog.push(b" again").unwrap();
    assert_eq!(backlog.slices(usize::MAX).0, b"hello again");
}
