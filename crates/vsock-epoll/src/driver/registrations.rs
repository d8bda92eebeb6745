// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! The descriptors that the muxer wants watched: those that the kernel watches, and those that it
//! had no room for.

use std::collections::HashMap;
use std::os::fd::RawFd;
use std::time::Duration;

use vmm_sys_util::epoll::EventSet;
use vsock_muxer::{Action, Interest, Tick, Token};

use crate::LoopError;
use crate::error::lacks_resource;
use crate::watch::Watcher;

/// How long to wait before offering a rejected descriptor to the kernel again. Retrying on every
/// event would waste time; waiting much longer would stall the stream.
const RETRY: Duration = Duration::from_millis(100);

/// A descriptor to watch.
#[derive(Clone, Copy, Debug)]
pub(super) struct Watch {
    pub(super) token: Token,
    pub(super) fd: RawFd,
    pub(super) interest: Interest,
}

impl Watch {
    fn events(&self) -> EventSet {
        let mut events = EventSet::EDGE_TRIGGERED;
        events.set(EventSet::IN | EventSet::READ_HANG_UP, self.interest.read);
        events.set(EventSet::OUT, self.interest.write);
        events
    }
}

#[derive(Debug, Default)]
pub(super) struct Registrations {
    /// The watched descriptors and their owners. The kernel watches each descriptor once. So if
    /// streams of a faulty backend share a descriptor, or close one that the muxer still uses,
    /// other streams are not affected.
    watched: HashMap<RawFd, Token>,
    /// The descriptors that the kernel had no room for. A map, because there may be many.
    refused: HashMap<RawFd, Watch>,
    /// When to retry, if any were rejected.
    retry_at: Tick,
}

impl Registrations {
    /// Watches a descriptor, or changes how it is watched.
    pub(super) fn watch(
        &mut self,
        watcher: &Watcher,
        watch: Watch,
        now: Tick,
    ) -> Result<(), LoopError> {
        let Watch { token, fd, .. } = watch;
        self.refused.remove(&fd);
        let result = if self.watched.get(&fd) == Some(&token) {
            watcher.change(fd, watch.events(), token.into())
        } else {
            watcher.add(fd, watch.events(), token.into())
        };
        match result {
            Ok(()) => {
                self.watched.insert(fd, token);
                Ok(())
            }
            Err(source) => {
                // The kernel may have room later. A descriptor that can never be watched is not
                // retried.
                if lacks_resource(&source) {
                    self.put_off(watch, now);
                }
                Err(LoopError::Watch { fd, source })
            }
        }
    }

    /// Stops watching a descriptor, or retrying it.
    pub(super) fn unwatch(
        &mut self,
        watcher: &Watcher,
        token: Token,
        fd: RawFd,
    ) -> Result<(), LoopError> {
        if self
            .refused
            .get(&fd)
            .is_some_and(|refused| refused.token == token)
        {
            self.refused.remove(&fd);
        }
        if self.watched.get(&fd) != Some(&token) {
            return Ok(());
        }
        self.watched.remove(&fd);
        let unwatched = watcher.remove(fd);
        unwatched.map_err(|source| LoopError::Unwatch { fd, source })
    }

    /// Takes the descriptors to retry by now.
    pub(super) fn take_due(&mut self, now: Tick) -> Vec<Action> {
        if self.retry_at().is_none_or(|at| now < at) {
            return Vec::new();
        }
        let action = |(_, watch)| {
            let Watch {
                token,
                fd,
                interest,
            } = watch;
            Action::Watch {
                token,
                fd,
                interest,
            }
        };
        self.refused.drain().map(action).collect()
    }

    /// When to retry next, if at all.
    pub(super) fn retry_at(&self) -> Option<Tick> {
        (!self.refused.is_empty()).then_some(self.retry_at)
    }

    pub(super) fn put_off(&mut self, watch: Watch, now: Tick) {
        if self.refused.is_empty() {
            self.retry_at = now.saturating_add(RETRY);
        }
        self.refused.insert(watch.fd, watch);
    }
}
