// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

use std::io::{IoSlice, IoSliceMut, Read, Write};
use std::net::Shutdown;

use super::StreamRule;
use super::scene::{Pair, Scene, no_edge, read_edges, readable, write};
use super::verdict::{Failure, Verdict, count};
use crate::call::Call;
use crate::source::Stream;

const EMPTY: &str = "Zero-length reads and writes, and vectored ones whose buffers are all empty, \
                     return `Ok(0)`, transfer nothing, wake nobody, also after a shutdown or a reset.";

/// The rules of this section.
pub(super) fn rules() -> Vec<StreamRule> {
    vec![
        StreamRule::new("2.4", EMPTY, "an_empty_call_returns_zero_at_once", at_once),
        StreamRule::new(
            "2.4",
            EMPTY,
            "an_empty_call_returns_zero_when_full",
            when_full,
        ),
        StreamRule::new("2.4", EMPTY, "an_empty_call_takes_nothing", takes_nothing),
        StreamRule::new("2.4", EMPTY, "an_empty_write_wakes_nobody", wakes_nobody),
        StreamRule::new(
            "2.4",
            EMPTY,
            "an_empty_call_returns_zero_after_a_shutdown",
            after_shutdown,
        ),
        StreamRule::new(
            "2.4",
            EMPTY,
            "an_empty_call_returns_zero_after_a_reset",
            after_reset,
        ),
    ]
}

/// Every write that transfers nothing.
fn empty_writes(stream: &mut Stream, when: &str) -> Verdict {
    count(format!("an empty write {when}"), stream.write(&[]), 0)?;
    let buffers = [IoSlice::new(&[]), IoSlice::new(&[])];
    count(
        format!("a write of empty buffers {when}"),
        stream.write_vectored(&buffers),
        0,
    )?;
    count(
        format!("a write of no buffers {when}"),
        stream.write_vectored(&[]),
        0,
    )
}

/// Every call that transfers nothing.
fn empty_calls(scene: &Scene<'_>, stream: &mut Stream, when: &str) -> Verdict {
    empty_writes(stream, when)?;
    count(format!("an empty read {when}"), stream.read(&mut []), 0)?;
    let mut buffers = [IoSliceMut::new(&mut []), IoSliceMut::new(&mut [])];
    count(
        format!("a read into empty buffers {when}"),
        stream.read_vectored(&mut buffers),
        0,
    )?;
    count(
        format!("a read into no buffers {when}"),
        stream.read_vectored(&mut []),
        0,
    )?;
    match scene.peek(stream, &mut []) {
        Some(seen) => count(format!("an empty peek {when}"), seen, 0),
        None => Ok(()),
    }
}

fn at_once(scene: &Scene<'_>) -> Verdict {
    let Pair { mut near, far } = scene.nonblocking()?;
    empty_calls(scene, &mut near, "on an idle connection")?;
    near.set_nonblocking(false)?;
    let calls = Call::start(move || (near.read(&mut []), near.write(&[])))?;
    let (read, written) = scene.returned(calls)?;
    count("a blocking empty read", read, 0)?;
    count("a blocking empty write", written, 0)?;
    drop(far);
    Ok(())
}

fn when_full(scene: &Scene<'_>) -> Verdict {
    let Pair { mut near, far } = scene.nonblocking()?;
    scene.fill(&mut near)?;
    empty_calls(scene, &mut near, "with the outgoing direction full")?;
    drop(far);
    Ok(())
}

fn takes_nothing(scene: &Scene<'_>) -> Verdict {
    let Pair { mut near, mut far } = scene.nonblocking()?;
    write(&mut near, b"x")?;
    empty_calls(scene, &mut far, "with a byte queued")?;
    empty_calls(scene, &mut near, "with a byte sent")?;
    count("a read of all that was written", far.read(&mut [0; 8]), 1)
}

fn wakes_nobody(scene: &Scene<'_>) -> Verdict {
    let Pair { mut near, mut far } = scene.nonblocking()?;
    let mut edges = read_edges(&*far)?;
    empty_writes(&mut near, "on an idle connection")?;
    no_edge(&mut edges, "after the peer's empty writes")?;
    readable(&far, false, "after the peer's empty writes")?;

    far.set_nonblocking(false)?;
    let reading = scene.blocked(far, |far| far.read(&mut [0; 8]))?;
    empty_writes(&mut near, "with the peer waiting")?;
    reading
        .asleep(scene.deadline())
        .map_err(|why| Failure::Violated(format!("an empty write woke the peer: {why}")))?;
    write(&mut near, b"x")?;
    count("the read", scene.returned(reading)?.1, 1)
}

fn after_shutdown(scene: &Scene<'_>) -> Verdict {
    for how in [Shutdown::Read, Shutdown::Write, Shutdown::Both] {
        let Pair { mut near, mut far } = scene.nonblocking()?;
        near.shutdown(how)?;
        empty_calls(
            scene,
            &mut near,
            &format!("after its own shutdown({how:?})"),
        )?;
        empty_calls(
            scene,
            &mut far,
            &format!("after the peer's shutdown({how:?})"),
        )?;
    }
    Ok(())
}

fn after_reset(scene: &Scene<'_>) -> Verdict {
    let Pair { mut near, far } = scene.nonblocking()?;
    far.abort();
    empty_calls(scene, &mut near, "after the peer's abort")?;
    let _reset = near.read(&mut [0]);
    empty_calls(scene, &mut near, "after a reset was reported")
}
