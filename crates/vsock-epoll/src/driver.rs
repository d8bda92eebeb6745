// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! The event loop around a muxer, or around a device that contains one.
//!
//! The driver owns the epoll, a timer, a waker and the clock. It passes events and the time to the
//! device, and then carries out the device's actions: watching, unwatching and closing streams. It
//! does not handle packets or queues: the embedder moves packets between `dispatch` and
//! `carry_out`.

mod events;
mod registrations;
#[cfg(test)]
mod tests;
mod waker;

use std::fmt;
use std::iter;
use std::os::fd::{AsRawFd, RawFd};
use std::sync::Arc;
use std::time::Instant;

use vmm_sys_util::epoll::{EpollEvent, EventSet};
use vsock_muxer::{Action, ClosingStream, Driven, Readiness, Token};
use vsock_proto::Tick;

pub use self::events::DriverEvents;
use self::registrations::{Registrations, Watch};
pub use self::waker::Waker;
use crate::LoopError;
use crate::contain::{each, resume};
use crate::watch::{EDGE, Timer, Watcher};

/// The words of the loop's own descriptors. No [`Token`] has both of the top bits set.
const TIMER: u64 = u64::MAX;
const WAKER: u64 = u64::MAX - 1;
/// The largest word of an embedder's descriptor. Every [`Token`] is larger.
const OWN: u64 = u32::MAX as u64;

/// What a driver passes to its embedder.
#[derive(Debug)]
pub enum Handover {
    /// A stream that is no longer watched. Dropping this closes it. That may wake the peer and may
    /// block (`SO_LINGER`, a file on a network file system), so it can be done on another thread.
    Close(ClosingStream),
    /// The kernel rejected a call. The loop continues; the embedder should log the error. A
    /// descriptor that the kernel had no room for (`ENOSPC`, `ENOMEM`) is tried again after 100 ms.
    Failed(LoopError),
}

/// The event loop of a [`Muxer`](vsock_muxer::Muxer), or of a device around one: of anything that
/// is [`Driven`].
///
/// It owns an epoll, a timer, a [`Waker`] and a clock. The epoll contains the host's streams and
/// backends, and the embedder's own descriptors. The driver also carries out the device's
/// [actions](Action). Each iteration has three steps:
///
/// 1. [`DriverEvents::wait`] waits for events. A different event loop polls
///    [`as_raw_fd`](AsRawFd::as_raw_fd) instead, which is readable while there are events, and then
///    calls `wait` with a timeout of zero.
/// 2. [`dispatch`](Self::dispatch) passes the events to the device, which may then have packets to
///    move.
/// 3. [`carry_out`](Self::carry_out) carries out the device's actions, and sets the timer.
///
/// Everything is watched edge-triggered. So a descriptor that the device ignores causes no further
/// wake-ups, and the embedder's descriptors need not be read. Memory is allocated for descriptors,
/// but not for events.
///
/// ```
/// use vmm_sys_util::eventfd::{EFD_NONBLOCK, EventFd};
/// use vsock_epoll::{Handover, MuxerDriver};
/// use vsock_muxer::{Config, GuestCid, Muxer};
///
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let mut muxer = Muxer::new(GuestCid::try_from(3)?, Config::default());
/// let mut driver = MuxerDriver::new()?;
/// let kick = EventFd::new(EFD_NONBLOCK)?;
/// driver.watch(0, &kick)?;
///
/// let mut events = driver.events();
/// kick.write(1)?;
/// events.wait(None)?;
/// let now = driver.now();
/// if driver.dispatch(now, &events, &mut muxer) {
///     assert!(events.own().eq([0]));
///     // Move packets here.
/// }
/// driver.carry_out(now, &mut muxer, |handover| match handover {
///     Handover::Close(stream) => drop(stream),
///     Handover::Failed(error) => eprintln!("vsock: {error:?}"),
/// });
/// # Ok(())
/// # }
/// ```
pub struct MuxerDriver {
    watcher: Arc<Watcher>,
    timer: Timer,
    waker: Waker,
    registrations: Registrations,
    start: Instant,
}

impl MuxerDriver {
    /// Creates a loop without descriptors. Its clock starts now.
    ///
    /// # Errors
    ///
    /// [`LoopError::Descriptor`]: it needs three.
    pub fn new() -> Result<Self, LoopError> {
        let watcher = Watcher::new()?;
        Ok(Self {
            timer: Timer::new(&watcher, TIMER)?,
            waker: Waker::new(&watcher, WAKER)?,
            watcher: Arc::new(watcher),
            registrations: Registrations::default(),
            start: Instant::now(),
        })
    }

    /// Returns an object that waits for events, possibly on a separate thread while others use
    /// the driver. One is enough: each event is reported to only one of them, once.
    #[must_use]
    pub fn events(&self) -> DriverEvents {
        DriverEvents::new(Arc::clone(&self.watcher))
    }

    /// Returns a handle that wakes the loop from any thread.
    #[must_use]
    pub fn waker(&self) -> Waker {
        self.waker.clone()
    }

    /// Triggers an event, for a loop that polls [`as_raw_fd`](AsRawFd::as_raw_fd) and whose device
    /// must not sleep. The device continues after the loop has served its other descriptors. A loop
    /// that waits with [`DriverEvents::wait`] uses [`DriverEvents::set_next_call`] instead, which
    /// costs no system call.
    pub fn wake(&self) {
        self.waker.wake();
    }

    /// Returns the time since the driver was created.
    #[must_use]
    pub fn now(&self) -> Tick {
        Tick::ZERO.saturating_add(self.start.elapsed())
    }

    /// Watches a descriptor of the embedder, such as the kick of a queue. Each time it becomes
    /// readable, there is an event with [this number](DriverEvents::own). Several descriptors may
    /// have the same number.
    ///
    /// # Errors
    ///
    /// [`LoopError::Watch`]: the kernel has no room, or cannot poll this descriptor.
    pub fn watch(&mut self, number: u32, descriptor: &impl AsRawFd) -> Result<(), LoopError> {
        let fd = descriptor.as_raw_fd();
        let watched = self.watcher.add(fd, EDGE, number.into());
        watched.map_err(|source| LoopError::Watch { fd, source })
    }

    /// Stops watching a descriptor of the embedder. Call this before closing the descriptor,
    /// because another copy of it may stay open elsewhere. An event that was taken before may still
    /// have its number.
    ///
    /// # Errors
    ///
    /// [`LoopError::Unwatch`]: it was not watched.
    pub fn unwatch(&mut self, descriptor: &impl AsRawFd) -> Result<(), LoopError> {
        let fd = descriptor.as_raw_fd();
        let unwatched = self.watcher.remove(fd);
        unwatched.map_err(|source| LoopError::Unwatch { fd, source })
    }

    /// Passes the events and the time to the device. Returns whether the device should work now:
    /// because of an event, because something is due, or because it polls. A timer that fires early
    /// is no reason to look at the guest's queues.
    ///
    /// If the device panics in one of its calls, the other calls are still made before the panic is
    /// resumed.
    #[must_use = "whether the device should work now"]
    pub fn dispatch(&mut self, now: Tick, events: &DriverEvents, device: &mut impl Driven) -> bool {
        let mut happened = events.has_due_call();
        let panicked = each(events.all(), |event| {
            let word = event.data();
            happened |= word != TIMER;
            match word {
                TIMER => self.timer.fired(),
                WAKER | ..=OWN => {}
                token => device.on_event(now, Token::from(token), readiness(event)),
            }
        });
        resume(panicked);
        let due = device.deadline().is_some_and(|at| at <= now);
        if due {
            device.on_timeout(now);
        }
        happened || due
    }

    /// Carries out the device's actions in order, and sets the timer for its deadline. Call this
    /// after the device was used in any way, and before the loop waits.
    ///
    /// If closing a stream or `handover` panics, everything else is still done before the panic is
    /// resumed.
    pub fn carry_out(
        &mut self,
        now: Tick,
        device: &mut impl Driven,
        mut handover: impl FnMut(Handover),
    ) {
        // Retry rejected descriptors first, because a new action may cancel them.
        let again = self.registrations.take_due(now);
        let actions = again
            .into_iter()
            .chain(iter::from_fn(|| device.next_action()));
        let panicked = each(actions, |action| self.apply(now, action, &mut handover));
        let next = device.deadline().into_iter();
        let next = next.chain(self.registrations.retry_at()).min();
        if let Err(error) = next.map_or(Ok(()), |at| self.wake_by(at)) {
            handover(Handover::Failed(error));
        }
        resume(panicked);
    }

    /// Requests a wake-up at the given time or earlier, for the embedder's own purposes. The
    /// request is forgotten with the next wake-up of the timer, so repeat it after each
    /// [`carry_out`](Self::carry_out) for as long as the embedder waits.
    ///
    /// # Errors
    ///
    /// [`LoopError::Timer`]
    pub fn wake_by(&mut self, at: Tick) -> Result<(), LoopError> {
        if at == Tick::MAX {
            return Ok(());
        }
        match self.start.checked_add(at.since(Tick::ZERO)) {
            Some(at) => self.timer.fire_by(at),
            None => Ok(()), // too far ahead for the clock: it never comes
        }
    }

    fn apply(&mut self, now: Tick, action: Action, handover: &mut impl FnMut(Handover)) {
        let mut tell = |result: Result<(), LoopError>| {
            if let Err(error) = result {
                handover(Handover::Failed(error));
            }
        };
        let (watcher, registrations) = (&self.watcher, &mut self.registrations);
        match action {
            Action::Watch {
                token,
                fd,
                interest,
            } => {
                let watch = Watch {
                    token,
                    fd,
                    interest,
                };
                tell(registrations.watch(watcher, watch, now));
            }
            Action::Unwatch { token, fd } => tell(registrations.unwatch(watcher, token, fd)),
            Action::Close { token, fds, stream } => {
                for fd in fds.into_iter().flatten() {
                    tell(registrations.unwatch(watcher, token, fd));
                }
                // Close only now: the descriptors' numbers may be reused immediately.
                handover(Handover::Close(stream));
            }
        }
    }
}

fn readiness(event: &EpollEvent) -> Readiness {
    let events = event.event_set();
    Readiness {
        readable: events.intersects(EventSet::IN | EventSet::READ_HANG_UP),
        writable: events.contains(EventSet::OUT),
        hangup: events.intersects(EventSet::HANG_UP | EventSet::ERROR),
    }
}

impl AsRawFd for MuxerDriver {
    /// Readable while there are events.
    fn as_raw_fd(&self) -> RawFd {
        self.watcher.as_raw_fd()
    }
}

impl fmt::Debug for MuxerDriver {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MuxerDriver")
            .field("registrations", &self.registrations)
            .field("timer", &self.timer)
            .finish_non_exhaustive()
    }
}
