// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! How a device is told to stop, wherever it waits.

use std::fmt;
use std::os::unix::net::UnixListener;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use rustix::net::Shutdown;
use vhost_user_backend::ShutdownHandle;

#[derive(Default)]
struct State {
    stopped: bool,
    /// The connection to a front-end.
    session: Option<ShutdownHandle>,
}

struct Inner {
    state: Mutex<State>,
    changed: Condvar,
    /// The same socket as the one that waits for front-ends.
    listener: UnixListener,
}

/// Stops a device, from any thread. A device that has ended stays so.
#[derive(Clone)]
pub struct Stopper(Arc<Inner>);

impl Stopper {
    pub(crate) fn new(listener: UnixListener) -> Self {
        Self(Arc::new(Inner {
            state: Mutex::default(),
            changed: Condvar::new(),
            listener,
        }))
    }

    /// Lets the device end. Returns at once.
    ///
    /// The device's threads do the rest, whether anybody waits for them or not: connections are reset,
    /// and then the backends are dropped. Whoever waits in `accept` of an in-process listener gets
    /// `NotConnected`, and in `connect_to` `ConnectionRefused`; backends over Unix sockets remove
    /// theirs. The socket for the VMM is removed, and the CID is free again, when the
    /// [`VsockDevice`](crate::VsockDevice) goes: by `join`, `stop` or its drop.
    pub fn stop(&self) {
        let mut state = self.state();
        state.stopped = true;
        if let Some(session) = &state.session {
            session.shutdown();
        }
        drop(state);
        self.0.changed.notify_all();
        // Whoever waits in `accept` is woken by this. After that it has no effect.
        if let Err(error) = rustix::net::shutdown(&self.0.listener, Shutdown::Both) {
            log::debug!("cannot shut down the vhost-user socket: {error}");
        }
    }

    /// Whether the device has been told to end.
    #[must_use]
    pub fn is_stopped(&self) -> bool {
        self.state().stopped
    }

    /// Notes the connection to end on a stop.
    pub(crate) fn set_session(&self, session: Option<ShutdownHandle>) {
        let mut state = self.state();
        if let (true, Some(session)) = (state.stopped, &session) {
            session.shutdown();
        }
        state.session = session;
    }

    /// Ends the connection to the front-end alone.
    pub(crate) fn end_session(&self) {
        if let Some(session) = &self.state().session {
            session.shutdown();
        }
    }

    /// Waits for a stop, so long.
    pub(crate) fn wait(&self, timeout: Duration) {
        let waited = self
            .0
            .changed
            .wait_timeout_while(self.state(), timeout, |state| !state.stopped);
        drop(waited);
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // Two independent values: they are whole after a panic, too.
        self.0.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Debug for Stopper {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Stopper")
            .field("stopped", &self.is_stopped())
            .finish_non_exhaustive()
    }
}
