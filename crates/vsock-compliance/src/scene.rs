// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

use std::fmt;
use std::io::{ErrorKind, Read, Write};
use std::os::fd::RawFd;
use std::time::Duration;

use vsock_backend_api::VsockStream;

use crate::breach::{RuleBreach, Verdict, count, hold};
use crate::call::Call;
use crate::pattern::Pattern;
use crate::poll::{self, Deadline, PollInterest, Stopwatch, Watch};
use crate::source::{BoxedStream, CapacityPromise, ConnectionEnd, Ends, Mode, PairSource};

/// How long a rule waits for an event: long enough even for a machine under load.
pub(crate) const TIMEOUT: Duration = Duration::from_secs(20);

/// How many bytes a check writes at most to a transport that never reports that it is full.
const FLOOD: usize = 64 << 20;

/// A connection, seen from one of its ends.
pub struct Pair {
    /// The end that the check is about.
    pub near: BoxedStream,
    /// Its peer.
    pub far: BoxedStream,
}

impl fmt::Debug for Pair {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Pair")
            .field("type", &self.near.backend_type())
            .finish_non_exhaustive()
    }
}

/// The environment of a check: a source of pairs, the end that is checked, and a timeout.
#[derive(Clone, Copy)]
pub struct Scene<'a> {
    source: &'a dyn PairSource,
    near: ConnectionEnd,
    timeout: Duration,
}

impl fmt::Debug for Scene<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Scene")
            .field("near", &self.near)
            .field("timeout", &self.timeout)
            .finish_non_exhaustive()
    }
}

impl<'a> Scene<'a> {
    /// Creates a scene in which the `near` end is checked.
    ///
    /// `timeout` is how long a check waits for an event; 20 seconds are enough even for a machine
    /// under load.
    #[must_use]
    pub fn new(source: &'a dyn PairSource, near: ConnectionEnd, timeout: Duration) -> Self {
        Self {
            source,
            near,
            timeout,
        }
    }

    pub(crate) fn source(&self) -> &'a dyn PairSource {
        self.source
    }

    /// Creates a pair with both ends in their initial modes.
    pub(crate) fn fresh(&self) -> Result<Pair, RuleBreach> {
        let (application, device) = self.source.pair()?;
        Ok(match self.near {
            ConnectionEnd::Application => Pair {
                near: application,
                far: device,
            },
            ConnectionEnd::Device => Pair {
                near: device,
                far: application,
            },
        })
    }

    /// Creates a pair in these modes.
    pub(crate) fn pair(&self, near: Mode, far: Mode) -> Result<Pair, RuleBreach> {
        let mut pair = self.fresh()?;
        pair.near.set_nonblocking(near.is_nonblocking())?;
        pair.far.set_nonblocking(far.is_nonblocking())?;
        Ok(pair)
    }

    /// Creates a pair with both ends non-blocking.
    pub(crate) fn nonblocking(&self) -> Result<Pair, RuleBreach> {
        self.pair(Mode::Nonblocking, Mode::Nonblocking)
    }

    /// Creates a pair with both ends blocking.
    pub(crate) fn blocking(&self) -> Result<Pair, RuleBreach> {
        self.pair(Mode::Blocking, Mode::Blocking)
    }

    pub(crate) fn ends(&self) -> Ends {
        self.source.ends()
    }

    /// Returns the mode in which the near end must start.
    pub(crate) fn near_mode(&self) -> Mode {
        self.source.initial_mode(self.near)
    }

    /// Returns how many bytes the near end can write before the far end reads.
    pub(crate) fn promise(&self) -> CapacityPromise {
        self.source.capacity(self.near)
    }

    /// Returns the exact number of bytes that the near end can write. Without one, the rule is
    /// inapplicable.
    pub(crate) fn capacity(&self) -> Result<usize, RuleBreach> {
        match self.promise() {
            CapacityPromise::Bytes(capacity) => Ok(capacity),
            CapacityPromise::Unbounded => {
                Err(RuleBreach::Inapplicable("the direction is unbounded"))
            }
            CapacityPromise::Unknown => {
                Err(RuleBreach::Inapplicable("the capacity is not promised"))
            }
        }
    }

    /// Returns how many bytes, at most `wish`, the near end can write without filling the
    /// direction.
    pub(crate) fn some(&self, wish: usize) -> usize {
        fitting(self.promise(), wish)
    }

    /// Returns how many bytes, at most `wish`, the far end can write without filling the direction.
    pub(crate) fn some_back(&self, wish: usize) -> usize {
        fitting(self.source.capacity(self.near.peer()), wish)
    }

    /// Returns how long to wait for an event.
    pub(crate) fn timeout(&self) -> Duration {
        self.timeout
    }

    /// Returns when to stop waiting for an event that begins now.
    pub(crate) fn deadline(&self) -> Deadline {
        Deadline::after(self.timeout)
    }

    /// Writes to the non-blocking near end until a write is refused. Returns how many bytes were
    /// accepted.
    pub(crate) fn fill(&self, near: &mut BoxedStream) -> Result<usize, RuleBreach> {
        self.fill_with(near, &mut Pattern::default())
    }

    /// Fills the direction like [`fill`](Self::fill), with the next bytes of a pattern.
    pub(crate) fn fill_with(
        &self,
        near: &mut BoxedStream,
        sent: &mut Pattern,
    ) -> Result<usize, RuleBreach> {
        if self.promise() == CapacityPromise::Unbounded {
            let why = "an unbounded direction is never full";
            return Err(RuleBreach::Inapplicable(why));
        }
        let mut taken = 0;
        while taken < FLOOD {
            match near.write(&sent.peek(64 * 1024)) {
                Ok(len) => {
                    taken += len;
                    sent.advance(len);
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(taken),
                Err(error) => return Err(error.into()),
            }
        }
        let seen = format!("{taken} bytes were accepted although none was read");
        Err(RuleBreach::unmet("a direction to fill up", seen))
    }

    /// Makes calls that must not block, on a separate thread. A check makes such calls on its own
    /// thread, so it would never end if one of them blocked.
    pub(crate) fn try_nonblocking(&self) -> Verdict {
        let Pair { near, far } = self.nonblocking()?;
        let most = |end| match self.source.capacity(end) {
            CapacityPromise::Unbounded => 1,
            CapacityPromise::Bytes(_) | CapacityPromise::Unknown => FLOOD,
        };
        let mut ends = [(near, most(self.near)), (far, most(self.near.peer()))];
        let calls = Call::start(move || {
            for (end, _) in &mut ends {
                drop(end.read(&mut [0; 8]));
            }
            for (end, most) in &mut ends {
                flood(end, *most);
            }
        })?;
        let returned = calls.finish(self.deadline());
        returned.map_err(|why| RuleBreach::unmet("non-blocking calls to return", why))
    }

    /// Starts `call` on `stream`, on a separate thread.
    pub(crate) fn start<T: Send + 'static>(
        &self,
        mut stream: BoxedStream,
        call: impl FnOnce(&mut BoxedStream) -> T + Send + 'static,
    ) -> Result<Call<(BoxedStream, T)>, RuleBreach> {
        Ok(Call::start(move || {
            let result = call(&mut stream);
            (stream, result)
        })?)
    }

    /// [Starts](Self::start) a call and waits until it [sleeps](Self::asleep).
    pub(crate) fn blocked<T: Send + 'static>(
        &self,
        stream: BoxedStream,
        call: impl FnOnce(&mut BoxedStream) -> T + Send + 'static,
    ) -> Result<Call<(BoxedStream, T)>, RuleBreach> {
        let call = self.start(stream, call)?;
        self.asleep(&call)?;
        Ok(call)
    }

    /// Waits until a call sleeps. Only for calls that the check itself ends: a call with a timeout
    /// may have returned before it is checked.
    pub(crate) fn asleep<T: Send + 'static>(&self, call: &Call<T>) -> Verdict {
        let slept = call.asleep(self.deadline());
        slept.map_err(|why| RuleBreach::unmet("the call to wait", why))
    }

    /// Waits for a call to return.
    pub(crate) fn returned<T: Send + 'static>(&self, call: Call<T>) -> Result<T, RuleBreach> {
        let result = call.finish(self.deadline());
        result.map_err(|why| RuleBreach::unmet("the call to return", why))
    }
}

/// Wraps a call so that it also returns how long it took.
pub(crate) fn timed<T>(
    call: impl FnOnce(&mut BoxedStream) -> T,
) -> impl FnOnce(&mut BoxedStream) -> (Duration, T) {
    |stream| {
        let watch = Stopwatch::start();
        let result = call(stream);
        (watch.elapsed(), result)
    }
}

fn fitting(promise: CapacityPromise, wish: usize) -> usize {
    match promise {
        CapacityPromise::Bytes(capacity) => capacity.min(wish),
        CapacityPromise::Unbounded | CapacityPromise::Unknown => wish,
    }
}

/// Reads `want.len()` bytes in any number of calls, and compares them.
pub(crate) fn read_expecting(stream: &mut BoxedStream, want: &[u8]) -> Verdict {
    let mut got = vec![0; want.len()];
    let mut filled = 0;
    while filled < got.len() {
        match stream.read(&mut got[filled..]) {
            Ok(len) if len > 0 => filled += len,
            other => {
                let seen = format!("a read returned {other:?} after {filled} of them");
                return Err(RuleBreach::unmet(
                    format!("{} bytes to arrive", want.len()),
                    seen,
                ));
            }
        }
    }
    match got.iter().zip(want).position(|(got, want)| got != want) {
        None => Ok(()),
        Some(at) => Err(RuleBreach::unmet(
            format!("byte {at} of {} to be {:#04x}", want.len(), want[at]),
            format!("it is {:#04x}", got[at]),
        )),
    }
}

/// Reads everything that is queued in a non-blocking stream. Returns the number of bytes.
pub(crate) fn drain(stream: &mut BoxedStream) -> Result<usize, RuleBreach> {
    let mut buf = vec![0; 64 * 1024];
    let mut taken = 0;
    loop {
        match stream.read(&mut buf) {
            Ok(0) => return Ok(taken),
            Ok(len) => taken += len,
            Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(taken),
            Err(error) => return Err(error.into()),
        }
    }
}

/// Checks that a write is accepted as a whole.
pub(crate) fn write(stream: &mut BoxedStream, bytes: &[u8]) -> Verdict {
    count("a write into free space", stream.write(bytes), bytes.len())
}

/// Returns the descriptor to poll for this interest.
pub(crate) fn ready_fd(
    stream: &dyn VsockStream,
    interest: PollInterest,
) -> Result<RawFd, RuleBreach> {
    Ok(match interest {
        PollInterest::Read => stream.as_raw_fd(),
        PollInterest::Write => stream.write_ready_fd()?,
    })
}

fn name(interest: PollInterest) -> &'static str {
    match interest {
        PollInterest::Read => "the descriptor",
        PollInterest::Write => "the write descriptor",
    }
}

/// Checks that the descriptor is ready.
pub(crate) fn ready(stream: &BoxedStream, interest: PollInterest, when: &str) -> Verdict {
    let is_ready = poll::is_ready(ready_fd(&**stream, interest)?, interest)?;
    let expected = format!("{} to be ready {when}", name(interest));
    hold(is_ready, expected, "it was not")
}

/// Checks that the descriptor is not ready.
pub(crate) fn unready(stream: &BoxedStream, interest: PollInterest, when: &str) -> Verdict {
    let is_ready = poll::is_ready(ready_fd(&**stream, interest)?, interest)?;
    let expected = format!("{} not to be ready {when}", name(interest));
    hold(!is_ready, expected, "it was")
}

/// Returns an edge-triggered watch of the descriptor, with events so far discarded.
pub(crate) fn edges(stream: &dyn VsockStream, interest: PollInterest) -> Result<Watch, RuleBreach> {
    let mut watch = Watch::edges(ready_fd(stream, interest)?, interest)?;
    watch.now()?;
    Ok(watch)
}

/// Checks that the watch reports an edge.
pub(crate) fn edge(watch: &mut Watch, when: &str) -> Verdict {
    let reported = watch.now()?.is_some();
    hold(reported, format!("an edge {when}"), "there was none")
}

/// Checks that the watch reports nothing.
pub(crate) fn no_edge(watch: &mut Watch, when: &str) -> Verdict {
    let reported = watch.now()?.is_some();
    hold(!reported, format!("no edge {when}"), "there was one")
}

/// Writes up to `most` bytes, or as many as the stream accepts.
fn flood(end: &mut BoxedStream, most: usize) {
    let mut taken = 0;
    while taken < most {
        match end.write(&[0; 16 * 1024]) {
            Ok(len @ 1..) => taken += len,
            _ => break,
        }
    }
}
