// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Stops a device, whatever its threads wait for, and limits how long that takes.
//!
//! The threads end one after another, and each notes its progress as a [`StopStage`]. A wait for
//! the end fails after [`STOP_TIMEOUT`], and the stage then names the obstacle.

use std::fmt;
use std::net::Shutdown;
use std::os::unix::net::UnixStream;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use vsock_epoll::Waker;
use vsock_sockets::ListenerHandle;

use crate::error::VhostUserError;

/// How long a device may take to stop.
const STOP_TIMEOUT: Duration = Duration::from_secs(2);

/// The progress of a device towards its end.
#[derive(Clone, Copy, Debug, Default, Eq, Ord, PartialEq, PartialOrd)]
pub(crate) enum StopStage {
    /// The thread that moves bytes runs.
    #[default]
    Moving,
    /// That thread has ended; the thread for requests may be handling one.
    Answering,
    /// The thread for requests drops the backends.
    Releasing,
    Ended,
}

impl StopStage {
    /// Describes what may block the device at this stage.
    fn obstacle(self) -> &'static str {
        match self {
            Self::Moving => {
                "the thread that moves bytes is blocked by a backend, a stream, or the VMM's memory"
            }
            Self::Answering => {
                "the thread for the VMM's requests is blocked by a file that the VMM has sent"
            }
            Self::Releasing | Self::Ended => "dropping a backend blocks",
        }
    }
}

#[derive(Default)]
struct State {
    /// When the device was stopped, if it was.
    stopped: Option<Instant>,
    stage: StopStage,
    /// Whether VMMs must wait until the device is released.
    is_held: bool,
    /// The current connection to a front-end.
    session: Option<Arc<UnixStream>>,
}

struct Inner {
    state: Mutex<State>,
    changed: Condvar,
    /// The listener on which another thread waits for front-ends, unless there is only one.
    listener: Option<ListenerHandle>,
    waker: Waker,
}

/// A handle that stops a device, from any thread.
#[derive(Clone)]
pub struct Stopper(Arc<Inner>);

impl Stopper {
    pub(crate) fn new(listener: Option<ListenerHandle>, waker: Waker) -> Self {
        Self(Arc::new(Inner {
            state: Mutex::default(),
            changed: Condvar::new(),
            listener,
            waker,
        }))
    }

    /// Tells the device to stop, and returns immediately.
    ///
    /// The device's threads then do the following, even if nothing waits for them. They send the
    /// guest an RST for each of its connections, if it has buffers for them within 100 ms. Then
    /// they close the connection to the VMM and drop the backends. A thread in `accept` of an
    /// in-process listener gets `NotConnected`, and one in `connect_to` gets `ConnectionRefused`.
    /// Backends over Unix sockets remove their sockets.
    ///
    /// The [`VhostUserVsock`](crate::VhostUserVsock) removes the VMM's socket and releases the CID
    /// at the end of `join` or `stop`, or when it is dropped. Each of these waits until two seconds
    /// after the first stop at most.
    pub fn stop(&self) {
        self.state().stopped.get_or_insert_with(Instant::now);
        self.0.changed.notify_all();
        self.0.waker.wake();
        // This wakes the thread in `accept`. Repeating it has no effect.
        let shut_down = self.0.listener.as_ref().map(ListenerHandle::shutdown);
        if let Some(Err(error)) = shut_down {
            log::debug!("cannot shut down the vhost-user socket: {error}");
        }
    }

    /// Returns whether the device was told to stop, or stops because of a panic.
    #[must_use]
    pub fn is_stopped(&self) -> bool {
        self.state().stopped.is_some()
    }

    /// Makes VMMs wait until the device is [released](Self::release).
    pub(crate) fn hold(&self) {
        self.state().is_held = true;
    }

    /// Lets the device serve VMMs.
    pub(crate) fn release(&self) {
        self.state().is_held = false;
        self.0.changed.notify_all();
    }

    /// Waits while the device is held, at most until a stop.
    pub(crate) fn wait_for_release(&self) {
        let must_wait = |state: &mut State| state.is_held && state.stopped.is_none();
        drop(self.0.changed.wait_while(self.state(), must_wait));
    }

    /// Sets the connection to hang up on when the device ends.
    pub(crate) fn set_session(&self, session: Option<Arc<UnixStream>>) {
        let mut state = self.state();
        // The device ended while this front-end connected.
        if let (true, Some(session)) = (state.stage > StopStage::Moving, &session) {
            hang_up(session);
        }
        state.session = session;
    }

    /// Whether a front-end is connected.
    pub(crate) fn has_session(&self) -> bool {
        self.state().session.is_some()
    }

    /// Notes the device's progress, which never goes back.
    pub(crate) fn advance(&self, stage: StopStage) {
        let mut state = self.state();
        state.stage = state.stage.max(stage);
        // The guest has its RSTs, so the front-end is no longer needed.
        if state.stage > StopStage::Moving {
            if let Some(session) = &state.session {
                hang_up(session);
            }
        }
        drop(state);
        self.0.changed.notify_all();
    }

    /// Waits for a stop, at most for `timeout`.
    pub(crate) fn wait(&self, timeout: Duration) {
        let waited = self
            .0
            .changed
            .wait_timeout_while(self.state(), timeout, |state| state.stopped.is_none());
        drop(waited);
    }

    /// Waits until the device has ended, or until [`STOP_TIMEOUT`] after a stop.
    pub(crate) fn wait_for_end(&self) -> Result<(), VhostUserError> {
        let mut state = self.state();
        while state.stage != StopStage::Ended {
            let Some(stopped) = state.stopped else {
                let changed = self.0.changed.wait(state);
                state = changed.unwrap_or_else(PoisonError::into_inner);
                continue;
            };
            let Some(left) = STOP_TIMEOUT.checked_sub(stopped.elapsed()) else {
                // The caller may give up, but the front-end must not wait indefinitely.
                if let Some(session) = &state.session {
                    hang_up(session);
                }
                return Err(VhostUserError::NotEnded(state.stage.obstacle()));
            };
            let changed = self.0.changed.wait_timeout(state, left);
            state = changed.unwrap_or_else(PoisonError::into_inner).0;
        }
        Ok(())
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // A panic cannot leave these independent values inconsistent.
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

/// A guard owned by a thread of a device. When the thread ends, even by a panic, it stops the
/// device and notes this stage.
pub(crate) struct StopOnDrop {
    pub(crate) stopper: Stopper,
    pub(crate) stage: StopStage,
}

impl Drop for StopOnDrop {
    fn drop(&mut self) {
        self.stopper.stop();
        self.stopper.advance(self.stage);
    }
}

/// Hangs up on the front-end, which ends every wait for it.
fn hang_up(session: &UnixStream) {
    if let Err(error) = session.shutdown(Shutdown::Both) {
        log::debug!("cannot hang up on the VMM: {error}");
    }
}
