// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

use std::io::{ErrorKind, Read, Write};
use std::net::Shutdown;

use super::StreamRule;
use super::scene::{Pair, Scene, drain, write};
use super::verdict::{Failure, Verdict, count, fails};
use crate::call::Call;

const RETRIES: &str = "Blocking calls retry on interruption.";
const READ_ENDS: &str = "A blocked read ends when its incoming direction ends.";
const WRITE_ENDS: &str = "A blocked write ends when its outgoing direction ends.";
/// The rules of this section.
pub(super) fn rules() -> Vec<StreamRule> {
    vec![
        StreamRule::new(
            "2.5",
            RETRIES,
            "an_interruption_does_not_end_a_read",
            read_interrupted,
        ),
        StreamRule::new(
            "2.5",
            RETRIES,
            "an_interruption_does_not_end_a_write",
            write_interrupted,
        ),
        StreamRule::new(
            "2.5",
            READ_ENDS,
            "a_blocked_read_ends_with_a_shutdown",
            read_shutdown,
        ),
        StreamRule::new(
            "2.5",
            READ_ENDS,
            "a_blocked_read_ends_with_a_drop",
            read_drop,
        ),
        StreamRule::new(
            "2.5",
            READ_ENDS,
            "a_blocked_read_ends_with_an_abort",
            read_abort,
        ),
        StreamRule::new(
            "2.5",
            WRITE_ENDS,
            "a_blocked_write_ends_with_a_shutdown",
            write_shutdown,
        ),
        StreamRule::new(
            "2.5",
            WRITE_ENDS,
            "a_blocked_write_ends_with_a_drop",
            write_drop,
        ),
    ]
}

/// How often a call is interrupted.
const INTERRUPTIONS: usize = 20;

fn interrupt<T: Send + 'static>(scene: &Scene<'_>, call: &Call<T>) -> Verdict {
    for _ in 0..INTERRUPTIONS {
        call.interrupt()?;
        call.asleep(scene.deadline())
            .map_err(|why| Failure::Violated(format!("an interruption ended a call: {why}")))?;
    }
    Ok(())
}

fn read_interrupted(scene: &Scene<'_>) -> Verdict {
    let Pair { near, mut far } = scene.blocking()?;
    let reading = scene.blocked(near, |near| near.read(&mut [0; 8]))?;
    interrupt(scene, &reading)?;
    write(&mut far, b"x")?;
    count("the read", scene.returned(reading)?.1, 1)
}

fn write_interrupted(scene: &Scene<'_>) -> Verdict {
    let Pair { mut near, mut far } = scene.nonblocking()?;
    scene.fill(&mut near)?;
    near.set_nonblocking(false)?;
    let writing = scene.blocked(near, |near| near.write(b"x"))?;
    interrupt(scene, &writing)?;
    drain(&mut far)?;
    count("the write", scene.returned(writing)?.1, 1)
}

fn read_shutdown(scene: &Scene<'_>) -> Verdict {
    let Pair { near, mut far } = scene.blocking()?;
    let reading = scene.blocked(near, |near| near.read(&mut [0; 8]))?;
    far.shutdown(Shutdown::Write)?;
    count("the blocked read", scene.returned(reading)?.1, 0)
}

fn read_drop(scene: &Scene<'_>) -> Verdict {
    let Pair { near, far } = scene.blocking()?;
    let reading = scene.blocked(near, |near| near.read(&mut [0; 8]))?;
    drop(far);
    count("the blocked read", scene.returned(reading)?.1, 0)
}

fn read_abort(scene: &Scene<'_>) -> Verdict {
    let Pair { near, far } = scene.blocking()?;
    let reading = scene.blocked(near, |near| near.read(&mut [0; 8]))?;
    far.abort();
    fails(
        "the blocked read",
        scene.returned(reading)?.1,
        ErrorKind::ConnectionReset,
    )
}

fn write_shutdown(scene: &Scene<'_>) -> Verdict {
    let Pair { mut near, mut far } = scene.nonblocking()?;
    scene.fill(&mut near)?;
    near.set_nonblocking(false)?;
    let writing = scene.blocked(near, |near| near.write(b"x"))?;
    far.shutdown(Shutdown::Read)?;
    fails(
        "the blocked write",
        scene.returned(writing)?.1,
        ErrorKind::BrokenPipe,
    )
}

fn write_drop(scene: &Scene<'_>) -> Verdict {
    let Pair { mut near, far } = scene.nonblocking()?;
    scene.fill(&mut near)?;
    near.set_nonblocking(false)?;
    let writing = scene.blocked(near, |near| near.write(b"x"))?;
    drop(far);
    fails(
        "the blocked write",
        scene.returned(writing)?.1,
        ErrorKind::ConnectionReset,
    )
}
