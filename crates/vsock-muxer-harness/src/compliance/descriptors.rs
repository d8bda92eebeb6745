// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

use std::io::{self, ErrorKind, Read, Write};

use vmm_sys_util::eventfd::{EFD_NONBLOCK, EventFd};

use super::StreamRule;
use super::scene::{Pair, Scene, drain, read_expecting, readable, writable, write};
use super::verdict::{Failure, Verdict, count, fails, hold};
use crate::call::Call;
use crate::fd;
use crate::pattern::Pattern;
use crate::poll::{Interest, Watch};
use crate::source::Stream;

const CLOEXEC: &str = "All descriptors are close-on-exec.";
const CLOSED: &str = "An end's descriptors are closed by the time its `drop` returns, also while the \
                      peer lives.";
const IN_FLIGHT: &str = "A doorbell in flight never touches a number that was closed.";
const BY_HAND: &str = "Reading or writing an fd by hand can spoil the readiness of that end, never its \
                       bytes, never the peer.";

/// The rules of this section.
pub(super) fn rules() -> Vec<StreamRule> {
    vec![
        StreamRule::new(
            "3.7",
            CLOEXEC,
            "descriptors_are_close_on_exec",
            close_on_exec,
        ),
        StreamRule::new(
            "3.7",
            CLOSED,
            "a_drop_closes_the_descriptors_of_its_end",
            closed_by_drop,
        ),
        StreamRule::new(
            "3.7",
            IN_FLIGHT,
            "a_doorbell_never_rings_a_closed_number",
            in_flight,
        ),
        StreamRule::new(
            "3.7",
            BY_HAND,
            "an_fd_read_by_hand_costs_no_bytes",
            read_by_hand,
        ),
        StreamRule::new(
            "3.7",
            BY_HAND,
            "an_fd_written_by_hand_adds_no_bytes",
            written_by_hand,
        ),
    ]
}

fn close_on_exec(scene: &Scene<'_>) -> Verdict {
    let Pair { near, far } = scene.fresh()?;
    for stream in [near, far] {
        for fd in [stream.as_raw_fd(), stream.write_ready_fd()?] {
            hold(
                fd::is_close_on_exec(fd)?,
                format!("descriptor {fd} survives an exec"),
            )?;
        }
    }
    Ok(())
}

fn closed_by_drop(scene: &Scene<'_>) -> Verdict {
    let Pair { mut near, mut far } = scene.nonblocking()?;
    let watches = [
        Watch::level(near.as_raw_fd(), Interest::Read)?,
        Watch::level(near.write_ready_fd()?, Interest::Write)?,
    ];
    write(&mut near, b"x")?;
    write(&mut far, b"x")?;
    drop(near);
    hold(!watches[0].is_open(), "the read fd is open after the drop")?;
    hold(!watches[1].is_open(), "the write fd is open after the drop")?;
    readable(&far, true, "after the peer's drop")?;
    writable(&far, true, "after the peer's drop")
}

/// How often an end is dropped under the hands of its peer.
const DROPS: usize = 200;

fn in_flight(scene: &Scene<'_>) -> Verdict {
    for _ in 0..DROPS {
        let Pair { mut near, mut far } = scene.nonblocking()?;
        // Both descriptors of the near end are rung by what the far end does.
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
        // They take the numbers that were just closed; nobody but us may write them.
        let bystanders = [(); 4].map(|()| EventFd::new(EFD_NONBLOCK));
        let rung = ringing.finish(scene.deadline());
        rung.map_err(|why| Failure::Violated(format!("the peer never saw the drop: {why}")))?;
        for bystander in bystanders {
            fails(
                "a read of somebody else's eventfd",
                bystander?.read(),
                ErrorKind::WouldBlock,
            )?;
        }
    }
    Ok(())
}

fn by_hand(scene: &Scene<'_>, meddle: fn(&Stream) -> Result<(), Failure>) -> Verdict {
    let Pair { mut near, mut far } = scene.nonblocking()?;
    let (there, back) = (Pattern::default().take(scene.some(100)), b"y");
    readable(&far, false, "at the start")?;
    meddle(&far)?;
    fails(
        "a read of nothing",
        far.read(&mut [0]),
        ErrorKind::WouldBlock,
    )?;
    write(&mut near, &there)?;
    meddle(&far)?;
    write(&mut far, back)?;
    readable(&near, true, "beside a peer whose fd was meddled with")?;
    read_expecting(&mut far, &there)?;
    read_expecting(&mut near, back)?;
    readable(&near, false, "beside a peer whose fd was meddled with")?;
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
