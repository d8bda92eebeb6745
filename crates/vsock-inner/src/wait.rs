// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! How one half waits: its mode, its timeout, its spinning.

use std::io;
use std::time::{Duration, Instant};

use crate::error::StreamError;
use crate::gate::{Cancels, Gate, Waited};
use crate::spin::{Pace, Spinner};
use crate::word::Position;

/// When a call gives up; it begins to count at the first wait of the call.
#[derive(Debug, Default)]
pub(crate) struct Deadline(Option<Begun>);

/// How the first wait of a call has found the clock and the gate.
#[derive(Clone, Copy, Debug)]
struct Begun {
    /// `None`: never.
    until: Option<Instant>,
    cancels: Cancels,
}

/// Why a call did not wait any longer.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum GaveUp {
    /// The mode is non-blocking.
    WouldBlock,
    /// The timeout has expired.
    TimedOut,
    /// A [`Canceller`](crate::Canceller) has ended the wait.
    Cancelled,
}

/// Mode and timeout of one half.
#[derive(Clone, Debug)]
pub(crate) struct Patience {
    pub(crate) nonblocking: bool,
    timeout: Option<Duration>,
    spinner: Spinner,
}

impl Patience {
    pub(crate) fn new(spin_budget: Duration) -> Self {
        Self {
            nonblocking: false,
            timeout: None,
            spinner: Spinner::new(spin_budget),
        }
    }

    pub(crate) fn set_timeout(&mut self, timeout: Option<Duration>) -> io::Result<()> {
        if timeout.is_some_and(|timeout| timeout.is_zero()) {
            return Err(StreamError::ZeroTimeout.into());
        }
        self.timeout = timeout;
        Ok(())
    }

    /// Waits until the other side's position is `want`, as mode and timeout allow; polls at first,
    /// at the given pace.
    pub(crate) fn wait(
        &mut self,
        gate: &Gate,
        want: Position,
        pace: Pace,
        deadline: &mut Deadline,
    ) -> Result<(), GaveUp> {
        if self.poll(gate, want, pace, deadline)? {
            return Ok(());
        }
        deadline.park(gate, want)
    }

    /// Polls as [`wait`](Self::wait) does, and says whether the position came.
    pub(crate) fn poll(
        &mut self,
        gate: &Gate,
        want: Position,
        pace: Pace,
        deadline: &mut Deadline,
    ) -> Result<bool, GaveUp> {
        if self.nonblocking {
            return Err(GaveUp::WouldBlock);
        }
        // A moment too far for the clock never comes.
        let after = |timeout| Instant::now().checked_add(timeout);
        let Begun { until, cancels } = *deadline.0.get_or_insert_with(|| Begun {
            until: self.timeout.and_then(after),
            cancels: gate.cancels(),
        });
        let left = until.map(|until| until.saturating_duration_since(Instant::now()));
        let ready = || gate.load().is_ready(want);
        let found = self
            .spinner
            .spin(left, pace, || ready() || gate.is_cancelled(cancels));
        Ok(found && ready())
    }
}

impl Deadline {
    /// Sleeps until the other side's position is `want`; after a poll, by which the time counts.
    pub(crate) fn park(&self, gate: &Gate, want: Position) -> Result<(), GaveUp> {
        let (until, cancels) = match self.0 {
            Some(Begun { until, cancels }) => (until, cancels),
            None => (None, gate.cancels()),
        };
        match gate.wait(want, until, cancels) {
            Waited::Ready => Ok(()),
            Waited::Late => Err(GaveUp::TimedOut),
            Waited::Cancelled => Err(GaveUp::Cancelled),
        }
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use std::io::{ErrorKind, Read, Write};
    use std::time::{Duration, Instant};

    use vsock_backend_api::VsockStream;

    use crate::{Capacity, VsockInnerConfig, VsockInnerStream};

    #[test]
    fn a_long_spin_does_not_outlast_the_timeout() {
        let config = VsockInnerConfig::default().spin_budget(Duration::from_secs(3600));
        let (mut near, _far) = VsockInnerStream::pair_with(&config).unwrap();
        near.set_read_timeout(Some(Duration::from_millis(5)))
            .unwrap();
        assert_eq!(near.read(&mut [0]).unwrap_err().kind(), ErrorKind::TimedOut);
    }

    #[test]
    fn a_write_that_finds_space_again_and_again_still_times_out() {
        let config = VsockInnerConfig::default()
            .to_device(Capacity::Bytes(4))
            .spin_budget(Duration::from_secs(3600));
        let (mut near, mut far) = VsockInnerStream::pair_with(&config).unwrap();
        near.set_write_timeout(Some(Duration::from_millis(20)))
            .unwrap();
        let reading = std::thread::spawn(move || while far.read_exact(&mut [0]).is_ok() {});
        // At a byte or so a spin this would take hours.
        let start = Instant::now();
        let written = near.write(&vec![0; 1 << 32]).unwrap();
        assert!(written < 1 << 32 && start.elapsed() >= Duration::from_millis(20));
        drop(near);
        reading.join().unwrap();
    }
}
