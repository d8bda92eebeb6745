// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

use super::{Owed, Pending};

/// Most urgent first.
const ORDER: [Owed; 7] = [
    Owed::Reset,
    Owed::Request,
    Owed::Response,
    Owed::Shutdown,
    Owed::CreditRequest,
    Owed::Data,
    Owed::CreditUpdate,
];

#[test]
fn t27_of_each_pair_the_more_urgent_goes_first() {
    assert_eq!(Owed::ALL, ORDER);
    assert!(ORDER.is_sorted(), "the order must be that of the set");
    for (at, first) in ORDER.into_iter().enumerate() {
        for second in &ORDER[at + 1..] {
            let mut pending = Pending::NONE;
            pending.insert(*second);
            pending.insert(first);
            assert_eq!(pending.first(), Some(first), "{first:?} before {second:?}");
            pending.remove(first);
            assert_eq!(pending.first(), Some(*second), "{second:?} after {first:?}");
            assert!(!pending.contains(first) && pending.contains(*second));
        }
    }
}

#[test]
fn t74_a_reply_pending_twice_is_sent_once() {
    let mut pending = Pending::NONE;
    pending.insert(Owed::CreditUpdate);
    pending.insert(Owed::CreditUpdate);
    pending.remove(Owed::CreditUpdate);
    assert!(pending.is_empty());
    pending.insert(Owed::Reset);
    pending.clear();
    assert_eq!(pending.first(), None);
}
