// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

use std::collections::VecDeque;

use proptest::prelude::*;
use vsock_proto::{
    ConnKey, GuestCid, Header, Op, Port, ResetReply, Route, SocketType, SocketTypes,
};

use super::{Lane, Next, ResetsFull, RxQueue};
use crate::slot::Slot;

/// The RST that answers a stray packet from this guest port.
fn reset(port: u32) -> ResetReply {
    let guest = GuestCid::try_from(3).unwrap();
    let route = Route::to_guest(guest, SocketTypes::STREAM);
    let header = Header {
        src_cid: 3,
        dst_cid: 2,
        src_port: port,
        dst_port: 52,
        socket_type: 1,
        op: Op::ReadWrite.into(),
        ..Header::default()
    };
    route.reset_for(&route.parse(&header).unwrap()).unwrap()
}

#[test]
fn t74_pending_rsts_are_bounded_and_report_the_bound() {
    let mut queue = RxQueue::new(3);
    for port in 0..3 {
        assert!(!queue.is_full());
        queue.owe_reset(reset(port)).unwrap();
    }
    assert!(queue.is_full(), "the guest's packets must wait");
    assert_eq!(queue.owe_reset(reset(3)), Err(ResetsFull { limit: 3 }));
    assert_eq!(queue.resets.len(), 3);
    assert_eq!(queue.pop(), Some(Next::Reset(reset(0))));
    assert!(!queue.is_full());
    queue.owe_reset(reset(3)).unwrap();
}

#[test]
fn t30_a_new_connection_is_not_killed_by_an_old_rst() {
    let mut queue = RxQueue::new(8);
    queue.owe_reset(reset(9)).unwrap();
    queue.owe_reset(reset(10)).unwrap();
    let key = ConnKey::new(Port::new(52), Port::new(9));
    assert!(queue.owes_reset(key));
    queue.cancel_reset(key, SocketType::SeqPacket);
    assert!(queue.owes_reset(key), "one of another type does no harm");
    queue.cancel_reset(key, SocketType::Stream);
    assert!(!queue.owes_reset(key));
    assert_eq!(queue.pop(), Some(Next::Reset(reset(10))));
    assert_eq!(queue.pop(), None);
}

#[test]
fn rsts_and_connections_take_turns() {
    let mut queue = RxQueue::new(8);
    for index in 0..2 {
        queue.push(Slot::new(index), Lane::Host);
        queue.owe_reset(reset(index)).unwrap();
    }
    let connection = |index| Next::Connection(Slot::new(index), Lane::Host);
    let reset = |port| Next::Reset(reset(port));
    let order: Vec<_> = std::iter::from_fn(|| queue.pop()).collect();
    assert_eq!(order, [reset(0), connection(0), reset(1), connection(1)]);
}

#[test]
fn the_host_gets_half_of_the_turns_whatever_the_number_of_other_connections() {
    let mut queue = RxQueue::new(8);
    for index in 0..4 {
        queue.push(Slot::new(index), Lane::Guests);
    }
    queue.push(Slot::new(9), Lane::Host);
    let mut order = Vec::new();
    for _ in 0..queue.round() {
        if let Some(Next::Connection(slot, lane)) = queue.pop() {
            queue.push(slot, lane);
            order.push(slot.index());
        }
    }
    assert_eq!(order, [9, 0, 9, 1, 9, 2, 9, 3]);
    queue.remove(Slot::new(9));
    assert_eq!(queue.round(), 4, "a single list has all turns");
}

#[test]
fn t101_a_cleared_queue_has_no_pending_rsts() {
    let mut queue = RxQueue::new(1);
    queue.push(Slot::new(5), Lane::Host);
    queue.owe_reset(reset(1)).unwrap();
    queue.clear();
    assert!(queue.is_empty());
    queue.owe_reset(reset(2)).expect("the limit stays");
    assert!(queue.is_full());
}

/// Returns the list that a connection belongs to.
const fn lane(index: u32) -> Lane {
    if index % 3 == 0 {
        Lane::Host
    } else {
        Lane::Guests
    }
}

#[derive(Clone, Debug)]
enum Step {
    Push(u32),
    Remove(u32),
    Reset(u32),
    Pop,
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        4 => (0_u32..400).prop_map(Step::Push),
        1 => (0_u32..400).prop_map(Step::Remove),
        1 => (0_u32..20).prop_map(Step::Reset),
        4 => Just(Step::Pop),
    ]
}

proptest! {
    /// Compared with plain queues, no entry is lost or duplicated, and each waiting entry is served
    /// after at most four times as many pops as there were connections ahead of it.
    #[test]
    fn t73_no_ready_connection_is_ever_lost(
        steps in proptest::collection::vec(step(), 1..600),
    ) {
        let mut queue = RxQueue::new(16);
        let mut ready: [VecDeque<(u32, usize)>; 2] = Default::default();
        let mut last = Lane::Guests;
        let mut resets: VecDeque<u32> = VecDeque::new();
        let mut pops = 0_usize;
        for step in steps {
            match step {
                Step::Push(index) => {
                    let lane = lane(index);
                    queue.push(Slot::new(index), lane);
                    let ready = &mut ready[lane as usize];
                    if ready.iter().all(|(other, _)| *other != index) {
                        ready.push_back((index, pops + 4 * ready.len() + 4));
                    }
                }
                Step::Remove(index) => {
                    queue.remove(Slot::new(index));
                    ready[lane(index) as usize].retain(|(other, _)| *other != index);
                }
                Step::Reset(port) => {
                    let kept = queue.owe_reset(reset(port)).is_ok();
                    if resets.contains(&port) {
                        prop_assert!(kept, "it is already queued");
                    } else {
                        prop_assert_eq!(kept, resets.len() < 16);
                        if kept {
                            resets.push_back(port);
                        }
                    }
                }
                Step::Pop => {
                    pops += 1;
                    match queue.pop() {
                        Some(Next::Connection(slot, lane)) => {
                            let (expected, by) = ready[lane as usize].pop_front().unwrap();
                            let other = &ready[1 - lane as usize];
                            prop_assert!(lane != last || other.is_empty(), "out of turn");
                            last = lane;
                            prop_assert_eq!(slot, Slot::new(expected));
                            prop_assert!(pops <= by, "served too late");
                        }
                        Some(Next::Reset(reply)) => {
                            prop_assert_eq!(reply, reset(resets.pop_front().unwrap()));
                        }
                        None => {
                            prop_assert!(resets.is_empty());
                            prop_assert!(ready.iter().all(VecDeque::is_empty));
                        }
                    }
                }
            }
            let nothing = resets.is_empty() && ready.iter().all(VecDeque::is_empty);
            prop_assert_eq!(queue.is_empty(), nothing);
            prop_assert_eq!(queue.resets.len(), resets.len());
        }
    }
}
