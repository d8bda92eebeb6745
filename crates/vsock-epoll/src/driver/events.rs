// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

use std::fmt;
use std::mem;
use std::sync::Arc;
use std::time::Duration;

use vmm_sys_util::epoll::EpollEvent;
use vsock_muxer::NextCall;

use crate::LoopError;
use crate::watch::Watcher;

/// How many events are taken from the kernel together. The rest follow in the next iteration.
const BATCH: usize = 128;

/// The events of one iteration of a [`MuxerDriver`](crate::MuxerDriver), and the means to wait for
/// them. It does not borrow the driver, which may be behind a lock that other threads take
/// meanwhile.
pub struct DriverEvents {
    watcher: Arc<Watcher>,
    batch: Vec<EpollEvent>,
    len: usize,
    /// The next call that the device wants, as of this iteration.
    next: NextCall,
    /// The call that the device wanted for this iteration.
    due: NextCall,
}

impl DriverEvents {
    pub(super) fn new(watcher: Arc<Watcher>) -> Self {
        Self {
            watcher,
            batch: vec![EpollEvent::default(); BATCH],
            len: 0,
            next: NextCall::OnEvent,
            due: NextCall::OnEvent,
        }
    }

    /// Passes on when the device wants its next call (`Outcome::next` of `vsock-virtio`). Unless
    /// this is [`OnEvent`](NextCall::OnEvent), the next [`wait`](Self::wait) does not sleep, and
    /// [`dispatch`](crate::MuxerDriver::dispatch) then lets the device work even without an event.
    /// The embedder needs no other code for polling.
    pub fn set_next_call(&mut self, next: NextCall) {
        self.next = next;
    }

    /// Waits for the next events, for at most `timeout`, rounded up to milliseconds; `None` waits
    /// indefinitely. With a timeout of zero, or while the device [must not
    /// sleep](Self::set_next_call), it only checks. Returns the number of events, at most 128. A
    /// signal ends the wait with none.
    ///
    /// Each event is reported once, and this call discards those of the previous wait. So call
    /// [`dispatch`](crate::MuxerDriver::dispatch) before waiting again: a timer or stream whose
    /// event is lost stays silent.
    ///
    /// # Errors
    ///
    /// [`LoopError::Wait`]
    pub fn wait(&mut self, timeout: Option<Duration>) -> Result<usize, LoopError> {
        self.len = 0;
        self.due = mem::take(&mut self.next);
        let timeout = match self.due {
            NextCall::OnEvent => timeout,
            NextCall::Poll { .. } | NextCall::Immediately => Some(Duration::ZERO),
        };
        self.len = self.watcher.wait(millis(timeout), &mut self.batch)?;
        Ok(self.len)
    }

    /// Returns the numbers of the embedder's own descriptors that became readable.
    pub fn own(&self) -> impl Iterator<Item = u32> {
        self.all().filter_map(|event| event.data().try_into().ok())
    }

    /// Whether the device wants to be called without an event.
    pub(super) fn has_due_call(&self) -> bool {
        self.due != NextCall::OnEvent
    }

    pub(super) fn all(&self) -> impl Iterator<Item = &EpollEvent> {
        self.batch.iter().take(self.len)
    }
}

/// Converts a timeout for `epoll_wait`. Rounds up, because the loop would otherwise spin for the
/// rest of a millisecond.
fn millis(timeout: Option<Duration>) -> i32 {
    timeout.map_or(-1, |timeout| {
        i32::try_from(timeout.as_nanos().div_ceil(1_000_000)).unwrap_or(i32::MAX)
    })
}

impl fmt::Debug for DriverEvents {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.all()).finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_wait_is_shorter_than_its_timeout() {
        for (timeout, expected) in [
            (None, -1),
            (Some(Duration::ZERO), 0),
            (Some(Duration::from_nanos(1)), 1),
            (Some(Duration::from_micros(1000)), 1),
            (Some(Duration::from_nanos(1_000_001)), 2),
            (Some(Duration::MAX), i32::MAX),
        ] {
            assert_eq!(millis(timeout), expected, "{timeout:?}");
        }
    }
}
