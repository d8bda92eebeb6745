// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! What the muxer wants watched: what the kernel has, and what it had no room for.

use std::collections::HashMap;
use std::os::fd::RawFd;
use std::time::Duration;

use vmm_sys_util::epoll::EventSet;
use vsock_muxer::{Action, Interest, Tick, Token};

use crate::LoopError;
use crate::error::lacks_resource;
use crate::watch::Watcher;

/// How long until a descriptor is offered to the kernel again that it had no room for. Tried with
/// every event it would be tried all the time; tried after long, a stream stands still.
const RETRY: Duration = Duration::from_millis(100);

/// A descriptor that is to be watched.
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
    /// What the kernel watches, and for whom. It watches a descriptor once: streams of a faulty
    /// backend that share one, or close one that the muxer still knows, do no harm to others.
    watched: HashMap<RawFd, Token>,
    /// What the kernel had no room for. Every descriptor may be in here, so none is searched for.
    refused: HashMap<RawFd, Watch>,
    /// When it is asked again, if anything was refused.
    retry_at: Tick,
}

impl Registrations {
    /// Watches a descriptor, or changes how.
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
                // The kernel may have room again; what cannot be watched at all stays so.
                if lacks_resource(&source) {
                    self.put_off(watch, now);
                }
                Err(LoopError::Watch { fd, source })
            }
        }
    }

    /// Watches a descriptor no more, or does not try to again.
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

    /// What is to be tried again by now.
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

    /// When something is to be tried again.
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
