// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

use std::io::{self, ErrorKind, Read, Write};
use std::time::Duration;

use vsock_backend_api::VsockStream;

use super::verdict::{Failure, Verdict, count, hold};
use crate::call::Call;
use crate::pattern::Pattern;
use crate::poll::{self, Deadline, Interest, Watch};
use crate::source::{Mode, PairSource, Room, Stream};

/// How much a case writes at most where a transport does not tell when it is full.
const FLOOD: usize = 64 << 20;

/// A connection, seen from one of its ends.
pub struct Pair {
    /// The end that the case is about.
    pub near: Stream,
    /// Its peer.
    pub far: Stream,
}

impl std::fmt::Debug for Pair {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Pair")
            .field("type", &self.near.backend_type())
            .finish_non_exhaustive()
    }
}

/// What a case runs in: a source of pairs, seen from one side, and how long to wait for it.
#[derive(Clone, Copy)]
pub struct Scene<'a> {
    source: &'a dyn PairSource,
    near_is_device: bool,
    patience: Duration,
}

impl std::fmt::Debug for Scene<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Scene")
            .field("near", &self.near_name())
            .field("patience", &self.patience)
            .finish_non_exhaustive()
    }
}

impl<'a> Scene<'a> {
    /// A scene whose near end is the application's.
    ///
    /// `patience` is how long a case waits for what must happen; 20 seconds are plenty for a
    /// machine under load.
    #[must_use]
    pub fn new(source: &'a dyn PairSource, patience: Duration) -> Self {
        Self {
            source,
            near_is_device: false,
            patience,
        }
    }

    /// The same scene from the other side: the near end is the device's.
    #[must_use]
    pub fn turned(mut self) -> Self {
        self.near_is_device = !self.near_is_device;
        self
    }

    /// Whose end the near one is.
    #[must_use]
    pub fn near_name(&self) -> &'static str {
        if self.near_is_device {
            "device"
        } else {
            "application"
        }
    }

    pub(super) fn halves(&self) -> bool {
        self.source.halves()
    }

    /// A new pair, both ends as they start.
    ///
    /// # Errors
    ///
    /// Those of [`PairSource::pair`].
    pub fn fresh(&self) -> Result<Pair, Failure> {
        let (application, device) = self.source.pair()?;
        Ok(if self.near_is_device {
            Pair {
                near: device,
                far: application,
            }
        } else {
            Pair {
                near: application,
                far: device,
            }
        })
    }

    /// A new pair in these modes.
    ///
    /// # Errors
    ///
    /// Those of [`PairSource::pair`] and of setting the modes.
    pub fn pair(&self, near: Mode, far: Mode) -> Result<Pair, Failure> {
        let mut pair = self.fresh()?;
        pair.near.set_nonblocking(near.is_nonblocking())?;
        pair.far.set_nonblocking(far.is_nonblocking())?;
        Ok(pair)
    }

    /// A new pair whose ends are both non-blocking.
    pub(super) fn nonblocking(&self) -> Result<Pair, Failure> {
        self.pair(Mode::Nonblocking, Mode::Nonblocking)
    }

    /// A new pair whose ends are both blocking.
    pub(super) fn blocking(&self) -> Result<Pair, Failure> {
        self.pair(Mode::Blocking, Mode::Blocking)
    }

    /// The mode that the near end must start in.
    pub(super) fn near_mode(&self) -> Mode {
        let (application, device) = self.source.modes();
        if self.near_is_device {
            device
        } else {
            application
        }
    }

    /// How many bytes the near end can write before the far end reads.
    pub(super) fn room_out(&self) -> Room {
        let (to_device, to_application) = self.source.room();
        if self.near_is_device {
            to_application
        } else {
            to_device
        }
    }

    /// The exact number of bytes that the near end can write; the case is about that.
    pub(super) fn capacity_out(&self) -> Result<usize, Failure> {
        match self.room_out() {
            Room::Bytes(capacity) => Ok(capacity),
            Room::Unbounded => Err(Failure::Inapplicable("the direction is unbounded")),
            Room::Unknown => Err(Failure::Inapplicable("the capacity is not promised")),
        }
    }

    /// How many bytes a case may have under way without filling the direction, at most `wish`.
    pub(super) fn some(&self, wish: usize) -> usize {
        match self.room_out() {
            Room::Bytes(capacity) => capacity.min(wish),
            Room::Unbounded | Room::Unknown => wish,
        }
    }

    /// How long to wait for what must happen.
    pub(super) fn patience(&self) -> Duration {
        self.patience
    }

    /// When to give up waiting.
    pub(super) fn deadline(&self) -> Deadline {
        Deadline::after(self.patience)
    }

    /// Peeks, where the transport has that.
    pub(super) fn peek(&self, stream: &mut Stream, buf: &mut [u8]) -> Option<io::Result<usize>> {
        self.source.peek(&mut **stream, buf)
    }

    /// Writes to a non-blocking near end until it refuses; returns how many bytes it took.
    pub(super) fn fill(&self, near: &mut Stream) -> Result<usize, Failure> {
        if self.room_out() == Room::Unbounded {
            return Err(Failure::Inapplicable(
                "an unbounded direction is never full",
            ));
        }
        let chunk = Pattern::default().take(64 * 1024);
        let mut taken = 0;
        while taken < FLOOD {
            match near.write(&chunk) {
                Ok(len) => taken += len,
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(taken),
                Err(error) => return Err(error.into()),
            }
        }
        Err(Failure::Violated(format!(
            "a direction took {taken} bytes that nobody read"
        )))
    }

    /// Starts `call` on `stream` and waits until it [sleeps](Self::asleep).
    pub(super) fn blocked<T: Send + 'static>(
        &self,
        mut stream: Stream,
        call: impl FnOnce(&mut Stream) -> T + Send + 'static,
    ) -> Result<Call<(Stream, T)>, Failure> {
        let call = Call::start(move || {
            let result = call(&mut stream);
            (stream, result)
        })?;
        self.asleep(&call)?;
        Ok(call)
    }

    /// Waits until a call sleeps. It must be one that only the case itself can end: one that ends by
    /// a timeout may be over before anybody looks.
    pub(super) fn asleep<T: Send + 'static>(&self, call: &Call<T>) -> Verdict {
        call.asleep(self.deadline())
            .map_err(|why| Failure::Violated(format!("a call that must wait did not: {why}")))
    }

    /// Waits for a call to return.
    pub(super) fn returned<T: Send + 'static>(&self, call: Call<T>) -> Result<T, Failure> {
        call.finish(self.deadline())
            .map_err(|why| Failure::Violated(format!("a call that must return did not: {why}")))
    }
}

/// Reads `want.len()` bytes in as few calls as it takes, and compares.
pub(super) fn read_expecting(stream: &mut Stream, want: &[u8]) -> Verdict {
    let mut got = vec![0; want.len()];
    let mut filled = 0;
    while filled < got.len() {
        match stream.read(&mut got[filled..]) {
            Ok(0) => {
                return hold(
                    false,
                    format!("the stream ended {filled} bytes after its start"),
                );
            }
            Ok(len) => filled += len,
            Err(error) => {
                return hold(
                    false,
                    format!("a read failed after {filled} bytes: {error:?}"),
                );
            }
        }
    }
    match got.iter().zip(want).position(|(got, want)| got != want) {
        None => Ok(()),
        Some(at) => hold(
            false,
            format!(
                "byte {at} of {} arrived as {:#04x} instead of {:#04x}",
                want.len(),
                got[at],
                want[at]
            ),
        ),
    }
}

/// Takes everything that is queued from a non-blocking stream; returns the number of bytes.
pub(super) fn drain(stream: &mut Stream) -> Result<usize, Failure> {
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

/// A write that must be accepted whole.
pub(super) fn write(stream: &mut Stream, bytes: &[u8]) -> Verdict {
    count("a write into free space", stream.write(bytes), bytes.len())
}

/// The read fd must be `want`.
pub(super) fn readable(stream: &Stream, want: bool, when: &str) -> Verdict {
    let got = poll::is_readable(stream.as_raw_fd())?;
    let state = if got { "readable" } else { "not readable" };
    hold(got == want, format!("the fd is {state} {when}"))
}

/// The write fd must be `want`.
pub(super) fn writable(stream: &Stream, want: bool, when: &str) -> Verdict {
    let got = poll::is_writable(stream.write_ready_fd()?)?;
    let state = if got { "writable" } else { "not writable" };
    hold(got == want, format!("the write fd is {state} {when}"))
}

/// An edge-triggered watch of the read fd, with whatever it has to report already forgotten.
pub(super) fn read_edges(stream: &dyn VsockStream) -> Result<Watch, Failure> {
    edges(stream.as_raw_fd(), Interest::Read)
}

/// An edge-triggered watch of the write fd, with whatever it has to report already forgotten.
pub(super) fn write_edges(stream: &dyn VsockStream) -> Result<Watch, Failure> {
    edges(stream.write_ready_fd()?, Interest::Write)
}

fn edges(fd: std::os::fd::RawFd, interest: Interest) -> Result<Watch, Failure> {
    let mut watch = Watch::edges(fd, interest)?;
    watch.now()?;
    Ok(watch)
}

/// The watch must have an edge to report.
pub(super) fn edge(watch: &mut Watch, when: &str) -> Verdict {
    hold(watch.now()?.is_some(), format!("there is no edge {when}"))
}

/// The watch must have nothing to report.
pub(super) fn no_edge(watch: &mut Watch, when: &str) -> Verdict {
    hold(watch.now()?.is_none(), format!("there is an edge {when}"))
}
