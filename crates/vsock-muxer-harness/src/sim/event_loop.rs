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
    /// Once when a descriptor becomes ready, as `EPOLLET`: what is missed never comes again.
    Edge,
    /// Again and again while a descriptor is ready: what is not dealt with spins.
    Level,
}

/// A driver's event loop over the descriptors of a [`SimHost`], as `epoll` has it.
///
/// It fails where a real one would: a descriptor that is registered twice, one that is not
/// registered when it is taken out, one that is closed while it is registered.
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
    /// What was last reported; `None` after a change of the registration, which reports again.
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

    /// Does what a muxer wants to be done; fails with what `epoll` would refuse, or do wrong in
    /// silence.
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

    /// The events of one wake-up, at most `most`.
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

    /// Whether a wake-up would report something.
    pub(super) fn is_due(&self) -> bool {
        let mut watches = self.watches.iter();
        watches.any(|(fd, watch)| watch.report(&self.host, *fd, self.trigger).is_some())
    }

    /// Descriptors that are registered.
    #[must_use]
    pub fn registered(&self) -> usize {
        self.watches.len()
    }

    fn watch(&mut self, token: Token, fd: RawFd, interest: Interest) -> Result<(), SimFailure> {
        require(self.host.poll(fd).is_some(), || {
            format!("descriptor {fd} is watched, and not open")
        })?;
        let seen = None;
        let watch = Watch {
            token,
            interest,
            seen,
        };
        let before = self.watches.insert(fd, watch);
        require(before.is_none_or(|before| before.token == token), || {
            format!("descriptor {fd} is registered for another token")
        })
    }

    fn unwatch(&mut self, token: Token, fd: RawFd) -> Result<(), SimFailure> {
        let watch = self.watches.remove(&fd);
        require(watch.is_some_and(|watch| watch.token == token), || {
            format!("descriptor {fd} is taken out, and is not registered for this token")
        })
    }

    /// No descriptor that has been closed is still registered.
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
    /// What a wake-up would report of the descriptor.
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
