// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Background traffic while something else happens: bytes in both directions of all connections,
//! with a pattern of its own for each direction.

use std::io::{self, ErrorKind, Read, Write};
use std::thread::{self, JoinHandle};

use anyhow::{Context, bail, ensure};
use vsock_guest_program::job::{Content, End, GuestSocket, Range};
use vsock_guest_program::transfer::{self, Transfer};

use super::pairs::Pair;
use crate::bytes::{PIECE, complete, joined, range, transferred};
use crate::child::wait_until;
use crate::device::{LIMIT, Stream};
use crate::guest::Pending;
use crate::machine::Machine;

/// What the host received and sent on a stream.
struct HostPart {
    received: Transfer,
    sent: io::Result<()>,
    stream: Stream,
}

/// One connection.
struct Duplex {
    guest: GuestSocket,
    up: (Range, Pending),
    down: (Range, Pending),
    host: JoinHandle<anyhow::Result<HostPart>>,
}

/// All connections.
pub(super) struct Transfers(Vec<Duplex>);

impl Transfers {
    /// Starts to move `len` bytes in each direction of each connection.
    pub(super) fn start(machine: &Machine, pairs: Vec<Pair>, len: u64) -> anyhow::Result<Self> {
        let start = |(seed, Pair { host, guest })| {
            let (up, down) = (range(seed, len, 64 << 10), range(seed + 1, len, 64 << 10));
            anyhow::Ok(Duplex {
                guest,
                up: (up, machine.guest().send(guest, up)?),
                down: (down, machine.guest().receive(guest, down)?),
                host: thread::spawn(move || move_both_ways(host, up, down)),
            })
        };
        let all = (1000_u64..).step_by(2).zip(pairs).map(start);
        Ok(Self(all.collect::<anyhow::Result<_>>()?))
    }

    /// Waits until each connection has moved `more` bytes in both directions together, or has
    /// finished.
    pub(super) fn wait_for_progress(&self, machine: &Machine, more: u64) -> anyhow::Result<()> {
        let moved = || -> anyhow::Result<Vec<u64>> {
            let sockets = self.0.iter().map(|duplex| duplex.guest);
            sockets
                .map(|guest| machine.guest().progress(guest))
                .collect()
        };
        let before = moved()?;
        let far = wait_until(LIMIT, || {
            let mut counts = self.0.iter().zip(&before).zip(moved()?);
            let is_far = |((duplex, before), now): ((&Duplex, _), u64)| {
                duplex.host.is_finished() || now >= before + more
            };
            Ok(counts.all(is_far).then_some(()))
        })?;
        far.with_context(|| format!("not every connection moved {more} more bytes"))
    }

    /// Returns whether the host is still moving bytes on any connection.
    pub(super) fn is_under_way(&self) -> bool {
        self.0.iter().any(|duplex| !duplex.host.is_finished())
    }

    /// Waits until everything has arrived unchanged. The connections can be used again.
    pub(super) fn finish(self) -> anyhow::Result<Vec<Pair>> {
        let finish = |Duplex {
                          guest,
                          up,
                          down,
                          host,
                      }| {
            let part = joined(host.join())??;
            part.sent.context("to the guest")?;
            transferred(part.received, up.0.into()).context("to the host")?;
            complete(up.1.moved()?, up.0).context("the guest's sending")?;
            complete(down.1.moved()?, down.0).context("the guest's receiving")?;
            Ok(Pair {
                host: part.stream,
                guest,
            })
        };
        self.0.into_iter().map(finish).collect()
    }

    /// Waits until the host has seen the end of every connection in both directions. Checks that
    /// the bytes that arrived are unchanged.
    pub(super) fn host_ends(self) -> anyhow::Result<()> {
        self.end().map(drop)
    }

    /// Does the same for both sides of each connection.
    pub(super) fn both_ends(self) -> anyhow::Result<()> {
        for (up, down) in self.end()? {
            for (way, job) in [("sender", up), ("receiver", down)] {
                let moved = job.moved().with_context(|| format!("the guest's {way}"))?;
                let is_over = matches!(moved.end, End::Closed | End::Error(_));
                ensure!(
                    is_over && moved.wrong.is_none(),
                    "the guest's {way}: {moved:?}"
                );
            }
        }
        Ok(())
    }

    fn end(self) -> anyhow::Result<Vec<(Pending, Pending)>> {
        let end = |duplex: Duplex| {
            let part = joined(duplex.host.join())??;
            let Transfer { count, wrong, end } = part.received;
            ensure!(wrong.is_none(), "a wrong byte at {wrong:?}");
            match end {
                Ok(End::Closed) => {}
                Ok(_) => bail!("all {count} bytes arrived before the connection ended"),
                Err(error) => is_end(&error)
                    .then_some(())
                    .with_context(|| format!("the host's reader: {error}"))?,
            }
            match part.sent {
                Ok(()) => bail!("everything was sent before the connection ended"),
                Err(error) => ensure!(is_end(&error), "the host's writer: {error}"),
            }
            Ok((duplex.up.1, duplex.down.1))
        };
        self.0.into_iter().map(end).collect()
    }
}

/// A half of a stream whose guest is booting. Until the new driver starts, the device cannot know
/// whether the old one has only paused. That can take longer than one call on a stream may wait.
struct Patient<'a, T: ?Sized>(&'a mut T);

impl<T: ?Sized> Patient<'_, T> {
    /// How many times a call may wait for [`LIMIT`].
    const WAITS: u32 = 4;

    fn again(&mut self, mut call: impl FnMut(&mut T) -> io::Result<usize>) -> io::Result<usize> {
        let mut waits = 1;
        loop {
            match call(self.0) {
                Err(error) if is_timeout(&error) && waits < Self::WAITS => waits += 1,
                done => return done,
            }
        }
    }
}

impl<T: Read + ?Sized> Read for Patient<'_, T> {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        self.again(|inner| inner.read(buf))
    }
}

impl<T: Write + ?Sized> Write for Patient<'_, T> {
    fn write(&mut self, buf: &[u8]) -> io::Result<usize> {
        self.again(|inner| inner.write(buf))
    }

    fn flush(&mut self) -> io::Result<()> {
        self.0.flush()
    }
}

/// Moves bytes both ways. Keeps both halves until both directions have finished.
fn move_both_ways(host: Stream, up: Range, down: Range) -> anyhow::Result<HostPart> {
    let (mut reader, mut writer) = (host.reader, host.writer);
    let sender = thread::spawn(move || {
        let sent = transfer::send(&mut Patient(&mut *writer), &Content::Bytes(down));
        (writer, sent.end.map(drop))
    });
    let received = transfer::receive(&mut Patient(&mut *reader), &Content::Bytes(up), PIECE);
    let (writer, sent) = joined(sender.join())?;
    Ok(HostPart {
        received,
        sent,
        stream: Stream { reader, writer },
    })
}

/// Returns whether a call timed out: sockets and in-process streams use different kinds.
fn is_timeout(error: &io::Error) -> bool {
    matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut)
}

/// Returns whether the connection has ended, as opposed to a timeout.
fn is_end(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        ErrorKind::ConnectionReset | ErrorKind::BrokenPipe
    )
}
