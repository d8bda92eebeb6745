// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! More host clients than may wait to send their command.

use std::collections::VecDeque;
use std::time::Duration;

use proptest::prelude::*;
use vsock_proto::{Config, Op};

use crate::stream::{After, Host};
use crate::world::World;

const COMMAND: &[u8] = b"CONNECT 9\n";

fn crowded(places: usize) -> World {
    World::with(Config::builder().max_handshakes(places).build().unwrap())
}

#[test]
fn t42_many_silent_clients_do_not_lock_out_one_that_sends() {
    let mut world = crowded(8);
    let mut crowd: Vec<_> = (0..20).map(|_| world.client(b"")).collect();
    assert_eq!(world.muxer.handshakes(), 8);
    // Its command is available when it is accepted, so no other client has to go.
    let prompt = world.client(COMMAND);
    assert_eq!(world.ops(), [Op::Request]);
    assert_eq!(world.muxer.counters().handshakes_at_limit, 12);

    let late = world.client(b"");
    crowd.extend((0..6).map(|_| world.client(b"")));
    let (begin, rest) = COMMAND.split_at(4);
    world.host_sends(&late, begin);
    // From now on, it is no longer among those that go first.
    crowd.extend((0..20).map(|_| world.client(b"")));
    world.host_sends(&late, rest);
    assert_eq!(world.ops(), [Op::Request]);
    assert!(!late.state().closed && !prompt.state().closed);
    let open = crowd.iter().filter(|host| !host.state().closed).count();
    assert_eq!(open, 7);
    assert_eq!(world.muxer.handshakes(), 7);
}

#[test]
fn t42_many_slow_clients_do_not_lock_out_one_that_sends() {
    let mut world = crowded(8);
    let first = world.client(b"C");
    for _ in 0..20 {
        world.client(b"C");
    }
    assert!(first.state().closed, "it was the oldest");
    let late = world.client(b"");
    for _ in 0..20 {
        world.client(b"C");
    }
    world.host_sends(&late, COMMAND);
    assert_eq!(world.ops(), [Op::Request]);
    assert_eq!(world.muxer.handshakes(), 7);
}

#[derive(Clone, Debug)]
enum Act {
    /// A client arrives and has sent this many bytes of its command.
    Comes(usize),
    /// A client sends this many more bytes.
    Says(usize, usize),
    Leaves(usize),
    Passes(u64),
}

fn act() -> impl Strategy<Value = Act> {
    let some = 0..COMMAND.len() + 1;
    prop_oneof![
        4 => Just(Act::Comes(0)),
        4 => some.clone().prop_map(Act::Comes),
        6 => (any::<usize>(), some).prop_map(|(at, len)| Act::Says(at, len)),
        1 => any::<usize>().prop_map(Act::Leaves),
        1 => (0..3000_u64).prop_map(Act::Passes),
    ]
}

struct Client {
    host: Host,
    said: usize,
}

proptest! {
    #[test]
    fn t42_in_any_order_the_bound_holds_and_each_evicted_client_was_the_oldest_of_its_half(
        places in 1..6_usize,
        acts in proptest::collection::vec(act(), 1..80),
    ) {
        let mut world = crowded(places);
        // In the order of arrival, and of the first bytes sent.
        let (mut silent, mut begun) = (VecDeque::<Client>::new(), VecDeque::<Client>::new());
        let (mut asked, mut gone, mut came) = (0, 0, 0);
        for act in acts {
            match act {
                Act::Comes(said) => {
                    came += 1;
                    let full = silent.len() + begun.len() == places;
                    let host = world.client(&COMMAND[..said]);
                    if said == COMMAND.len() {
                        asked += 1;
                        continue;
                    }
                    if full {
                        let half = if begun.len() > places / 2 { &mut begun } else { &mut silent };
                        prop_assert!(half.pop_front().unwrap().host.state().closed);
                    }
                    let half = if said == 0 { &mut silent } else { &mut begun };
                    half.push_back(Client { host, said });
                }
                Act::Says(at, len) => {
                    let all = silent.len() + begun.len();
                    let Some(at) = at.checked_rem(all) else { continue };
                    let was_silent = at < silent.len();
                    let half = if was_silent { &mut silent } else { &mut begun };
                    let at = if was_silent { at } else { at - (all - half.len()) };
                    let client = &mut half[at];
                    let words = &COMMAND[client.said..];
                    let words = &words[..len.min(words.len())];
                    client.said += words.len();
                    world.host_sends(&client.host, words);
                    if client.said == COMMAND.len() {
                        asked += 1;
                        half.remove(at);
                    } else if was_silent && client.said > 0 {
                        let client = half.remove(at).unwrap();
                        begun.push_back(client);
                    }
                }
                Act::Leaves(at) => {
                    let half = if silent.is_empty() { &mut begun } else { &mut silent };
                    let Some(at) = at.checked_rem(half.len()) else { continue };
                    let client = half.remove(at).unwrap();
                    client.host.state().after = After::End;
                    world.host_sends(&client.host, b"");
                    prop_assert!(client.host.state().closed);
                    gone += 1;
                }
                Act::Passes(millis) => {
                    world.pass(Duration::from_millis(millis));
                    for half in [&mut silent, &mut begun] {
                        half.retain(|client| !client.host.state().closed);
                    }
                }
            }
            prop_assert!(world.muxer.handshakes() <= places);
            prop_assert_eq!(world.muxer.handshakes(), silent.len() + begun.len());
            prop_assert!(silent.iter().chain(&begun).all(|client| !client.host.state().closed));
        }
        let counters = world.muxer.counters();
        prop_assert_eq!(counters.host_initiated, asked);
        prop_assert_eq!(counters.handshakes_abandoned, gone);
        let closed = counters.handshakes_at_limit + counters.handshakes_timed_out;
        let waiting = world.muxer.handshakes() as u64;
        prop_assert_eq!(asked + gone + closed + waiting, came);
    }
}
