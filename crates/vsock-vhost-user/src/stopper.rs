// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! How a device is told to stop, wherever it waits, and how long it may take.

use std::fmt;
use std::net::Shutdown;
use std::os::unix::net::UnixStream;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use vsock_epoll::Waker;
use vsock_sockets::ListenerHandle;

use crate::error::VhostUserError;

/// How long a device may take to end after it was told to.
const STOP_TIMEOUT: Duration = Duration::from_secs(2);

/// How far a device has come in stopping.
#[derive(Clone, Copy, Debug, Default, Eq, Ord, PartialEq, PartialOrd)]
pub(crate) enum StopStage {
    /// The thread that moves bytes is there.
    #[default]
    Moving,
    /// It has ended; the one for requests may be with one.
    Answering,
    /// The backends are dropped.
    Releasing,
    Ended,
}

impl StopStage {
    /// What is waited for.
    fn obstacle(self) -> &'static str {
        match self {
            Self::Moving => {
                "the thread that moves bytes is blocked by a backend, a stream, or the VMM's memory"
            }
            Self::Answering => {
                "the thread for the VMM's requests is blocked by a file that the VMM has sent"
            }
            Self::Releasing | Self::Ended => "a backend does not return from its drop",
        }
    }
}

#[derive(Default)]
struct State {
    /// When it was told to stop.
    stopped: Option<Instant>,
    stage: StopStage,
    /// The connection to a front-end.
    session: Option<Arc<UnixStream>>,
}

struct Inner {
    state: Mutex<State>,
    changed: Condvar,
    /// Waits for front-ends, on another thread, if there can be more than one.
    listener: Option<ListenerHandle>,
    waker: Waker,
}

/// Stops a device, from any thread. A device that has ended stays so.
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

    /// Lets the device end. Returns immediately.
    ///
    /// The device's threads do the rest, whether a caller waits for them or not: the guest gets an
    /// RST for each of its connections, if it has buffers for them within 100 ms; then the
    /// connection to the VMM ends, and the backends are dropped. A thread in `accept` of an
    /// in-process listener gets `NotConnected`, and one in `connect_to` `ConnectionRefused`;
    /// backends over Unix sockets remove theirs. The socket for the VMM is removed, and the CID is
    /// free again, when the [`VhostUserVsock`](crate::VhostUserVsock) goes: by `join`, `stop` or
    /// its drop. These wait for two seconds from the first stop, and no longer.
    pub fn stop(&self) {
        self.state().stopped.get_or_insert_with(Instant::now);
        self.0.changed.notify_all();
        self.0.waker.wake();
        // This wakes the thread in `accept`. After that it has no effect.
        let shut_down = self.0.listener.as_ref().map(ListenerHandle::shutdown);
        if let Some(Err(error)) = shut_down {
            log::debug!("cannot shut down the vhost-user socket: {error}");
        }
    }

    /// Whether the device has been told to end, or ends because of a panic.
    #[must_use]
    pub fn is_stopped(&self) -> bool {
        self.state().stopped.is_some()
    }

    /// Notes the connection that ends with the device.
    pub(crate) fn set_session(&self, session: Option<Arc<UnixStream>>) {
        let mut state = self.state();
        if let (true, Some(session)) = (state.stage > StopStage::Moving, &session) {
            hang_up(session);
        }
        state.session = session;
    }

    /// Whether a front-end is connected.
    pub(crate) fn has_session(&self) -> bool {
        self.state().session.is_some()
    }

    /// Notes how far the device has come.
    pub(crate) fn advance(&self, stage: StopStage) {
        let mut state = self.state();
        state.stage = state.stage.max(stage);
        if state.stage > StopStage::Moving {
            if let Some(session) = &state.session {
                hang_up(session);
            }
        }
        drop(state);
        self.0.changed.notify_all();
    }

    /// Waits for a stop, so long.
    pub(crate) fn wait(&self, timeout: Duration) {
        let waited = self
            .0
            .changed
            .wait_timeout_while(self.state(), timeout, |state| state.stopped.is_none());
        drop(waited);
    }

    /// Waits until the device has ended, but not for long after it was told to.
    pub(crate) fn wait_for_end(&self) -> Result<(), VhostUserError> {
        let mut state = self.state();
        while state.stage != StopStage::Ended {
            let Some(stopped) = state.stopped else {
                let changed = self.0.changed.wait(state);
                state = changed.unwrap_or_else(PoisonError::into_inner);
                continue;
            };
            let Some(left) = STOP_TIMEOUT.checked_sub(stopped.elapsed()) else {
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
        // Independent values: they are whole after a panic, too.
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

/// Owned by a thread of a device. When the thread ends, also by a panic, the device stops and has
/// come to this stage.
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

/// Ends every wait for the front-end.
fn hang_up(session: &UnixStream) {
    if let Err(error) = session.shutdown(Shutdown::Both) {
        log::debug!("cannot hang up on the VMM: {error}");
    }
}
