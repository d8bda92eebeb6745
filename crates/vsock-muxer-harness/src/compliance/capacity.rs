// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

use std::io::{ErrorKind, Read, Write};

use super::StreamRule;
use super::scene::{Pair, Scene, read_expecting, write};
use super::verdict::{Failure, Verdict, count, fails};
use crate::pattern::Pattern;
use crate::source::Room;

const WOULD_BLOCK: &str =
    "In non-blocking mode an operation that cannot make progress is `WouldBlock`.";
const PARTIAL: &str = "A partial write returns its count.";
const BOUND: &str = "Each direction holds at most its capacity; the writer then blocks, times out or gets `WouldBlock`.";
const UNBOUNDED: &str = "`Unbounded` is a write that never waits.";

/// The rules of this section.
pub(super) fn rules() -> Vec<StreamRule> {
    vec![
        StreamRule::new("2.7", WOULD_BLOCK, "a_read_of_nothing_would_block", nothing),
        StreamRule::new(
            "2.7",
            WOULD_BLOCK,
            "a_write_into_a_full_direction_would_block",
            full,
        ),
        StreamRule::new("2.7", PARTIAL, "a_partial_write_returns_its_count", partial),
        StreamRule::new(
            "2.8",
            BOUND,
            "a_direction_holds_exactly_its_capacity",
            exact,
        ),
        StreamRule::new("2.8", BOUND, "a_full_direction_blocks_its_writer", blocks),
        StreamRule::new(
            "2.8",
            BOUND,
            "a_full_direction_leaves_the_other_free",
            other_is_free,
        ),
        StreamRule::new(
            "2.8",
            UNBOUNDED,
            "an_unbounded_direction_never_refuses",
            unbounded,
        ),
    ]
}

fn nothing(scene: &Scene<'_>) -> Verdict {
    let Pair { mut near, mut far } = scene.nonblocking()?;
    for _ in 0..3 {
        fails(
            "a read of nothing",
            near.read(&mut [0; 8]),
            ErrorKind::WouldBlock,
        )?;
    }
    write(&mut far, b"x")?;
    count("a read", near.read(&mut [0; 8]), 1)?;
    fails(
        "a read after all was read",
        near.read(&mut [0; 8]),
        ErrorKind::WouldBlock,
    )
}

fn full(scene: &Scene<'_>) -> Verdict {
    let Pair { mut near, far } = scene.nonblocking()?;
    scene.fill(&mut near)?;
    for len in [1, 10, 100_000] {
        fails(
            "a write when full",
            near.write(&vec![0; len]),
            ErrorKind::WouldBlock,
        )?;
    }
    drop(far);
    Ok(())
}

fn partial(scene: &Scene<'_>) -> Verdict {
    let capacity = scene.capacity_out()?;
    let Pair { mut near, mut far } = scene.nonblocking()?;
    let bytes = Pattern::default().take(capacity * 2);
    count(
        "a write of twice the capacity",
        near.write(&bytes),
        capacity,
    )?;
    read_expecting(&mut far, &bytes[..capacity])?;
    fails(
        "a read after the count",
        far.read(&mut [0]),
        ErrorKind::WouldBlock,
    )
}

fn exact(scene: &Scene<'_>) -> Verdict {
    let capacity = scene.capacity_out()?;
    for piece in [1, 13, capacity / 2 + 1, capacity] {
        let Pair { mut near, mut far } = scene.nonblocking()?;
        let bytes = Pattern::default().take(capacity);
        // Once from the start and once from the middle, where a ring wraps.
        for _ in 0..2 {
            for chunk in bytes.chunks(piece) {
                write(&mut near, chunk)?;
            }
            fails(
                "a write past the capacity",
                near.write(b"x"),
                ErrorKind::WouldBlock,
            )?;
            read_expecting(&mut far, &bytes)?;
            let shift = &bytes[..capacity / 3];
            near.write_all(shift)?;
            read_expecting(&mut far, shift)?;
        }
    }
    Ok(())
}

fn blocks(scene: &Scene<'_>) -> Verdict {
    let Pair { mut near, mut far } = scene.nonblocking()?;
    let full = scene.fill(&mut near)?;
    near.set_nonblocking(false)?;
    let writing = scene.blocked(near, |near| near.write(b"x"))?;
    let mut all = vec![0; full];
    far.read_exact(&mut all)?;
    let (_near, written) = scene.returned(writing)?;
    count("a blocked write", written, 1)
}

fn other_is_free(scene: &Scene<'_>) -> Verdict {
    let Pair { mut near, mut far } = scene.nonblocking()?;
    scene.fill(&mut near)?;
    let bytes = Pattern::default().take(scene.turned().some(1000));
    write(&mut far, &bytes)?;
    read_expecting(&mut near, &bytes)
}

fn unbounded(scene: &Scene<'_>) -> Verdict {
    if scene.room_out() != Room::Unbounded {
        return Err(Failure::Inapplicable("the direction is bounded"));
    }
    let Pair { mut near, mut far } = scene.nonblocking()?;
    let chunk = Pattern::default().take(1 << 20);
    for _ in 0..16 {
        write(&mut near, &chunk)?;
    }
    for _ in 0..16 {
        read_expecting(&mut far, &chunk)?;
    }
    fails(
        "a read after all was read",
        far.read(&mut [0]),
        ErrorKind::WouldBlock,
    )
}
