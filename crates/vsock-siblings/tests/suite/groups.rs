// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Which guests can connect to each other, and for how long.

use std::io::ErrorKind;

use vsock_siblings::{
    Capacity, Groups, GroupsError, JoinError, Siblings, VsockAddr, VsockBackend, VsockInnerConfig,
};

const fn at(cid: u64, port: u32) -> VsockAddr {
    VsockAddr { cid, port }
}

fn groups(text: &str) -> Groups {
    text.parse().unwrap()
}

#[test]
fn groups_are_names_joined_by_plus_signs() {
    for text in ["", "+", "a+", "+a", "a++b"] {
        assert_eq!(
            text.parse::<Groups>(),
            Err(GroupsError::EmptyName),
            "{text}"
        );
    }
    assert_eq!(groups("b+a+b").to_string(), "a+b");
    assert!(!groups("a").is_empty());
    assert!(Groups::default().is_empty());
    assert_eq!(
        ["b", "", "a+b"]
            .map(str::to_owned)
            .into_iter()
            .collect::<Groups>(),
        groups("a+b")
    );
}

#[test]
fn guests_with_a_group_in_common_can_connect() {
    let siblings = Siblings::new();
    let all = ["a", "a+b", "b", "c"].map(groups);
    let none = Groups::default();
    let backends: Vec<_> = (3..)
        .zip(all.iter().chain([&none]))
        .map(|(cid, groups)| siblings.join(cid, groups.clone()).unwrap())
        .collect();
    let mut reached = Vec::new();
    for (from, backend) in (3..).zip(&backends) {
        for to in 2..10 {
            match backend.connect_from(at(from, 1), at(to, 80)) {
                Ok(_) => reached.push((from, to)),
                Err(error) => assert_eq!(error.kind(), ErrorKind::ConnectionRefused),
            }
        }
    }
    assert_eq!(reached, [(3, 4), (4, 3), (4, 5), (5, 4)]);
}

#[test]
fn a_guest_can_use_only_its_own_cid_and_not_connect_to_itself() {
    let siblings = Siblings::new();
    let [three, _four] = [3, 4].map(|cid| siblings.join(cid, groups("a")).unwrap());
    for (from, to) in [(4, 3), (5, 4), (3, 3), (2, 4)] {
        let refused = three.connect_from(at(from, 1), at(to, 80)).err().unwrap();
        assert_eq!(refused.kind(), ErrorKind::ConnectionRefused, "{refused}");
        assert!(
            three
                .connect_seqpacket_from(at(from, 1), at(to, 80))
                .is_err()
        );
    }
    assert!(three.connect(80).is_err(), "it does not name a guest");
}

#[test]
fn t11_a_cid_is_taken_until_the_backend_is_dropped() {
    let siblings = Siblings::new();
    let three = siblings.join(3, groups("a")).unwrap();
    let taken = siblings.clone().join(3, groups("b")).unwrap_err();
    assert!(matches!(taken, JoinError::CidTaken { cid: 3 }));
    // The refused guest has neither replaced nor removed the first one.
    let four = siblings.join(4, groups("a")).unwrap();
    let mut near = four.connect_from(at(4, 1), at(3, 80)).unwrap();
    assert_eq!(
        near.finish_connect().unwrap_err().kind(),
        ErrorKind::WouldBlock
    );
    drop(three);
    assert_eq!(
        near.finish_connect().unwrap_err().kind(),
        ErrorKind::ConnectionRefused
    );
    assert!(four.connect_from(at(4, 1), at(3, 80)).is_err());
    siblings.join(3, groups("a")).unwrap();
}

#[test]
fn the_number_of_waiting_connections_is_limited() {
    let config = VsockInnerConfig::default().pending(2);
    let siblings = Siblings::with_config(config);
    let [three, mut four] = [3, 4].map(|cid| siblings.join(cid, groups("a")).unwrap());
    let waiting = [1, 2].map(|port| three.connect_from(at(3, port), at(4, 80)).unwrap());
    let refused = three.connect_from(at(3, 3), at(4, 80)).err().unwrap();
    assert_eq!(refused.kind(), ErrorKind::ConnectionRefused);
    assert!(refused.to_string().contains("backlog full"), "{refused}");
    let first = four.accept().unwrap();
    assert_eq!(first.peer(), Some(at(3, 1)));
    assert_eq!(first.local(), Some(at(4, 80)));
    three.connect_from(at(3, 3), at(4, 80)).unwrap();
    drop(waiting);
}

#[test]
fn invalid_limits_are_refused() {
    let nothing = VsockInnerConfig::default().to_device(Capacity::Bytes(0));
    let refused = Siblings::with_config(nothing).join(3, groups("a"));
    assert!(matches!(refused, Err(JoinError::Backend(_))));
}
