// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

use std::io::{ErrorKind, Read, Write};

use crate::breach::{RuleBreach, Verdict, count, fails};
use crate::pattern::Pattern;
use crate::rule::{Sentence, StreamCheck};
use crate::scene::{Pair, Scene, read_expecting, write};
use crate::source::CapacityPromise;

sentences! {
    steps StreamCheck;

    "2.7" "In non-blocking mode, an operation that cannot make progress returns `WouldBlock`." {
        a_read_of_nothing_would_block: [[
            Repeat(3, &[Read(Near, WOULD_BLOCK)]), Write(Far, 1), Read(Near, ONE),
            Read(Near, WOULD_BLOCK),
        ]];
        a_write_into_a_full_direction_would_block: { full };
    }

    "2.7" "A partial write returns the number of bytes that were accepted." {
        a_partial_write_returns_its_count: { partial };
    }

    "2.8" "Each direction holds at most its capacity. When it is full, a write blocks, times out \
        or returns `WouldBlock`." {
        a_direction_holds_exactly_its_capacity: { exact };
        a_full_direction_blocks_its_writer: [[
            Fill(Near), SetMode(Near, Blocking), BlockedWrite(Near), Drain(Far), Returned(ONE),
        ]];
        a_full_direction_leaves_the_other_free: [[
            Fill(Near), Write(Far, 1000), Drain(Near), Read(Near, WOULD_BLOCK),
        ]];
    }

    "2.8" "If the capacity is `Unbounded`, a write never blocks." {
        an_unbounded_direction_never_refuses: { unbounded };
    }
}

fn full(scene: &Scene<'_>) -> Verdict {
    let Pair { mut near, far } = scene.nonblocking()?;
    scene.fill(&mut near)?;
    for len in [1, 10, 100_000] {
        let written = near.write(&vec![0; len]);
        fails(
            "a write to a full direction",
            written,
            ErrorKind::WouldBlock,
        )?;
    }
    drop(far);
    Ok(())
}

fn partial(scene: &Scene<'_>) -> Verdict {
    let capacity = scene.capacity()?;
    let Pair { mut near, mut far } = scene.nonblocking()?;
    let bytes = Pattern::default().take(capacity * 2);
    let written = near.write(&bytes);
    count("a write of twice the capacity", written, capacity)?;
    read_expecting(&mut far, &bytes[..capacity])?;
    let read = far.read(&mut [0]);
    fails(
        "a read after the counted bytes",
        read,
        ErrorKind::WouldBlock,
    )
}

fn exact(scene: &Scene<'_>) -> Verdict {
    let capacity = scene.capacity()?;
    for piece in [1, 13, capacity / 2 + 1, capacity] {
        let Pair { mut near, mut far } = scene.nonblocking()?;
        let bytes = Pattern::default().take(capacity);
        // Once from the start, and once from a third of the way, so that a ring buffer wraps.
        for _ in 0..2 {
            for chunk in bytes.chunks(piece) {
                write(&mut near, chunk)?;
            }
            let written = near.write(b"x");
            fails(
                "a write beyond the capacity",
                written,
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

fn unbounded(scene: &Scene<'_>) -> Verdict {
    if scene.promise() != CapacityPromise::Unbounded {
        return Err(RuleBreach::Inapplicable("the direction is bounded"));
    }
    let Pair { mut near, mut far } = scene.nonblocking()?;
    let chunk = Pattern::default().take(1 << 20);
    for _ in 0..16 {
        write(&mut near, &chunk)?;
    }
    for _ in 0..16 {
        read_expecting(&mut far, &chunk)?;
    }
    let read = far.read(&mut [0]);
    fails("a read after the last byte", read, ErrorKind::WouldBlock)
}
