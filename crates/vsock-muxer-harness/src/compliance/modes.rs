// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

use std::io::{ErrorKind, Read};

use super::StreamRule;
use super::scene::{Pair, Scene, no_edge, read_edges, readable, write};
use super::verdict::{Verdict, count, fails};
use crate::source::Mode;

const STARTS: &str = "The device's end starts non-blocking; the application's end and both ends of a \
                      pair start blocking.";
const OWN: &str = "A mode belongs to one end: changing it never affects what the other end sees.";

/// The rules of this section.
pub(super) fn rules() -> Vec<StreamRule> {
    vec![
        StreamRule::new("2.2", STARTS, "an_end_starts_in_its_mode", starts),
        StreamRule::new(
            "2.2",
            OWN,
            "a_mode_change_does_not_reach_a_blocked_peer",
            blocked_peer,
        ),
        StreamRule::new(
            "2.2",
            OWN,
            "a_mode_change_is_no_event_for_the_peer",
            no_event,
        ),
        StreamRule::new("2.2", OWN, "a_mode_change_keeps_the_peers_mode", keeps),
    ]
}

fn starts(scene: &Scene<'_>) -> Verdict {
    let Pair { mut near, mut far } = scene.fresh()?;
    match scene.near_mode() {
        Mode::Nonblocking => fails(
            "a first read of nothing",
            near.read(&mut [0]),
            ErrorKind::WouldBlock,
        ),
        Mode::Blocking => {
            let reading = scene.blocked(near, |near| near.read(&mut [0]))?;
            write(&mut far, b"x")?;
            count("the read", scene.returned(reading)?.1, 1)
        }
    }
}

fn blocked_peer(scene: &Scene<'_>) -> Verdict {
    let Pair { mut near, far } = scene.blocking()?;
    let reading = scene.blocked(far, |far| far.read(&mut [0; 8]))?;
    for nonblocking in [true, false, true] {
        near.set_nonblocking(nonblocking)?;
    }
    reading
        .asleep(scene.deadline())
        .map_err(|why| super::Failure::Violated(format!("a mode change woke the peer: {why}")))?;
    write(&mut near, b"x")?;
    count("the read", scene.returned(reading)?.1, 1)
}

fn no_event(scene: &Scene<'_>) -> Verdict {
    let Pair { mut near, far } = scene.nonblocking()?;
    let mut edges = read_edges(&*far)?;
    for nonblocking in [false, true, false] {
        near.set_nonblocking(nonblocking)?;
        no_edge(&mut edges, "after a change of the peer's mode")?;
        readable(&far, false, "after a change of the peer's mode")?;
    }
    Ok(())
}

fn keeps(scene: &Scene<'_>) -> Verdict {
    let Pair { mut near, mut far } = scene.nonblocking()?;
    near.set_nonblocking(false)?;
    fails(
        "the peer's read of nothing",
        far.read(&mut [0]),
        ErrorKind::WouldBlock,
    )?;
    write(&mut near, b"x")?;
    count("the peer's read", far.read(&mut [0; 8]), 1)?;
    fails(
        "the peer's read of nothing",
        far.read(&mut [0]),
        ErrorKind::WouldBlock,
    )
}
