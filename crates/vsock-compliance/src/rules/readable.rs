// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

use std::io::{ErrorKind, Read};

use crate::breach::{Verdict, count, fails};
use crate::pattern::Pattern;
use crate::poll::PollInterest::Read as In;
use crate::rule::{Sentence, StreamCheck};
use crate::scene::{Pair, Scene, ready, unready, write};

sentences! {
    steps StreamCheck;

    "3.1" "At rest, the descriptor is readable exactly when a read would not return `WouldBlock`." {
        the_fd_is_readable_exactly_while_bytes_wait: { bytes_wait };
        the_fd_is_readable_after_the_peers_end: [[
            Unready(Far, In), Write(Near, 1), Shutdown(Near, Shut::Write), Ready(Far, In),
            Read(Far, ONE), Repeat(3, &[Ready(Far, In), Read(Far, END)]),
        ]];
        the_fd_stays_readable_after_a_reset: [[
            Unready(Far, In), Write(Near, 1), Abort(Near), Ready(Far, In), Read(Far, ONE),
            Repeat(3, &[Ready(Far, In), Read(Far, RESET)]),
        ]];
        the_fd_is_readable_after_its_own_shutdown: [
            [Unready(Near, In), Shutdown(Near, Shut::Read), Repeat(3, &[Ready(Near, In),
                Read(Near, END)])],
            [Unready(Near, In), Shutdown(Near, Shut::Both), Repeat(3, &[Ready(Near, In),
                Read(Near, END)])],
        ];
        the_fd_ignores_what_does_not_concern_reading: [[
            Unready(Near, In), Write(Near, 1), Unready(Near, In), Read(Far, ONE),
            Unready(Near, In), Shutdown(Near, Shut::Write), Unready(Near, In),
            Shutdown(Far, Shut::Read), Unready(Near, In),
        ]];
    }

    "3.1" "A level-triggered loop never spins and never misses an event: after a read that took \
        everything, the descriptor is not readable." {
        a_level_triggered_loop_does_not_spin: [[
            Unready(Far, In), Repeat(50, &[Write(Near, 100), Ready(Far, In), Drain(Far),
            Repeat(3, &[Unready(Far, In)])]),
        ]];
        the_fd_tells_the_truth_in_blocking_mode: [[
            SetMode(Near, Blocking), SetMode(Far, Blocking), Unready(Far, In), Write(Near, 1),
            Ready(Far, In), Read(Far, ONE), Unready(Far, In), BlockedRead(Far),
            Write(Near, 1), Returned(ONE), Unready(Far, In),
        ]];
    }

    "3.3" "Readiness is correct no matter when the descriptor is first obtained: before or after \
        data, before or after the peer's drop." {
        the_fd_may_be_taken_after_data: [[
            Write(Near, 10), Ready(Far, In), Drain(Far), Unready(Far, In),
        ]];
        the_fd_may_be_taken_after_everything_was_read: [[
            Write(Near, 1), Drain(Far), Unready(Far, In), Write(Near, 1), Ready(Far, In),
        ]];
        the_fd_may_be_taken_after_an_end: [
            [Drop(Near), Ready(Far, In), Ready(Far, In)],
            [Shutdown(Near, Shut::Write), Drop(Near), Ready(Far, In), Ready(Far, In)],
            [Write(Near, 1), Drop(Near), Ready(Far, In), Read(Far, ONE), Ready(Far, In)],
            [Write(Near, 1), Shutdown(Near, Shut::Write), Drop(Near), Ready(Far, In),
                Read(Far, ONE), Ready(Far, In)],
        ];
    }
}

fn bytes_wait(scene: &Scene<'_>) -> Verdict {
    let Pair { mut near, mut far } = scene.nonblocking()?;
    let size = scene.some(10);
    unready(&far, In, "before anything was written")?;
    for _ in 0..5 {
        write(&mut near, &Pattern::default().take(size))?;
        for left in (1..=size).rev() {
            ready(&far, In, &format!("with {left} bytes queued"))?;
            count("a read of one byte", far.read(&mut [0]), 1)?;
        }
        unready(&far, In, "after the last byte was read")?;
        let read = far.read(&mut [0]);
        fails("a read of an empty stream", read, ErrorKind::WouldBlock)?;
        unready(&far, In, "after a read that would block")?;
    }
    Ok(())
}
