// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

use std::io::{ErrorKind, Read, Write};

use super::BackendRule;
use super::verdict::{Verdict, count, fails, hold, succeeds};
use crate::fd;
use crate::poll::is_readable;
use crate::source::{BackendSource, Served};

const EXACTLY: &str = "The backend's fd is readable exactly while a connection waits; an `accept` with \
                       none is `WouldBlock`.";
const CLOEXEC: &str = "All descriptors are close-on-exec.";
const STARTS: &str = "The device's end starts non-blocking; the application's end starts blocking.";
const DROP: &str = "Dropping a backend refuses further `connect`s (`ConnectionRefused`) and resets what \
                    waits in `accept`.";

/// The rules that a backend must meet.
pub(super) fn rules() -> Vec<BackendRule> {
    vec![
        BackendRule::new(
            "3.5",
            EXACTLY,
            "the_backends_fd_is_readable_exactly_while_one_waits",
            exactly,
        ),
        BackendRule::new("3.5", EXACTLY, "an_accept_of_nothing_would_block", nothing),
        BackendRule::new(
            "3.5",
            EXACTLY,
            "connections_are_accepted_in_order",
            in_order,
        ),
        BackendRule::new(
            "3.7",
            CLOEXEC,
            "the_backends_fd_is_close_on_exec",
            close_on_exec,
        ),
        BackendRule::new("2.2", STARTS, "an_accepted_stream_is_nonblocking", starts),
        BackendRule::new("4", DROP, "a_dropped_backend_refuses", refuses),
        BackendRule::new("4", DROP, "a_dropped_backend_resets_what_waits", resets),
    ]
}

fn fd_is(served: &Served, want: bool, when: &str) -> Verdict {
    let got = is_readable(served.backend.as_raw_fd())?;
    hold(
        got == want,
        format!("the backend's fd being readable is {got} {when}"),
    )
}

fn exactly(source: &dyn BackendSource) -> Verdict {
    let mut served = source.backend()?;
    fd_is(&served, false, "with nobody waiting")?;
    for round in 1..4 {
        let clients = (0..round)
            .map(|_| (served.connect)())
            .collect::<Result<Vec<_>, _>>()?;
        for left in (1..=round).rev() {
            fd_is(&served, true, &format!("with {left} waiting"))?;
            succeeds("an accept", served.backend.accept())?;
        }
        fd_is(&served, false, "with all accepted")?;
        drop(clients);
    }
    Ok(())
}

fn nothing(source: &dyn BackendSource) -> Verdict {
    let mut served = source.backend()?;
    for _ in 0..3 {
        let accepted = served.backend.accept().map(drop);
        fails("an accept of nothing", accepted, ErrorKind::WouldBlock)?;
        fd_is(&served, false, "after an accept of nothing")?;
    }
    Ok(())
}

fn in_order(source: &dyn BackendSource) -> Verdict {
    let mut served = source.backend()?;
    let mut clients = Vec::new();
    for name in 1..=3 {
        let mut client = (served.connect)()?;
        client.write_all(&[name])?;
        clients.push(client);
    }
    for name in 1..=3 {
        let mut stream = served.backend.accept()?;
        let mut got = [0];
        count("a read of what the client wrote", stream.read(&mut got), 1)?;
        hold(
            got == [name],
            format!("client {} was accepted in the place of {name}", got[0]),
        )?;
    }
    Ok(())
}

fn close_on_exec(source: &dyn BackendSource) -> Verdict {
    let served = source.backend()?;
    hold(
        fd::is_close_on_exec(served.backend.as_raw_fd())?,
        "the backend's fd survives an exec",
    )
}

fn starts(source: &dyn BackendSource) -> Verdict {
    let mut served = source.backend()?;
    let client = (served.connect)()?;
    let mut stream = served.backend.accept()?;
    fails(
        "a first read of nothing",
        stream.read(&mut [0]),
        ErrorKind::WouldBlock,
    )?;
    drop(client);
    Ok(())
}

fn refuses(source: &dyn BackendSource) -> Verdict {
    let Served { backend, connect } = source.backend()?;
    drop(backend);
    fails(
        "a connect to a dropped backend",
        connect().map(drop),
        ErrorKind::ConnectionRefused,
    )
}

fn resets(source: &dyn BackendSource) -> Verdict {
    let Served { backend, connect } = source.backend()?;
    let mut client = connect()?;
    drop(backend);
    fails(
        "a read from a dropped backend",
        client.read(&mut [0]),
        ErrorKind::ConnectionReset,
    )?;
    fails(
        "a write to a dropped backend",
        client.write(b"x"),
        ErrorKind::ConnectionReset,
    )
}
