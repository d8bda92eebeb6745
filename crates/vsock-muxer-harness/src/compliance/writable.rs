// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

use std::io::{ErrorKind, Read, Write};
use std::net::Shutdown;

use super::StreamRule;
use super::scene::{Pair, Scene, drain, edge, writable, write, write_edges};
use super::verdict::{Verdict, count, fails, hold};
use crate::model::refusal_threshold;
use crate::pattern::Pattern;
use crate::source::Stream;

const EXACTLY: &str = "`write_ready_fd()`, polled for `EPOLLOUT`, is ready exactly when a non-blocking \
                       write would not return `WouldBlock`.";
const ALSO: &str = "So also after the peer's drop or `shutdown(Read)`, and after one's own \
                    `shutdown(Write)`. Each such change is a new edge.";
const REFUSED: &str = "After a refused write, space counts again only when min(capacity / 4, 64 KiB) is \
                       free: write, fd and blocked writers agree on it.";
const WHENEVER: &str = "Readiness holds whenever the fd is first taken.";

/// The rules of this section.
pub(super) fn rules() -> Vec<StreamRule> {
    vec![
        StreamRule::new(
            "3.4",
            EXACTLY,
            "the_write_fd_is_ready_exactly_while_there_is_space",
            space,
        ),
        StreamRule::new(
            "3.4",
            EXACTLY,
            "the_write_fd_ignores_the_other_direction",
            other_direction,
        ),
        StreamRule::new(
            "3.4",
            EXACTLY,
            "any_space_counts_before_a_refusal",
            before_refusal,
        ),
        StreamRule::new("3.4", ALSO, "new_space_is_an_edge", space_edges),
        StreamRule::new(
            "3.4",
            ALSO,
            "an_end_makes_the_write_fd_ready_with_an_edge",
            ends,
        ),
        StreamRule::new(
            "3.4",
            REFUSED,
            "write_and_fd_agree_on_the_space_after_a_refusal",
            refused,
        ),
        StreamRule::new(
            "3.4",
            REFUSED,
            "a_blocked_writer_waits_for_the_space_of_the_fd",
            blocked_writer,
        ),
        StreamRule::new(
            "3.3",
            WHENEVER,
            "the_write_fd_may_be_taken_when_full",
            taken_full,
        ),
        StreamRule::new(
            "3.3",
            WHENEVER,
            "the_write_fd_may_be_taken_after_an_end",
            taken_ended,
        ),
    ]
}

fn space(scene: &Scene<'_>) -> Verdict {
    let Pair { mut near, mut far } = scene.nonblocking()?;
    writable(&near, true, "at the start")?;
    for _ in 0..3 {
        write(&mut near, b"x")?;
        drain(&mut far)?;
        writable(&near, true, "with everything read")?;
        scene.fill(&mut near)?;
        writable(&near, false, "when full")?;
        fails("a write when full", near.write(b"x"), ErrorKind::WouldBlock)?;
        drain(&mut far)?;
        writable(&near, true, "after everything was read")?;
    }
    Ok(())
}

fn other_direction(scene: &Scene<'_>) -> Verdict {
    let Pair { mut near, mut far } = scene.nonblocking()?;
    writable(&near, true, "at the start")?;
    write(&mut far, b"x")?;
    writable(&near, true, "with a byte to read")?;
    scene.fill(&mut near)?;
    write(
        &mut far,
        &Pattern::default().take(scene.turned().some(2) - 1),
    )?;
    writable(&near, false, "when full, with bytes to read")?;
    drain(&mut near)?;
    writable(&near, false, "when full, with nothing to read")?;
    far.shutdown(Shutdown::Write)?;
    writable(
        &near,
        false,
        "when full, after the peer's shutdown of Write",
    )
}

fn before_refusal(scene: &Scene<'_>) -> Verdict {
    let capacity = scene.capacity_out()?;
    let Pair { mut near, mut far } = scene.nonblocking()?;
    write(&mut near, &Pattern::default().take(capacity))?;
    writable(&near, false, "when exactly full")?;
    count("a read of one byte", far.read(&mut [0]), 1)?;
    writable(&near, true, "with one byte free, none refused")?;
    write(&mut near, b"x")?;
    writable(&near, false, "when exactly full again")
}

fn space_edges(scene: &Scene<'_>) -> Verdict {
    let Pair { mut near, mut far } = scene.nonblocking()?;
    let mut edges = write_edges(&*near)?;
    for _ in 0..5 {
        scene.fill(&mut near)?;
        edges.now()?;
        drain(&mut far)?;
        edge(&mut edges, "after everything was read")?;
    }
    Ok(())
}

fn ends(scene: &Scene<'_>) -> Verdict {
    type End = fn(&mut Stream, Stream) -> std::io::Result<Option<Stream>>;
    // A half that leaves bytes unread does not know that the other one has ended.
    let behind_an_end = if scene.halves() {
        ErrorKind::ConnectionReset
    } else {
        ErrorKind::BrokenPipe
    };
    let ends: [(&str, ErrorKind, End); 4] = [
        ("the peer's drop", ErrorKind::ConnectionReset, |_, far| {
            drop(far); // with bytes unread
            Ok(None)
        }),
        (
            "the peer's drop behind its shutdown of Write",
            behind_an_end,
            |_, mut far| far.shutdown(Shutdown::Write).map(|()| None),
        ),
        (
            "the peer's shutdown of Read",
            ErrorKind::BrokenPipe,
            |_, mut far| far.shutdown(Shutdown::Read).map(|()| Some(far)),
        ),
        (
            "its own shutdown of Write",
            ErrorKind::BrokenPipe,
            |near, far| near.shutdown(Shutdown::Write).map(|()| Some(far)),
        ),
    ];
    for (what, kind, end) in ends {
        let Pair { mut near, far } = scene.nonblocking()?;
        scene.fill(&mut near)?;
        writable(&near, false, "when full")?;
        let mut edges = write_edges(&*near)?;
        let _far = end(&mut near, far)?;
        edge(&mut edges, &format!("after {what}"))?;
        writable(&near, true, &format!("after {what}"))?;
        fails(format!("a write after {what}"), near.write(b"x"), kind)?;
        writable(&near, true, &format!("after {what} was reported"))?;
    }
    Ok(())
}

fn refused(scene: &Scene<'_>) -> Verdict {
    let capacity = scene.capacity_out()?;
    let threshold = refusal_threshold(capacity);
    let Pair { mut near, mut far } = scene.nonblocking()?;
    scene.fill(&mut near)?;
    let mut edges = write_edges(&*near)?;
    let mut free = 0;
    while free + 1 < threshold {
        let step = (threshold - 1 - free).min(threshold.div_ceil(3));
        far.read_exact(&mut vec![0; step])?;
        free += step;
        writable(
            &near,
            false,
            &format!("with {free} of {threshold} bytes free after a refusal"),
        )?;
        fails(
            "a write below the threshold",
            near.write(b"x"),
            ErrorKind::WouldBlock,
        )?;
        hold(
            edges.now()?.is_none(),
            "there is an edge below the threshold",
        )?;
    }
    count("a read of one byte", far.read(&mut [0]), 1)?;
    edge(&mut edges, "at the threshold")?;
    writable(&near, true, "at the threshold")?;
    write(&mut near, &Pattern::default().take(threshold))
}

fn blocked_writer(scene: &Scene<'_>) -> Verdict {
    let capacity = scene.capacity_out()?;
    let threshold = refusal_threshold(capacity);
    let Pair { mut near, mut far } = scene.nonblocking()?;
    scene.fill(&mut near)?;
    near.set_nonblocking(false)?;
    let writing = scene.blocked(near, |near| near.write(b"x"))?;
    far.read_exact(&mut vec![0; threshold - 1])?;
    writing.asleep(scene.deadline()).map_err(|why| {
        super::Failure::Violated(format!("a writer did not wait for the threshold: {why}"))
    })?;
    count("a read of one byte", far.read(&mut [0]), 1)?;
    count("the blocked write", scene.returned(writing)?.1, 1)
}

fn taken_full(scene: &Scene<'_>) -> Verdict {
    let Pair { mut near, mut far } = scene.nonblocking()?;
    scene.fill(&mut near)?;
    let mut edges = write_edges(&*near)?;
    writable(&near, false, "when first taken full")?;
    drain(&mut far)?;
    edge(&mut edges, "after everything was read")?;
    writable(&near, true, "after everything was read")
}

fn taken_ended(scene: &Scene<'_>) -> Verdict {
    for full in [false, true] {
        let Pair { mut near, far } = scene.nonblocking()?;
        if full {
            scene.fill(&mut near)?;
        }
        drop(far);
        writable(&near, true, "when first taken after the peer's drop")?;
        let Pair {
            mut near,
            far: mut shut,
        } = scene.nonblocking()?;
        if full {
            scene.fill(&mut near)?;
        }
        shut.shutdown(Shutdown::Read)?;
        writable(
            &near,
            true,
            "when first taken after the peer's shutdown of Read",
        )?;
    }
    Ok(())
}
