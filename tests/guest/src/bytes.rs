// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! The host's part of sending and receiving.

use std::io::{self, ErrorKind, Read, Write};

use anyhow::{Context, bail, ensure};
use vsock_guest_program::job::{End, Moved, Range};
use vsock_guest_program::pattern::Pattern;

use crate::device::{Reader, Stream, Writer};

/// How much is read at once.
const PIECE: usize = 64 * 1024;

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

/// Sends a range, in writes of its piece.
pub(crate) fn send(writer: &mut dyn Writer, range: Range) -> io::Result<()> {
    let (sent, result) = send_some(writer, range);
    debug_assert!(result.is_err() || sent == range.len);
    result
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

/// Receives exactly the range.
pub(crate) fn receive(reader: &mut dyn Reader, range: Range) -> anyhow::Result<()> {
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

/// Receives the range, and then the end in order.
pub(crate) fn receive_all(reader: &mut dyn Reader, range: Range) -> anyhow::Result<()> {
    receive(reader, range)?;
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

/// The guest's job must have moved all of the range, unchanged.
pub(crate) fn complete(moved: Moved, range: Range) -> anyhow::Result<()> {
    ensure!(
        moved.wrong.is_none(),
        "the guest received a wrong byte at {:?}",
        moved.wrong
    );
    ensure!(
        moved.count == range.len && moved.end == End::Complete,
        "the guest came to byte {} of {} ({:?})",
        moved.count,
        range.len,
        moved.end
    );
    Ok(())
}
