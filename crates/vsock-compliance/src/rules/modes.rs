// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

use std::io::{ErrorKind, Read};

use crate::breach::{Verdict, count, fails};
use crate::call::Call;
use crate::rule::{Sentence, StreamCheck};
use crate::scene::{Pair, Scene, write};
use crate::source::Mode::{Blocking, Nonblocking};

sentences! {
    steps StreamCheck;

    "2.2" "The device end starts in non-blocking mode; the application end and both ends of a \
        pair start in blocking mode." {
        an_end_starts_in_its_mode: { starts };
    }

    "2.2" "Each end has its own mode, and changing it never affects what the other end sees." {
        a_mode_change_does_not_reach_a_blocked_peer: [[
            SetMode(Near, Blocking), SetMode(Far, Blocking), BlockedRead(Far),
            Repeat(2, &[SetMode(Near, Nonblocking), SetMode(Near, Blocking)]),
            SetMode(Near, Nonblocking), StillBlocked, Write(Near, 1), Returned(ONE),
        ]];
        a_mode_change_is_no_event_for_the_peer: [[
            Watch(Far, In), Repeat(2, &[SetMode(Near, Blocking), NoEdge(Far, In),
            Unready(Far, In), SetMode(Near, Nonblocking), NoEdge(Far, In), Unready(Far, In)]),
        ]];
        a_mode_change_keeps_the_peers_mode: [[
            SetMode(Near, Blocking), Read(Far, WOULD_BLOCK), Write(Near, 1), Read(Far, ONE),
            Read(Far, WOULD_BLOCK),
        ]];
    }
}

fn starts(scene: &Scene<'_>) -> Verdict {
    let Pair { mut near, mut far } = scene.fresh()?;
    match scene.near_mode() {
        Nonblocking => {
            let reading = Call::start(move || near.read(&mut [0]))?;
            let read = scene.returned(reading)?;
            fails(
                "a first read of an empty stream",
                read,
                ErrorKind::WouldBlock,
            )
        }
        Blocking => {
            let reading = scene.blocked(near, |near| near.read(&mut [0]))?;
            write(&mut far, b"x")?;
            count("the read", scene.returned(reading)?.1, 1)
        }
    }
}
