// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! The host's part of sending and receiving.

use std::io::{self, ErrorKind, Read, Write};

use anyhow::{Context, anyhow, bail, ensure};
use vsock_guest_program::job::{Content, End, Messages, Moved, Range};
use vsock_guest_program::pattern::Pattern;

use crate::device::{Reader, Stream, Writer};

/// How much is read at once.
const PIECE: usize = 64 * 1024;
/// More than a host process receives at once of messages.
const ROOM: usize = 1 << 20;

/// How a direction ended.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum HostEnd {
    Closed,
    Reset,
}

/// The first `len` bytes of a pattern, in pieces.
pub(crate) const fn range(seed: u64, len: u64, piece: u32) -> Range {
    Range {
        seed: Some(seed),
        from: 0,
        len,
        piece,
    }
}

/// What a thread was to do.
pub(crate) fn joined<T>(result: std::thread::Result<T>) -> anyhow::Result<T> {
    result.map_err(|_| anyhow!("a thread has panicked"))
}

/// Sends bytes in writes of their piece, or each message in one.
pub(crate) fn send(writer: &mut dyn Writer, content: impl Into<Content>) -> io::Result<()> {
    match content.into() {
        Content::Bytes(range) => {
            let (sent, result) = send_some(writer, range);
            debug_assert!(result.is_err() || sent == range.len);
            result
        }
        Content::Messages(messages) => send_messages(writer, &messages),
    }
}

fn send_messages(writer: &mut dyn Writer, messages: &Messages) -> io::Result<()> {
    let mut at = 0;
    for size in &messages.sizes {
        let mut message = vec![0; *size as usize];
        Pattern::new(messages.seed).fill(&mut message, at);
        at += u64::from(*size);
        if writer.write(&message)? != message.len() {
            return Err(ErrorKind::WriteZero.into());
        }
    }
    Ok(())
}

/// Sends a range; how much was taken, and how it ended.
pub(crate) fn send_some(writer: &mut dyn Writer, range: Range) -> (u64, io::Result<()>) {
    let mut buffer = vec![0; range.piece as usize];
    Pattern::new(range.seed.unwrap_or(0)).fill(&mut buffer, range.from);
    let mut sent = 0;
    while sent < range.len {
        let piece = buffer
            .len()
            .min(usize::try_from(range.len - sent).unwrap_or(usize::MAX));
        let piece = &mut buffer[..piece];
        if let Some(seed) = range.seed {
            Pattern::new(seed).fill(piece, range.from + sent);
        }
        let mut done = 0;
        while done < piece.len() {
            match writer.write(&piece[done..]) {
                Ok(0) => return (sent, Err(ErrorKind::WriteZero.into())),
                Ok(more) => {
                    done += more;
                    sent += more as u64;
                }
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return (sent, Err(error)),
            }
        }
    }
    (sent, Ok(()))
}

/// Receives exactly what was sent.
pub(crate) fn receive(reader: &mut dyn Reader, content: impl Into<Content>) -> anyhow::Result<()> {
    match content.into() {
        Content::Bytes(range) => receive_bytes(reader, range),
        Content::Messages(messages) => receive_messages(reader, &messages),
    }
}

fn receive_messages(reader: &mut dyn Reader, messages: &Messages) -> anyhow::Result<()> {
    let mut buffer = vec![0; ROOM];
    let mut at = 0;
    for (number, size) in messages.sizes.iter().enumerate() {
        let len = reader.read(&mut buffer)?;
        ensure!(
            len == *size as usize,
            "message {number} has {len} bytes, not {size}"
        );
        let wrong = Pattern::new(messages.seed).wrong(&buffer[..len], at);
        ensure!(wrong.is_none(), "message {number} is not what was sent");
        at += u64::from(*size);
    }
    Ok(())
}

fn receive_bytes(reader: &mut dyn Reader, range: Range) -> anyhow::Result<()> {
    let mut buffer = vec![0; PIECE];
    let mut count = 0;
    while count < range.len {
        let most = buffer
            .len()
            .min(usize::try_from(range.len - count).unwrap_or(usize::MAX));
        let read = match reader.read(&mut buffer[..most]) {
            Ok(0) => bail!("the end after {count} of {} bytes", range.len),
            Ok(read) => read,
            Err(error) if error.kind() == ErrorKind::Interrupted => continue,
            Err(error) => {
                return Err(error).with_context(|| format!("after {count} of {} bytes", range.len));
            }
        };
        if let Some(seed) = range.seed
            && let Some(place) = Pattern::new(seed).wrong(&buffer[..read], range.from + count)
        {
            bail!("byte {place} is not what was sent");
        }
        count += read as u64;
    }
    Ok(())
}

/// Waits for the end, which must come before any further byte.
pub(crate) fn ended(reader: &mut dyn Reader) -> anyhow::Result<HostEnd> {
    let mut byte = [0; 1];
    loop {
        return match reader.read(&mut byte) {
            Ok(0) => Ok(HostEnd::Closed),
            Ok(_) => bail!("a byte where the end should be"),
            Err(error) => match error.kind() {
                ErrorKind::Interrupted => continue,
                ErrorKind::ConnectionReset | ErrorKind::BrokenPipe => Ok(HostEnd::Reset),
                _ => Err(error).context("no end comes"),
            },
        };
    }
}

/// Receives what was sent, and then the end in order.
pub(crate) fn receive_all(
    reader: &mut dyn Reader,
    content: impl Into<Content>,
) -> anyhow::Result<()> {
    receive(reader, content)?;
    let end = ended(reader)?;
    ensure!(end == HostEnd::Closed, "a reset instead of the end");
    Ok(())
}

/// Sends back what comes up to the end, and ends the other direction.
pub(crate) fn echo(stream: &mut Stream) -> io::Result<u64> {
    let mut buffer = vec![0; PIECE];
    let mut count = 0;
    loop {
        match stream.reader.read(&mut buffer) {
            Ok(0) => {
                stream.writer.finish()?;
                return Ok(count);
            }
            Ok(read) => {
                stream.writer.write_all(&buffer[..read])?;
                count += read as u64;
            }
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
}

/// The guest's job must have moved all of it, unchanged.
pub(crate) fn complete(moved: Moved, content: impl Into<Content>) -> anyhow::Result<()> {
    came_to(moved, content.into().count(), End::Complete)
}

/// The guest has received all of it, and then the end in order.
pub(crate) fn closed(moved: Moved, content: impl Into<Content>) -> anyhow::Result<()> {
    came_to(moved, content.into().count(), End::Closed)
}

/// The guest's job has moved so many bytes, messages or turns, and then stopped for this reason.
pub(crate) fn came_to(moved: Moved, count: u64, end: End) -> anyhow::Result<()> {
    ensure!(
        moved.wrong.is_none() && moved.count == count && moved.end == end,
        "expected {count} and then {end:?}, the guest has {moved:?}"
    );
    Ok(())
}
