// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! The text handshake of a host-initiated connection.
//!
//! A host client requests a port of the guest and learns when the guest has accepted:
//!
//! ```text
//! client: CONNECT 1234\n
//! device: OK 1073741824\n
//! ```
//!
//! The number in the answer is the host's port. Bytes that follow a line belong to the peer. If the
//! device cannot connect, it closes the stream without an answer.
//!
//! The parsers do no I/O. The caller feeds them the bytes that have arrived, in pieces of any size,
//! and they report how much of the last piece belongs to the line.

use alloc::format;
use alloc::string::String;

use thiserror::Error;

use crate::Port;

/// The maximum length of a line in bytes, including the newline.
pub const MAX_LINE: usize = 32;

/// The result of feeding a parser.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Parse {
    /// The line is incomplete.
    NeedMore,
    /// The line is complete.
    Line {
        /// The port in the line.
        port: Port,
        /// How many bytes of the last piece belong to the line. The rest is payload.
        used: usize,
    },
}

/// A parser for a client's `CONNECT <port>\n`.
///
/// The keyword may be in lower case, words may be separated by several blanks, and the line may end
/// with `\r\n`. The port is a decimal number without a sign, and may not be `VMADDR_PORT_ANY`.
///
/// ```
/// use vsock_proto::Port;
/// use vsock_proto::handshake::{CommandParser, LineError, Parse};
///
/// let mut parser = CommandParser::new();
/// assert_eq!(parser.feed(b"CONNE")?, Parse::NeedMore);
/// let port = Port::new(52);
/// assert_eq!(parser.feed(b"CT 52\nhello")?, Parse::Line { port, used: 6 });
/// # Ok::<(), LineError>(())
/// ```
#[derive(Clone, Debug, Default)]
pub struct CommandParser(Line);

impl CommandParser {
    /// Creates a parser at the start of a line.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Parses the next piece. After a complete line or an error, the parser must not be used again.
    ///
    /// # Errors
    ///
    /// [`LineError`] if the line is invalid; the client must be refused.
    pub fn feed(&mut self, piece: &[u8]) -> Result<Parse, LineError> {
        self.0.feed(piece, b"CONNECT")
    }

    /// Returns how many bytes the line can still have. A caller that reads no more than this at a
    /// time holds at most this many payload bytes that belong to the guest.
    #[must_use]
    pub const fn room(&self) -> usize {
        MAX_LINE.saturating_sub(self.0.len)
    }
}

/// A parser for a device's `OK <port>\n`: the client's side of the handshake.
///
/// ```
/// use vsock_proto::Port;
/// use vsock_proto::handshake::{LineError, OkParser, Parse, ok_line};
///
/// let port = Port::new(1 << 30);
/// let line = ok_line(port);
/// assert_eq!(OkParser::new().feed(line.as_bytes())?, Parse::Line { port, used: 14 });
/// # Ok::<(), LineError>(())
/// ```
#[derive(Clone, Debug, Default)]
pub struct OkParser(Line);

impl OkParser {
    /// Creates a parser at the start of a line.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Parses the next piece. After a complete line or an error, the parser must not be used again.
    ///
    /// # Errors
    ///
    /// [`LineError`] if the line is not a valid answer.
    pub fn feed(&mut self, piece: &[u8]) -> Result<Parse, LineError> {
        self.0.feed(piece, b"OK")
    }
}

/// Returns the device's answer, `OK <host port>\n`.
///
/// ```
/// use vsock_proto::Port;
/// use vsock_proto::handshake::ok_line;
///
/// assert_eq!(ok_line(Port::new(7)), "OK 7\n");
/// ```
#[must_use]
pub fn ok_line(port: Port) -> String {
    format!("OK {port}\n")
}

/// An error in a line of the text handshake.
#[derive(Clone, Copy, Debug, Eq, Error, PartialEq)]
#[non_exhaustive]
pub enum LineError {
    /// The line does not end within the limit.
    #[error("line too long: expected at most {limit} bytes")]
    TooLong {
        /// The maximum length of a line in bytes, including the newline.
        limit: usize,
    },
    /// The line does not consist of the keyword and one other word.
    #[error("malformed line: expected a keyword and a port")]
    Malformed,
    /// The second word is not a port number, written in decimal digits.
    #[error("invalid port: expected a number from 0 to 4294967294")]
    BadPort,
}

/// The part of a line that has arrived so far.
#[derive(Clone, Debug, Default)]
struct Line {
    bytes: [u8; MAX_LINE],
    len: usize,
}

impl Line {
    fn feed(&mut self, piece: &[u8], keyword: &[u8]) -> Result<Parse, LineError> {
        for (index, &byte) in piece.iter().enumerate() {
            if byte == b'\n' {
                let line = self.bytes.get(..self.len).unwrap_or_default();
                return Ok(Parse::Line {
                    port: parse(line, keyword)?,
                    used: index.saturating_add(1),
                });
            }
            // Leave a byte for the newline, which counts towards the limit.
            let full = self.len.saturating_add(1) >= MAX_LINE;
            match self.bytes.get_mut(self.len) {
                Some(place) if !full => *place = byte,
                _ => return Err(LineError::TooLong { limit: MAX_LINE }),
            }
            self.len = self.len.saturating_add(1);
        }
        Ok(Parse::NeedMore)
    }
}

/// Parses a line of two words: the keyword and a port.
fn parse(line: &[u8], keyword: &[u8]) -> Result<Port, LineError> {
    let mut words = line
        .split(|byte| matches!(byte, b' ' | b'\t' | b'\r'))
        .filter(|word| !word.is_empty());
    let (Some(first), Some(number), None) = (words.next(), words.next(), words.next()) else {
        return Err(LineError::Malformed);
    };
    if !first.eq_ignore_ascii_case(keyword) {
        return Err(LineError::Malformed);
    }
    let port = number.iter().try_fold(0_u32, |value, byte| {
        let digit = byte.checked_sub(b'0').filter(|digit| *digit < 10)?;
        value.checked_mul(10)?.checked_add(digit.into())
    });
    port.map(Port::new)
        .filter(|port| *port != Port::ANY)
        .ok_or(LineError::BadPort)
}
