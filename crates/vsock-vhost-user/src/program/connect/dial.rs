// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Opening a connection: sends `CONNECT`, reads `OK`, and retries if the user asked for that.

use std::io::{self, ErrorKind, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

use rustix::io::Errno;
use rustix::net::sockopt::{Timeout, set_socket_timeout};
use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType, connect, socket_with};
use thiserror::Error;
use vsock_proto::handshake::{OkParser, Parse};

/// The pauses between two attempts: the first, and the longest.
const PAUSES: [Duration; 2] = [Duration::from_millis(50), Duration::from_secs(1)];

/// An error while opening a connection.
#[derive(Debug, Error)]
pub(crate) enum DialError {
    /// No device listens on the path.
    #[error("no device is listening; start it, or wait for it with --wait 30s")]
    NoDevice(#[source] io::Error),
    #[error(transparent)]
    Socket(io::Error),
    /// The device closed the connection instead of answering.
    #[error("refused: the guest has no listener on the port or has not booted; --wait 30s retries")]
    Refused,
    #[error("no answer from the device within {0:?}; check that the guest is running")]
    Silent(Duration),
    #[error("unexpected answer: expected OK and a number; is this a device's --uds-path?")]
    Answer,
}

impl DialError {
    /// Returns whether a later attempt can succeed.
    const fn may_pass(&self) -> bool {
        match self {
            Self::NoDevice(_) | Self::Refused => true,
            Self::Socket(_) | Self::Silent(_) | Self::Answer => false,
        }
    }
}

/// A connection to the guest.
#[derive(Debug)]
pub(crate) struct Connection {
    pub(crate) socket: UnixStream,
    /// Bytes from the guest that were read together with the `OK`.
    pub(crate) first: Vec<u8>,
}

/// The device and the port to connect to.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Dialler<'a> {
    pub(crate) path: &'a Path,
    pub(crate) port: u32,
}

impl Dialler<'_> {
    /// Retries for up to `wait` until the guest answers.
    ///
    /// The end of the time can cut the last attempt short. If an earlier one was refused, that is
    /// the better error to report than no answer.
    pub(crate) fn dial_until_answered(self, wait: Duration) -> Result<Connection, DialError> {
        let begun = Instant::now();
        let left = || wait.saturating_sub(begun.elapsed());
        let [mut pause, longest] = PAUSES;
        let mut was_refused = false;
        loop {
            let error = match self.dial(left()) {
                Ok(connection) => return Ok(connection),
                Err(DialError::Silent(_)) if was_refused => return Err(DialError::Refused),
                Err(DialError::Silent(_)) => return Err(DialError::Silent(wait)),
                Err(error) => error,
            };
            was_refused |= matches!(error, DialError::Refused);
            if !error.may_pass() || left().is_zero() {
                return Err(error);
            }
            thread::park_timeout(pause.min(left()));
            pause = (pause * 2).min(longest);
        }
    }

    /// Tries once, and waits for up to `patience` for the answer.
    pub(crate) fn dial(self, patience: Duration) -> Result<Connection, DialError> {
        let begun = Instant::now();
        // A socket timeout of zero would mean no limit.
        let left = || {
            let left = patience.saturating_sub(begun.elapsed());
            left.max(Duration::from_millis(1))
        };
        let mut socket = self.socket(patience, left)?;
        let sent = socket.write_all(format!("CONNECT {}\n", self.port).as_bytes());
        sent.map_err(|error| failed(error, patience))?;
        let mut parser = OkParser::new();
        let mut bytes = [0; 4096];
        loop {
            socket
                .set_read_timeout(Some(left()))
                .map_err(DialError::Socket)?;
            let count = match socket.read(&mut bytes) {
                Ok(0) => return Err(DialError::Refused),
                Ok(count) => count,
                Err(error) if error.kind() == ErrorKind::Interrupted => continue,
                Err(error) => return Err(failed(error, patience)),
            };
            let piece = bytes.get(..count).unwrap_or_default();
            match parser.feed(piece) {
                Ok(Parse::NeedMore) => {}
                Ok(Parse::Line { used, .. }) => {
                    // The timeouts are for the handshake only.
                    socket.set_read_timeout(None).map_err(DialError::Socket)?;
                    socket.set_write_timeout(None).map_err(DialError::Socket)?;
                    let first = piece.get(used..).unwrap_or_default().to_vec();
                    return Ok(Connection { socket, first });
                }
                Err(_) => return Err(DialError::Answer),
            }
        }
    }

    /// Returns a socket that is connected to the device. This blocks while the device's backlog is
    /// full, for up to `patience`, of which `left` remains.
    fn socket(
        self,
        patience: Duration,
        left: impl Fn() -> Duration,
    ) -> Result<UnixStream, DialError> {
        let address = SocketAddrUnix::new(self.path).map_err(|error| match error {
            Errno::NAMETOOLONG => DialError::Socket(io::Error::new(
                ErrorKind::InvalidInput,
                "the path is too long for a socket; use a shorter path, such as a symbolic link",
            )),
            error => DialError::Socket(error.into()),
        })?;
        let flags = SocketFlags::CLOEXEC;
        let socket = socket_with(AddressFamily::UNIX, SocketType::STREAM, flags, None);
        let socket = socket.map_err(|error| DialError::Socket(error.into()))?;
        loop {
            set_socket_timeout(&socket, Timeout::Send, Some(left()))
                .map_err(|error| DialError::Socket(error.into()))?;
            match connect(&socket, &address) {
                Ok(()) => return Ok(socket.into()),
                // Because of the timeout, the kernel does not restart the call after a signal, such
                // as the one that continues a stopped program. Nothing was connected.
                Err(Errno::INTR) => {}
                Err(error @ (Errno::NOENT | Errno::CONNREFUSED)) => {
                    return Err(DialError::NoDevice(error.into()));
                }
                Err(error) => return Err(failed(error.into(), patience)),
            }
        }
    }
}

/// Converts an error of the socket during the handshake.
fn failed(error: io::Error, patience: Duration) -> DialError {
    match error.kind() {
        ErrorKind::WouldBlock | ErrorKind::TimedOut => DialError::Silent(patience),
        ErrorKind::BrokenPipe | ErrorKind::ConnectionReset => DialError::Refused,
        _ => DialError::Socket(error),
    }
}

#[cfg(test)]
mod tests {
    use rustix::net::{accept, bind, listen};
    use vsock_compliance::call::Call;
    use vsock_compliance::poll::Deadline;

    use super::*;

    const GENEROUS: Duration = Duration::from_secs(20);

    #[test]
    fn an_interruption_does_not_end_the_wait_for_room_in_the_backlog() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("vsock");
        let listener = socket_with(
            AddressFamily::UNIX,
            SocketType::STREAM,
            SocketFlags::CLOEXEC,
            None,
        )
        .unwrap();
        bind(&listener, &SocketAddrUnix::new(&path).unwrap()).unwrap();
        listen(&listener, 0).unwrap();
        // There is room for one client.
        let _first = UnixStream::connect(&path).unwrap();
        let dialling = Call::start(move || {
            let dialler = Dialler {
                path: &path,
                port: 5,
            };
            dialler.dial(GENEROUS).map(drop)
        })
        .unwrap();
        for _ in 0..20 {
            dialling.asleep(Deadline::after(GENEROUS)).unwrap();
            dialling.interrupt().unwrap();
        }
        drop(accept(&listener).unwrap());
        let mut device = UnixStream::from(accept(&listener).unwrap());
        let mut request = [0; 10];
        device.read_exact(&mut request).unwrap();
        assert_eq!(&request, b"CONNECT 5\n");
        device.write_all(b"OK 1\n").unwrap();
        dialling.finish(Deadline::after(GENEROUS)).unwrap().unwrap();
    }
}
