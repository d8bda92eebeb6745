// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! A server that is so busy that its backlog is full.

use std::fs;
use std::io::{ErrorKind, Read, Write};
use std::net::Shutdown;
use std::os::fd::AsRawFd;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, bail, ensure};
use nix::sys::socket::{self, AddressFamily, Backlog, SockFlag, SockType, UnixAddr, socket};
use vsock_guest_program::job::{Job, Options};

use super::{Outcome, Test};
use crate::child::wait_until;
use crate::device::LIMIT;
use crate::guest::HOST;
use crate::machine::Machine;

pub(super) const TESTS: &[Test] = &[Test::new(
    "t135_a_server_that_starts_anew_meets_no_dead_client",
    starts_anew,
)];

/// How many of the guest's sockets give up, each after so many milliseconds.
const IMPATIENT: usize = 5;
const PATIENCE: u64 = 300;
/// Longer than any device waits before it asks a busy server again.
const LATE: Duration = Duration::from_secs(3);

/// Linux tells nobody when a socket that connects is closed: its device is the only one that can know.
fn starts_anew(machine: &mut Machine) -> anyhow::Result<Outcome> {
    if machine.device().process().is_none() {
        return Ok(Outcome::NotOffered("no files"));
    }
    let port = machine.port();
    let file = machine.directory().join(format!("uds_{port}"));
    let busy = listen(&file, 0)?;
    let waiting = fill(&file)?;
    let patience = Some(PATIENCE);
    let options = Options {
        patience,
        ..Options::default()
    };
    let cid = HOST;
    let clients = (0..IMPATIENT)
        .map(|_| machine.guest().start(Job::Connect { cid, port, options }))
        .collect::<anyhow::Result<Vec<_>>>()?;
    for client in clients {
        ensure!(client.wait().is_err(), "a busy server was reached");
    }
    drop((busy, waiting));
    fs::remove_file(&file)?;
    let server = listen(&file, 100)?;
    server.set_nonblocking(true)?;

    let live = machine.guest().connect(port)?;
    let service = machine.guest().start(Job::Echo(live.socket))?;
    let mut stream = accepted(&server, LIMIT)?.context("the live client did not come")?;
    stream.write_all(b"are you alive?")?;
    stream.shutdown(Shutdown::Write)?;
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer)?;
    ensure!(answer == b"are you alive?", "a dead client was first");
    service.wait()?;
    machine.guest().close(live)?;
    let another = accepted(&server, LATE)?;
    ensure!(another.is_none(), "a dead client came later");
    fs::remove_file(&file)?;
    Ok(Outcome::Passed)
}

fn listen(file: &Path, backlog: i32) -> anyhow::Result<UnixListener> {
    let flags = SockFlag::SOCK_CLOEXEC;
    let new = socket(AddressFamily::Unix, SockType::Stream, flags, None)?;
    socket::bind(new.as_raw_fd(), &UnixAddr::new(file)?)?;
    socket::listen(&new, Backlog::new(backlog)?)?;
    Ok(new.into())
}

/// Connects until the backlog is full.
fn fill(file: &Path) -> anyhow::Result<Vec<UnixStream>> {
    let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
    let mut waiting = Vec::new();
    loop {
        let new = socket(AddressFamily::Unix, SockType::Stream, flags, None)?;
        match socket::connect(new.as_raw_fd(), &UnixAddr::new(file)?) {
            Ok(()) => waiting.push(new.into()),
            Err(nix::errno::Errno::EAGAIN) => return Ok(waiting),
            Err(error) => bail!("cannot fill the backlog: {error}"),
        }
    }
}

/// Who has connected, if anybody has within the time.
fn accepted(server: &UnixListener, limit: Duration) -> anyhow::Result<Option<UnixStream>> {
    wait_until(limit, || match server.accept() {
        Ok((stream, _)) => {
            stream.set_nonblocking(false)?;
            stream.set_read_timeout(Some(LIMIT))?;
            stream.set_write_timeout(Some(LIMIT))?;
            Ok(Some(stream))
        }
        Err(error) if error.kind() == ErrorKind::WouldBlock => Ok(None),
        Err(error) => Err(error.into()),
    })
}
