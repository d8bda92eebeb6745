// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Sending, receiving and checking bytes on the host's end of a connection.

use std::io::{self, ErrorKind, Read};

use anyhow::{Context, anyhow, bail, ensure};
use vsock_guest_program::job::{Content, End, Moved, Range};
use vsock_guest_program::transfer::{self, Transfer};

use crate::device::{Stream, Writer};

/// The size of a read.
pub(crate) const PIECE: usize = 64 * 1024;

/// How a direction ended.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum HostEnd {
    Closed,
    Reset,
}

/// The first `len` bytes of a pattern, written in pieces of this size.
pub(crate) const fn range(seed: u64, len: u64, piece: u32) -> Range {
    Range {
        seed: Some(seed),
        from: 0,
        len,
        piece,
    }
}

/// Returns what a thread returned, or an error if it panicked.
pub(crate) fn joined<T>(result: std::thread::Result<T>) -> anyhow::Result<T> {
    result.map_err(|_| anyhow!("a thread has panicked"))
}

/// Sends bytes in writes of one piece each, or messages in one write each.
pub(crate) fn send(mut writer: &mut dyn Writer, content: impl Into<Content>) -> io::Result<()> {
    transfer::send(&mut writer, &content.into()).end.map(drop)
}

/// Receives the content, and no more.
pub(crate) fn receive(reader: &mut dyn Read, content: impl Into<Content>) -> anyhow::Result<()> {
    let content = content.into();
    transferred(transfer::receive(reader, &content, PIECE), content)
}

/// Checks that the content was transferred completely and unchanged.
pub(crate) fn transferred(transfer: Transfer, content: Content) -> anyhow::Result<()> {
    let Transfer { count, wrong, end } = transfer;
    let end = end.with_context(|| format!("after {count} of {}", content.count()))?;
    complete(Moved { count, wrong, end }, content)
}

/// Waits for the end, which must come before another byte.
pub(crate) fn ended(reader: &mut dyn Read) -> anyhow::Result<HostEnd> {
    let mut byte = [0; 1];
    loop {
        return match reader.read(&mut byte) {
            Ok(0) => Ok(HostEnd::Closed),
            Ok(_) => bail!("received a byte after the expected end"),
            Err(error) => match error.kind() {
                ErrorKind::Interrupted => continue,
                ErrorKind::ConnectionReset | ErrorKind::BrokenPipe => Ok(HostEnd::Reset),
                _ => Err(error).context("the end does not arrive"),
            },
        };
    }
}

/// Receives the content and then a graceful end.
pub(crate) fn receive_all(
    reader: &mut dyn Read,
    content: impl Into<Content>,
) -> anyhow::Result<()> {
    receive(reader, content)?;
    let end = ended(reader)?;
    ensure!(
        end == HostEnd::Closed,
        "expected a graceful end, found a reset"
    );
    Ok(())
}

/// Sends back everything until the end, then ends the other direction.
pub(crate) fn echo(stream: &mut Stream) -> io::Result<u64> {
    let echoed = transfer::echo(&mut stream.reader, &mut stream.writer);
    echoed.end?;
    stream.writer.finish()?;
    Ok(echoed.count)
}

/// Checks that the content was moved completely and unchanged.
pub(crate) fn complete(moved: Moved, content: impl Into<Content>) -> anyhow::Result<()> {
    came_to(moved, content.into().count(), End::Complete)
}

/// Checks that the content was received, and then a graceful end.
pub(crate) fn closed(moved: Moved, content: impl Into<Content>) -> anyhow::Result<()> {
    came_to(moved, content.into().count(), End::Closed)
}

/// Checks how many bytes, messages or turns were moved, and why the job stopped.
pub(crate) fn came_to(moved: Moved, count: u64, end: End) -> anyhow::Result<()> {
    ensure!(
        moved.wrong.is_none() && moved.count == count && moved.end == end,
        "expected {count} and then {end:?}, found {moved:?}"
    );
    Ok(())
}
