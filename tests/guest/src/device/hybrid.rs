// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! The host's side over Unix sockets: `CONNECT <port>` on the device's socket, and a socket
//! `<path>_<port>` for each port of the host.

use std::fs;
use std::io::{self, ErrorKind, Read, Write};
use std::net::Shutdown;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use nix::sys::socket::sockopt::SndBuf;
use nix::sys::socket::{
    self, AddressFamily, Backlog, SockFlag, SockType, UnixAddr, setsockopt, socket,
};
use vsock_compliance::poll::{Deadline, PollInterest, wait_ready};
use vsock_proto::handshake::{MAX_LINE, OkParser, Parse};

use super::{Host, LIMIT, Listener, Stream, Writer};

/// The host side of a device that listens on a Unix socket.
#[derive(Debug)]
pub struct Hybrid {
    path: PathBuf,
    kind: SockType,
}

impl Hybrid {
    /// Creates the host side from the path of the device's socket for host processes.
    #[must_use]
    pub fn new(path: &Path) -> Self {
        let (path, kind) = (path.to_owned(), SockType::Stream);
        Self { path, kind }
    }

    fn with_suffix(&self, suffix: &str) -> PathBuf {
        let mut path = self.path.clone().into_os_string();
        path.push(suffix);
        path.into()
    }

    fn socket(&self) -> io::Result<OwnedFd> {
        let flags = SockFlag::SOCK_CLOEXEC;
        Ok(socket(AddressFamily::Unix, self.kind, flags, None)?)
    }
}

impl Host for Hybrid {
    fn connect(&self, port: u32) -> io::Result<Stream> {
        let new = self.socket()?;
        let path = match self.kind {
            SockType::SeqPacket => self.with_suffix("_seqpacket"),
            _ => self.path.clone(),
        };
        socket::connect(new.as_raw_fd(), &UnixAddr::new(&path)?)?;
        make_room(&new, self.kind)?;
        let mut socket = UnixStream::from(new);
        set_limits(&socket)?;
        socket.write_all(format!("CONNECT {port}\n").as_bytes())?;
        confirmed(&mut socket, self.kind)?;
        Ok(stream(socket))
    }

    fn listen(&self, port: u32) -> io::Result<Box<dyn Listener>> {
        let path = self.with_suffix(&format!("_{port}"));
        let new = self.socket()?;
        socket::bind(new.as_raw_fd(), &UnixAddr::new(&path)?)?;
        socket::listen(&new, Backlog::MAXCONN)?;
        let socket = UnixListener::from(new);
        socket.set_nonblocking(true)?;
        let kind = self.kind;
        Ok(Box::new(Port { socket, path, kind }))
    }

    fn messages(&self) -> Option<Arc<dyn Host>> {
        let (path, kind) = (self.path.clone(), SockType::SeqPacket);
        Some(Arc::new(Self { path, kind }))
    }
}

/// Reads the `OK` line and not a byte more: stream sockets are read byte by byte, and on a
/// seqpacket socket the line is a message.
fn confirmed(socket: &mut UnixStream, kind: SockType) -> io::Result<()> {
    let mut parser = OkParser::new();
    let mut buffer = vec![
        0;
        if kind == SockType::SeqPacket {
            MAX_LINE
        } else {
            1
        }
    ];
    loop {
        match socket.read(&mut buffer) {
            Ok(0) => return Err(ErrorKind::ConnectionRefused.into()),
            Ok(read) => match parser.feed(&buffer[..read]) {
                Ok(Parse::Line { .. }) => return Ok(()),
                Ok(Parse::NeedMore) => {}
                Err(error) => return Err(io::Error::new(ErrorKind::InvalidData, error)),
            },
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) if error.kind() == ErrorKind::ConnectionReset => {
                return Err(ErrorKind::ConnectionRefused.into());
            }
            Err(error) => return Err(error),
        }
    }
}

/// A listening socket. Its file is removed when it is dropped.
#[derive(Debug)]
struct Port {
    socket: UnixListener,
    path: PathBuf,
    kind: SockType,
}

impl Listener for Port {
    fn accept_within(&self, limit: Duration) -> io::Result<Stream> {
        let deadline = Deadline::after(limit);
        loop {
            match self.socket.accept() {
                Ok((socket, _)) => {
                    socket.set_nonblocking(false)?;
                    make_room(&socket, self.kind)?;
                    set_limits(&socket)?;
                    return Ok(stream(socket));
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => {}
                Err(error) => return Err(error),
            }
            wait_ready(self.socket.as_raw_fd(), PollInterest::Read, deadline)?;
        }
    }
}

impl Drop for Port {
    fn drop(&mut self) {
        fs::remove_file(&self.path).ok();
    }
}

/// Enlarges a seqpacket socket's buffer, because a message must fit into it.
fn make_room(socket: &impl AsFd, kind: SockType) -> io::Result<()> {
    if kind == SockType::SeqPacket {
        setsockopt(socket, SndBuf, &(256 * 1024))?;
    }
    Ok(())
}

fn set_limits(socket: &UnixStream) -> io::Result<()> {
    socket.set_read_timeout(Some(LIMIT))?;
    socket.set_write_timeout(Some(LIMIT))
}

/// Both halves share one descriptor, as in a program with one thread for each direction.
fn stream(socket: UnixStream) -> Stream {
    let socket = Arc::new(socket);
    Stream {
        reader: Box::new(Half(Arc::clone(&socket))),
        writer: Box::new(Half(socket)),
    }
}

#[derive(Debug)]
struct Half(Arc<UnixStream>);

impl Read for Half {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        (&*self.0).read(buf).map_err(timed_out)
    }
}

impl Write for Half {
    fn write(&mut self, buf: &[u8]) -> io::Result<usize> {
        (&*self.0).write(buf).map_err(timed_out)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Writer for Half {
    fn set_limit(&mut self, limit: Duration) -> io::Result<()> {
        self.0.set_write_timeout(Some(limit))
    }

    fn finish(&mut self) -> io::Result<()> {
        self.0.shutdown(Shutdown::Write)
    }
}

/// A socket reports a timeout as `WouldBlock`. Callers expect `TimedOut`.
fn timed_out(error: io::Error) -> io::Error {
    match error.kind() {
        ErrorKind::WouldBlock => ErrorKind::TimedOut.into(),
        _ => error,
    }
}
