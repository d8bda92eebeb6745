// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

use std::collections::BTreeMap;

use proptest::prelude::*;
use vsock_proto::Tick;

use super::Timers;
use crate::slot::Slot;

#[derive(Clone, Debug)]
enum Step {
    Set(u32, u64),
    Cancel(u32),
    Pop(u64),
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        4 => (0_u32..60, 0_u64..500).prop_map(|(slot, at)| Step::Set(slot, at)),
        2 => (0_u32..60).prop_map(Step::Cancel),
        3 => (0_u64..500).prop_map(Step::Pop),
    ]
}

proptest! {
    #[test]
    fn t32_deadlines_fire_in_order_and_only_when_due(
        steps in proptest::collection::vec(step(), 1..400),
    ) {
        let mut timers = Timers::new();
        let mut model: BTreeMap<Slot, Tick> = BTreeMap::new();
        for step in steps {
            match step {
                Step::Set(slot, at) => {
                    timers.set(Slot::new(slot), Tick::from_nanos(at));
                    model.insert(Slot::new(slot), Tick::from_nanos(at));
                }
                Step::Cancel(slot) => {
                    timers.cancel(Slot::new(slot));
                    model.remove(&Slot::new(slot));
                }
                Step::Pop(now) => {
                    let now = Tick::from_nanos(now);
                    let first = model.iter().map(|(slot, at)| (*at, *slot)).min();
                    let due = first.filter(|(at, _)| *at <= now).map(|(_, slot)| slot);
                    prop_assert_eq!(timers.pop_due(now), due);
                    due.map(|slot| model.remove(&slot));
                }
            }
            prop_assert_eq!(timers.len(), model.len());
            prop_assert_eq!(timers.heap.is_empty(), model.is_empty());
            prop_assert_eq!(timers.next_deadline(), model.values().min().copied());
            for slot in (0..60).map(Slot::new) {
                let set = timers.heap.iter().find(|entry| entry.slot == slot);
                prop_assert_eq!(set.map(|entry| entry.at), model.get(&slot).copied());
            }
        }
    }
}
