// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

use std::io::{ErrorKind, Read, Write};
use std::net::Shutdown;

use crate::breach::{Verdict, count, fails};
use crate::pattern::Pattern;
use crate::poll::PollInterest::Write as Out;
use crate::rule::{Sentence, StreamCheck};
use crate::scene::{Pair, Scene, edge, edges, no_edge, ready, unready, write};
use crate::source::{BoxedStream, Ends, refusal_threshold};

sentences! {
    steps StreamCheck;

    "3.4" "`write_ready_fd()`, polled for `EPOLLOUT`, is ready exactly when a non-blocking write \
        would not return `WouldBlock`." {
        the_write_fd_is_ready_exactly_while_there_is_space: [[
            Ready(Near, Out), Repeat(3, &[Write(Near, 1), Drain(Far), Ready(Near, Out),
            Fill(Near), Unready(Near, Out), WriteReturns(Near, WOULD_BLOCK), Drain(Far),
            Ready(Near, Out)]),
        ]];
        the_write_fd_ignores_the_other_direction: [[
            Ready(Near, Out), Write(Far, 1), Ready(Near, Out), Fill(Near), Unready(Near, Out),
            Drain(Near), Write(Far, 2), Unready(Near, Out), Drain(Near), Unready(Near, Out),
            Shutdown(Far, Shut::Write), Unready(Near, Out),
        ]];
        any_space_counts_before_a_refusal: { before_refusal };
    }

    "3.4" "This also holds after the peer's drop or `shutdown(Read)`, and after the end's own \
        `shutdown(Write)`. Each of these changes causes a new edge." {
        new_space_is_an_edge: [[
            Watch(Near, Out), Repeat(5, &[Fill(Near), Watch(Near, Out), Drain(Far),
            Edge(Near, Out)]),
        ]];
        an_end_makes_the_write_fd_ready_with_an_edge: { ends };
    }

    "3.4" "After a refused write, there is space again only when min(capacity / 4, 64 KiB) is \
        free. Writes, the descriptor and blocked writers agree on this." {
        write_and_fd_agree_on_the_space_after_a_refusal: { refused };
        a_blocked_writer_waits_for_the_space_of_the_fd: { blocked_writer };
    }

    "3.3" "Readiness is correct no matter when the descriptor is first obtained." {
        the_write_fd_may_be_taken_when_full: [[
            Fill(Near), Watch(Near, Out), Unready(Near, Out), Drain(Far), Edge(Near, Out),
            Ready(Near, Out),
        ]];
        the_write_fd_may_be_taken_after_an_end: [
            [Drop(Far), Ready(Near, Out)],
            [Shutdown(Far, Shut::Read), Ready(Near, Out)],
            [Fill(Near), Drop(Far), Ready(Near, Out)],
            [Fill(Near), Shutdown(Far, Shut::Read), Ready(Near, Out)],
        ];
    }
}

fn before_refusal(scene: &Scene<'_>) -> Verdict {
    let capacity = scene.capacity()?;
    let Pair { mut near, mut far } = scene.nonblocking()?;
    write(&mut near, &Pattern::default().take(capacity))?;
    unready(&near, Out, "when exactly full")?;
    count("a read of one byte", far.read(&mut [0]), 1)?;
    ready(&near, Out, "with one byte free and no refused write")?;
    write(&mut near, b"x")?;
    unready(&near, Out, "when exactly full again")
}

fn ends(scene: &Scene<'_>) -> Verdict {
    type End = fn(&mut BoxedStream, BoxedStream) -> std::io::Result<Option<BoxedStream>>;
    // A half with unread bytes does not know that the other half has ended.
    let after_an_end = match scene.ends() {
        Ends::Halves => ErrorKind::ConnectionReset,
        Ends::Whole => ErrorKind::BrokenPipe,
    };
    let ends: [(&str, ErrorKind, End); 4] = [
        ("the peer's drop", ErrorKind::ConnectionReset, |_, far| {
            drop(far); // with bytes unread
            Ok(None)
        }),
        (
            "the peer's drop after its shutdown of Write",
            after_an_end,
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
        unready(&near, Out, "when full")?;
        let mut watch = edges(&*near, Out)?;
        let _far = end(&mut near, far)?;
        edge(&mut watch, &format!("after {what}"))?;
        ready(&near, Out, &format!("after {what}"))?;
        fails(format!("a write after {what}"), near.write(b"x"), kind)?;
        ready(&near, Out, &format!("after {what} was reported"))?;
    }
    Ok(())
}

fn refused(scene: &Scene<'_>) -> Verdict {
    let threshold = refusal_threshold(scene.capacity()?);
    let Pair { mut near, mut far } = scene.nonblocking()?;
    scene.fill(&mut near)?;
    let mut watch = edges(&*near, Out)?;
    let mut free = 0;
    while free + 1 < threshold {
        let step = (threshold - 1 - free).min(threshold.div_ceil(3));
        far.read_exact(&mut vec![0; step])?;
        free += step;
        let when = format!("with {free} of {threshold} bytes free after a refusal");
        unready(&near, Out, &when)?;
        let written = near.write(b"x");
        fails(format!("a write {when}"), written, ErrorKind::WouldBlock)?;
        no_edge(&mut watch, &when)?;
    }
    count("a read of one byte", far.read(&mut [0]), 1)?;
    edge(&mut watch, "at the threshold")?;
    ready(&near, Out, "at the threshold")?;
    write(&mut near, &Pattern::default().take(threshold))
}

fn blocked_writer(scene: &Scene<'_>) -> Verdict {
    let threshold = refusal_threshold(scene.capacity()?);
    let Pair { mut near, mut far } = scene.nonblocking()?;
    scene.fill(&mut near)?;
    near.set_nonblocking(false)?;
    let writing = scene.blocked(near, |near| near.write(b"x"))?;
    far.read_exact(&mut vec![0; threshold - 1])?;
    scene.asleep(&writing)?;
    count("a read of one byte", far.read(&mut [0]), 1)?;
    count("the blocked write", scene.returned(writing)?.1, 1)
}
