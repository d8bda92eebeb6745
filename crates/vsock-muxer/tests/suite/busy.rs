// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Connections of the guest that wait for a busy host component.

use std::collections::VecDeque;
use std::time::Duration;

use proptest::prelude::*;
use vsock_proto::{Ending, Op};

use crate::world::{World, header, op, shutdown};

const PORT: u32 = 52;

/// A world with a busy host component, whose listener is this one.
fn world(listener: Option<u64>) -> World {
    let world = World::new();
    world.is_busy(true);
    world.script().listener = listener;
    world
}

fn asks(world: &mut World, guest_port: u32) {
    world.guest_sends(&header(Op::Request, guest_port, PORT), b"");
}

/// Makes the component accept this many connections and then be busy.
fn takes(world: &mut World, connections: usize) {
    world.script().answers.clear();
    for _ in 0..connections {
        let host = world.host();
        world.answer(Ok(&host));
    }
}

fn restarts(world: &World, listener: u64) {
    world.script().listener = Some(listener);
}

fn asked(world: &World) -> usize {
    world.script().asked.len()
}

/// Advances to the time at which the component is asked again.
fn wait(world: &mut World) {
    world.pass(world.due());
}

/// Returns the answers to the guest: the port, and whether it is a RESPONSE.
fn told(world: &mut World) -> Vec<(u32, bool)> {
    let packets = world.receive(64);
    packets
        .iter()
        .map(|(header, _)| {
            let is_response = header.op == u16::from(Op::Response);
            assert!(is_response || header.op == u16::from(Op::Reset));
            (header.dst_port, is_response)
        })
        .collect()
}

#[test]
fn t135_a_restarted_listener_gets_no_connection_meant_for_its_predecessor() {
    let mut world = world(Some(1));
    for port in 1..=3 {
        asks(&mut world, port);
    }
    restarts(&world, 2);
    takes(&mut world, 9);
    let before = asked(&world);
    wait(&mut world);
    assert_eq!(asked(&world), before, "it must not even be asked");
    assert_eq!(told(&mut world), [(1, false), (2, false), (3, false)]);
    assert_eq!(world.muxer.deadline(), None);
    assert_eq!(world.muxer.counters().refused_by_backend, 3);
}

#[test]
fn t135_a_request_to_a_new_listener_reaches_it_immediately() {
    let mut world = world(Some(1));
    asks(&mut world, 1);
    restarts(&world, 2);
    takes(&mut world, 1);
    asks(&mut world, 2);
    assert_eq!(told(&mut world), [(1, false), (2, true)]);
}

#[test]
fn t135_a_listener_replaced_during_a_request_is_a_different_listener() {
    let mut world = world(Some(1));
    asks(&mut world, 1);
    asks(&mut world, 2);
    takes(&mut world, 2);
    world.script().next_listener = Some(2);
    wait(&mut world);
    assert_eq!(told(&mut world), [(1, false), (2, false)]);
    // No stream of either listener is left.
    assert!(world.watched.len() == 1, "only the backend is watched");
}

#[test]
fn t135_a_listener_that_cannot_be_identified_is_asked_again() {
    let mut world = world(None);
    asks(&mut world, 1);
    takes(&mut world, 1);
    wait(&mut world);
    assert_eq!(told(&mut world), [(1, true)]);
}

#[test]
fn t135_the_request_that_has_waited_longest_is_served_first() {
    let mut world = world(Some(1));
    for port in 1..=4 {
        asks(&mut world, port);
    }
    takes(&mut world, 1);
    wait(&mut world);
    assert_eq!(told(&mut world), [(1, true)]);
    // A new connection causes another attempt, and waits after the others.
    takes(&mut world, 2);
    asks(&mut world, 5);
    assert_eq!(told(&mut world), [(2, true), (3, true)]);
    takes(&mut world, 2);
    wait(&mut world);
    assert_eq!(told(&mut world), [(4, true), (5, true)]);
    // Other ports and other socket types wait for other components.
    asks(&mut world, 6);
    world.guest_connects(7, PORT + 1);
}

#[test]
fn t135_a_request_that_is_given_up_leaves_its_place_to_the_next() {
    let leave: [fn(&mut World); 4] = [
        |world| world.guest_sends(&op(Op::Reset, &header(Op::Reset, 1, PORT)), b""),
        |world| world.guest_sends(&shutdown(&header(Op::Shutdown, 1, PORT), 3), b""),
        |world| asks(world, 1),
        |world| {
            // Its time expires when it could be served.
            world.now = world.now.saturating_add(Duration::from_millis(1500));
        },
    ];
    for (way, leave) in leave.into_iter().enumerate() {
        let mut world = world(Some(1));
        asks(&mut world, 1);
        world.now = world.now.saturating_add(Duration::from_millis(500));
        asks(&mut world, 2);
        leave(&mut world);
        takes(&mut world, 1);
        wait(&mut world);
        let told: Vec<_> = told(&mut world).into_iter().filter(|told| told.1).collect();
        assert_eq!(told, [(2, true)], "way {way}");
    }
}

#[test]
fn t135_a_request_past_its_deadline_is_not_served_even_before_the_timer_fires() {
    let mut world = world(Some(1));
    asks(&mut world, 1);
    world.now = world.now.saturating_add(Duration::from_secs(2));
    takes(&mut world, 1);
    asks(&mut world, 2);
    assert_eq!(told(&mut world), [(1, false), (2, true)]);
}

#[test]
fn t135_the_pauses_start_again_for_a_component_that_accepts_again() {
    let mut world = world(Some(1));
    for port in 1..=3 {
        asks(&mut world, port);
    }
    for pause in [10, 20, 40] {
        assert_eq!(world.due(), Duration::from_millis(pause));
        wait(&mut world);
    }
    takes(&mut world, 1);
    wait(&mut world);
    assert_eq!(world.due(), Duration::from_millis(10));
}

#[derive(Clone, Debug)]
enum Act {
    Asks,
    Takes(usize),
    Restarts,
    Resets(usize),
    Passes(u64),
}

fn act() -> impl Strategy<Value = Act> {
    prop_oneof![
        6 => Just(Act::Asks),
        3 => (0..4_usize).prop_map(Act::Takes),
        1 => Just(Act::Restarts),
        1 => any::<usize>().prop_map(Act::Resets),
        4 => (0..700_u64).prop_map(Act::Passes),
    ]
}

proptest! {
    /// Compared with a model of the waiting connections: those that are served arrived first, are
    /// meant for this listener, and have not waited too long.
    #[test]
    fn t135_waiting_requests_are_served_in_order_by_the_listener_they_reached(
        acts in proptest::collection::vec(act(), 1..60),
    ) {
        let limit = 5;
        let mut world = World::limited(|limits| limits.max_accepting(limit));
        let mut listener = 1;
        restarts(&world, listener);
        world.script().busy = true;
        // The port, the time of arrival, and the listener.
        let mut waiting = VecDeque::<(u32, u64, u64)>::new();
        let mut next = 1;
        let two_seconds = 2_000_000_000;
        for act in acts {
            let mut newcomer = None;
            match act {
                Act::Asks => {
                    newcomer = Some((next, world.now.as_nanos(), listener));
                    asks(&mut world, next);
                    next += 1;
                }
                Act::Takes(connections) => takes(&mut world, connections),
                Act::Restarts => {
                    listener += 1;
                    restarts(&world, listener);
                }
                Act::Resets(at) => {
                    if let Some(at) = at.checked_rem(waiting.len()) {
                        let (port, ..) = waiting.remove(at).unwrap();
                        world.guest_sends(&header(Op::Reset, port, PORT), b"");
                    }
                }
                Act::Passes(millis) => world.pass(Duration::from_millis(millis)),
            }
            let now = world.now.as_nanos();
            waiting.extend(newcomer);
            let told = told(&mut world);
            for (port, served) in &told {
                let at = waiting.iter().position(|(one, ..)| one == port).unwrap();
                let (_, since, met) = waiting.remove(at).unwrap();
                if *served {
                    prop_assert_eq!(met, listener);
                    prop_assert!(now < since + two_seconds);
                    // The earlier ones were refused at the same time, or not at all.
                    prop_assert_eq!(at, 0);
                } else {
                    let late = now >= since + two_seconds;
                    let beyond = newcomer.is_some_and(|(one, ..)| one == *port);
                    prop_assert!(late || met != listener || beyond);
                }
            }
            prop_assert!(waiting.len() <= limit);
        }
        world.pass(Duration::from_secs(2));
        prop_assert!(told(&mut world).len() >= waiting.len());
        prop_assert_eq!(world.ended(Ending::Aborted), 0);
        prop_assert_eq!(world.muxer.deadline(), None);
    }
}
