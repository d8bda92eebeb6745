// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! A foreign muxer that polls one descriptor of a stream, level-triggered, for both directions.
//!
//! Muxers written for sockets do so: they wait for `EPOLLOUT` on `as_raw_fd` while the host
//! component has not read, keep what did not fit in a buffer of their own, and know no half-close.
//! These tests hold what `docs/migration.md` says about them.

use std::io::{ErrorKind, Read, Write};
use std::net::Shutdown;
use std::os::fd::RawFd;

use vsock_backend_api::VsockBackend;
use vsock_compliance::BoxedStream;
use vsock_compliance::poll::{PollInterest, Watch};
use vsock_inner::{Capacity, VsockInnerBackend, VsockInnerConfig};

use crate::{read_all, soon};

/// What such a muxer keeps for a stream that takes no more.
const TX_BUFFER: usize = 64 * 1024;

/// Waits in a row that show that a thread does not sleep.
const TURNS: usize = 1000;

/// One connection of such a muxer.
struct Connection {
    stream: BoxedStream,
    kept: Vec<u8>,
}

impl Connection {
    /// Passes on what the guest sent: returns how much was taken.
    fn send(&mut self, bytes: &[u8]) -> usize {
        let written = if self.kept.is_empty() {
            accepted(self.stream.write(bytes))
        } else {
            0
        };
        let room = TX_BUFFER - self.kept.len();
        let taken = bytes.len().min(written + room);
        self.kept.extend_from_slice(&bytes[written..taken]);
        taken
    }

    /// What it does on `EPOLLOUT`: returns how much went on.
    fn flush(&mut self) -> usize {
        let written = accepted(self.stream.write(&self.kept));
        self.kept.drain(..written);
        written
    }

    /// Sends until neither the stream nor the buffer takes more.
    fn fill(&mut self) -> Vec<u8> {
        let mut sent = Vec::new();
        loop {
            let piece = pattern(4096);
            let taken = self.send(&piece);
            sent.extend_from_slice(&piece[..taken]);
            if taken < piece.len() {
                return sent;
            }
        }
    }
}

/// Bytes whose order shows.
fn pattern(len: usize) -> Vec<u8> {
    (0..=250).cycle().take(len).collect()
}

/// What a non-blocking write took.
fn accepted(result: std::io::Result<usize>) -> usize {
    match result {
        Ok(written) => written,
        Err(error) if error.kind() == ErrorKind::WouldBlock => 0,
        Err(error) => panic!("{error}"),
    }
}

/// A connection of the host component's, and its end at the muxer.
fn connected(to_application: Capacity) -> (BoxedStream, Connection) {
    let config = VsockInnerConfig::default().to_application(to_application);
    let mut backend = VsockInnerBackend::with_config(config).unwrap();
    let mut host = backend.get_connector().connect().unwrap();
    host.set_nonblocking(true).unwrap();
    let mut stream = backend.accept().unwrap();
    stream.set_nonblocking(true).unwrap();
    let kept = Vec::new();
    (host, Connection { stream, kept })
}

fn level(fd: RawFd, interest: PollInterest) -> Watch {
    Watch::level(fd, interest).unwrap()
}

#[test]
fn a_wait_for_epollout_on_the_one_descriptor_spins_until_the_host_reads() {
    let (mut host, mut muxer) = connected(Capacity::default());
    let sent = muxer.fill();
    let mut one = level(muxer.stream.as_raw_fd(), PollInterest::Write);
    for turn in 0..TURNS {
        let report = one.now().unwrap();
        assert!(report.is_some_and(|r| r.writable()), "slept in turn {turn}");
        assert_eq!(muxer.flush(), 0, "turn {turn}");
    }

    // It costs a processor, and nothing else: every byte comes once the host reads.
    let (mut got, _) = read_all(&mut *host);
    while muxer.flush() > 0 {
        got.extend(read_all(&mut *host).0);
    }
    assert!(got == sent, "{} of {} bytes", got.len(), sent.len());
}

#[test]
fn a_wait_on_write_ready_fd_sleeps_until_the_host_reads() {
    let (mut host, mut muxer) = connected(Capacity::default());
    let sent = muxer.fill();
    let mut ready = level(muxer.stream.write_ready_fd().unwrap(), PollInterest::Write);
    for turn in 0..TURNS {
        assert_eq!(ready.now().unwrap(), None, "woken in turn {turn}");
    }

    let mut got = Vec::new();
    while got.len() < sent.len() {
        got.extend(read_all(&mut *host).0);
        if !muxer.kept.is_empty() {
            assert!(ready.wait(soon()).unwrap().writable());
            assert!(muxer.flush() > 0, "woken for nothing");
        }
    }
    assert!(got == sent, "{} of {} bytes", got.len(), sent.len());
}

#[test]
fn an_unbounded_stream_leaves_such_a_muxer_nothing_to_wait_for() {
    let (mut host, mut muxer) = connected(Capacity::Unbounded);
    let sent = pattern(1_000_000);
    assert_eq!(muxer.send(&sent), sent.len());
    assert!(muxer.kept.is_empty(), "it waits for EPOLLOUT");
    let mut one = level(muxer.stream.as_raw_fd(), PollInterest::Read);
    assert_eq!(one.now().unwrap(), None);

    // Its close loses nothing then: the late reader gets all, and the end.
    drop(muxer);
    let (got, ended) = read_all(&mut *host);
    assert!(
        got == sent && ended,
        "{} of {} bytes",
        got.len(),
        sent.len()
    );
}

#[test]
fn what_such_a_muxer_keeps_is_lost_with_its_connection() {
    let (mut host, mut muxer) = connected(Capacity::default());
    let sent = muxer.fill();
    assert_eq!(muxer.kept.len(), TX_BUFFER);
    drop(muxer); // its close timer
    let (got, ended) = read_all(&mut *host);
    assert!(got == sent[..sent.len() - TX_BUFFER], "{} bytes", got.len());
    assert!(ended, "to the host component it looks like an orderly end");
}

#[test]
fn a_half_close_of_the_host_ends_the_connection_at_such_a_muxer() {
    let (mut host, mut muxer) = connected(Capacity::default());
    host.write_all(b"question").unwrap();
    host.shutdown(Shutdown::Write).unwrap();
    let mut one = level(muxer.stream.as_raw_fd(), PollInterest::Read);
    let mut buf = [0; 64];
    for expected in [&b"question"[..], b""] {
        assert!(one.wait(soon()).unwrap().readable());
        let got = muxer.stream.read(&mut buf).unwrap();
        assert_eq!(&buf[..got], expected);
    }

    // The guest's answer up to here arrives; then such a muxer takes the end for a close.
    assert_eq!(muxer.send(b"answer"), 6);
    drop(muxer);
    assert_eq!(read_all(&mut *host), (b"answer".to_vec(), true));
}
