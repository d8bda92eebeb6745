// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Asking a muxer for a port of the guest: `CONNECT <port>\n`, answered by `OK <number>\n`.

use std::io::{self, ErrorKind, Read, Write};
use std::time::{Duration, Instant};

use thiserror::Error;
use vsock_backend_api::VsockStream;

use crate::config::VsockInnerConfig;
use crate::request::{Request, command};
use crate::stream::VsockInnerStream;

/// No answer is longer, its newline included.
const MAX_LINE: usize = 32;
/// How an answer begins.
const OK: &[u8] = b"OK ";

/// Why a guest's port was not reached.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum HandshakeError {
    /// The muxer ended the connection without a confirmation: `ConnectionRefused`.
    #[error("connecting to guest port {port}: refused")]
    Refused {
        /// The guest's port.
        port: u32,
    },
    /// There was no answer in time: `TimedOut`.
    #[error("connecting to guest port {port}: no answer within {timeout:?}")]
    TimedOut {
        /// The guest's port.
        port: u32,
        /// The time that was given, or configured.
        timeout: Duration,
    },
    /// A timeout of zero was given: `InvalidInput`.
    #[error("connecting to guest port {port}: a timeout of zero, in which nothing can connect")]
    ZeroTimeout {
        /// The guest's port.
        port: u32,
    },
    /// The answer was not `OK <number>\n`: `InvalidData`.
    #[error("connecting to guest port {port}: the answer is no `OK <number>`")]
    BadAnswer {
        /// The guest's port.
        port: u32,
    },
    /// The stream failed in another way: the kind is the source's.
    #[error("connecting to guest port {port}")]
    Stream {
        /// The guest's port.
        port: u32,
        /// What it failed with.
        source: io::Error,
    },
}

impl From<HandshakeError> for io::Error {
    fn from(error: HandshakeError) -> Self {
        let kind = match &error {
            HandshakeError::Refused { .. } => ErrorKind::ConnectionRefused,
            HandshakeError::TimedOut { .. } => ErrorKind::TimedOut,
            HandshakeError::ZeroTimeout { .. } => ErrorKind::InvalidInput,
            HandshakeError::BadAnswer { .. } => ErrorKind::InvalidData,
            HandshakeError::Stream { source, .. } => source.kind(),
        };
        Self::new(kind, error)
    }
}

/// Asks for `port` before the device has its end, as far as there is room; returns how many bytes
/// of the command are written. If that is all of it, the device's end knows the port.
pub(crate) fn begin(
    application: &mut VsockInnerStream,
    device: &mut VsockInnerStream,
    port: u32,
    config: &VsockInnerConfig,
) -> io::Result<usize> {
    application.set_nonblocking(true)?;
    let written = application.write(command(port).as_bytes())?;
    application.set_nonblocking(false)?;
    device.request = Request::offer(port, written, config);
    Ok(written)
}

/// Asks for `port`, of which `asked` bytes are written, and waits for the confirmation. Takes not
/// one byte behind it.
pub(crate) fn request(
    stream: &mut VsockInnerStream,
    port: u32,
    asked: usize,
    timeout: Duration,
) -> Result<(), HandshakeError> {
    let deadline = Instant::now().checked_add(timeout);
    let mut exchange = Exchange {
        stream,
        port,
        timeout,
        deadline,
    };
    exchange.ask(asked)?;
    exchange.read_answer()?;
    exchange.forget_timeouts()
}

/// One exchange, with one deadline for all of it.
struct Exchange<'a> {
    stream: &'a mut VsockInnerStream,
    port: u32,
    timeout: Duration,
    deadline: Option<Instant>,
}

impl Exchange<'_> {
    fn ask(&mut self, asked: usize) -> Result<(), HandshakeError> {
        let line = command(self.port);
        let mut rest = &line.as_bytes()[asked..];
        while !rest.is_empty() {
            let left = self.left()?;
            let written = self
                .stream
                .set_write_timeout(left)
                .and_then(|()| self.stream.write(rest));
            rest = &rest[written.map_err(|error| self.explain(error))?..];
        }
        Ok(())
    }

    fn read_answer(&mut self) -> Result<(), HandshakeError> {
        let bad = HandshakeError::BadAnswer { port: self.port };
        for expected in OK {
            if self.read_byte()? != *expected {
                return Err(bad);
            }
        }
        let mut number: Option<u32> = None;
        for _ in OK.len()..MAX_LINE {
            let digit = match self.read_byte()? {
                digit @ b'0'..=b'9' => u32::from(digit - b'0'),
                b'\n' if number.is_some() => return Ok(()),
                _ => return Err(bad),
            };
            let longer = number.unwrap_or(0).checked_mul(10);
            number = longer.and_then(|number| number.checked_add(digit));
            if number.is_none() {
                return Err(bad);
            }
        }
        Err(bad)
    }

    /// One byte at a time: what follows the line is not for this exchange.
    fn read_byte(&mut self) -> Result<u8, HandshakeError> {
        let mut byte = [0];
        let left = self.left()?;
        let read = self
            .stream
            .set_read_timeout(left)
            .and_then(|()| self.stream.read(&mut byte));
        match read.map_err(|error| self.explain(error))? {
            0 => Err(HandshakeError::Refused { port: self.port }),
            _ => Ok(byte[0]),
        }
    }

    fn forget_timeouts(&mut self) -> Result<(), HandshakeError> {
        let both = self
            .stream
            .set_read_timeout(None)
            .and_then(|()| self.stream.set_write_timeout(None));
        both.map_err(|error| self.explain(error))
    }

    /// What is left of the time; `None`: for ever.
    fn left(&self) -> Result<Option<Duration>, HandshakeError> {
        let Some(deadline) = self.deadline else {
            return Ok(None);
        };
        match deadline.saturating_duration_since(Instant::now()) {
            Duration::ZERO => Err(self.timed_out()),
            left => Ok(Some(left)),
        }
    }

    fn explain(&self, error: io::Error) -> HandshakeError {
        match error.kind() {
            ErrorKind::ConnectionReset | ErrorKind::BrokenPipe => {
                HandshakeError::Refused { port: self.port }
            }
            ErrorKind::TimedOut => self.timed_out(),
            _ => HandshakeError::Stream {
                port: self.port,
                source: error,
            },
        }
    }

    fn timed_out(&self) -> HandshakeError {
        HandshakeError::TimedOut {
            port: self.port,
            timeout: self.timeout,
        }
    }
}
