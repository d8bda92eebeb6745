// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Relays bytes between a connection and the standard streams. Each direction has a thread that
//! blocks in its system calls.
//!
//! Other processes may share the standard streams, so this code does not change their flags and
//! works whether they are blocking or not.

use std::fs::OpenOptions;
use std::io;
use std::net::Shutdown;
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;

use rustix::event::{PollFd, PollFlags, poll};
use rustix::io::{Errno, read, write};
use rustix::stdio::dup2_stdout;
use signal_hook::consts::SIGPIPE;
use signal_hook::low_level::emulate_default_handler;
use thiserror::Error;

use super::dial::Connection;

/// The size of the buffer for each direction.
const BUFFER: usize = 256 * 1024;

/// An error while relaying bytes.
#[derive(Debug, Error)]
pub(crate) enum RelayError {
    #[error("cannot start a thread")]
    Thread(#[source] io::Error),
    #[error("cannot read standard input")]
    Input(#[source] io::Error),
    #[error("cannot write to standard output")]
    Output(#[source] io::Error),
    #[error("the guest reset the connection")]
    Reset,
    #[error("the guest stopped receiving before all of standard input was sent")]
    Unsent,
    #[error("the device's socket failed")]
    Socket(#[source] io::Error),
}

/// Relays bytes until both directions have ended or the device has closed the connection.
pub(crate) fn run(connection: &Connection) -> Result<(), RelayError> {
    let Connection { socket, first } = connection;
    let sending = Arc::new(Sending::default());
    let (other, to_guest) = (
        Arc::clone(&sending),
        socket.try_clone().map_err(RelayError::Socket)?,
    );
    thread::Builder::new()
        .name("input".to_owned())
        .spawn(move || other.run(&to_guest))
        .map_err(RelayError::Thread)?;
    receive(socket, first)?;
    close_output().map_err(RelayError::Output)?;
    wait_for_hangup(socket).map_err(RelayError::Socket)?;
    // The other thread may be blocked in a read of standard input that never ends, so it is not
    // joined. Taking the lock waits until the bytes that it has read are sent.
    std::mem::replace(&mut *sending.result(), Ok(()))
}

/// The direction from standard input to the guest, with its result so far.
#[derive(Debug)]
struct Sending(Mutex<Result<(), RelayError>>);

impl Default for Sending {
    fn default() -> Self {
        Self(Mutex::new(Ok(())))
    }
}

impl Sending {
    /// Sends until standard input ends or the guest stops receiving.
    fn run(&self, socket: &UnixStream) {
        let mut buffer = vec![0; BUFFER];
        loop {
            let count = match read_some(io::stdin(), &mut buffer) {
                Ok(0) => break,
                Ok(count) => count,
                Err(error) => {
                    *self.result() = Err(RelayError::Input(error.into()));
                    break;
                }
            };
            // Locked until all of these bytes are sent: the thread that reads the result waits.
            let mut result = self.result();
            let bytes = buffer.get(..count).unwrap_or_default();
            *result = write_all(socket, bytes).map_err(|error| match error {
                Errno::PIPE | Errno::CONNRESET => RelayError::Unsent,
                error => RelayError::Socket(error.into()),
            });
            if result.is_err() {
                break;
            }
        }
        match socket.shutdown(Shutdown::Write) {
            // A connection that the guest has closed already is not an error.
            Err(error) if error.kind() != io::ErrorKind::NotConnected => {
                *self.result() = Err(RelayError::Socket(error));
            }
            _ => {}
        }
    }

    fn result(&self) -> MutexGuard<'_, Result<(), RelayError>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Writes what the guest sends to standard output, until the guest stops sending.
fn receive(socket: &UnixStream, first: &[u8]) -> Result<(), RelayError> {
    write_output(first)?;
    let mut buffer = vec![0; BUFFER];
    loop {
        let count = match read_some(socket, &mut buffer) {
            Ok(0) => return Ok(()),
            Ok(count) => count,
            Err(Errno::CONNRESET) => return Err(RelayError::Reset),
            Err(error) => return Err(RelayError::Socket(error.into())),
        };
        write_output(buffer.get(..count).unwrap_or_default())?;
    }
}

fn write_output(bytes: &[u8]) -> Result<(), RelayError> {
    let written = write_all(io::stdout(), bytes);
    if written == Err(Errno::PIPE) {
        // The reader has gone. End as other filters do: this call does not return, because the
        // default action is to end the process.
        let _ended = emulate_default_handler(SIGPIPE);
    }
    written.map_err(|error| RelayError::Output(error.into()))
}

/// Closes standard output, so that its reader sees the end. The descriptor stays in use, so that no
/// other file gets its number.
fn close_output() -> io::Result<()> {
    let nothing = OpenOptions::new().write(true).open("/dev/null")?;
    Ok(dup2_stdout(nothing)?)
}

/// Waits until both directions of the socket have ended.
fn wait_for_hangup(socket: &UnixStream) -> io::Result<()> {
    loop {
        // `poll` always reports errors and hang-ups, even with no events requested.
        match poll(&mut [PollFd::new(socket, PollFlags::empty())], None) {
            Ok(_) => return Ok(()),
            Err(Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
    }
}

/// Reads at least one byte, or returns 0 at the end. Blocks even if the descriptor is non-blocking.
fn read_some(fd: impl AsFd, buffer: &mut [u8]) -> Result<usize, Errno> {
    loop {
        match read(&fd, &mut *buffer) {
            Err(Errno::INTR) => {}
            Err(Errno::AGAIN) => wait_for(&fd, PollFlags::IN)?,
            result => return result,
        }
    }
}

/// Writes all bytes. Blocks even if the descriptor is non-blocking.
fn write_all(fd: impl AsFd, mut bytes: &[u8]) -> Result<(), Errno> {
    while !bytes.is_empty() {
        match write(&fd, bytes) {
            Ok(count) => bytes = bytes.get(count..).unwrap_or_default(),
            Err(Errno::INTR) => {}
            Err(Errno::AGAIN) => wait_for(&fd, PollFlags::OUT)?,
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

fn wait_for(fd: impl AsFd, what: PollFlags) -> Result<(), Errno> {
    match poll(&mut [PollFd::new(&fd, what)], None) {
        Ok(_) | Err(Errno::INTR) => Ok(()),
        Err(error) => Err(error),
    }
}
