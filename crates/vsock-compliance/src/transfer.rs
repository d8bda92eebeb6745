// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Moves many bytes from one end of a connection to the other, each side in its own way.

use std::io::{self, ErrorKind};
use std::os::fd::RawFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use vsock_backend_api::VsockStream;

use crate::pattern::Pattern;
use crate::poll::{Deadline, PollInterest, Watch, wait_ready};

/// How a side waits when it can make no progress.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub enum WaitStyle {
    /// In the call.
    Blocking,
    /// Non-blocking, in a level-triggered epoll.
    Level,
    /// Non-blocking, in an edge-triggered epoll that was registered once, at the start.
    Edge,
    /// Changing between the first two after every few calls.
    Flipping,
}

impl WaitStyle {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::Blocking, Self::Level, Self::Edge, Self::Flipping];
}

/// What a side does.
#[derive(Clone, Copy, Debug)]
pub struct TransferPlan {
    /// How many bytes it moves.
    pub bytes: u64,
    /// The longest single call; the lengths go from 1 to this, small ones as often as large ones.
    pub longest: usize,
    /// How it waits.
    pub style: WaitStyle,
    /// How long it waits in an epoll before it gives up, each time. A blocking call must be given up
    /// from outside; [`TransferProgress`] tells when.
    pub stall_timeout: Duration,
    /// Where its lengths begin, so that two sides do not move in step.
    pub seed: u64,
}

/// How far a side is, for a watchdog to tell from another thread.
#[derive(Clone, Debug, Default)]
pub struct TransferProgress(Arc<AtomicU64>);

impl TransferProgress {
    /// How many bytes it has moved.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        // ORDER: Relaxed; partner: none, a figure to look at.
        self.0.load(Ordering::Relaxed)
    }

    fn set(&self, bytes: u64) {
        // ORDER: Relaxed; partner: none, a figure to look at.
        self.0.store(bytes, Ordering::Relaxed);
    }
}

/// Calls between two changes of the mode.
const CALLS_PER_FLIP: u32 = 7;

struct Side {
    plan: TransferPlan,
    watch: Option<Watch>,
    interest: PollInterest,
    fd: RawFd,
    lengths: u64,
    calls: u32,
}

impl Side {
    fn new(
        stream: &mut (impl VsockStream + ?Sized),
        plan: TransferPlan,
        interest: PollInterest,
    ) -> io::Result<Self> {
        stream.set_nonblocking(matches!(plan.style, WaitStyle::Level | WaitStyle::Edge))?;
        // A side that never polls never takes the fd, as an application of blocking calls would not.
        let fd = match (plan.style, interest) {
            (WaitStyle::Blocking, _) => -1,
            (_, PollInterest::Read) => stream.as_raw_fd(),
            (_, PollInterest::Write) => stream.write_ready_fd()?,
        };
        let watch = match plan.style {
            WaitStyle::Edge => Some(Watch::edges(fd, interest)?),
            WaitStyle::Blocking | WaitStyle::Level | WaitStyle::Flipping => None,
        };
        Ok(Self {
            plan,
            watch,
            interest,
            fd,
            lengths: plan.seed | 1,
            calls: 0,
        })
    }

    /// The length of the next call: any number of bits is as likely as any other.
    fn length(&mut self, left: u64) -> usize {
        self.lengths ^= self.lengths << 13;
        self.lengths ^= self.lengths >> 7;
        self.lengths ^= self.lengths << 17;
        let bits =
            u32::try_from(self.lengths % u64::from(self.plan.longest.ilog2() + 1)).unwrap_or(0);
        let len = (1_u64 << bits) | ((self.lengths >> 8) & ((1 << bits) - 1));
        let len = len.min(left).min(self.plan.longest as u64);
        usize::try_from(len).unwrap_or(self.plan.longest)
    }

    fn before_call(&mut self, stream: &mut (impl VsockStream + ?Sized)) -> io::Result<()> {
        self.calls += 1;
        if self.plan.style == WaitStyle::Flipping && self.calls.is_multiple_of(CALLS_PER_FLIP) {
            stream.set_nonblocking((self.calls / CALLS_PER_FLIP).is_multiple_of(2))?;
        }
        Ok(())
    }

    fn wait(&mut self) -> io::Result<()> {
        let deadline = Deadline::after(self.plan.stall_timeout);
        match &mut self.watch {
            Some(edges) => edges.wait(deadline).map(drop),
            None => wait_ready(self.fd, self.interest, deadline),
        }
    }
}

/// Writes the beginning of the [`Pattern`].
///
/// # Errors
///
/// Those of the stream; `TimedOut` when the side has waited for the plan's `stall_timeout`.
pub fn send(
    stream: &mut (impl VsockStream + ?Sized),
    plan: TransferPlan,
    progress: &TransferProgress,
) -> io::Result<()> {
    let mut side = Side::new(stream, plan, PollInterest::Write)?;
    let mut pattern = Pattern::default();
    let mut buf = vec![0; plan.longest];
    while pattern.position() < plan.bytes {
        progress.set(pattern.position());
        let len = side.length(plan.bytes - pattern.position());
        pattern.fill(&mut buf[..len]);
        side.before_call(stream)?;
        match stream.write(&buf[..len]) {
            Ok(0) => return Err(ErrorKind::WriteZero.into()),
            Ok(len) => pattern.advance(len),
            Err(error) if error.kind() == ErrorKind::WouldBlock => side.wait()?,
            Err(error) => return Err(error),
        }
    }
    progress.set(plan.bytes);
    Ok(())
}

/// Reads the beginning of the [`Pattern`], and nothing more.
///
/// # Errors
///
/// Those of the stream; `InvalidData` for a byte that is not the next one; `UnexpectedEof`;
/// `TimedOut` when the side has waited for the plan's `stall_timeout`.
pub fn receive(
    stream: &mut (impl VsockStream + ?Sized),
    plan: TransferPlan,
    progress: &TransferProgress,
) -> io::Result<()> {
    let mut side = Side::new(stream, plan, PollInterest::Read)?;
    let mut pattern = Pattern::default();
    let mut buf = vec![0; plan.longest];
    while pattern.position() < plan.bytes {
        progress.set(pattern.position());
        let len = side.length(plan.bytes - pattern.position());
        side.before_call(stream)?;
        match stream.read(&mut buf[..len]) {
            Ok(0) => return Err(ErrorKind::UnexpectedEof.into()),
            Ok(len) => pattern.verify(&buf[..len]).map_err(|at| {
                io::Error::new(ErrorKind::InvalidData, format!("a wrong byte at {at}"))
            })?,
            Err(error) if error.kind() == ErrorKind::WouldBlock => side.wait()?,
            Err(error) => return Err(error),
        }
    }
    progress.set(plan.bytes);
    Ok(())
}
