// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Transfers many bytes from one end of a connection to the other, with a way of waiting for each
//! side.

use std::convert::identity;
use std::fmt;
use std::io::{self, ErrorKind, Read as _, Write as _};
use std::os::fd::RawFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use crate::call::Call;
use crate::pattern::Pattern;
use crate::poll::{Deadline, PollInterest, Watch, wait_ready};
use crate::source::BoxedStream;

/// How a side waits when it cannot make progress.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub enum WaitStyle {
    /// In a blocking call.
    Blocking,
    /// In a level-triggered epoll, in non-blocking mode.
    Level,
    /// In an edge-triggered epoll that was registered once, at the start, in non-blocking mode.
    Edge,
    /// In turn like `Blocking` and `Level`, with a change after every few calls.
    Flipping,
}

impl WaitStyle {
    /// All styles.
    pub const ALL: [Self; 4] = [Self::Blocking, Self::Level, Self::Edge, Self::Flipping];
}

/// What one side of a transfer does.
#[derive(Clone, Copy, Debug)]
pub struct TransferPlan {
    /// How many bytes it transfers.
    pub bytes: u64,
    /// The maximum length of one call in bytes. Lengths vary from 1 to this value, and short ones
    /// are as frequent as long ones.
    pub longest: usize,
    /// How it waits.
    pub style: WaitStyle,
    /// How long it may go without progress.
    pub stall_timeout: Duration,
    /// The seed for the lengths, so that the two sides do not run in step.
    pub seed: u64,
}

/// A transfer of the bytes of a [`Pattern`] from one end of a connection to the other, with a
/// thread for each side.
///
/// ```
/// use std::os::unix::net::UnixStream;
/// use std::time::Duration;
/// use vsock_compliance::transfer::{Transfer, TransferPlan, WaitStyle};
///
/// # fn main() -> std::io::Result<()> {
/// let (near, far) = UnixStream::pair()?;
/// let plan = TransferPlan {
///     bytes: 1 << 20,
///     longest: 5000,
///     style: WaitStyle::Level,
///     stall_timeout: Duration::from_secs(10),
///     seed: 1,
/// };
/// let reader = TransferPlan { style: WaitStyle::Blocking, seed: 2, ..plan };
/// Transfer::start((Box::new(near), Box::new(far)), plan, reader)?.finish()?;
/// # Ok(())
/// # }
/// ```
pub struct Transfer {
    writer: Running,
    reader: Running,
}

impl fmt::Debug for Transfer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Transfer").finish_non_exhaustive()
    }
}

impl Transfer {
    /// Starts to write at the first end and to read at the second.
    ///
    /// # Errors
    ///
    /// A thread cannot be started.
    pub fn start(
        (near, far): (BoxedStream, BoxedStream),
        writer: TransferPlan,
        reader: TransferPlan,
    ) -> io::Result<Self> {
        Ok(Self {
            writer: Running::start(near, writer, send)?,
            reader: Running::start(far, reader, receive)?,
        })
    }

    /// Returns whether both sides have finished, successfully or not.
    #[must_use]
    pub fn has_returned(&self) -> bool {
        self.writer.call.has_returned() && self.reader.call.has_returned()
    }

    /// Waits for both sides as long as they make progress, and returns the ends. Both ends are kept
    /// until both sides have finished, so that neither interrupts the other.
    ///
    /// # Errors
    ///
    /// The errors of the streams; `InvalidData` for a wrong byte; `UnexpectedEof`; and `TimedOut`
    /// for a side without progress for its `stall_timeout`. The message contains how far the side
    /// has come.
    pub fn finish(self) -> io::Result<(BoxedStream, BoxedStream)> {
        let (far, near) = (self.reader.finish("reader"), self.writer.finish("writer"));
        Ok((near?, far?))
    }
}

/// One side on its thread.
struct Running {
    plan: TransferPlan,
    moved: Arc<AtomicU64>,
    call: Call<io::Result<BoxedStream>>,
}

type Run = fn(&mut BoxedStream, TransferPlan, &AtomicU64) -> io::Result<()>;

impl Running {
    fn start(mut stream: BoxedStream, plan: TransferPlan, run: Run) -> io::Result<Self> {
        let moved = Arc::new(AtomicU64::new(0));
        let told = Arc::clone(&moved);
        let call = Call::start(move || run(&mut stream, plan, &told).map(|()| stream))?;
        Ok(Self { plan, moved, call })
    }

    fn finish(self, name: &str) -> io::Result<BoxedStream> {
        let Self { plan, moved, call } = self;
        // ORDER: Relaxed; partner: the store in `run`, an independent count.
        let moved = || moved.load(Ordering::Relaxed);
        let done = call.finish_moving(plan.stall_timeout, moved);
        done.and_then(identity).map_err(|error| {
            let (style, bytes, moved) = (plan.style, plan.bytes, moved());
            let text =
                format!("the {name} ({style:?}) stopped after {moved} of {bytes} bytes: {error}");
            io::Error::new(error.kind(), text)
        })
    }
}

/// How many calls are made between two changes of the mode.
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
        stream: &mut BoxedStream,
        plan: TransferPlan,
        interest: PollInterest,
    ) -> io::Result<Self> {
        stream.set_nonblocking(matches!(plan.style, WaitStyle::Level | WaitStyle::Edge))?;
        // A side that never polls never obtains the descriptor, like an application that only makes
        // blocking calls.
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

    /// Returns the length of the next call. Every number of significant bits is equally likely.
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

    fn before_call(&mut self, stream: &mut BoxedStream) -> io::Result<()> {
        self.calls += 1;
        if self.plan.style == WaitStyle::Flipping && self.calls % CALLS_PER_FLIP == 0 {
            stream.set_nonblocking(self.calls / CALLS_PER_FLIP % 2 == 0)?;
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
fn send(stream: &mut BoxedStream, plan: TransferPlan, moved: &AtomicU64) -> io::Result<()> {
    run(
        stream,
        plan,
        moved,
        PollInterest::Write,
        |stream, pattern, buf| {
            pattern.fill(buf);
            match stream.write(buf)? {
                0 => Err(ErrorKind::WriteZero.into()),
                len => {
                    pattern.advance(len);
                    Ok(())
                }
            }
        },
    )
}

/// Reads the beginning of the [`Pattern`], and nothing more.
fn receive(stream: &mut BoxedStream, plan: TransferPlan, moved: &AtomicU64) -> io::Result<()> {
    run(
        stream,
        plan,
        moved,
        PollInterest::Read,
        |stream, pattern, buf| match stream.read(buf)? {
            0 => Err(ErrorKind::UnexpectedEof.into()),
            len => pattern.verify(&buf[..len]).map_err(|at| {
                io::Error::new(
                    ErrorKind::InvalidData,
                    format!("wrong byte at position {at}"),
                )
            }),
        },
    )
}

/// Makes calls that advance the pattern until the end of the plan.
fn run(
    stream: &mut BoxedStream,
    plan: TransferPlan,
    moved: &AtomicU64,
    interest: PollInterest,
    call: fn(&mut BoxedStream, &mut Pattern, &mut [u8]) -> io::Result<()>,
) -> io::Result<()> {
    let mut side = Side::new(stream, plan, interest)?;
    let mut pattern = Pattern::default();
    let mut buf = vec![0; plan.longest];
    while pattern.position() < plan.bytes {
        let len = side.length(plan.bytes - pattern.position());
        side.before_call(stream)?;
        match call(stream, &mut pattern, &mut buf[..len]) {
            Err(error) if error.kind() == ErrorKind::WouldBlock => side.wait()?,
            done => done?,
        }
        // ORDER: Relaxed; partner: the load in `Running::finish`, an independent count.
        moved.store(pattern.position(), Ordering::Relaxed);
    }
    Ok(())
}
