// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! The sentences of the traits, over TCP, and over the backend to which descriptors are passed.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::io;
use std::net::{TcpListener, TcpStream};
use std::os::unix::net::UnixStream;
use std::time::Duration;

use tempfile::TempDir;
use vsock_compliance::poll::{Deadline, PollInterest, wait_ready};
use vsock_compliance::{
    BackendSource, BoxedStream, ComplianceReport, ConnectionEnd, Exception, Mode, PairSource,
    ServedBackend, judge_backends, judge_streams,
};
use vsock_sockets::{
    PassFdBackend, PassFdConfig, TcpBackend, TcpVsockStream, UnixVsockStream, VsockBackend,
};

/// Pairs of TCP sockets.
struct Pairs;

impl PairSource for Pairs {
    fn pair(&self) -> io::Result<(BoxedStream, BoxedStream)> {
        let listener = TcpListener::bind("127.0.0.1:0")?;
        let application = TcpStream::connect(listener.local_addr()?)?;
        let (device, _) = listener.accept()?;
        Ok((
            Box::new(TcpVsockStream::new(application)),
            Box::new(TcpVsockStream::new(device)),
        ))
    }
}

/// Connections that the backend accepts.
struct Accepted;

impl PairSource for Accepted {
    fn pair(&self) -> io::Result<(BoxedStream, BoxedStream)> {
        let mut backend = TcpBackend::bind("127.0.0.1:0".parse().unwrap())?;
        let application = TcpStream::connect(backend.local_addr())?;
        let soon = Deadline::after(Duration::from_secs(20));
        let fd = std::os::fd::AsRawFd::as_raw_fd(&backend);
        wait_ready(fd, PollInterest::Read, soon)?;
        Ok((
            Box::new(TcpVsockStream::new(application)),
            backend.accept()?,
        ))
    }

    fn initial_mode(&self, end: ConnectionEnd) -> Mode {
        match end {
            ConnectionEnd::Application => Mode::Blocking,
            ConnectionEnd::Device => Mode::Nonblocking,
        }
    }
}

impl BackendSource for Accepted {
    fn backend(&self) -> io::Result<ServedBackend> {
        let backend = TcpBackend::bind("127.0.0.1:0".parse().unwrap())?;
        let address = backend.local_addr();
        let connect = move || -> io::Result<BoxedStream> {
            Ok(Box::new(TcpVsockStream::new(TcpStream::connect(address)?)))
        };
        Ok(ServedBackend {
            backend: Box::new(backend),
            connect: Box::new(connect),
        })
    }
}

/// A backend to which descriptors are passed, and clients that begin with something else.
struct Passing;

impl BackendSource for Passing {
    fn backend(&self) -> io::Result<ServedBackend> {
        let dir = TempDir::new()?;
        let path = dir.path().join("vm");
        let backend = PassFdBackend::bind(&path, PassFdConfig::default())?;
        let connect = move || -> io::Result<BoxedStream> {
            let _kept = &dir;
            let client = UnixStream::connect(&path)?;
            io::Write::write_all(&mut &client, b"C")?;
            Ok(Box::new(UnixVsockStream::new(client)))
        };
        Ok(ServedBackend {
            backend: Box::new(backend),
            connect: Box::new(connect),
        })
    }
}

#[track_caller]
fn assert_good(report: &ComplianceReport) {
    assert!(report.is_good(), "\n{report}");
}

const fn except(name: &'static str, reason: &'static str) -> Exception {
    Exception { name, reason }
}

const STREAMS: &[Exception] = &[];
const BACKEND: &[Exception] = &[];

#[test]
fn tcp_complies_but_for_what_sockets_do_otherwise() {
    assert_good(&judge_streams(&Pairs, STREAMS));
}

#[test]
fn what_the_tcp_backend_accepts_complies_as_a_socket_does() {
    assert_good(&judge_streams(&Accepted, STREAMS));
}

#[test]
fn the_tcp_backend_complies_but_for_what_sockets_do_otherwise() {
    assert_good(&judge_backends(&Accepted, BACKEND));
}

#[test]
fn the_backend_for_descriptors_complies_but_for_what_sockets_do_otherwise() {
    assert_good(&judge_backends(&Passing, BACKEND));
}
