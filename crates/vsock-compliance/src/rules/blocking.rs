// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

use std::io::{ErrorKind, Read as _, Write as _};
use std::net::Shutdown;
use std::time::Duration;

use crate::breach::{RuleBreach, Verdict, count, fails, hold, same, succeeds};
use crate::pattern::Pattern;
use crate::poll::{PollInterest, wait_ready};
use crate::rule::{Sentence, StreamCheck};
use crate::scene::{Pair, Scene, read_expecting, timed, write};
use crate::source::{BoxedStream, Mode};

sentences! {
    steps StreamCheck;

    /// A read at the near end that blocks.
    const READING = Repeat(1, &[SetMode(Near, Blocking), BlockedRead(Near)]);
    /// A write at the near end that blocks.
    const WRITING = Repeat(1, &[Fill(Near), SetMode(Near, Blocking), BlockedWrite(Near)]);
    const INTERRUPTIONS = Repeat(20, &[Interrupt]);

    "2.5" "A blocking call continues after an interruption." {
        an_interruption_does_not_end_a_read: [[
            READING, INTERRUPTIONS, Write(Far, 1), Returned(ONE),
        ]];
        an_interruption_does_not_end_a_write: [[
            WRITING, INTERRUPTIONS, Drain(Far), Returned(ONE),
        ]];
    }

    "2.5" "A blocked read returns when its direction ends." {
        a_blocked_read_ends_with_a_shutdown: [[
            READING, Shutdown(Far, Shut::Write), Returned(END),
        ]];
        a_blocked_read_ends_with_a_drop: [[READING, Drop(Far), Returned(END)]];
        a_blocked_read_ends_with_an_abort: [[READING, Abort(Far), Returned(RESET)]];
    }

    "2.5" "A blocked write returns when its direction ends." {
        a_blocked_write_ends_with_a_shutdown: [[
            WRITING, Shutdown(Far, Shut::Read), Returned(BROKEN),
        ]];
        a_blocked_write_ends_with_a_drop: [[WRITING, Drop(Far), Returned(RESET)]];
    }

    "2.5" "A blocking write returns when all bytes are accepted. If a timeout, an end or a reset \
        occurs after at least one byte was accepted, it returns the count so far." {
        a_blocking_write_returns_when_all_is_accepted: { all_accepted };
        a_timeout_cuts_a_write_short: { cut_by_timeout };
        a_shutdown_cuts_a_write_short: { cut_by_shutdown };
        a_drop_cuts_a_write_short: { cut_by_drop };
    }

    "2.5" "Neither a read nor a write returns an error after it has transferred bytes." {
        a_read_before_a_reset_returns_its_bytes: { read_before_reset };
        a_read_before_an_end_returns_its_bytes: { read_before_end };
    }
}

fn all_accepted(scene: &Scene<'_>) -> Verdict {
    let Pair { near, mut far } = scene.pair(Mode::Blocking, Mode::Nonblocking)?;
    let bytes = Pattern::default().take(scene.some(1 << 20) * 3 + 1);
    let sent = bytes.clone();
    let writing = scene.start(near, move |near| near.write(&sent))?;
    let mut got = Vec::with_capacity(bytes.len());
    let mut buf = vec![0; 64 * 1024];
    while got.len() < bytes.len() {
        match far.read(&mut buf) {
            Ok(0) => {
                let expected = "all bytes that a blocking write was given";
                return Err(RuleBreach::unmet(expected, "the stream ended before that"));
            }
            Ok(len) => got.extend_from_slice(&buf[..len]),
            Err(error) if error.kind() == ErrorKind::WouldBlock => {
                wait_ready(far.as_raw_fd(), PollInterest::Read, scene.deadline())?;
            }
            Err(error) => return Err(error.into()),
        }
    }
    let (_near, written) = scene.returned(writing)?;
    count(
        "a blocking write of three times the capacity",
        written,
        bytes.len(),
    )?;
    same(&got, &bytes)
}

/// Returns more bytes than fit, so that the call must block after its first bytes.
fn too_much(scene: &Scene<'_>) -> Result<Vec<u8>, RuleBreach> {
    let full = {
        let Pair {
            mut near,
            far: _far,
        } = scene.nonblocking()?;
        scene.fill(&mut near)?
    };
    Ok(Pattern::default().take(full * 2 + 1))
}

/// Checks that a call that was cut short returned a count of at least one and less than all bytes.
fn cut_short(written: std::io::Result<usize>, bytes: &[u8]) -> Result<usize, RuleBreach> {
    let len = succeeds("a write that was cut short after its first bytes", written)?;
    hold(
        len > 0 && len < bytes.len(),
        "a write that was cut short to return a partial count",
        format!("it returned {len}"),
    )?;
    Ok(len)
}

/// The timeout that cuts a write short.
const TIMEOUT: Duration = Duration::from_millis(30);

fn cut_by_timeout(scene: &Scene<'_>) -> Verdict {
    let bytes = too_much(scene)?;
    let Pair { mut near, mut far } = scene.blocking()?;
    near.set_write_timeout(Some(TIMEOUT))?;
    let sent = bytes.clone();
    // Do not check whether it sleeps: on a machine under load, the timeout may already have
    // expired.
    let writing = scene.start(near, timed(move |near| near.write(&sent)))?;
    let (near, (took, written)) = scene.returned(writing)?;
    let len = cut_short(written, &bytes)?;
    // Only half, because kernels count a socket's timeout in ticks.
    hold(
        took >= TIMEOUT / 2,
        format!("a write with a timeout of {TIMEOUT:?} not to return earlier"),
        format!("it returned after {took:?}"),
    )?;
    read_expecting(&mut far, &bytes[..len])?;
    far.set_nonblocking(true)?;
    fails(
        "a read after the counted bytes",
        far.read(&mut [0]),
        ErrorKind::WouldBlock,
    )?;
    drop(near);
    Ok(())
}

/// Starts a write of more than fits. After its first bytes, when it blocks, `end` cuts it short.
/// Returns the near end.
fn cut(
    scene: &Scene<'_>,
    end: fn(BoxedStream) -> std::io::Result<Option<BoxedStream>>,
) -> Result<BoxedStream, RuleBreach> {
    let bytes = too_much(scene)?;
    let Pair { near, far } = scene.blocking()?;
    let sent = bytes.clone();
    let writing = scene.start(near, move |near| near.write(&sent))?;
    // The thread may also sleep before its first bytes, for a lock or for memory.
    wait_ready(far.as_raw_fd(), PollInterest::Read, scene.deadline())?;
    scene.asleep(&writing)?;
    let _far = end(far)?;
    let (near, written) = scene.returned(writing)?;
    cut_short(written, &bytes)?;
    Ok(near)
}

fn cut_by_shutdown(scene: &Scene<'_>) -> Verdict {
    let mut near = cut(scene, |mut far| {
        far.shutdown(Shutdown::Read).map(|()| Some(far))
    })?;
    fails("the next write", near.write(b"x"), ErrorKind::BrokenPipe)
}

fn cut_by_drop(scene: &Scene<'_>) -> Verdict {
    let mut near = cut(scene, |far| {
        drop(far);
        Ok(None)
    })?;
    fails(
        "the next write",
        near.write(b"x"),
        ErrorKind::ConnectionReset,
    )
}

/// Reads through buffers that are smaller than, as large as, and larger than the queued data.
fn read_before(
    scene: &Scene<'_>,
    end: fn(Pair) -> Result<BoxedStream, RuleBreach>,
    after: fn(std::io::Result<usize>) -> Verdict,
) -> Verdict {
    let size = scene.some(10);
    let bytes = Pattern::default().take(size);
    for room in [1, size.saturating_sub(1), size, size + 1, 64] {
        for mode in [Mode::Nonblocking, Mode::Blocking] {
            let mut pair = scene.pair(mode, mode)?;
            write(&mut pair.near, &bytes)?;
            let mut far = end(pair)?;
            let mut got = Vec::new();
            let mut buf = vec![0; room.max(1)];
            while got.len() < size {
                let len = succeeds("a read before the end", far.read(&mut buf))?;
                hold(len > 0, "the last byte", "the end was reported before it")?;
                got.extend_from_slice(&buf[..len]);
            }
            same(&got, &bytes)?;
            after(far.read(&mut buf))?;
        }
    }
    Ok(())
}

fn read_before_reset(scene: &Scene<'_>) -> Verdict {
    read_before(
        scene,
        |Pair { near, far }| {
            near.abort();
            Ok(far)
        },
        |read| {
            fails(
                "a read after the last byte",
                read,
                ErrorKind::ConnectionReset,
            )
        },
    )
}

fn read_before_end(scene: &Scene<'_>) -> Verdict {
    read_before(
        scene,
        |Pair { mut near, far }| {
            near.shutdown(Shutdown::Write)?;
            drop(near);
            Ok(far)
        },
        |read| count("a read after the last byte", read, 0),
    )
}
