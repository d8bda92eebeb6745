// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! A server so busy that its backlog is full.

use std::fs;
use std::io::{ErrorKind, Read, Write};
use std::os::fd::AsRawFd;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, bail, ensure};
use nix::sys::socket::{self, AddressFamily, Backlog, SockFlag, SockType, UnixAddr, socket};
use vsock_guest_program::job::{Job, Options};

use super::{Outcome, Test};
use crate::guest::HOST;
use crate::machine::Machine;

pub(super) const TESTS: &[Test] = &[Test::new(
    "t135_a_restarted_server_accepts_no_dead_client",
    restarted,
)];

/// How many guest sockets give up, and after how many milliseconds.
const IMPATIENT: usize = 5;
const GIVES_UP_MS: u64 = 300;
/// Longer than any device waits before it retries a busy server.
const LATE: Duration = Duration::from_secs(3);

/// When a connecting socket is closed, Linux notifies only its device. So only that device can
/// detect it.
fn restarted(machine: &mut Machine) -> anyhow::Result<Outcome> {
    if machine.device().process().is_none() {
        return Ok(Outcome::NotOffered("no files"));
    }
    let port = machine.port();
    let file = machine.directory().join(format!("uds_{port}"));
    let busy = listen(&file, 0)?;
    let waiting = fill(&file)?;
    let options = Options {
        connect_timeout: Some(GIVES_UP_MS),
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
    let server = machine.host().listen(port)?;

    let live = machine.guest().connect(port)?;
    let service = machine.guest().start(Job::Echo(live.socket))?;
    let mut stream = server.accept().context("the live client did not arrive")?;
    stream.writer.write_all(b"are you alive?")?;
    stream.writer.finish()?;
    let mut answer = Vec::new();
    stream.reader.read_to_end(&mut answer)?;
    ensure!(
        answer == b"are you alive?",
        "a dead client was accepted first"
    );
    service.wait()?;
    machine.guest().close(live)?;
    let another = server.accept_within(LATE).err().map(|why| why.kind());
    ensure!(
        another == Some(ErrorKind::TimedOut),
        "a dead client was accepted later: {another:?}"
    );
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
