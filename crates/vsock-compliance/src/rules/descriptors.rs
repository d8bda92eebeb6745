// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

use std::io::{self, ErrorKind, Read, Write};

use vmm_sys_util::eventfd::{EFD_NONBLOCK, EventFd};

use crate::breach::{RuleBreach, Verdict, count, fails, hold};
use crate::call::Call;
use crate::fd;
use crate::pattern::Pattern;
use crate::poll::{PollInterest, Watch};
use crate::rule::{Sentence, StreamCheck};
use crate::scene::{Pair, Scene, drain, read_expecting, ready, unready, write};
use crate::source::BoxedStream;

sentences! {
    functions StreamCheck;

    "3.7" "All descriptors are close-on-exec." {
        descriptors_are_close_on_exec: { close_on_exec };
    }

    "3.7" "An end's descriptors are closed when its `drop` returns, even if the peer still \
        exists." {
        a_drop_closes_the_descriptors_of_its_end: { closed_by_drop };
    }

    "3.7" "A doorbell in flight never affects a descriptor number that was closed and reused." {
        a_doorbell_never_rings_a_closed_number: { in_flight };
    }

    "3.7" "If a caller reads or writes a descriptor directly, the readiness of that end may become \
        wrong, but its bytes and its peer are unaffected." {
        an_fd_read_by_hand_costs_no_bytes: { read_by_hand };
        an_fd_written_by_hand_adds_no_bytes: { written_by_hand };
    }
}

fn close_on_exec(scene: &Scene<'_>) -> Verdict {
    let Pair { near, far } = scene.fresh()?;
    for stream in [near, far] {
        for fd in [stream.as_raw_fd(), stream.write_ready_fd()?] {
            hold(
                fd::is_close_on_exec(fd)?,
                format!("descriptor {fd} to be close-on-exec"),
                "it is not",
            )?;
        }
    }
    Ok(())
}

fn closed_by_drop(scene: &Scene<'_>) -> Verdict {
    let Pair { mut near, mut far } = scene.nonblocking()?;
    let watches = [
        Watch::level(near.as_raw_fd(), PollInterest::Read)?,
        Watch::level(near.write_ready_fd()?, PollInterest::Write)?,
    ];
    write(&mut near, b"x")?;
    write(&mut far, b"x")?;
    drop(near);
    for watch in watches {
        let expected = "both descriptors to be closed by the drop";
        hold(!watch.is_open(), expected, format!("{watch:?} is open"))?;
    }
    ready(&far, PollInterest::Read, "after the peer's drop")?;
    ready(&far, PollInterest::Write, "after the peer's drop")
}

/// How many times an end is dropped while its peer uses the connection.
const DROPS: usize = 200;

fn in_flight(scene: &Scene<'_>) -> Verdict {
    for _ in 0..DROPS {
        let Pair { mut near, mut far } = scene.nonblocking()?;
        // The far end signals both descriptors of the near end.
        let _fds = (near.as_raw_fd(), near.write_ready_fd()?);
        write(&mut near, b"x")?;
        let ringing = Call::start(move || {
            let mut buf = [0; 64];
            let refused = |written: io::Result<usize>| match written {
                Err(error) => error.kind() != ErrorKind::WouldBlock,
                Ok(_) => false,
            };
            while !refused(far.write(b"x")) {
                let _nothing = far.read(&mut buf);
            }
        })?;
        drain(&mut near)?;
        drop(near);
        // These take the numbers that were just closed. No doorbell may write to them.
        let bystanders = [(); 4].map(|()| EventFd::new(EFD_NONBLOCK));
        let rung = ringing.finish(scene.deadline());
        rung.map_err(|why| RuleBreach::unmet("the peer to see the drop", why))?;
        for bystander in bystanders {
            fails(
                "a read of an unrelated eventfd",
                bystander?.read(),
                ErrorKind::WouldBlock,
            )?;
        }
    }
    Ok(())
}

fn by_hand(scene: &Scene<'_>, meddle: fn(&BoxedStream) -> Result<(), RuleBreach>) -> Verdict {
    let Pair { mut near, mut far } = scene.nonblocking()?;
    let (there, back) = (Pattern::default().take(scene.some(100)), b"y");
    unready(&far, PollInterest::Read, "at the start")?;
    meddle(&far)?;
    fails(
        "a read of an empty stream",
        far.read(&mut [0]),
        ErrorKind::WouldBlock,
    )?;
    write(&mut near, &there)?;
    meddle(&far)?;
    write(&mut far, back)?;
    ready(
        &near,
        PollInterest::Read,
        "with a peer whose descriptor was used directly",
    )?;
    read_expecting(&mut far, &there)?;
    read_expecting(&mut near, back)?;
    unready(
        &near,
        PollInterest::Read,
        "with a peer whose descriptor was used directly",
    )?;
    meddle(&far)?;
    drop(near);
    count("a read after the peer's drop", far.read(&mut [0]), 0)
}

fn read_by_hand(scene: &Scene<'_>) -> Verdict {
    by_hand(scene, |stream| {
        for fd in [stream.as_raw_fd(), stream.write_ready_fd()?] {
            let mut file = fd::duplicate(fd)?;
            if crate::poll::is_readable(fd)? {
                let _counter = file.read(&mut [0; 8]);
            }
        }
        Ok(())
    })
}

fn written_by_hand(scene: &Scene<'_>) -> Verdict {
    by_hand(scene, |stream| {
        for fd in [stream.as_raw_fd(), stream.write_ready_fd()?] {
            let mut file = fd::duplicate(fd)?;
            let _refused = file.write(&1_u64.to_ne_bytes());
        }
        Ok(())
    })
}
