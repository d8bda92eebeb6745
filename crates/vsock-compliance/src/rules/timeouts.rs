// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

use std::io::{ErrorKind, Read, Write};
use std::time::Duration;

use crate::breach::{RuleBreach, Verdict, count, fails, hold, succeeds};
use crate::call::Call;
use crate::poll::{Stopwatch, pace};
use crate::rule::{Sentence, StreamCheck};
use crate::scene::{Pair, Scene, drain, write};

sentences! {
    functions StreamCheck;

    "2.6" "`None` waits for ever, and so does a duration too long for the clock." {
        a_read_without_a_usable_timeout_waits: { read_for_ever };
        a_write_without_a_usable_timeout_waits: { write_for_ever };
    }

    "2.6" "A timeout of zero is `InvalidInput`." {
        a_zero_timeout_is_refused_and_changes_nothing: { zero };
    }

    "2.6" "Expiry is `TimedOut`, never early." {
        a_read_times_out_and_never_early: { read_expires };
        a_write_times_out_and_never_early: { write_expires };
    }

    "2.6" "A timeout is counted from the call, not from the last message." {
        empty_writes_do_not_prolong_a_read: { not_prolonged_read };
        a_slow_reader_does_not_prolong_a_write: { not_prolonged_write };
    }

    "2.6" "Non-blocking mode ignores the timeouts." {
        nonblocking_mode_ignores_timeouts: { ignored };
    }
}

/// From shorter than a system call to longer than a tick of the scheduler.
const TIMEOUTS: [Duration; 5] = [
    Duration::from_nanos(1),
    Duration::from_micros(30),
    Duration::from_millis(1),
    Duration::from_micros(7_300),
    Duration::from_millis(30),
];

/// Longer than any case takes.
const AGES: Duration = Duration::from_secs(3600);

fn read_for_ever(scene: &Scene<'_>) -> Verdict {
    for timeout in [None, Some(Duration::MAX), Some(AGES)] {
        let Pair { mut near, mut far } = scene.blocking()?;
        near.set_read_timeout(Some(Duration::from_millis(1)))?;
        succeeds(
            format!("a read timeout of {timeout:?}"),
            near.set_read_timeout(timeout),
        )?;
        let reading = scene.blocked(near, |near| near.read(&mut [0; 8]))?;
        pace(Duration::from_millis(5))?; // longer than the timeout that was taken back
        write(&mut far, b"x")?;
        count(
            format!("a read with {timeout:?}"),
            scene.returned(reading)?.1,
            1,
        )?;
    }
    Ok(())
}

fn write_for_ever(scene: &Scene<'_>) -> Verdict {
    for timeout in [None, Some(Duration::MAX), Some(AGES)] {
        let Pair { mut near, mut far } = scene.nonblocking()?;
        scene.fill(&mut near)?;
        near.set_nonblocking(false)?;
        near.set_write_timeout(Some(Duration::from_millis(1)))?;
        succeeds(
            format!("a write timeout of {timeout:?}"),
            near.set_write_timeout(timeout),
        )?;
        let writing = scene.blocked(near, |near| near.write(b"x"))?;
        pace(Duration::from_millis(5))?; // longer than the timeout that was taken back
        drain(&mut far)?;
        count(
            format!("a write with {timeout:?}"),
            scene.returned(writing)?.1,
            1,
        )?;
    }
    Ok(())
}

fn zero(scene: &Scene<'_>) -> Verdict {
    let Pair { mut near, far } = scene.blocking()?;
    near.set_read_timeout(Some(Duration::from_millis(1)))?;
    let none = Some(Duration::ZERO);
    fails(
        "a read timeout of zero",
        near.set_read_timeout(none),
        ErrorKind::InvalidInput,
    )?;
    fails(
        "a write timeout of zero",
        near.set_write_timeout(none),
        ErrorKind::InvalidInput,
    )?;
    let reading = Call::start(move || near.read(&mut [0]))?;
    fails(
        "a read with the timeout before",
        scene.returned(reading)?,
        ErrorKind::TimedOut,
    )?;
    drop(far);
    Ok(())
}

fn not_early(what: &str, timeout: Duration, took: Duration) -> Verdict {
    hold(
        took >= timeout,
        format!("a {what} with a timeout of {timeout:?} to use it up"),
        format!("it gave up after {took:?}"),
    )
}

fn read_expires(scene: &Scene<'_>) -> Verdict {
    let Pair { mut near, far } = scene.blocking()?;
    for timeout in TIMEOUTS {
        near.set_read_timeout(Some(timeout))?;
        let reading = Call::start(move || {
            let watch = Stopwatch::start();
            let read = near.read(&mut [0]);
            (watch.elapsed(), read, near)
        })?;
        let (took, read, back) = scene.returned(reading)?;
        near = back;
        fails(
            format!("a read with a timeout of {timeout:?}"),
            read,
            ErrorKind::TimedOut,
        )?;
        not_early("read", timeout, took)?;
    }
    drop(far);
    Ok(())
}

fn write_expires(scene: &Scene<'_>) -> Verdict {
    let Pair { mut near, far } = scene.nonblocking()?;
    scene.fill(&mut near)?;
    near.set_nonblocking(false)?;
    for timeout in TIMEOUTS {
        near.set_write_timeout(Some(timeout))?;
        let writing = Call::start(move || {
            let watch = Stopwatch::start();
            let written = near.write(b"x");
            (watch.elapsed(), written, near)
        })?;
        let (took, written, back) = scene.returned(writing)?;
        near = back;
        fails(
            format!("a write with a timeout of {timeout:?}"),
            written,
            ErrorKind::TimedOut,
        )?;
        not_early("write", timeout, took)?;
    }
    drop(far);
    Ok(())
}

fn not_prolonged_read(scene: &Scene<'_>) -> Verdict {
    let Pair { mut near, mut far } = scene.blocking()?;
    near.set_read_timeout(Some(Duration::from_millis(30)))?;
    let reading = Call::start(move || near.read(&mut [0]))?;
    let deadline = scene.deadline();
    while !reading.has_returned() {
        hold(
            !deadline.passed(),
            "a read to time out while empty writes come",
            "it went on waiting",
        )?;
        count("an empty write", far.write(&[]), 0)?;
        pace(Duration::from_millis(1))?;
    }
    fails("the read", scene.returned(reading)?, ErrorKind::TimedOut)
}

fn not_prolonged_write(scene: &Scene<'_>) -> Verdict {
    let timeout = Duration::from_millis(200);
    let Pair { mut near, mut far } = scene.nonblocking()?;
    let full = scene.fill(&mut near)?;
    // Empty again, so that the write has its first bytes however late the first sip comes.
    drain(&mut far)?;
    near.set_nonblocking(false)?;
    near.set_write_timeout(Some(timeout))?;
    // So much that all of it, sip by sip, takes longer than the timeout.
    let bytes = vec![0; full * 128];
    let all = bytes.len();
    let writing = Call::start(move || {
        let watch = Stopwatch::start();
        let written = near.write(&bytes);
        (watch.elapsed(), written, near)
    })?;
    let deadline = scene.deadline();
    let mut sip = vec![0; full.div_ceil(4).min(64 * 1024)];
    while !writing.has_returned() {
        hold(
            !deadline.passed(),
            "a write to time out while a slow reader reads",
            "it went on waiting",
        )?;
        match far.read(&mut sip) {
            Err(error) if error.kind() != ErrorKind::WouldBlock => return Err(error.into()),
            _ => {}
        }
        pace(Duration::from_millis(2))?;
    }
    let (took, written, _near) = scene.returned(writing)?;
    match written {
        Ok(len) if (1..all).contains(&len) => not_early("write", timeout, took),
        other => Err(RuleBreach::unmet(
            "a write past its timeout to return its count",
            format!("it returned {other:?}"),
        )),
    }
}

fn ignored(scene: &Scene<'_>) -> Verdict {
    let Pair { mut near, far } = scene.nonblocking()?;
    near.set_read_timeout(Some(AGES))?;
    near.set_write_timeout(Some(AGES))?;
    let reading = Call::start(move || (near.read(&mut [0]), near))?;
    let (read, mut near) = scene.returned(reading)?;
    fails(
        "a non-blocking read with a timeout",
        read,
        ErrorKind::WouldBlock,
    )?;
    scene.fill(&mut near)?;
    let writing = Call::start(move || near.write(b"x"))?;
    let written = scene.returned(writing)?;
    fails(
        "a non-blocking write with a timeout",
        written,
        ErrorKind::WouldBlock,
    )?;
    drop(far);
    Ok(())
}
