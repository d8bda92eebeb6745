// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Backends in a process that has no descriptor left. The limit on descriptors is the process's, so
//! these tests have a process of their own, and run one after another.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::io::{ErrorKind, IoSlice, Read};
use std::mem::MaybeUninit;
use std::net::TcpStream;
use std::os::fd::{AsFd, AsRawFd};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use rustix::event::{EventfdFlags, eventfd};
use rustix::io::Errno;
use rustix::net::{SendAncillaryBuffer, SendAncillaryMessage, SendFlags, sendmsg};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use tempfile::TempDir;
use vsock_compliance::poll::Stopwatch;
use vsock_driver::lingering;
use vsock_sockets::{PassFdBackend, PassFdConfig, UnixBackend, VsockBackend};

/// The maximum number of clients that one call refuses.
const REFUSALS: usize = 64;

/// How long a close blocks if the peer does not read.
const LINGER: Duration = Duration::from_secs(30);
/// A call that does not block takes less than this, even on the slowest machine.
const SOON: Duration = Duration::from_secs(5);

/// Waits until no other test runs.
fn turn() -> MutexGuard<'static, ()> {
    static TURN: Mutex<()> = Mutex::new(());
    TURN.lock().unwrap_or_else(PoisonError::into_inner)
}

/// While this exists, the process cannot open a descriptor.
struct NoneLeft {
    limit: Rlimit,
}

impl NoneLeft {
    fn new() -> Self {
        let limit = getrlimit(Resource::Nofile);
        // The lowest number that is free.
        let next = eventfd(0, EventfdFlags::CLOEXEC).unwrap().as_raw_fd();
        let current = Some(next.try_into().unwrap());
        setrlimit(Resource::Nofile, Rlimit { current, ..limit }).unwrap();
        Self { limit }
    }
}

impl Drop for NoneLeft {
    fn drop(&mut self) {
        setrlimit(Resource::Nofile, self.limit).unwrap();
    }
}

fn clients(path: &Path, count: usize) -> Vec<UnixStream> {
    let connect = |_| UnixStream::connect(path).unwrap();
    (0..count).map(connect).collect()
}

/// Checks that the next call finds no descriptor, and that the first `expected` clients have then
/// been refused.
#[track_caller]
fn assert_refuses(backend: &mut impl VsockBackend, clients: &[UnixStream], expected: usize) {
    let error = backend.accept().map(drop).unwrap_err();
    assert_eq!(error.raw_os_error(), Some(Errno::MFILE.raw_os_error()));
    let (refused, waiting) = clients.split_at(expected);
    for mut client in refused {
        client.set_read_timeout(Some(SOON)).unwrap();
        match client.read_to_end(&mut Vec::new()) {
            Ok(len) => assert_eq!(len, 0),
            // The client's bytes were not read.
            Err(error) => assert_eq!(error.kind(), ErrorKind::ConnectionReset),
        }
    }
    for mut client in waiting {
        client.set_nonblocking(true).unwrap();
        let open = client.read(&mut [0]).unwrap_err();
        assert_eq!(open.kind(), ErrorKind::WouldBlock);
        client.set_nonblocking(false).unwrap();
    }
}

/// Sends a byte together with a socket whose close blocks, and keeps no other descriptor of that
/// socket. Returns its peer: the close ends when that is dropped.
fn pass_lingering(client: &UnixStream) -> TcpStream {
    let (file, peer) = lingering(LINGER);
    let files = [file.as_fd()];
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut extras = SendAncillaryBuffer::new(&mut space);
    assert!(extras.push(SendAncillaryMessage::ScmRights(&files)));
    let byte = [IoSlice::new(b"x")];
    sendmsg(client, &byte, &mut extras, SendFlags::empty()).unwrap();
    peer
}

#[test]
fn one_call_refuses_a_limited_number_of_clients() {
    let _turn = turn();
    let dir = TempDir::new().unwrap();
    let mut backend = UnixBackend::bind(dir.path().join("vm")).unwrap();
    let waiting = clients(backend.path(), REFUSALS + 2);
    let none_left = NoneLeft::new();
    for expected in [REFUSALS, REFUSALS + 2] {
        assert_refuses(&mut backend, &waiting, expected);
    }
    drop(none_left);
    let _client = clients(backend.path(), 1);
    backend.accept().unwrap();
}

#[test]
fn t124_refusing_a_client_that_sent_a_file_does_not_block() {
    let _turn = turn();
    let dir = TempDir::new().unwrap();
    // On every kernel, clients of this backend can send files.
    let mut backend = PassFdBackend::bind(dir.path().join("vm"), PassFdConfig::default()).unwrap();
    let waiting = clients(backend.path(), 1);
    let mut peer = pass_lingering(&waiting[0]);
    let none_left = NoneLeft::new();
    let started = Stopwatch::start();
    assert_refuses(&mut backend, &waiting, 1);
    assert!(started.elapsed() < SOON, "{:?}", started.elapsed());
    drop(none_left);
    // Once the peer reads the end, the closer thread has closed the client. Later, that would give
    // another test a descriptor.
    peer.set_read_timeout(Some(LINGER)).unwrap();
    peer.read_to_end(&mut Vec::new()).unwrap();
}
