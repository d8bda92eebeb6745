// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! What host processes can make a backend for passed descriptors log. The logger is the process's,
//! so this test has a process of its own.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::collections::BTreeMap;
use std::io::{ErrorKind, IoSlice, Read, Write};
use std::mem::MaybeUninit;
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;
use std::time::Duration;

use rustix::event::EventfdFlags;
use rustix::net::{SendAncillaryBuffer, SendAncillaryMessage, SendFlags, sendmsg};
use tempfile::TempDir;
use vsock_backend_api::VsockBackend;
use vsock_compliance::poll::{Deadline, Stopwatch, wait_until};
use vsock_driver::{logged, logged_by_all_threads};
use vsock_sockets::{PassFdBackend, PassFdConfig};

const SOON: Duration = Duration::from_secs(60);
const CLIENTS: usize = 50;

/// How often each message may be logged before it must wait, and how long it waits for each
/// further turn.
const BURST: usize = 10;
const INTERVAL: Duration = Duration::from_secs(10);

/// A backend in a directory of its own.
struct Host {
    backend: PassFdBackend,
    _dir: TempDir,
}

impl Host {
    fn new(config: PassFdConfig) -> Self {
        let dir = TempDir::new().unwrap();
        let backend = PassFdBackend::bind(dir.path().join("vm"), config).unwrap();
        Self { backend, _dir: dir }
    }

    fn connect(&self) -> UnixStream {
        UnixStream::connect(self.backend.path()).unwrap()
    }

    fn pass(&self, file: &impl AsFd) -> UnixStream {
        let mut client = self.connect();
        client.write_all(b"passfd\n").unwrap();
        let files = [file.as_fd()];
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
        let mut extras = SendAncillaryBuffer::new(&mut space);
        assert!(extras.push(SendAncillaryMessage::ScmRights(&files)));
        let command = [IoSlice::new(b"1024\n")];
        sendmsg(&client, &command, &mut extras, SendFlags::empty()).unwrap();
        client
    }

    /// Serves clients until this one reads the end.
    fn refuse(&mut self, mut client: &UnixStream) {
        client.set_nonblocking(true).unwrap();
        let is_refused = || {
            let accepted = self.backend.accept().map(drop).unwrap_err().kind();
            assert_eq!(accepted, ErrorKind::WouldBlock);
            match client.read(&mut [0]) {
                Ok(len) => len == 0,
                Err(error) => error.kind() == ErrorKind::ConnectionReset,
            }
        };
        wait_until(Deadline::after(SOON), is_refused).unwrap();
    }
}

/// Passes malformed commands, and a descriptor that cannot be used.
fn send_what_is_refused() {
    let mut host = Host::new(PassFdConfig::default());
    let unusable = rustix::event::eventfd(0, EventfdFlags::CLOEXEC).unwrap();
    for _ in 0..CLIENTS {
        let mut client = host.connect();
        client.write_all(b"passfd\nnonsense\n").unwrap();
        host.refuse(&client);
        let client = host.pass(&unusable);
        host.refuse(&client);
    }
}

/// Passes descriptors beyond the limit. The first one stays in use.
fn pass_too_many() {
    let mut host = Host::new(PassFdConfig::default().max_streams(1));
    let (near, _far) = UnixStream::pair().unwrap();
    let _first = host.pass(&near);
    let mut stream = None;
    let accepted = || {
        stream = host.backend.accept().ok();
        stream.is_some()
    };
    wait_until(Deadline::after(SOON), accepted).unwrap();
    for _ in 0..CLIENTS {
        let client = host.pass(&near);
        host.refuse(&client);
    }
}

/// Connects clients that send nothing: beyond the limit, and until they are late.
fn send_nothing() {
    let mut host = Host::new(PassFdConfig::default().max_waiting(1));
    let mut oldest = host.connect();
    for _ in 0..CLIENTS {
        let next = host.connect();
        host.refuse(&oldest);
        oldest = next;
    }
    let timeout = Duration::from_millis(1);
    let mut host = Host::new(PassFdConfig::default().command_timeout(timeout));
    for _ in 0..CLIENTS {
        let client = host.connect();
        host.refuse(&client);
    }
}

/// Returns each line of the log, with how often it was written.
fn lines() -> BTreeMap<String, usize> {
    let mut counts = BTreeMap::new();
    for line in logged_by_all_threads() {
        *counts.entry(line).or_default() += 1;
    }
    counts
}

#[test]
fn t131_clients_that_pass_descriptors_do_not_fill_the_log() {
    logged();
    let watch = Stopwatch::start();
    send_what_is_refused();
    pass_too_many();
    send_nothing();
    // A pump's thread may still hold the journal of its backend, whose end reports the rest. On a
    // slow machine, a message can have another report before.
    let reports = || {
        lines()
            .keys()
            .filter(|line| line.contains("left out"))
            .count()
            >= 5
    };
    let told = wait_until(Deadline::after(SOON), reports);
    let turns = watch.elapsed().as_nanos() / INTERVAL.as_nanos();
    let most = BURST + usize::try_from(turns).unwrap();
    let lines = lines();
    assert!(lines.values().all(|&count| count <= most), "{lines:#?}");
    assert!(
        told.is_ok(),
        "each message reports what was left out: {lines:#?}"
    );
}
