// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! The loop around a muxer.

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

/// The words of the loop's own descriptors. No [`Token`] has both of the upper bits.
const TIMER: u64 = u64::MAX;
const WAKER: u64 = u64::MAX - 1;
/// The largest word of a descriptor of the embedder's. No [`Token`] is that small.
const OWN: u64 = u32::MAX as u64;

/// What a driver hands over to its embedder.
#[derive(Debug)]
pub enum Handover {
    /// A stream that is no longer watched: dropping this closes it. It may wake the peer, and a
    /// close may wait (`SO_LINGER`, a file of a network file system), so it can be dropped
    /// elsewhere.
    Close(ClosingStream),
    /// The kernel has refused something; for the log. The loop goes on. What the kernel had no room
    /// for (`ENOSPC`, `ENOMEM`) is offered to it again after 100 ms.
    Failed(LoopError),
}

/// The event loop of a [`Muxer`](vsock_muxer::Muxer), or of a device around one: of whatever is
/// [`Driven`].
///
/// It has the epoll with the host's streams and backends, with descriptors of the embedder's own, a
/// timer and a [`Waker`]; the clock; and it carries out the device's [actions](Action). A loop
/// turns in three steps:
///
/// 1. [`DriverEvents::wait`] waits for events. Another loop polls [`as_raw_fd`](AsRawFd::as_raw_fd)
///    instead, which is readable while there are some, and waits for no time.
/// 2. [`dispatch`](Self::dispatch) tells the device of them. Then it may have packets to move.
/// 3. [`carry_out`](Self::carry_out) does what the device wants done, and sets the timer.
///
/// Everything is watched edge-triggered: what the device leaves alone costs no further wake-up, and
/// the embedder's descriptors need not be read. Memory is allocated for descriptors, not for
/// events.
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
    /// A loop without descriptors. Its clock starts now.
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

    /// What waits for events, maybe on a thread of its own while others use the driver. One is
    /// enough: an event is told to one of them, and once.
    #[must_use]
    pub fn events(&self) -> DriverEvents {
        DriverEvents::new(Arc::clone(&self.watcher))
    }

    /// Wakes the loop from any thread.
    #[must_use]
    pub fn waker(&self) -> Waker {
        self.waker.clone()
    }

    /// Makes an event, for a loop that polls [`as_raw_fd`](AsRawFd::as_raw_fd) and whose device
    /// must not sleep: the device continues after the loop has served its other descriptors. A loop
    /// that waits with [`DriverEvents::wait`] uses [`DriverEvents::set_next_call`] instead, which
    /// costs no system call.
    pub fn wake(&self) {
        self.waker.wake();
    }

    /// The time since the driver was made.
    #[must_use]
    pub fn now(&self) -> Tick {
        Tick::ZERO.saturating_add(self.start.elapsed())
    }

    /// Watches a descriptor of the embedder's, such as a kick of a queue: each time that it becomes
    /// readable is an event of [this number](DriverEvents::own). Several may have the same number.
    ///
    /// # Errors
    ///
    /// [`LoopError::Watch`]: the kernel has no room, or cannot poll such a descriptor.
    pub fn watch(&mut self, number: u32, descriptor: &impl AsRawFd) -> Result<(), LoopError> {
        let fd = descriptor.as_raw_fd();
        let watched = self.watcher.add(fd, EDGE, number.into());
        watched.map_err(|source| LoopError::Watch { fd, source })
    }

    /// Watches a descriptor of the embedder's no more: to be called before it is closed, because
    /// another copy of it may stay open elsewhere. An event that was taken before may still bear
    /// its number.
    ///
    /// # Errors
    ///
    /// [`LoopError::Unwatch`]: it was not watched.
    pub fn unwatch(&mut self, descriptor: &impl AsRawFd) -> Result<(), LoopError> {
        let fd = descriptor.as_raw_fd();
        let unwatched = self.watcher.remove(fd);
        unwatched.map_err(|source| LoopError::Unwatch { fd, source })
    }

    /// Tells the device of events and of the time. Returns whether it is to work now: something has
    /// happened, or is due, or the device polls. A timer that has come too early is no reason to
    /// look at the guest's queues.
    ///
    /// A panic of the device's in one of its calls passes through after the others.
    #[must_use = "whether the device is to work now"]
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

    /// Does what the device wants done, in order, and sets the timer for its deadline. To be called
    /// after whatever was done to the device, and before the loop waits.
    ///
    /// A panic of a stream's that is closed, or of `handover`, passes through when all is done.
    pub fn carry_out(
        &mut self,
        now: Tick,
        device: &mut impl Driven,
        mut handover: impl FnMut(Handover),
    ) {
        // What was refused before comes first: an action that follows may take it back.
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

    /// Makes a wake-up at that time, or earlier, for something of the embedder's own. The loop
    /// forgets it with that wake-up: to be called after each [`carry_out`](Self::carry_out), as
    /// long as the embedder waits for the time.
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
            None => Ok(()), // too far for the clock: it never comes
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
                // Only now may the descriptors' numbers be used again.
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
