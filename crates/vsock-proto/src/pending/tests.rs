// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

use super::{Owed, Pending};

#[rustfmt::skip]
const PAIRS: [(Owed, Owed); 21] = [
    (Owed::Reset, Owed::Request),
    (Owed::Reset, Owed::Response),
    (Owed::Reset, Owed::Shutdown),
    (Owed::Reset, Owed::CreditRequest),
    (Owed::Reset, Owed::Data),
    (Owed::Reset, Owed::CreditUpdate),
    (Owed::Request, Owed::Response),
    (Owed::Request, Owed::Shutdown),
    (Owed::Request, Owed::CreditRequest),
    (Owed::Request, Owed::Data),
    (Owed::Request, Owed::CreditUpdate),
    (Owed::Response, Owed::Shutdown),
    (Owed::Response, Owed::CreditRequest),
    (Owed::Response, Owed::Data),
    (Owed::Response, Owed::CreditUpdate),
    (Owed::Shutdown, Owed::CreditRequest),
    (Owed::Shutdown, Owed::Data),
    (Owed::Shutdown, Owed::CreditUpdate),
    (Owed::CreditRequest, Owed::Data),
    (Owed::CreditRequest, Owed::CreditUpdate),
    (Owed::Data, Owed::CreditUpdate),
];

#[test]
fn t27_of_each_pair_the_more_urgent_goes_first() {
    for (first, second) in PAIRS {
        let mut pending = Pending::NONE;
        pending.insert(second);
        pending.insert(first);
        assert_eq!(pending.first(), Some(first), "{first:?} before {second:?}");
        pending.remove(first);
        assert_eq!(pending.first(), Some(second), "{second:?} after {first:?}");
    }
}

#[test]
fn the_order_of_the_type_is_the_order_of_the_set() {
    assert!(Owed::ALL.is_sorted());
    let mut pending = Pending::NONE;
    for owed in Owed::ALL.into_iter().rev() {
        pending.insert(owed);
    }
    let mut order = Vec::new();
    while let Some(owed) = pending.first() {
        assert!(pending.contains(owed));
        pending.remove(owed);
        order.push(owed);
    }
    assert_eq!(order, Owed::ALL);
}

#[test]
fn t74_owing_twice_is_owing_once() {
    let mut pending = Pending::NONE;
    pending.insert(Owed::CreditUpdate);
    pending.insert(Owed::CreditUpdate);
    pending.remove(Owed::CreditUpdate);
    assert!(pending.is_empty());
    pending.insert(Owed::Reset);
    pending.clear();
    assert_eq!(pending.first(), None);
}
