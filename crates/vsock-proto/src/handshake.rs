// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! The text handshake of a host-initiated connection.
//!
//! A host client says which port of the guest it wants, and learns when the guest has accepted:
//!
//! ```text
//! client: CONNECT 1234\n
//! device: OK 1073741824\n
//! ```
//!
//! The number in the answer is the host's port. What follows a line belongs to the peer. A device
//! that cannot connect closes the stream without an answer.
//!
//! The parsers read nothing themselves. They are fed whatever has come, in any number of pieces,
//! and say how much of the last piece was part of the line.

use alloc::format;
use alloc::string::String;

use thiserror::Error;

use crate::Port;

/// Bytes that a line may have, with the newline.
pub const MAX_LINE: usize = 32;

/// What a parser has made of what it was fed.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Parse {
    /// The line goes on.
    NeedMore,
    /// The line is there.
    Line {
        /// The port that it names.
        port: Port,
        /// How many bytes of the last piece belong to it. The rest is payload.
        used: usize,
    },
}

/// Reads a client's `CONNECT <port>\n`.
///
/// The keyword may be in lower case, words may be separated by several blanks, and the line may end
/// with `\r\n`. The port is a decimal number without a sign; `VMADDR_PORT_ANY` is none.
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
    /// A parser that was fed nothing.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Takes the next piece. After a line, or an error, the parser is done with.
    ///
    /// # Errors
    ///
    /// [`LineError`]: the client is refused.
    pub fn feed(&mut self, piece: &[u8]) -> Result<Parse, LineError> {
        self.0.feed(piece, b"CONNECT")
    }

    /// How many bytes a line can still have. A caller that reads no more than these at a time keeps
    /// at most that many which belong to the guest.
    #[must_use]
    pub const fn room(&self) -> usize {
        MAX_LINE.saturating_sub(self.0.len)
    }
}

/// Reads a device's `OK <port>\n`: the client's side of the handshake.
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
    /// A parser that was fed nothing.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Takes the next piece. After a line, or an error, the parser is done with.
    ///
    /// # Errors
    ///
    /// [`LineError`]: the answer is not one.
    pub fn feed(&mut self, piece: &[u8]) -> Result<Parse, LineError> {
        self.0.feed(piece, b"OK")
    }
}

/// The device's answer, `OK <host port>\n`.
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

/// A line of the text handshake that is not what it should be.
#[derive(Clone, Copy, Debug, Eq, Error, PartialEq)]
#[non_exhaustive]
pub enum LineError {
    /// It has no end within the limit.
    #[error("no line of at most {limit} bytes")]
    TooLong {
        /// Bytes that a line may have, with the newline.
        limit: usize,
    },
    /// It does not begin with the keyword, or has another number of words than two.
    #[error("not a keyword and a port")]
    Malformed,
    /// The second word is not a port: decimal digits for a number below 2^32 - 1.
    #[error("not a port number")]
    BadPort,
}

/// The part of a line that has come so far.
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
            // The newline needs a place too.
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

/// Two words, of which the first is the keyword and the second a port.
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
