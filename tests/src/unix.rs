// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Unix sockets: pairs to compare with, and the backend over them.

use std::io;
use std::os::unix::net::UnixStream;

use rustix::net::{AddressFamily, SocketFlags, SocketType, socketpair};
use tempfile::TempDir;
use vsock_backend_api::VsockBackend;
use vsock_compliance::{
    BackendSource, BoxedStream, ConnectionEnd, Mode, PairSource, ServedBackend,
};
use vsock_sockets::{UnixBackend, UnixSeqpacketStream, UnixVsockStream};

/// Pairs of Unix sockets.
#[derive(Clone, Copy, Debug)]
pub struct Sockets;

impl PairSource for Sockets {
    fn pair(&self) -> io::Result<(BoxedStream, BoxedStream)> {
        let (application, device) = UnixStream::pair()?;
        Ok((
            Box::new(UnixVsockStream::new(application)),
            Box::new(UnixVsockStream::new(device)),
        ))
    }
}

/// Pairs of `std`'s Unix sockets, unchanged.
#[derive(Clone, Copy, Debug)]
pub struct StdSockets;

impl PairSource for StdSockets {
    fn pair(&self) -> io::Result<(BoxedStream, BoxedStream)> {
        let (application, device) = UnixStream::pair()?;
        Ok((Box::new(application), Box::new(device)))
    }
}

/// Pairs of Unix seqpacket sockets.
#[derive(Clone, Copy, Debug)]
pub struct SeqpacketSockets;

impl PairSource for SeqpacketSockets {
    fn pair(&self) -> io::Result<(BoxedStream, BoxedStream)> {
        let flags = SocketFlags::CLOEXEC;
        let family = AddressFamily::UNIX;
        let (application, device) = socketpair(family, SocketType::SEQPACKET, flags, None)?;
        Ok((
            Box::new(UnixSeqpacketStream::new(application)?),
            Box::new(UnixSeqpacketStream::new(device)?),
        ))
    }
}

/// Connections that the Unix backend accepts.
#[derive(Clone, Copy, Debug)]
pub struct Accepted;

impl Accepted {
    /// Creates a backend in a separate directory, which is removed with the second value.
    fn serve() -> io::Result<(UnixBackend, TempDir)> {
        let dir = TempDir::new()?;
        Ok((UnixBackend::bind(dir.path().join("vm.vsock"))?, dir))
    }
}

impl PairSource for Accepted {
    fn pair(&self) -> io::Result<(BoxedStream, BoxedStream)> {
        let (mut backend, _dir) = Self::serve()?;
        let application = UnixStream::connect(backend.path())?;
        let device = backend.accept()?;
        Ok((Box::new(UnixVsockStream::new(application)), device))
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
        let (backend, dir) = Self::serve()?;
        let path = backend.path().to_owned();
        let connect = move || -> io::Result<BoxedStream> {
            let _kept = &dir;
            let stream = UnixStream::connect(&path)?;
            Ok(Box::new(UnixVsockStream::new(stream)))
        };
        Ok(ServedBackend {
            backend: Box::new(backend),
            connect: Box::new(connect),
        })
    }
}
