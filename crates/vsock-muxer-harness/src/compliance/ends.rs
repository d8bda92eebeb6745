// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

use std::io::{self, ErrorKind, Read, Write};
use std::net::Shutdown;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};

use super::StreamRule;
use super::scene::{Pair, Scene, read_expecting, write};
use super::verdict::{Verdict, count, fails, succeeds};
use crate::pattern::Pattern;
use crate::source::Stream;

const SHUT_WRITE: &str =
    "After `shutdown(Write)` the peer's read is `Ok(0)`, again and again; its write is unaffected.";
const SHUT_READ: &str =
    "After `shutdown(Read)` the peer's write is `BrokenPipe`; its read is unaffected.";
const DROP: &str = "After a drop the peer's read is `Ok(0)`, and its write `BrokenPipe`.";
const RESET: &str = "A drop with bytes unread, a drop by a panic and an abort are `ConnectionReset` for the \
                     peer's read and write, if the dropped end had not shut down Write before.";
const QUEUED: &str = "Queued bytes are always delivered before an end or a reset is reported.";
const NOT_LOST: &str = "Nothing written with `Ok` is lost while the peer goes on reading.";
const STICKY: &str = "A reset is sticky: every later call reports it.";
const OWN_WRITE: &str = "After one's own `shutdown(Write)` a write is `BrokenPipe`.";
const OWN_READ: &str =
    "After one's own `shutdown(Read)` what is queued can still be read, then `Ok(0)`.";
const TWICE: &str = "Shutting down twice, or after the peer's drop, is `Ok`.";

/// The rules of this section.
pub(super) fn rules() -> Vec<StreamRule> {
    vec![
        StreamRule::new(
            "4",
            SHUT_WRITE,
            "a_shutdown_of_write_ends_the_peers_reading",
            shut_write,
        ),
        StreamRule::new(
            "4",
            SHUT_READ,
            "a_shutdown_of_read_breaks_the_peers_writing",
            shut_read,
        ),
        StreamRule::new("4", DROP, "a_drop_is_a_close", closed),
        StreamRule::new("4", RESET, "a_drop_with_unread_bytes_is_a_reset", unread),
        StreamRule::new("4", RESET, "a_drop_by_a_panic_is_a_reset", panicked),
        StreamRule::new("4", RESET, "an_abort_is_a_reset", aborted),
        StreamRule::new("4", QUEUED, "queued_bytes_come_before_every_end", queued),
        StreamRule::new(
            "4",
            NOT_LOST,
            "a_drop_with_unread_bytes_loses_nothing_written",
            not_lost,
        ),
        StreamRule::new("4", STICKY, "a_reset_is_sticky", sticky),
        StreamRule::new(
            "4",
            OWN_WRITE,
            "ones_own_shutdown_of_write_breaks_writing",
            own_write,
        ),
        StreamRule::new(
            "4",
            OWN_READ,
            "ones_own_shutdown_of_read_leaves_what_is_queued",
            own_read,
        ),
        StreamRule::new("4", TWICE, "a_second_shutdown_is_ok", twice),
        StreamRule::new(
            "4",
            TWICE,
            "a_shutdown_after_the_peers_drop_is_ok",
            shutdown_after_drop,
        ),
    ]
}

/// Bytes must still flow.
fn carries(from: &mut Stream, to: &mut Stream) -> Verdict {
    write(from, b"x")?;
    read_expecting(to, b"x")
}

fn shut_write(scene: &Scene<'_>) -> Verdict {
    let Pair { mut near, mut far } = scene.nonblocking()?;
    write(&mut near, b"x")?;
    near.shutdown(Shutdown::Write)?;
    read_expecting(&mut far, b"x")?;
    for _ in 0..3 {
        count("the peer's read", far.read(&mut [0; 8]), 0)?;
        carries(&mut far, &mut near)?;
    }
    Ok(())
}

fn shut_read(scene: &Scene<'_>) -> Verdict {
    let Pair { mut near, mut far } = scene.nonblocking()?;
    near.shutdown(Shutdown::Read)?;
    for _ in 0..3 {
        fails("the peer's write", far.write(b"x"), ErrorKind::BrokenPipe)?;
        carries(&mut near, &mut far)?;
    }
    fails(
        "the peer's read of nothing",
        far.read(&mut [0]),
        ErrorKind::WouldBlock,
    )
}

/// What each end shuts down before the near one is dropped.
const BEFORE: [Option<Shutdown>; 4] = [
    None,
    Some(Shutdown::Read),
    Some(Shutdown::Write),
    Some(Shutdown::Both),
];

fn shut(how: Option<Shutdown>, direction: Shutdown) -> bool {
    how.is_some_and(|how| how == direction || how == Shutdown::Both)
}

/// How the near end is dropped.
#[derive(Clone, Copy)]
enum Last {
    Close,
    Unread,
    Reset,
}

impl Last {
    /// Whether it breaks off the peer's reading and its writing, where neither was shut down.
    const fn breaks(self, has_ended: bool, halves: bool) -> (bool, bool) {
        match self {
            Self::Close => (false, false),
            Self::Unread if halves => (false, true),
            Self::Reset if halves => (true, true),
            Self::Unread | Self::Reset => (!has_ended, !has_ended),
        }
    }
}

/// Every combination of shutdowns before the near end is dropped by `leave`, behind `sent` by the far one.
fn each_drop(scene: &Scene<'_>, sent: &[u8], leave: fn(Stream), last: Last) -> Verdict {
    for by_near in BEFORE {
        for by_far in BEFORE {
            let Pair { mut near, mut far } = scene.nonblocking()?;
            write(&mut far, sent)?;
            if let Some(how) = by_near {
                near.shutdown(how)?;
            }
            if let Some(how) = by_far {
                far.shutdown(how)?;
            }
            leave(near);
            let has_ended = shut(by_near, Shutdown::Write);
            let (reading, writing) = last.breaks(has_ended, scene.halves());
            let when = format!("after {by_near:?} and a drop by the peer, {by_far:?} by itself");
            for _ in 0..2 {
                let read = far.read(&mut [0; 8]);
                if reading && !has_ended && !shut(by_far, Shutdown::Read) {
                    fails(format!("a read {when}"), read, ErrorKind::ConnectionReset)?;
                } else {
                    count(format!("a read {when}"), read, 0)?;
                }
                let was_shut = shut(by_near, Shutdown::Read) || shut(by_far, Shutdown::Write);
                let kind = if writing && !was_shut {
                    ErrorKind::ConnectionReset
                } else {
                    ErrorKind::BrokenPipe
                };
                fails(format!("a write {when}"), far.write(b"x"), kind)?;
            }
        }
    }
    Ok(())
}

fn closed(scene: &Scene<'_>) -> Verdict {
    each_drop(scene, b"", drop, Last::Close)
}

fn unread(scene: &Scene<'_>) -> Verdict {
    each_drop(scene, b"x", drop, Last::Unread)
}

fn panicked(scene: &Scene<'_>) -> Verdict {
    each_drop(scene, b"", drop_by_panic, Last::Reset)
}

fn aborted(scene: &Scene<'_>) -> Verdict {
    each_drop(scene, b"", |near| near.abort(), Last::Reset)
}

fn drop_by_panic(stream: Stream) {
    let unwound = catch_unwind(AssertUnwindSafe(move || {
        let _dropped = stream;
        resume_unwind(Box::new("a panic that holds a stream"));
    }));
    drop(unwound);
}

fn queued(scene: &Scene<'_>) -> Verdict {
    let bytes = Pattern::default().take(scene.some(1000));
    for by_near in BEFORE {
        for dropped in [false, true] {
            let Pair { mut near, mut far } = scene.nonblocking()?;
            write(&mut near, &bytes)?;
            if let Some(how) = by_near {
                near.shutdown(how)?;
            }
            let _alive = (!dropped).then_some(near);
            read_expecting(&mut far, &bytes)?;
        }
    }
    Ok(())
}

fn not_lost(scene: &Scene<'_>) -> Verdict {
    let Pair { mut near, mut far } = scene.nonblocking()?;
    let bytes = Pattern::default().take(scene.some(1000));
    write(&mut far, b"x")?; // nobody will read it
    write(&mut near, &bytes)?;
    drop(near);
    fails(
        "a write to a dropped peer",
        far.write(b"x"),
        ErrorKind::ConnectionReset,
    )?;
    read_expecting(&mut far, &bytes)?;
    let what = "a read after the last byte";
    if scene.halves() {
        return count(what, far.read(&mut [0]), 0);
    }
    fails(what, far.read(&mut [0]), ErrorKind::ConnectionReset)
}

fn sticky(scene: &Scene<'_>) -> Verdict {
    let Pair { near, mut far } = scene.nonblocking()?;
    near.abort();
    for nonblocking in [true, false, true] {
        far.set_nonblocking(nonblocking)?;
        fails(
            "a read after a reset",
            far.read(&mut [0]),
            ErrorKind::ConnectionReset,
        )?;
        fails(
            "a write after a reset",
            far.write(b"x"),
            ErrorKind::ConnectionReset,
        )?;
    }
    match scene.peek(&mut far, &mut [0]) {
        Some(seen) => fails("a peek after a reset", seen, ErrorKind::ConnectionReset),
        None => Ok(()),
    }
}

fn own_write(scene: &Scene<'_>) -> Verdict {
    let Pair { mut near, mut far } = scene.nonblocking()?;
    near.shutdown(Shutdown::Write)?;
    for _ in 0..3 {
        fails(
            "a write after its own shutdown",
            near.write(b"x"),
            ErrorKind::BrokenPipe,
        )?;
        carries(&mut far, &mut near)?;
    }
    drop(far);
    fails(
        "a write after the peer's drop",
        near.write(b"x"),
        ErrorKind::BrokenPipe,
    )
}

fn own_read(scene: &Scene<'_>) -> Verdict {
    let Pair { mut near, mut far } = scene.nonblocking()?;
    let bytes = Pattern::default().take(scene.turned().some(100));
    write(&mut far, &bytes)?;
    near.shutdown(Shutdown::Read)?;
    read_expecting(&mut near, &bytes)?;
    for _ in 0..3 {
        count("a read after its own shutdown", near.read(&mut [0]), 0)?;
        carries(&mut near, &mut far)?;
    }
    Ok(())
}

fn every_shutdown(stream: &mut Stream, when: &str) -> Verdict {
    for how in [Shutdown::Read, Shutdown::Write, Shutdown::Both] {
        let shut: io::Result<()> = stream.shutdown(how);
        succeeds(format!("shutdown({how:?}) {when}"), shut)?;
    }
    Ok(())
}

fn twice(scene: &Scene<'_>) -> Verdict {
    let Pair { mut near, far } = scene.nonblocking()?;
    every_shutdown(&mut near, "at first")?;
    every_shutdown(&mut near, "again")?;
    drop(far);
    Ok(())
}

fn shutdown_after_drop(scene: &Scene<'_>) -> Verdict {
    let Pair { near, mut far } = scene.nonblocking()?;
    drop(near);
    every_shutdown(&mut far, "after the peer's drop")
}
