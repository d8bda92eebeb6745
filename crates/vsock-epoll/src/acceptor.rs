// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Accepting connections from a backend or a listener.
//!
//! An [`AcceptSubscriber`] accepts in batches. It stops watching its source and starts a pause (a
//! [`Timer`]) when the handler asks for one, when the system lacks a resource, or when the source
//! only fails. So a flood of connections or errors never keeps the loop busy.

mod handler;
mod source;

use std::fmt;
use std::io::{self, ErrorKind};
use std::os::fd::{AsRawFd, RawFd};
use std::time::{Duration, Instant};

#[cfg(feature = "event-manager")]
use event_manager::{EventOps, Events, MutEventSubscriber};
use vmm_sys_util::epoll::{EpollEvent, EventSet};
use vsock_backend_api::{VsockBackend, VsockListener, VsockStream};

pub use self::handler::{AcceptHandler, More};
use self::source::Source;
use crate::contain::contain;
use crate::error::lacks_resource;
use crate::watch::{Timer, Watched, Watcher};
use crate::{AcceptLimits, LoopCounters, LoopError};

/// The words of the source and the timer in the epoll.
const SOURCE: u64 = 0;
const TIMER: u64 = 1;

/// The longest pause, about a century. A longer one would exceed the range of the clock.
const LONGEST: Duration = Duration::from_secs(100 * 365 * 24 * 3600);

/// Accepts connections from a backend, for a device: those that host components open to the guest.
/// See [`AcceptSubscriber`] for its methods.
///
/// ```
/// use vsock_epoll::{AcceptLimits, BackendSubscriber, More};
/// use vsock_inner::VsockInnerBackend;
///
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let backend = VsockInnerBackend::new()?;
/// let connector = backend.get_connector();
/// let mut accepted = Vec::new();
/// let handler = |stream| {
///     accepted.push(stream);
///     More::Accept
/// };
/// let mut subscriber =
///     BackendSubscriber::new(Box::new(backend), handler, AcceptLimits::default())?;
///
/// let _host = connector.connect_stream()?;
/// assert_eq!(subscriber.dispatch()?, 1);
/// # Ok(())
/// # }
/// ```
pub type BackendSubscriber<A> = AcceptSubscriber<dyn VsockBackend, A>;

/// Accepts connections from a listener, for a host component: those that a guest opens to a port.
/// If the listener reports that no more will arrive (`NotConnected`), the handler is called once
/// with that error, and the subscriber [is finished](AcceptSubscriber::is_finished).
///
/// ```
/// use vsock_epoll::{AcceptLimits, ListenerSubscriber, More, VsockBackend};
/// use vsock_inner::VsockInnerBackend;
///
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let backend = VsockInnerBackend::new()?;
/// let listener = backend.listen(1024)?;
/// let handler = |_stream| More::Accept;
/// let mut subscriber = ListenerSubscriber::new(listener, handler, AcceptLimits::default())?;
///
/// let _device = backend.connect(1024)?; // the guest has opened port 1024
/// assert_eq!(subscriber.dispatch()?, 1);
/// # Ok(())
/// # }
/// ```
pub type ListenerSubscriber<A> = AcceptSubscriber<dyn VsockListener, A>;

/// Whether the source is watched.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Phase {
    Accepting,
    /// Nothing is accepted until this time.
    Paused(Instant),
    /// No more connections will arrive.
    Over,
}

/// A source of connections as a subscriber of an event manager. Accepts waiting connections in
/// limited batches, and passes each to a handler. Use it as [`BackendSubscriber`] or
/// [`ListenerSubscriber`].
///
/// Like a [`StreamSubscriber`](crate::StreamSubscriber), any loop can drive it through its single
/// descriptor.
pub struct AcceptSubscriber<S: ?Sized, A> {
    source: Box<S>,
    handler: A,
    limits: AcceptLimits,
    watcher: Watcher,
    timer: Timer,
    waiting: Watched,
    phase: Phase,
    error: Option<LoopError>,
    counters: LoopCounters,
}

impl<A: AcceptHandler> BackendSubscriber<A> {
    /// Creates a subscriber that serves `backend`.
    ///
    /// # Errors
    ///
    /// [`LoopError::Limit`], [`LoopError::Watch`], and [`LoopError::Descriptor`]: it needs two
    /// descriptors.
    pub fn new(
        backend: Box<dyn VsockBackend>,
        handler: A,
        limits: AcceptLimits,
    ) -> Result<Self, LoopError> {
        Self::serve(backend, handler, limits)
    }

    /// Returns the backend, for example to connect to host components.
    #[must_use]
    pub fn backend(&self) -> &dyn VsockBackend {
        &*self.source
    }
}

impl<A: AcceptHandler> ListenerSubscriber<A> {
    /// Creates a subscriber that serves `listener`, and makes the listener non-blocking.
    ///
    /// # Errors
    ///
    /// [`LoopError::Limit`], [`LoopError::Blocking`], [`LoopError::Watch`], and
    /// [`LoopError::Descriptor`]: it needs two descriptors.
    pub fn new(
        listener: impl VsockListener + 'static,
        handler: A,
        limits: AcceptLimits,
    ) -> Result<Self, LoopError> {
        listener
            .set_nonblocking(true)
            .map_err(LoopError::Blocking)?;
        Self::serve(Box::new(listener), handler, limits)
    }

    /// Returns whether no more connections will arrive. The subscriber can then be removed from its
    /// event manager.
    #[must_use]
    pub fn is_finished(&self) -> bool {
        self.phase == Phase::Over
    }
}

impl<S: Source + ?Sized, A: AcceptHandler> AcceptSubscriber<S, A> {
    fn serve(source: Box<S>, handler: A, limits: AcceptLimits) -> Result<Self, LoopError> {
        limits.check()?;
        let watcher = Watcher::new()?;
        let timer = Timer::new(&watcher, TIMER)?;
        let mut subscriber = Self {
            waiting: Watched::nothing_of(source.as_raw_fd()),
            source,
            handler,
            limits,
            watcher,
            timer,
            phase: Phase::Accepting,
            error: None,
            counters: LoopCounters::default(),
        };
        subscriber.watch(EventSet::IN)?;
        Ok(subscriber)
    }

    /// Accepts waiting connections, within the [`AcceptLimits`], and returns how many. Never
    /// blocks.
    ///
    /// # Errors
    ///
    /// [`LoopError::Wait`], [`LoopError::Watch`] and [`LoopError::Timer`]. If the kernel refuses to
    /// watch the source, the subscriber tries again after another pause. An error of a single
    /// accept is passed to the handler instead.
    pub fn dispatch(&mut self) -> Result<usize, LoopError> {
        self.counters.wakeups += 1;
        self.counters.events += 1;
        self.see_timer()?;
        match self.phase {
            Phase::Accepting => {}
            // Woken before the end of the pause: the timer may fire early.
            Phase::Paused(until) if Instant::now() < until => {
                self.counters.spurious += 1;
                self.timer.fire_by(until)?;
                return Ok(0);
            }
            Phase::Paused(_) => {
                self.counters.timers += 1;
                if let Err(error) = self.watch(EventSet::IN) {
                    // The timer has fired already. Without another pause, nothing would wake the
                    // loop again.
                    let until = self.end_of_pause();
                    self.phase = Phase::Paused(until);
                    self.timer.fire_by(until)?;
                    return Err(error);
                }
                // A connection that arrived during the pause is found by the batch below.
                self.phase = Phase::Accepting;
            }
            Phase::Over => {
                self.counters.spurious += 1;
                return Ok(0);
            }
        }
        let (accepted, next) = self.accept_batch();
        match next {
            // As long as the source is watched, the next event continues where this batch stopped.
            Phase::Accepting => return Ok(accepted),
            Phase::Paused(until) => self.timer.fire_by(until)?,
            Phase::Over => {}
        }
        // Stop watching the source during a pause, or for good.
        self.phase = next;
        self.watch(EventSet::empty())?;
        Ok(accepted)
    }

    /// Returns the handler.
    pub fn handler(&mut self) -> &mut A {
        &mut self.handler
    }

    /// Returns a snapshot of the counters.
    #[must_use]
    pub fn counters(&self) -> LoopCounters {
        self.counters
    }

    /// Takes the first error of the subscriber itself, if any. An event manager cannot return it,
    /// so check this after adding the subscriber.
    pub fn take_error(&mut self) -> Option<LoopError> {
        self.error.take()
    }

    /// The timer is edge-triggered. Its event must be taken, or the loop's descriptor would stay
    /// ready.
    fn see_timer(&mut self) -> Result<(), LoopError> {
        let mut events = [EpollEvent::default(); 2];
        let ready = self.watcher.ready(&mut events)?;
        if events.iter().take(ready).any(|event| event.data() == TIMER) {
            self.timer.fired();
        }
        Ok(())
    }

    /// Accepts one batch. Returns the number accepted, and the next phase.
    fn accept_batch(&mut self) -> (usize, Phase) {
        let (mut accepted, mut failed) = (0, 0);
        for _ in 0..self.limits.batch {
            let source = &mut self.source;
            // A panicking source must not take down the loop.
            let Some(accept) = contain(|| source.next()) else {
                failed += 1;
                self.counters.panics += 1;
                continue;
            };
            match accept {
                Ok(stream) => {
                    accepted += 1;
                    self.counters.accepts += 1;
                    if self.hand_over(stream) == More::Later {
                        return (accepted, Phase::Paused(self.end_of_pause()));
                    }
                }
                // Everything that waited has been accepted.
                Err(error) if error.kind() == ErrorKind::WouldBlock => {
                    self.counters.spurious += u64::from(accepted + failed == 0);
                    return (accepted, Phase::Accepting);
                }
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                // One failed accept says nothing about the next one, unless the system lacks a
                // resource or the listener is closed.
                Err(error) => {
                    failed += 1;
                    let (lacks, over) = (lacks_resource(&error), S::is_over(&error));
                    self.report_failure(error);
                    if over {
                        return (accepted, Phase::Over);
                    }
                    if lacks {
                        return (accepted, Phase::Paused(self.end_of_pause()));
                    }
                }
            }
        }
        // A source that only fails, or is interrupted each time, would stay ready: pause.
        let no_progress = accepted == 0;
        let next = if no_progress {
            Phase::Paused(self.end_of_pause())
        } else {
            Phase::Accepting
        };
        (accepted, next)
    }

    fn end_of_pause(&self) -> Instant {
        Instant::now() + self.limits.pause.min(LONGEST)
    }

    /// Reports a failed accept to the handler.
    fn report_failure(&mut self, error: io::Error) {
        self.counters.errors += 1;
        let handler = &mut self.handler;
        if contain(|| handler.failed(error)).is_none() {
            self.counters.panics += 1;
        }
    }

    /// Passes a stream to the handler. If the handler panics, the stream is lost, and accepting
    /// continues.
    fn hand_over(&mut self, stream: Box<dyn VsockStream>) -> More {
        let handler = &mut self.handler;
        contain(|| handler.accepted(stream)).unwrap_or_else(|| {
            self.counters.panics += 1;
            More::Accept
        })
    }

    fn watch(&mut self, events: EventSet) -> Result<(), LoopError> {
        let fd = self.waiting.fd();
        let set = self.waiting.set(&self.watcher, events, SOURCE);
        set.map_err(|source| LoopError::Watch { fd, source })
    }

    #[cfg(feature = "event-manager")]
    fn keep(&mut self, error: LoopError) {
        self.counters.errors += 1;
        self.error.get_or_insert(error);
    }
}

impl<S: ?Sized, A> AsRawFd for AcceptSubscriber<S, A> {
    /// Readable while a connection waits, unless accepting is paused.
    fn as_raw_fd(&self) -> RawFd {
        self.watcher.as_raw_fd()
    }
}

#[cfg(feature = "event-manager")]
impl<S: Source + ?Sized, A: AcceptHandler> MutEventSubscriber for AcceptSubscriber<S, A> {
    fn process(&mut self, _events: Events, _ops: &mut EventOps<'_>) {
        if let Err(error) = self.dispatch() {
            self.keep(error);
        }
    }

    fn init(&mut self, ops: &mut EventOps<'_>) {
        let events = Events::new_raw(self.as_raw_fd(), EventSet::IN);
        if let Err(error) = ops.add(events) {
            self.keep(LoopError::Manager(error));
        }
    }
}

impl<S: AsRawFd + ?Sized, A> fmt::Debug for AcceptSubscriber<S, A> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AcceptSubscriber")
            .field("source", &self.source.as_raw_fd())
            .field("limits", &self.limits)
            .field("phase", &self.phase)
            .field("counters", &self.counters)
            .finish_non_exhaustive()
    }
}
