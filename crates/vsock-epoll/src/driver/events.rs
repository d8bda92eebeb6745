// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

use std::fmt;
use std::mem;
use std::sync::Arc;
use std::time::Duration;

use vmm_sys_util::epoll::EpollEvent;
use vsock_muxer::NextCall;

use crate::LoopError;
use crate::watch::Watcher;

/// Events that are taken from the kernel at once; more come with the next turn.
const BATCH: usize = 128;

/// The events of one turn of a [`MuxerDriver`](crate::MuxerDriver), and what waits for them. It
/// borrows nothing of the driver, which may be behind a lock that others take meanwhile.
pub struct DriverEvents {
    watcher: Arc<Watcher>,
    batch: Vec<EpollEvent>,
    len: usize,
    /// When the device wants its next call, as of this turn.
    next: NextCall,
    /// When it wanted the call of this turn.
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
    /// So the device polls without further code of the embedder.
    pub fn set_next_call(&mut self, next: NextCall) {
        self.next = next;
    }

    /// Waits for the next events, up to `timeout`, rounded up to milliseconds, or without an end.
    /// Zero looks without sleeping, and so does any timeout while the device [must not
    /// sleep](Self::set_next_call). Returns how many there are, 128 at most; a signal ends the wait
    /// with none.
    ///
    /// They are told once. Those of the wait before are gone, so
    /// [`dispatch`](crate::MuxerDriver::dispatch) comes before the next wait: a timer or a stream
    /// whose event is lost is silent from then on.
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

    /// The numbers of the embedder's own descriptors that became readable.
    pub fn own(&self) -> impl Iterator<Item = u32> {
        self.all().filter_map(|event| event.data().try_into().ok())
    }

    /// Whether the device has asked to be called without an event.
    pub(super) fn has_due_call(&self) -> bool {
        self.due != NextCall::OnEvent
    }

    pub(super) fn all(&self) -> impl Iterator<Item = &EpollEvent> {
        self.batch.iter().take(self.len)
    }
}

/// As `epoll_wait` takes it. A part of a millisecond is a whole one, or the loop would spin through
/// it.
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
