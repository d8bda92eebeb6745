// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Sending, receiving and echoing on both sides: bytes in pieces, and each message in one call.

use std::io::{self, ErrorKind, Read, Write};

use crate::job::{Content, End, Messages, Range};
use crate::pattern::Pattern;

/// The size of an echo's reads.
const ECHO: usize = 64 * 1024;
/// A buffer larger than any message.
const ROOM: usize = 1 << 20;

/// How far a transfer got.
#[derive(Debug)]
pub struct Transfer {
    /// Bytes, or messages that were as expected.
    pub count: u64,
    /// The first position that did not match the pattern.
    pub wrong: Option<u64>,
    /// Why it stopped.
    pub end: io::Result<End>,
}

const fn unchanged(count: u64, end: io::Result<End>) -> Transfer {
    let wrong = None;
    Transfer { count, wrong, end }
}

/// Sends all of the content.
pub fn send(writer: &mut dyn Write, content: &Content) -> Transfer {
    match content {
        Content::Bytes(range) => send_bytes(writer, *range),
        Content::Messages(messages) => send_messages(writer, messages),
    }
}

fn send_bytes(writer: &mut dyn Write, range: Range) -> Transfer {
    let mut buffer = vec![0; range.piece.max(1) as usize];
    Pattern::new(range.seed.unwrap_or(0)).fill(&mut buffer, range.from);
    let mut count = 0;
    while count < range.len {
        let piece = shorter(&mut buffer, range.len - count);
        if let Some(seed) = range.seed {
            Pattern::new(seed).fill(piece, range.from + count);
        }
        let mut done = 0;
        while done < piece.len() {
            match uninterrupted(|| writer.write(&piece[done..])) {
                Ok(0) => return unchanged(count, Err(ErrorKind::WriteZero.into())),
                Ok(more) => {
                    done += more;
                    count += more as u64;
                }
                Err(error) => return unchanged(count, Err(error)),
            }
        }
    }
    unchanged(count, Ok(End::Complete))
}

fn send_messages(writer: &mut dyn Write, messages: &Messages) -> Transfer {
    let (mut count, mut at) = (0, 0);
    for size in &messages.sizes {
        let mut message = vec![0; *size as usize];
        Pattern::new(messages.seed).fill(&mut message, at);
        match uninterrupted(|| writer.write(&message)) {
            Ok(len) if len == message.len() => {}
            Ok(_) => return unchanged(count, Err(ErrorKind::WriteZero.into())),
            Err(error) => return unchanged(count, Err(error)),
        }
        count += 1;
        at += u64::from(*size);
    }
    unchanged(count, Ok(End::Complete))
}

/// Receives until the content is complete or the direction ends. Bytes are read in pieces of at
/// most `piece`.
pub fn receive(reader: &mut dyn Read, content: &Content, piece: usize) -> Transfer {
    match content {
        Content::Bytes(range) => receive_bytes(reader, *range, piece),
        Content::Messages(messages) => receive_messages(reader, messages),
    }
}

fn receive_bytes(reader: &mut dyn Read, range: Range, piece: usize) -> Transfer {
    let mut buffer = vec![0; piece.max(1)];
    let (mut count, mut wrong, mut end) = (0, None, Ok(End::Complete));
    while count < range.len {
        let place = shorter(&mut buffer, range.len - count);
        match uninterrupted(|| reader.read(place)) {
            Ok(0) => {
                end = Ok(End::Closed);
                break;
            }
            Ok(read) => {
                if let (Some(seed), None) = (range.seed, wrong) {
                    wrong = Pattern::new(seed).wrong(&place[..read], range.from + count);
                }
                count += read as u64;
            }
            Err(error) => {
                end = Err(error);
                break;
            }
        }
    }
    Transfer { count, wrong, end }
}

fn receive_messages(reader: &mut dyn Read, messages: &Messages) -> Transfer {
    let mut buffer = vec![0; ROOM];
    let (mut count, mut at) = (0, 0);
    for size in &messages.sizes {
        let len = match uninterrupted(|| reader.read(&mut buffer)) {
            Ok(0) if *size > 0 => return unchanged(count, Ok(End::Closed)),
            Ok(len) => len,
            Err(error) => return unchanged(count, Err(error)),
        };
        let same = Pattern::new(messages.seed).wrong(&buffer[..len], at);
        let wrong = if len == *size as usize {
            same
        } else {
            Some(at)
        };
        if wrong.is_some() {
            let end = Ok(End::Complete);
            return Transfer { count, wrong, end };
        }
        count += 1;
        at += u64::from(*size);
    }
    unchanged(count, Ok(End::Complete))
}

/// Sends back everything until the end.
pub fn echo(reader: &mut dyn Read, writer: &mut dyn Write) -> Transfer {
    let mut buffer = vec![0; ECHO];
    let mut count = 0;
    loop {
        let read = match uninterrupted(|| reader.read(&mut buffer)) {
            Ok(0) => return unchanged(count, Ok(End::Closed)),
            Ok(read) => read,
            Err(error) => return unchanged(count, Err(error)),
        };
        if let Err(error) = writer.write_all(&buffer[..read]) {
            return unchanged(count, Err(error));
        }
        count += read as u64;
    }
}

/// Repeats a call while it is interrupted.
fn uninterrupted<T>(mut call: impl FnMut() -> io::Result<T>) -> io::Result<T> {
    loop {
        match call() {
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            done => return done,
        }
    }
}

/// Returns the part of the buffer to read into when `left` bytes remain.
fn shorter(buffer: &mut [u8], left: u64) -> &mut [u8] {
    let len = usize::try_from(left).map_or(buffer.len(), |left| left.min(buffer.len()));
    &mut buffer[..len]
}
