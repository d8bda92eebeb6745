// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Bytes on one connection.

use std::io::{self, ErrorKind, Read, Write};
use std::net::Shutdown;
use std::os::fd::AsFd;

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use vsock_guest_program::job::{Answer, End, Moved, Range};
use vsock_guest_program::pattern::Pattern;

use crate::option;
use crate::sockets::Entry;

/// One piece of an echo.
const ECHO: usize = 64 * 1024;

pub(crate) fn send(entry: &Entry, range: Range) -> anyhow::Result<Answer> {
    let mut buffer = vec![0; buffer_len(range)];
    Pattern::new(0).fill(&mut buffer, 0);
    let (mut count, mut end) = (0, End::Complete);
    while count < range.len {
        let piece = piece_of(&buffer, range.len - count);
        let piece = &mut buffer[..piece];
        if let Some(seed) = range.seed {
            Pattern::new(seed).fill(piece, range.from + count);
        }
        let mut sent = 0;
        while sent < piece.len() {
            match (&entry.socket).write(&piece[sent..]) {
                Ok(more) => {
                    sent += more;
                    entry.advance(more as u64);
                }
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => {
                    end = of(&error);
                    break;
                }
            }
        }
        count += sent as u64;
        if end != End::Complete {
            break;
        }
    }
    Ok(moved(count, None, end))
}

pub(crate) fn receive(entry: &Entry, range: Range, lowat: Option<u32>) -> anyhow::Result<Answer> {
    if let Some(bytes) = lowat {
        option::set_lowat(&entry.socket, bytes)?;
    }
    let mut buffer = vec![0; buffer_len(range)];
    let (mut count, mut wrong, mut end) = (0, None, End::Complete);
    while count < range.len {
        let piece = piece_of(&buffer, range.len - count);
        if lowat.is_some() {
            // A read that waits takes what is there; only a poll waits for as many bytes as that.
            let mut watched = [PollFd::new(entry.socket.as_fd(), PollFlags::POLLIN)];
            poll(&mut watched, PollTimeout::NONE)?;
        }
        match (&entry.socket).read(&mut buffer[..piece]) {
            Ok(0) => {
                end = End::Closed;
                break;
            }
            Ok(read) => {
                if let (Some(seed), None) = (range.seed, wrong) {
                    wrong = Pattern::new(seed).wrong(&buffer[..read], range.from + count);
                }
                count += read as u64;
                entry.advance(read as u64);
            }
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) => {
                end = of(&error);
                break;
            }
        }
    }
    Ok(moved(count, wrong, end))
}

/// Sends back what comes, up to the end.
pub(crate) fn echo(entry: &Entry) -> anyhow::Result<Answer> {
    let mut buffer = vec![0; ECHO];
    let mut count = 0;
    let end = loop {
        match (&entry.socket).read(&mut buffer) {
            Ok(0) => break End::Closed,
            Ok(read) => match (&entry.socket).write_all(&buffer[..read]) {
                Ok(()) => {
                    count += read as u64;
                    entry.advance(read as u64);
                }
                Err(error) => break of(&error),
            },
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) => break of(&error),
        }
    };
    if end == End::Closed {
        entry.socket.shutdown(Shutdown::Write)?;
    }
    Ok(moved(count, None, end))
}

/// Sends messages and receives their echoes, with so many under way; each is checked.
pub(crate) fn ping_pong(
    entry: &Entry,
    size: u32,
    count: u32,
    window: u32,
) -> anyhow::Result<Answer> {
    let pattern = Pattern::new(0);
    let place = |turn: u32| u64::from(turn) * u64::from(size);
    let mut message = vec![0; size as usize];
    let mut send = |turn: u32| {
        pattern.fill(&mut message, place(turn));
        (&entry.socket).write_all(&message)
    };
    let mut echo = vec![0; size as usize];
    let mut receive = |turn: u32| {
        (&entry.socket).read_exact(&mut echo)?;
        Ok(pattern.wrong(&echo, place(turn)))
    };
    let mut sent = 0;
    for turn in 0..count {
        let ahead = turn.saturating_add(window.max(1)).min(count);
        let turned: io::Result<_> = (sent..ahead)
            .try_for_each(&mut send)
            .and_then(|()| receive(turn));
        sent = ahead;
        match turned {
            Err(error) => return Ok(moved(turn.into(), None, of(&error))),
            Ok(Some(wrong)) => return Ok(moved(turn.into(), Some(wrong), End::Complete)),
            Ok(None) => entry.advance(1),
        }
    }
    Ok(moved(count.into(), None, End::Complete))
}

pub(crate) fn moved(count: u64, wrong: Option<u64>, end: End) -> Answer {
    Answer::Moved(Moved { count, wrong, end })
}

pub(crate) fn of(error: &io::Error) -> End {
    match error.kind() {
        ErrorKind::UnexpectedEof => End::Closed,
        _ => End::Error(error.raw_os_error().unwrap_or(0)),
    }
}

fn buffer_len(range: Range) -> usize {
    range.piece.max(1) as usize
}

/// How much of the buffer is wanted when so much is left.
fn piece_of(buffer: &[u8], left: u64) -> usize {
    usize::try_from(left).map_or(buffer.len(), |left| left.min(buffer.len()))
}
