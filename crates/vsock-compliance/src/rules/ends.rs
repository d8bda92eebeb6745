// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

use std::io::{ErrorKind, Read as _, Write as _};
use std::net::Shutdown;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};

use crate::breach::{Verdict, count, fails};
use crate::pattern::Pattern;
use crate::rule::{Sentence, StreamCheck};
use crate::scene::{Pair, Scene, read_expecting, write};
use crate::source::{BoxedStream, Ends};

sentences! {
    steps StreamCheck;

    /// A reset by the peer, as reported by a read and a write.
    const RESET_TOLD = Repeat(1, &[Read(Far, RESET), WriteReturns(Far, RESET)]);
    const EVERY_SHUTDOWN = Repeat(1, &[Shutdown(Near, Shut::Read), Shutdown(Near, Shut::Write),
        Shutdown(Near, Shut::Both)]);

    "4" "After `shutdown(Write)`, every read of the peer returns `Ok(0)`; its writes are \
        unaffected." {
        a_shutdown_of_write_ends_the_peers_reading: [[
            Write(Near, 1), Shutdown(Near, Shut::Write), Read(Far, ONE),
            Repeat(3, &[Read(Far, END), Carry(Far)]),
        ]];
    }

    "4" "After `shutdown(Read)`, a write of the peer returns `BrokenPipe`; its reads are \
        unaffected." {
        a_shutdown_of_read_breaks_the_peers_writing: [[
            Shutdown(Near, Shut::Read), Repeat(3, &[WriteReturns(Far, BROKEN), Carry(Near)]),
            Read(Far, WOULD_BLOCK),
        ]];
    }

    "4" "After a drop, a read of the peer returns `Ok(0)`, and a write returns `BrokenPipe`." {
        a_drop_is_a_close: { |scene| each_drop(scene, b"", drop, Last::Close) };
    }

    "4" "After a drop with unread bytes, a drop by a panic or an abort, the peer's reads and \
        writes return `ConnectionReset`, unless the dropped end had shut down Write before." {
        a_drop_with_unread_bytes_is_a_reset: { |scene| each_drop(scene, b"x", drop, Last::Unread) };
        a_drop_by_a_panic_is_a_reset: { |scene| each_drop(scene, b"", drop_by_panic, Last::Reset) };
        an_abort_is_a_reset: { |scene| each_drop(scene, b"", |near| near.abort(), Last::Reset) };
    }

    "4" "Queued bytes are always delivered before an end or a reset is reported." {
        queued_bytes_come_before_every_end: { queued };
    }

    "4" "No bytes for which a write returned `Ok` are lost while the peer continues to read." {
        a_drop_with_unread_bytes_loses_nothing_written: { not_lost };
    }

    "4" "A reset is permanent: every later call reports it." {
        a_reset_is_sticky: [[
            Abort(Near), RESET_TOLD, SetMode(Far, Blocking), RESET_TOLD,
            SetMode(Far, Nonblocking), RESET_TOLD, Peek(Far, RESET),
        ]];
    }

    "4" "After its own `shutdown(Write)`, a write of an end returns `BrokenPipe`." {
        ones_own_shutdown_of_write_breaks_writing: [[
            Shutdown(Near, Shut::Write), Repeat(3, &[WriteReturns(Near, BROKEN), Carry(Far)]),
            Drop(Far), WriteReturns(Near, BROKEN),
        ]];
    }

    "4" "After its own `shutdown(Read)`, an end can still read queued bytes. Then its reads return \
        `Ok(0)`." {
        ones_own_shutdown_of_read_leaves_what_is_queued: [[
            Write(Far, 100), Shutdown(Near, Shut::Read), Drain(Near), Repeat(3, &[Read(Near, END),
            Carry(Near)]),
        ]];
    }

    "4" "A second shutdown returns `Ok`, and so does a shutdown after the peer's drop." {
        a_second_shutdown_is_ok: [[EVERY_SHUTDOWN, EVERY_SHUTDOWN]];
        a_shutdown_after_the_peers_drop_is_ok: [[Drop(Far), EVERY_SHUTDOWN]];
    }
}

/// What each end shuts down before the near end is dropped.
const BEFORE: [Option<Shutdown>; 4] = [
    None,
    Some(Shutdown::Read),
    Some(Shutdown::Write),
    Some(Shutdown::Both),
];

fn named(how: Option<Shutdown>) -> String {
    how.map_or_else(|| "nothing".to_owned(), |how| format!("{how:?}"))
}

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
    /// Returns whether the drop resets the peer's reads and its writes, if neither was shut down.
    const fn breaks(self, has_ended: bool, ends: Ends) -> (bool, bool) {
        match (self, ends) {
            (Self::Close, _) => (false, false),
            (Self::Unread, Ends::Halves) => (false, true),
            (Self::Reset, Ends::Halves) => (true, true),
            (Self::Unread | Self::Reset, Ends::Whole) => (!has_ended, !has_ended),
        }
    }
}

/// Checks every combination of shutdowns before `leave` drops the near end, after the far end has
/// `sent` bytes.
fn each_drop(scene: &Scene<'_>, sent: &[u8], leave: fn(BoxedStream), last: Last) -> Verdict {
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
            let (reading, writing) = last.breaks(has_ended, scene.ends());
            let when = format!(
                "after the peer shut down {} and was dropped, and this end shut down {}",
                named(by_near),
                named(by_far)
            );
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

fn drop_by_panic(stream: BoxedStream) {
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
    write(&mut far, b"x")?; // never read
    write(&mut near, &bytes)?;
    drop(near);
    fails(
        "a write to a dropped peer",
        far.write(b"x"),
        ErrorKind::ConnectionReset,
    )?;
    read_expecting(&mut far, &bytes)?;
    let what = "a read after the last byte";
    if scene.ends() == Ends::Halves {
        return count(what, far.read(&mut [0]), 0);
    }
    fails(what, far.read(&mut [0]), ErrorKind::ConnectionReset)
}
