// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Jobs that move bytes or messages on one connection.

use std::io::{self, ErrorKind, Read, Write};
use std::net::Shutdown;
use std::os::fd::AsFd;

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

use crate::job::{Answer, Content, End, Moved};
use crate::option;
use crate::pattern::Pattern;
use crate::sockets::Entry;
use crate::transfer::{self, Transfer};

/// A connection that counts its bytes, so that the host can ask for the progress.
struct Counted<'a> {
    entry: &'a Entry,
    /// Poll before each read. A read returns what is available; only a poll respects the low-water
    /// mark.
    polls: bool,
}

impl Read for Counted<'_> {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        if self.polls {
            let mut watched = [PollFd::new(self.entry.socket.as_fd(), PollFlags::POLLIN)];
            poll(&mut watched, PollTimeout::NONE)?;
        }
        let read = (&self.entry.socket).read(buf)?;
        self.entry.advance(read as u64);
        Ok(read)
    }
}

impl Write for Counted<'_> {
    fn write(&mut self, buf: &[u8]) -> io::Result<usize> {
        let written = (&self.entry.socket).write(buf)?;
        self.entry.advance(written as u64);
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

pub(crate) fn send(entry: &Entry, content: &Content) -> anyhow::Result<Answer> {
    let polls = false;
    Ok(answer(&transfer::send(
        &mut Counted { entry, polls },
        content,
    )))
}

pub(crate) fn receive(
    entry: &Entry,
    content: &Content,
    lowat: Option<u32>,
) -> anyhow::Result<Answer> {
    if let Some(bytes) = lowat {
        option::set_lowat(&entry.socket, bytes)?;
    }
    let polls = lowat.is_some();
    let piece = match content {
        Content::Bytes(range) => range.piece as usize,
        Content::Messages(_) => 0,
    };
    let received = transfer::receive(&mut Counted { entry, polls }, content, piece);
    Ok(answer(&received))
}

/// Echoes everything until the end.
pub(crate) fn echo(entry: &Entry) -> anyhow::Result<Answer> {
    let polls = false;
    let echoed = transfer::echo(&mut Counted { entry, polls }, &mut &entry.socket);
    if let Ok(End::Closed) = echoed.end {
        entry.socket.shutdown(Shutdown::Write)?;
    }
    Ok(answer(&echoed))
}

fn answer(transfer: &Transfer) -> Answer {
    let end = transfer.end.as_ref().map_or_else(of, |end| *end);
    moved(transfer.count, transfer.wrong, end)
}

/// Sends messages and receives their echoes, with a window of them in flight. Checks each echo.
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

fn of(error: &io::Error) -> End {
    match error.kind() {
        ErrorKind::UnexpectedEof => End::Closed,
        _ => End::Error(error.raw_os_error().unwrap_or(0)),
    }
}
