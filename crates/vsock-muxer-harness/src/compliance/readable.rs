// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

use std::io::{ErrorKind, Read};
use std::net::Shutdown;

use super::StreamRule;
use super::scene::{Pair, Scene, drain, readable, write};
use super::verdict::{Verdict, count, fails};
use crate::pattern::Pattern;
use crate::source::{Mode, Stream};

const EXACTLY: &str =
    "At rest the fd is readable exactly when a read would not return `WouldBlock`.";
const LEVEL: &str = "A level-triggered loop never spins and never misses; after a read that took \
                     everything the fd is not readable.";
const WHENEVER: &str = "Readiness holds whenever the fd is first taken: before or after data, before \
                        or after the peer's drop.";

/// The rules of this section.
pub(super) fn rules() -> Vec<StreamRule> {
    vec![
        StreamRule::new(
            "3.1",
            EXACTLY,
            "the_fd_is_readable_exactly_while_bytes_wait",
            bytes_wait,
        ),
        StreamRule::new(
            "3.1",
            EXACTLY,
            "the_fd_is_readable_after_the_peers_end",
            peers_end,
        ),
        StreamRule::new("3.1", EXACTLY, "the_fd_stays_readable_after_a_reset", reset),
        StreamRule::new(
            "3.1",
            EXACTLY,
            "the_fd_is_readable_after_its_own_shutdown",
            own_shutdown,
        ),
        StreamRule::new(
            "3.1",
            EXACTLY,
            "the_fd_ignores_what_does_not_concern_reading",
            unconcerned,
        ),
        StreamRule::new(
            "3.1",
            LEVEL,
            "a_level_triggered_loop_does_not_spin",
            no_spin,
        ),
        StreamRule::new(
            "3.1",
            LEVEL,
            "the_fd_tells_the_truth_in_blocking_mode",
            blocking_mode,
        ),
        StreamRule::new(
            "3.3",
            WHENEVER,
            "the_fd_may_be_taken_after_data",
            after_data,
        ),
        StreamRule::new(
            "3.3",
            WHENEVER,
            "the_fd_may_be_taken_after_everything_was_read",
            after_drain,
        ),
        StreamRule::new(
            "3.3",
            WHENEVER,
            "the_fd_may_be_taken_after_an_end",
            after_end,
        ),
    ]
}

fn bytes_wait(scene: &Scene<'_>) -> Verdict {
    let Pair { mut near, mut far } = scene.nonblocking()?;
    let size = scene.some(10);
    readable(&far, false, "before anything was written")?;
    for _ in 0..5 {
        write(&mut near, &Pattern::default().take(size))?;
        for left in (1..=size).rev() {
            readable(&far, true, &format!("with {left} bytes queued"))?;
            count("a read of one byte", far.read(&mut [0]), 1)?;
        }
        readable(&far, false, "after the last byte was read")?;
        fails(
            "a read of nothing",
            far.read(&mut [0]),
            ErrorKind::WouldBlock,
        )?;
        readable(&far, false, "after a read that would block")?;
    }
    Ok(())
}

fn peers_end(scene: &Scene<'_>) -> Verdict {
    let Pair { mut near, mut far } = scene.nonblocking()?;
    readable(&far, false, "before the peer's shutdown")?;
    write(&mut near, b"x")?;
    near.shutdown(Shutdown::Write)?;
    readable(&far, true, "with a byte before the end")?;
    count("a read of the last byte", far.read(&mut [0; 8]), 1)?;
    for _ in 0..3 {
        readable(&far, true, "after the peer's shutdown")?;
        count("a read after the end", far.read(&mut [0]), 0)?;
    }
    Ok(())
}

fn reset(scene: &Scene<'_>) -> Verdict {
    let Pair { mut near, mut far } = scene.nonblocking()?;
    readable(&far, false, "before the peer's reset")?;
    write(&mut near, b"x")?;
    near.abort();
    readable(&far, true, "with a byte before the reset")?;
    count("a read of the last byte", far.read(&mut [0; 8]), 1)?;
    for _ in 0..3 {
        readable(&far, true, "after a reset")?;
        fails(
            "a read after a reset",
            far.read(&mut [0]),
            ErrorKind::ConnectionReset,
        )?;
    }
    Ok(())
}

fn own_shutdown(scene: &Scene<'_>) -> Verdict {
    for how in [Shutdown::Read, Shutdown::Both] {
        let Pair { mut near, far } = scene.nonblocking()?;
        readable(&near, false, "before its own shutdown")?;
        near.shutdown(how)?;
        for _ in 0..3 {
            readable(&near, true, "after its own shutdown of Read")?;
            count("a read after its own shutdown", near.read(&mut [0]), 0)?;
        }
        drop(far);
    }
    Ok(())
}

fn unconcerned(scene: &Scene<'_>) -> Verdict {
    let Pair { mut near, mut far } = scene.nonblocking()?;
    readable(&near, false, "at the start")?;
    write(&mut near, b"x")?;
    readable(&near, false, "after its own write")?;
    count("the peer's read", far.read(&mut [0]), 1)?;
    readable(&near, false, "after the peer's read")?;
    near.shutdown(Shutdown::Write)?;
    readable(&near, false, "after its own shutdown of Write")?;
    far.shutdown(Shutdown::Read)?;
    readable(&near, false, "after the peer's shutdown of Read")
}

fn no_spin(scene: &Scene<'_>) -> Verdict {
    let Pair { mut near, mut far } = scene.nonblocking()?;
    readable(&far, false, "at the start")?;
    for _ in 0..50 {
        write(&mut near, &Pattern::default().take(scene.some(100)))?;
        readable(&far, true, "with bytes queued")?;
        drain(&mut far)?;
        for _ in 0..3 {
            readable(&far, false, "after everything was read")?;
        }
    }
    Ok(())
}

fn blocking_mode(scene: &Scene<'_>) -> Verdict {
    let Pair { mut near, mut far } = scene.pair(Mode::Blocking, Mode::Blocking)?;
    readable(&far, false, "at the start")?;
    write(&mut near, b"x")?;
    readable(&far, true, "with a byte queued")?;
    count("a blocking read", far.read(&mut [0; 8]), 1)?;
    readable(&far, false, "after everything was read")?;
    let reading = scene.blocked(far, |far| far.read(&mut [0; 8]))?;
    write(&mut near, b"x")?;
    let (far, read) = scene.returned(reading)?;
    count("a read that waited", read, 1)?;
    readable(&far, false, "after a read that waited")
}

fn after_data(scene: &Scene<'_>) -> Verdict {
    let Pair { mut near, mut far } = scene.nonblocking()?;
    write(&mut near, &Pattern::default().take(scene.some(10)))?;
    readable(&far, true, "when first taken with bytes queued")?;
    drain(&mut far)?;
    readable(&far, false, "after everything was read")
}

fn after_drain(scene: &Scene<'_>) -> Verdict {
    let Pair { mut near, mut far } = scene.nonblocking()?;
    write(&mut near, b"x")?;
    drain(&mut far)?;
    readable(&far, false, "when first taken after everything was read")?;
    write(&mut near, b"x")?;
    readable(&far, true, "after a byte was written")
}

fn after_end(scene: &Scene<'_>) -> Verdict {
    let ends: [fn(Stream); 2] = [drop, |mut near| {
        let _best_effort = near.shutdown(Shutdown::Write);
    }];
    for end in ends {
        for queued in [false, true] {
            let Pair { mut near, mut far } = scene.nonblocking()?;
            if queued {
                write(&mut near, b"x")?;
            }
            end(near);
            readable(&far, true, "when first taken after the peer's drop")?;
            if queued {
                count("a read of the last byte", far.read(&mut [0; 8]), 1)?;
            }
            readable(&far, true, "after the last byte before a drop")?;
        }
    }
    Ok(())
}
