// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! A third-party muxer that polls one descriptor of a stream, level-triggered, for both directions.
//!
//! Muxers written for sockets do this. They wait for `EPOLLOUT` on `as_raw_fd` while the host
//! component does not read, keep the bytes that do not fit in a buffer of their own, and have no
//! half-close. These tests confirm what `docs/migration.md` says about them.

use std::io::{ErrorKind, Read, Write};
use std::net::Shutdown;
use std::os::fd::RawFd;

use vsock_backend_api::VsockBackend;
use vsock_compliance::BoxedStream;
use vsock_compliance::poll::{PollInterest, Watch};
use vsock_inner::{Capacity, VsockInnerBackend, VsockInnerConfig};

use crate::{read_all, soon};

/// How much such a muxer buffers for a stream that accepts no more.
const TX_BUFFER: usize = 64 * 1024;

/// Consecutive waits that show that a thread does not sleep.
const TURNS: usize = 1000;

/// A connection of such a muxer.
struct Connection {
    stream: BoxedStream,
    kept: Vec<u8>,
}

impl Connection {
    /// Forwards bytes from the guest. Returns how many were accepted.
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

    /// Handles `EPOLLOUT`. Returns how many bytes were written.
    fn flush(&mut self) -> usize {
        let written = accepted(self.stream.write(&self.kept));
        self.kept.drain(..written);
        written
    }

    /// Sends until neither the stream nor the buffer accepts more.
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

/// Returns bytes that show their order.
fn pattern(len: usize) -> Vec<u8> {
    (0..=250).cycle().take(len).collect()
}

/// Returns how many bytes a non-blocking write accepted.
fn accepted(result: std::io::Result<usize>) -> usize {
    match result {
        Ok(written) => written,
        Err(error) if error.kind() == ErrorKind::WouldBlock => 0,
        Err(error) => panic!("{error}"),
    }
}

/// Returns a host component's connection and its end at the muxer.
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
        assert!(
            report.is_some_and(|r| r.writable()),
            "the thread slept in turn {turn}"
        );
        assert_eq!(muxer.flush(), 0, "turn {turn}");
    }

    // It only costs processor time: every byte arrives after the host reads.
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
        assert_eq!(
            ready.now().unwrap(),
            None,
            "the thread was woken in turn {turn}"
        );
    }

    let mut got = Vec::new();
    while got.len() < sent.len() {
        got.extend(read_all(&mut *host).0);
        if !muxer.kept.is_empty() {
            assert!(ready.wait(soon()).unwrap().writable());
            assert!(muxer.flush() > 0, "the wake-up was spurious");
        }
    }
    assert!(got == sent, "{} of {} bytes", got.len(), sent.len());
}

#[test]
fn with_an_unbounded_stream_such_a_muxer_never_waits() {
    let (mut host, mut muxer) = connected(Capacity::Unbounded);
    let sent = pattern(1_000_000);
    assert_eq!(muxer.send(&sent), sent.len());
    assert!(muxer.kept.is_empty(), "the muxer waits for EPOLLOUT");
    let mut one = level(muxer.stream.as_raw_fd(), PollInterest::Read);
    assert_eq!(one.now().unwrap(), None);

    // Its close then loses nothing: the late reader gets everything, and the end.
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
fn the_bytes_in_such_a_muxers_buffer_are_lost_with_its_connection() {
    let (mut host, mut muxer) = connected(Capacity::default());
    let sent = muxer.fill();
    assert_eq!(muxer.kept.len(), TX_BUFFER);
    drop(muxer); // its close timer expires
    let (got, ended) = read_all(&mut *host);
    assert!(got == sent[..sent.len() - TX_BUFFER], "{} bytes", got.len());
    assert!(
        ended,
        "to the host component this looks like a graceful end"
    );
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

    // The guest's answer so far arrives. Then such a muxer takes the end for a close.
    assert_eq!(muxer.send(b"answer"), 6);
    drop(muxer);
    assert_eq!(read_all(&mut *host), (b"answer".to_vec(), true));
}
