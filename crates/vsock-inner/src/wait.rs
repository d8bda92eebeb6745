// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! How one half waits: its mode, its timeout, its spinning.

use std::io;
use std::time::{Duration, Instant};

use crate::error::StreamError;
use crate::gate::Gate;
use crate::spin::Spinner;
use crate::word::Position;

/// When a call gives up; it begins to count at the first wait of the call.
#[derive(Debug, Default)]
pub(crate) struct Deadline(Option<Option<Instant>>);

/// Why a call did not wait any longer.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum GaveUp {
    /// The mode is non-blocking.
    WouldBlock,
    /// The timeout has expired.
    TimedOut,
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
    /// with so many pauses between two looks. Before it gives up or sleeps it calls `rest`.
    pub(crate) fn wait(
        &mut self,
        gate: &Gate,
        want: Position,
        pauses: u32,
        deadline: &mut Deadline,
        rest: impl FnOnce(),
    ) -> Result<(), GaveUp> {
        if self.nonblocking {
            rest();
            return Err(GaveUp::WouldBlock);
        }
        // A moment too far for the clock never comes.
        let after = |timeout| Instant::now().checked_add(timeout);
        let deadline = *deadline
            .0
            .get_or_insert_with(|| self.timeout.and_then(after));
        if self.spinner.spin(pauses, || gate.load().is_ready(want)) {
            return Ok(());
        }
        rest();
        if gate.wait(want, deadline) {
            Ok(())
        } else {
            Err(GaveUp::TimedOut)
        }
    }
}
