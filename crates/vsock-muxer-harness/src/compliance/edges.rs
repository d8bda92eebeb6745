// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

use std::io::Read;
use std::net::Shutdown;

use super::StreamRule;
use super::scene::{Pair, Scene, drain, edge, read_edges, write, write_edges};
use super::verdict::{Verdict, count, hold};
use crate::pattern::Pattern;
use crate::poll::{Interest, Watch};
use crate::source::Stream;

const EVERY_CHANGE: &str =
    "Every change from \"would block\" to \"would not block\" is a new edge.";
const DROP: &str = "The peer's drop is a fresh edge even where the fd was already readable, and \
                    `peer_gone()` tells.";
const NO_HUP: &str = "HUP is never reported.";
const WHENEVER: &str = "Both hold whenever the fd is first taken.";

/// The rules of this section.
pub(super) fn rules() -> Vec<StreamRule> {
    vec![
        StreamRule::new(
            "3.2",
            EVERY_CHANGE,
            "each_arrival_after_a_drain_is_an_edge",
            arrivals,
        ),
        StreamRule::new("3.2", EVERY_CHANGE, "an_end_is_an_edge", ends),
        StreamRule::new(
            "3.2",
            EVERY_CHANGE,
            "ones_own_shutdown_of_read_is_an_edge",
            own_shutdown,
        ),
        StreamRule::new(
            "3.2",
            DROP,
            "a_drop_is_an_edge_while_bytes_wait",
            drop_with_bytes,
        ),
        StreamRule::new(
            "3.2",
            DROP,
            "a_drop_is_an_edge_after_an_end",
            drop_after_end,
        ),
        StreamRule::new(
            "3.2",
            DROP,
            "a_drop_is_an_edge_after_ones_own_shutdown",
            drop_after_own,
        ),
        StreamRule::new("3.2", DROP, "only_a_drop_makes_the_peer_gone", peer_gone),
        StreamRule::new("3.2", NO_HUP, "hup_is_never_reported", no_hup),
        StreamRule::new(
            "3.3",
            WHENEVER,
            "registering_late_reports_what_is_there",
            late,
        ),
    ]
}

fn arrivals(scene: &Scene<'_>) -> Verdict {
    let Pair { mut near, mut far } = scene.nonblocking()?;
    let mut edges = read_edges(&*far)?;
    for size in [1, 2, 100, 1, 4096, 1] {
        write(&mut near, &Pattern::default().take(scene.some(size)))?;
        edge(&mut edges, "after a write into an empty direction")?;
        drain(&mut far)?;
    }
    Ok(())
}

fn ends(scene: &Scene<'_>) -> Verdict {
    let ends: [fn(&mut Stream) -> std::io::Result<()>; 2] = [
        |near| near.shutdown(Shutdown::Write),
        |near| near.shutdown(Shutdown::Both),
    ];
    for end in ends {
        let Pair { mut near, far } = scene.nonblocking()?;
        let mut edges = read_edges(&*far)?;
        end(&mut near)?;
        edge(&mut edges, "after the peer's shutdown")?;
    }
    let Pair { near, far } = scene.nonblocking()?;
    let mut edges = read_edges(&*far)?;
    drop(near);
    edge(&mut edges, "after the peer's drop")
}

fn own_shutdown(scene: &Scene<'_>) -> Verdict {
    let Pair { mut near, far } = scene.nonblocking()?;
    let mut edges = read_edges(&*near)?;
    near.shutdown(Shutdown::Read)?;
    edge(&mut edges, "after its own shutdown of Read")?;
    drop(far);
    Ok(())
}

fn dropped(near: Stream, far: &Stream, edges: &mut Watch, when: &str) -> Verdict {
    edges.now()?;
    hold(!far.peer_gone(), "the peer is gone before its drop")?;
    drop(near);
    edge(edges, &format!("after the peer's drop {when}"))?;
    hold(
        far.peer_gone(),
        format!("the peer is not gone after its drop {when}"),
    )
}

fn drop_with_bytes(scene: &Scene<'_>) -> Verdict {
    let Pair { mut near, far } = scene.nonblocking()?;
    let mut edges = read_edges(&*far)?;
    write(&mut near, b"x")?;
    dropped(near, &far, &mut edges, "with a byte queued")
}

fn drop_after_end(scene: &Scene<'_>) -> Verdict {
    for how in [Shutdown::Write, Shutdown::Both] {
        let Pair { mut near, mut far } = scene.nonblocking()?;
        let mut edges = read_edges(&*far)?;
        near.shutdown(how)?;
        count("a read of the end", far.read(&mut [0]), 0)?;
        dropped(near, &far, &mut edges, "with the end already read")?;
        count("a read after a clean end", far.read(&mut [0]), 0)?;
    }
    Ok(())
}

fn drop_after_own(scene: &Scene<'_>) -> Verdict {
    let Pair { near, mut far } = scene.nonblocking()?;
    let mut edges = read_edges(&*far)?;
    far.shutdown(Shutdown::Read)?;
    dropped(near, &far, &mut edges, "with its own Read shut down")
}

fn peer_gone(scene: &Scene<'_>) -> Verdict {
    let Pair { mut near, mut far } = scene.nonblocking()?;
    hold(!far.peer_gone(), "the peer of a fresh stream is gone")?;
    write(&mut near, b"x")?;
    near.shutdown(Shutdown::Both)?;
    hold(
        !far.peer_gone(),
        "the peer is gone after its shutdown of both directions",
    )?;
    far.shutdown(Shutdown::Both)?;
    hold(!far.peer_gone(), "the peer is gone after both shut down")?;
    drop(near);
    hold(far.peer_gone(), "the peer is not gone after its drop")
}

fn no_hup(scene: &Scene<'_>) -> Verdict {
    let Pair { mut near, mut far } = scene.nonblocking()?;
    let mut level = Watch::level(far.as_raw_fd(), Interest::Read)?;
    let mut quiet = |when: &str| {
        let hung_up = level.now()?.is_some_and(crate::poll::Report::hung_up);
        hold(!hung_up, format!("HUP, RDHUP or ERR is reported {when}"))
    };
    near.shutdown(Shutdown::Both)?;
    quiet("after the peer's shutdown")?;
    far.shutdown(Shutdown::Both)?;
    quiet("after both shut down")?;
    drop(near);
    quiet("after the peer's drop")
}

fn late(scene: &Scene<'_>) -> Verdict {
    let Pair { mut near, far } = scene.nonblocking()?;
    write(&mut near, b"x")?;
    let mut edges = Watch::edges(far.as_raw_fd(), Interest::Read)?;
    edge(&mut edges, "when registered with a byte queued")?;
    let mut writes = write_edges(&*far)?;
    drop(near);
    edge(&mut edges, "after the peer's drop")?;
    writes.now()?;
    let mut later = Watch::edges(far.as_raw_fd(), Interest::Read)?;
    edge(&mut later, "when registered after the peer's drop")
}
