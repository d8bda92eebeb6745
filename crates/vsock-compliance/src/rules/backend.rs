// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

use std::io::{ErrorKind, Read, Write};

use crate::breach::{Verdict, count, fails, hold, succeeds};
use crate::call::Call;
use crate::fd;
use crate::poll::{Deadline, is_readable};
use crate::rule::{BackendCheck, Sentence};
use crate::scene::TIMEOUT;
use crate::source::{BackendSource, ServedBackend};

sentences! {
    functions BackendCheck;

    "3.5" "The backend's descriptor is readable exactly while a connection waits; if none waits, \
        `accept` returns `WouldBlock`." {
        the_backends_fd_is_readable_exactly_while_one_waits: { exactly };
        an_accept_of_nothing_would_block: { nothing };
        connections_are_accepted_in_order: { in_order };
    }

    "3.7" "All descriptors are close-on-exec." {
        the_backends_fd_is_close_on_exec: { close_on_exec };
    }

    "2.2" "The device end starts in non-blocking mode, the application end in blocking mode." {
        an_accepted_stream_is_nonblocking: { starts };
    }

    "4" "After a backend is dropped, `connect` returns `ConnectionRefused`, and connections that \
        wait in `accept` are reset." {
        a_dropped_backend_refuses: { refuses };
        a_dropped_backend_resets_what_waits: { resets };
    }
}

/// Whether the backend's descriptor must be readable.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum FdState {
    Readable,
    Unreadable,
}

fn fd_is(state: FdState, served: &ServedBackend, when: &str) -> Verdict {
    let readable = is_readable(served.backend.as_raw_fd())?;
    let expected = format!("the descriptor to be {state:?} {when}");
    hold(
        readable == (state == FdState::Readable),
        expected,
        "it was not",
    )
}

fn exactly(source: &dyn BackendSource) -> Verdict {
    let mut served = source.backend()?;
    fd_is(FdState::Unreadable, &served, "while no connection waits")?;
    for round in 1..4 {
        let clients = (0..round)
            .map(|_| (served.connect)())
            .collect::<Result<Vec<_>, _>>()?;
        for left in (1..=round).rev() {
            fd_is(FdState::Readable, &served, &format!("while {left} wait"))?;
            succeeds("an accept", served.backend.accept())?;
        }
        fd_is(FdState::Unreadable, &served, "after all were accepted")?;
        drop(clients);
    }
    Ok(())
}

fn nothing(source: &dyn BackendSource) -> Verdict {
    let mut served = source.backend()?;
    for _ in 0..3 {
        let accepted = served.backend.accept().map(drop);
        fails(
            "an accept without a connection",
            accepted,
            ErrorKind::WouldBlock,
        )?;
        fd_is(FdState::Unreadable, &served, "after such an accept")?;
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
            format!("client {name} to be accepted next"),
            format!("client {} was", got[0]),
        )?;
    }
    Ok(())
}

fn close_on_exec(source: &dyn BackendSource) -> Verdict {
    let served = source.backend()?;
    hold(
        fd::is_close_on_exec(served.backend.as_raw_fd())?,
        "the backend's descriptor to be close-on-exec",
        "it is not",
    )
}

fn starts(source: &dyn BackendSource) -> Verdict {
    let mut served = source.backend()?;
    let client = (served.connect)()?;
    let mut stream = served.backend.accept()?;
    let reading = Call::start(move || stream.read(&mut [0]))?;
    let read = reading.finish(Deadline::after(TIMEOUT))?;
    fails("a first read of nothing", read, ErrorKind::WouldBlock)?;
    drop(client);
    Ok(())
}

fn refuses(source: &dyn BackendSource) -> Verdict {
    let ServedBackend { backend, connect } = source.backend()?;
    drop(backend);
    fails(
        "a connect to a dropped backend",
        connect().map(drop),
        ErrorKind::ConnectionRefused,
    )
}

fn resets(source: &dyn BackendSource) -> Verdict {
    let ServedBackend { backend, connect } = source.backend()?;
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
