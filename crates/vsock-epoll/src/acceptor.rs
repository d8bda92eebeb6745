// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Serving what connections come from.

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

/// The words of the source and of the timer in the epoll.
const SOURCE: u64 = 0;
const TIMER: u64 = 1;

/// The longest pause, about a century: one that is said to be longer is for ever, and would be too
/// much for the clock.
const LONGEST: Duration = Duration::from_secs(100 * 365 * 24 * 3600);

/// Accepts what a backend gives, for a device: the connections that host components open towards
/// the guest. Whatever accepts them is an [`AcceptSubscriber`].
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

/// Accepts what comes to a listener, for a host component: the connections that a guest opens to a
/// port. When the listener says that no more will come (`NotConnected`), the handler is told once,
/// and the subscriber [is finished](AcceptSubscriber::is_finished).
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

/// Whether the source is looked at.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Phase {
    Accepting,
    /// Nothing is accepted until then.
    Paused(Instant),
    /// No more will come.
    Over,
}

/// A source of connections, served as one subscriber of an event manager: accepts what waits, in
/// bounded batches, and asks a handler what to do with it. It is a [`BackendSubscriber`] or a
/// [`ListenerSubscriber`].
///
/// As a [`StreamSubscriber`](crate::StreamSubscriber), it can be driven by any loop, through one
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
    /// Serves `backend`.
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

    /// The backend, to connect to host components, for example.
    #[must_use]
    pub fn backend(&self) -> &dyn VsockBackend {
        &*self.source
    }
}

impl<A: AcceptHandler> ListenerSubscriber<A> {
    /// Serves `listener`, which is made non-blocking.
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

    /// Whether no more will come. It can be removed from its event manager then.
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

    /// Accepts what waits, within the [`AcceptLimits`]; returns how many connections that were. It
    /// never waits.
    ///
    /// # Errors
    ///
    /// [`LoopError::Wait`], [`LoopError::Watch`] and [`LoopError::Timer`]; what the kernel refuses
    /// to watch is offered to it again after another pause. What fails of one accept is told the
    /// handler.
    pub fn dispatch(&mut self) -> Result<usize, LoopError> {
        self.counters.wakeups += 1;
        self.counters.events += 1;
        self.see_timer()?;
        match self.phase {
            Phase::Accepting => {}
            Phase::Paused(until) if Instant::now() < until => {
                self.counters.spurious += 1;
                self.timer.fire_by(until)?;
                return Ok(0);
            }
            Phase::Paused(_) => {
                self.counters.timers += 1;
                if let Err(error) = self.watch(EventSet::IN) {
                    // The timer has fired: without another pause nothing would wake the loop again.
                    let until = self.end_of_pause();
                    self.phase = Phase::Paused(until);
                    self.timer.fire_by(until)?;
                    return Err(error);
                }
                self.phase = Phase::Accepting;
            }
            Phase::Over => {
                self.counters.spurious += 1;
                return Ok(0);
            }
        }
        let (accepted, next) = self.accept_batch();
        match next {
            Phase::Accepting => return Ok(accepted),
            Phase::Paused(until) => self.timer.fire_by(until)?,
            Phase::Over => {}
        }
        self.phase = next;
        self.watch(EventSet::empty())?;
        Ok(accepted)
    }

    /// The handler.
    pub fn handler(&mut self) -> &mut A {
        &mut self.handler
    }

    /// What was done so far.
    #[must_use]
    pub fn counters(&self) -> LoopCounters {
        self.counters
    }

    /// Takes the first thing that has gone wrong with the subscriber itself, if anything has: an
    /// event manager has no way to pass it on. To be asked after the subscriber was added.
    pub fn take_error(&mut self) -> Option<LoopError> {
        self.error.take()
    }

    /// The timer is edge-triggered: what it tells is to be taken, or the loop would not rest.
    fn see_timer(&mut self) -> Result<(), LoopError> {
        let mut events = [EpollEvent::default(); 2];
        let ready = self.watcher.ready(&mut events)?;
        if events.iter().take(ready).any(|event| event.data() == TIMER) {
            self.timer.fired();
        }
        Ok(())
    }

    /// Returns how many were accepted, and what is to follow.
    fn accept_batch(&mut self) -> (usize, Phase) {
        let (mut accepted, mut failed) = (0, 0);
        for _ in 0..self.limits.batch {
            let source = &mut self.source;
            let Some(accept) = contain(|| source.next()) else {
                failed += 1;
                self.counters.panics += 1;
                continue;
            };
            match accept {
                Ok(stream) => {
                    accepted += 1;
                    self.counters.accepts += 1;
                    if self.ask(stream) == More::Later {
                        return (accepted, Phase::Paused(self.end_of_pause()));
                    }
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => {
                    self.counters.spurious += u64::from(accepted + failed == 0);
                    return (accepted, Phase::Accepting);
                }
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => {
                    failed += 1;
                    let (lacks, over) = (lacks_resource(&error), S::is_over(&error));
                    self.tell(error);
                    if over {
                        return (accepted, Phase::Over);
                    }
                    if lacks {
                        return (accepted, Phase::Paused(self.end_of_pause()));
                    }
                }
            }
        }
        // A source that only fails, or is interrupted each time, would be ready for ever.
        let hopeless = accepted == 0;
        let next = if hopeless {
            Phase::Paused(self.end_of_pause())
        } else {
            Phase::Accepting
        };
        (accepted, next)
    }

    fn end_of_pause(&self) -> Instant {
        Instant::now() + self.limits.pause.min(LONGEST)
    }

    /// Tells the handler of an accept that has failed.
    fn tell(&mut self, error: io::Error) {
        self.counters.errors += 1;
        let handler = &mut self.handler;
        if contain(|| handler.failed(error)).is_none() {
            self.counters.panics += 1;
        }
    }

    /// Asks the handler. If it panics, it has lost that stream, and the next one is accepted.
    fn ask(&mut self, stream: Box<dyn VsockStream>) -> More {
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
