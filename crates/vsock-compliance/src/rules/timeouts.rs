// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

use std::io::{self, ErrorKind, Read as _, Write as _};
use std::time::Duration;

use crate::breach::{RuleBreach, Verdict, count, fails, hold};
use crate::call::Call;
use crate::poll::pace;
use crate::rule::{Sentence, StreamCheck};
use crate::scene::{Pair, Scene, drain, timed};
use crate::source::BoxedStream;

/// Longer than any check takes.
const AGES: Duration = Duration::from_secs(3600);
const BRIEF: Duration = Duration::from_millis(1);
const LONGER: Duration = Duration::from_millis(5);

sentences! {
    steps StreamCheck;

    /// Short timeouts that are replaced before they can expire.
    const BRIEFLY = Repeat(1, &[ReadTimeout(Near, Some(BRIEF)), WriteTimeout(Near, Some(BRIEF))]);
    /// A read or a write of a blocking end that continues after the short timeout would have
    /// expired.
    const READS_ON = Repeat(1, &[
        BlockedRead(Near), Pace(LONGER), Write(Far, 1), Returned(ONE),
    ]);
    const WRITES_ON = Repeat(1, &[
        BlockedWrite(Near), Pace(LONGER), Drain(Far), Returned(ONE),
    ]);

    "2.6" "`None` means no timeout, and so does a duration that is too long for the clock." {
        a_read_without_a_usable_timeout_waits: [
            [SetMode(Near, Blocking), BRIEFLY, ReadTimeout(Near, None), READS_ON],
            [SetMode(Near, Blocking), BRIEFLY, ReadTimeout(Near, Some(Duration::MAX)), READS_ON],
            [SetMode(Near, Blocking), BRIEFLY, ReadTimeout(Near, Some(AGES)), READS_ON],
        ];
        a_write_without_a_usable_timeout_waits: [
            [Fill(Near), SetMode(Near, Blocking), BRIEFLY, WriteTimeout(Near, None), WRITES_ON],
            [
                Fill(Near), SetMode(Near, Blocking), BRIEFLY,
                WriteTimeout(Near, Some(Duration::MAX)), WRITES_ON,
            ],
            [
                Fill(Near), SetMode(Near, Blocking), BRIEFLY, WriteTimeout(Near, Some(AGES)),
                WRITES_ON,
            ],
        ];
    }

    "2.6" "A timeout of zero is rejected with `InvalidInput`." {
        a_zero_timeout_is_refused_and_changes_nothing: [[
            SetMode(Near, Blocking), BRIEFLY, ZeroTimeoutsRefused(Near), Read(Near, TIMED_OUT),
        ]];
    }

    "2.6" "When a timeout expires, the call returns `TimedOut`, and never early." {
        a_read_times_out_and_never_early: { read_expires };
        a_write_times_out_and_never_early: { write_expires };
    }

    "2.6" "A timeout is measured from the start of the call, not from the last transfer." {
        empty_writes_do_not_prolong_a_read: { not_prolonged_read };
        a_slow_reader_does_not_prolong_a_write: { not_prolonged_write };
    }

    "2.6" "In non-blocking mode, timeouts have no effect." {
        nonblocking_mode_ignores_timeouts: [[
            ReadTimeout(Near, Some(AGES)), WriteTimeout(Near, Some(AGES)), Read(Near, WOULD_BLOCK),
            Fill(Near), WriteReturns(Near, WOULD_BLOCK),
        ]];
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

fn not_early(what: &str, timeout: Duration, took: Duration) -> Verdict {
    hold(
        took >= timeout,
        format!("{what} not to return earlier"),
        format!("it returned after {took:?}"),
    )
}

fn read_expires(scene: &Scene<'_>) -> Verdict {
    let Pair { near, far: _far } = scene.blocking()?;
    expires(scene, near, "read", |near, timeout| {
        near.set_read_timeout(Some(timeout))?;
        Ok(|near| near.read(&mut [0]))
    })
}

fn write_expires(scene: &Scene<'_>) -> Verdict {
    let Pair {
        mut near,
        far: _far,
    } = scene.nonblocking()?;
    scene.fill(&mut near)?;
    near.set_nonblocking(false)?;
    expires(scene, near, "write", |near, timeout| {
        near.set_write_timeout(Some(timeout))?;
        Ok(|near| near.write(b"x"))
    })
}

/// Sets a timeout and returns a call to which it applies.
type SetTimeout = fn(&mut BoxedStream, Duration) -> io::Result<WaitingCall>;
type WaitingCall = fn(&mut BoxedStream) -> io::Result<usize>;

/// Checks that the call times out with each timeout, and not early.
fn expires(scene: &Scene<'_>, mut near: BoxedStream, what: &str, set: SetTimeout) -> Verdict {
    for timeout in TIMEOUTS {
        let call = set(&mut near, timeout)?;
        let calling = scene.start(near, timed(call))?;
        let (back, (took, result)) = scene.returned(calling)?;
        near = back;
        let what = format!("a {what} with a timeout of {timeout:?}");
        fails(&what, result, ErrorKind::TimedOut)?;
        not_early(&what, timeout, took)?;
    }
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
            "a read to time out despite empty writes",
            "it was still waiting",
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
    // Empty the direction again, so that the write transfers its first bytes even if the first read
    // is late.
    drain(&mut far)?;
    near.set_nonblocking(false)?;
    near.set_write_timeout(Some(timeout))?;
    // Enough bytes that reading all of them slowly takes longer than the timeout.
    let bytes = vec![0; full * 128];
    let all = bytes.len();
    let writing = scene.start(near, timed(move |near| near.write(&bytes)))?;
    let deadline = scene.deadline();
    let mut sip = vec![0; full.div_ceil(4).min(64 * 1024)];
    while !writing.has_returned() {
        hold(
            !deadline.passed(),
            "a write to time out despite a slow reader",
            "it was still waiting",
        )?;
        match far.read(&mut sip) {
            Err(error) if error.kind() != ErrorKind::WouldBlock => return Err(error.into()),
            _ => {}
        }
        pace(Duration::from_millis(2))?;
    }
    let (_near, (took, written)) = scene.returned(writing)?;
    match written {
        Ok(len) if (1..all).contains(&len) => not_early("a write with a timeout", timeout, took),
        other => Err(RuleBreach::unmet(
            "a write with an expired timeout to return its count",
            format!("it returned {other:?}"),
        )),
    }
}
