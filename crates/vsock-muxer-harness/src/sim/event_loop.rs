// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

use std::collections::BTreeMap;
use std::os::fd::RawFd;

use vsock_muxer::{Action, Readiness, Token};
use vsock_proto::Interest;

use super::failure::{SimFailure, require};
use crate::host::{Edges, Polled, SimHost};

/// How an event loop reports readiness.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub enum SimTrigger {
    /// Once when a descriptor becomes ready, like `EPOLLET`: a missed event is never repeated.
    Edge,
    /// As long as a descriptor is ready: an event that is not handled makes the loop spin.
    Level,
}

/// An event loop over the descriptors of a [`SimHost`], modelled on `epoll`.
///
/// It fails where a real one would: if a descriptor is registered twice, unregistered without being
/// registered, or closed while it is registered.
#[derive(Debug)]
pub struct EventLoop {
    host: SimHost,
    trigger: SimTrigger,
    watches: BTreeMap<RawFd, Watch>,
}

#[derive(Debug)]
struct Watch {
    token: Token,
    interest: Interest,
    /// The edges last reported; `None` after a change of the registration, which reports again.
    seen: Option<Edges>,
}

impl EventLoop {
    pub(super) fn new(host: &SimHost, trigger: SimTrigger) -> Self {
        Self {
            host: host.clone(),
            trigger,
            watches: BTreeMap::new(),
        }
    }

    /// Executes an action of a muxer. Fails if `epoll` would refuse it, or silently do the wrong
    /// thing.
    pub(super) fn apply(&mut self, action: Action) -> Result<(), SimFailure> {
        match action {
            Action::Watch {
                token,
                fd,
                interest,
            } => self.watch(token, fd, interest),
            Action::Unwatch { token, fd } => self.unwatch(token, fd),
            Action::Close { token, fds, stream } => {
                for fd in fds.into_iter().flatten() {
                    self.unwatch(token, fd)?;
                }
                drop(stream);
                self.check_closed()
            }
        }
    }

    /// Returns the events of one wake-up, at most `most`.
    pub(super) fn wait(&mut self, most: usize) -> Vec<(Token, Readiness)> {
        let mut events = Vec::new();
        for (fd, watch) in &mut self.watches {
            if events.len() == most {
                break;
            }
            let Some((polled, ready)) = watch.report(&self.host, *fd, self.trigger) else {
                continue;
            };
            watch.seen = Some(polled.edges);
            events.push((watch.token, ready));
        }
        events
    }

    /// Returns whether a wake-up would report anything.
    pub(super) fn is_due(&self) -> bool {
        let mut watches = self.watches.iter();
        watches.any(|(fd, watch)| watch.report(&self.host, *fd, self.trigger).is_some())
    }

    /// Returns the number of registered descriptors.
    #[must_use]
    pub fn registered(&self) -> usize {
        self.watches.len()
    }

    fn watch(&mut self, token: Token, fd: RawFd, interest: Interest) -> Result<(), SimFailure> {
        require(self.host.poll(fd).is_some(), || {
            format!("descriptor {fd} is watched but not open")
        })?;
        let seen = None;
        let watch = Watch {
            token,
            interest,
            seen,
        };
        let before = self.watches.insert(fd, watch);
        require(before.is_none_or(|before| before.token == token), || {
            format!("descriptor {fd} is already registered for another token")
        })
    }

    fn unwatch(&mut self, token: Token, fd: RawFd) -> Result<(), SimFailure> {
        let watch = self.watches.remove(&fd);
        require(watch.is_some_and(|watch| watch.token == token), || {
            format!("descriptor {fd} is unregistered but was not registered for this token")
        })
    }

    /// Checks that no closed descriptor is still registered.
    pub(crate) fn check_closed(&self) -> Result<(), SimFailure> {
        for fd in self.host.take_closed() {
            require(!self.watches.contains_key(&fd), || {
                format!("descriptor {fd} was closed while it was registered")
            })?;
        }
        Ok(())
    }
}

impl Watch {
    /// Returns what a wake-up would report for the descriptor.
    fn report(
        &self,
        host: &SimHost,
        fd: RawFd,
        trigger: SimTrigger,
    ) -> Option<(Polled, Readiness)> {
        let polled = host.poll(fd)?;
        let ready = self.masked(polled.ready);
        let counts = ready != Readiness::default()
            && (trigger == SimTrigger::Level || self.is_news(&polled));
        counts.then_some((polled, ready))
    }

    fn masked(&self, ready: Readiness) -> Readiness {
        Readiness {
            readable: self.interest.read && ready.readable,
            writable: self.interest.write && ready.writable,
            hangup: ready.hangup, // cannot be masked
        }
    }

    fn is_news(&self, polled: &Polled) -> bool {
        let Some(seen) = self.seen else {
            return true;
        };
        let edges = polled.edges;
        self.interest.read && edges.read != seen.read
            || self.interest.write && edges.write != seen.write
            || edges.hangup != seen.hangup
    }
}
