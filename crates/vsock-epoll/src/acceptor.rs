// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

use std::error::Error;
use std::fmt;
use std::io::{self, ErrorKind};
use std::os::fd::{AsRawFd, RawFd};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use event_manager::{EventOps, Events, MutEventSubscriber};
use vmm_sys_util::epoll::EventSet;
use vsock_backend_api::{VsockBackend, VsockStream};

use crate::contain::contain;
use crate::watch::{Timer, Watched, Watcher};
use crate::{AcceptLimits, LoopCounters, LoopError, StreamHandler, StreamSubscriber};

/// The word of the backend in the epoll; nobody reads it.
const BACKEND: u64 = 2;

/// Whether more connections are to be accepted.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub enum More {
    /// Go on.
    #[default]
    Accept,
    /// Not in this wake-up, and not for the time of [`AcceptLimits::pause`]: there is no place.
    Later,
}

/// What is done with the connections of a backend.
///
/// A closure that takes a stream is one. So is a [`StreamSubscriber`] that is shared, if its states have
/// a default: it serves every stream.
pub trait AcceptHandler {
    /// A connection was accepted. The stream is the handler's; to refuse it is to abort it.
    fn accepted(&mut self, stream: Box<dyn VsockStream>) -> More;

    /// One accept has failed. The next one is tried, at once or after a pause.
    fn failed(&mut self, error: io::Error) {
        drop(error);
    }
}

impl<F: FnMut(Box<dyn VsockStream>) -> More> AcceptHandler for F {
    fn accepted(&mut self, stream: Box<dyn VsockStream>) -> More {
        self(stream)
    }
}

impl<H: StreamHandler> AcceptHandler for Arc<Mutex<StreamSubscriber<H>>>
where
    H::State: Default,
{
    /// What is refused is aborted, and counted by the streams.
    fn accepted(&mut self, stream: Box<dyn VsockStream>) -> More {
        // A handler that panics is contained, so nothing is torn.
        let mut streams = self.lock().unwrap_or_else(PoisonError::into_inner);
        match streams.streams().add(stream, H::State::default()) {
            Ok(_) => More::Accept,
            Err(refused) => {
                refused.stream.abort();
                More::Later
            }
        }
    }
}

/// A backend, served as one subscriber of an event manager: accepts what waits, in bounded batches, and
/// asks a handler what to do with it.
///
/// As a [`StreamSubscriber`], it can be driven by any loop, through one descriptor.
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
pub struct BackendSubscriber<A> {
    backend: Box<dyn VsockBackend>,
    handler: A,
    limits: AcceptLimits,
    watcher: Watcher,
    timer: Timer,
    waiting: Watched,
    /// Until when nothing is accepted.
    paused: Option<Instant>,
    error: Option<LoopError>,
    counters: LoopCounters,
}

impl<A: AcceptHandler> BackendSubscriber<A> {
    /// Serves `backend`.
    ///
    /// # Errors
    ///
    /// [`LoopError::Limit`] and [`LoopError::Descriptor`]: it needs two descriptors.
    pub fn new(
        backend: Box<dyn VsockBackend>,
        handler: A,
        limits: AcceptLimits,
    ) -> Result<Self, LoopError> {
        limits.check()?;
        let watcher = Watcher::new()?;
        let timer = Timer::new(&watcher)?;
        let mut waiting = Watched::nothing_of(backend.as_raw_fd());
        waiting
            .set(&watcher, EventSet::IN, BACKEND)
            .map_err(|source| LoopError::Descriptor {
                what: "place for the backend's descriptor in its epoll",
                source,
            })?;
        Ok(Self {
            backend,
            handler,
            limits,
            watcher,
            timer,
            waiting,
            paused: None,
            error: None,
            counters: LoopCounters::default(),
        })
    }

    /// Accepts what waits, within the [`AcceptLimits`]; returns how many connections that were. It
    /// never waits.
    ///
    /// # Errors
    ///
    /// [`LoopError::Wait`] and [`LoopError::Timer`]. What fails of one accept is told the handler.
    pub fn dispatch(&mut self) -> Result<usize, LoopError> {
        self.counters.wakeups += 1;
        self.counters.events += 1;
        if let Some(until) = self.paused {
            if Instant::now() < until {
                self.counters.spurious += 1;
                return Ok(0);
            }
            self.counters.timers += 1;
            self.timer.fired();
            self.timer.set(None)?;
            self.watch(EventSet::IN)?;
            self.paused = None;
        }
        let (accepted, more) = self.accept_batch();
        if more == More::Later {
            let until = Instant::now() + self.limits.pause;
            self.timer.set(Some(until))?;
            self.paused = Some(until);
            self.watch(EventSet::empty())?;
        }
        Ok(accepted)
    }

    /// The backend, to connect to host components, for example.
    #[must_use]
    pub fn backend(&self) -> &dyn VsockBackend {
        &*self.backend
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

    /// The first thing that has gone wrong with the subscriber itself, if anything has: an event manager
    /// has no way to pass it on. To be asked after the subscriber was added.
    #[must_use]
    pub fn error(&self) -> Option<&LoopError> {
        self.error.as_ref()
    }

    /// As [`error`](Self::error), and forgets it.
    pub fn take_error(&mut self) -> Option<LoopError> {
        self.error.take()
    }

    fn accept_batch(&mut self) -> (usize, More) {
        let (mut accepted, mut failed) = (0, 0);
        for _ in 0..self.limits.batch {
            let backend = &mut self.backend;
            let Some(accept) = contain(|| backend.accept()) else {
                failed += 1;
                self.counters.panics += 1;
                continue;
            };
            match accept {
                Ok(stream) => {
                    accepted += 1;
                    self.counters.accepts += 1;
                    if self.ask(stream) == More::Later {
                        return (accepted, More::Later);
                    }
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => {
                    self.counters.spurious += u64::from(accepted + failed == 0);
                    return (accepted, More::Accept);
                }
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => {
                    failed += 1;
                    self.counters.errors += 1;
                    let lacks = lacks_resource(&error);
                    let handler = &mut self.handler;
                    if contain(|| handler.failed(error)).is_none() {
                        self.counters.panics += 1;
                    }
                    if lacks {
                        return (accepted, More::Later);
                    }
                }
            }
        }
        // A backend that only fails would be ready for ever.
        let hopeless = accepted == 0 && failed > 0;
        let more = if hopeless { More::Later } else { More::Accept };
        (accepted, more)
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
        let set = self.waiting.set(&self.watcher, events, BACKEND);
        set.map_err(LoopError::Wait)
    }

    fn keep(&mut self, error: LoopError) {
        self.counters.errors += 1;
        self.error.get_or_insert(error);
    }
}

/// Whether the next accept would fail for the same reason: no descriptors, or no memory. Their numbers
/// are the same on every architecture that Linux has (`errno(3)`, asm-generic).
fn lacks_resource(error: &io::Error) -> bool {
    const ENOMEM: i32 = 12;
    const ENFILE: i32 = 23;
    const EMFILE: i32 = 24;
    const ENOBUFS: i32 = 105;
    // An error that says what was attempted has the system's own inside.
    let mut next: Option<&(dyn Error + 'static)> = Some(error);
    while let Some(inner) = next {
        next = match inner.downcast_ref::<io::Error>() {
            Some(error) => match error.raw_os_error() {
                Some(ENOMEM | ENFILE | EMFILE | ENOBUFS) => return true,
                _ => error
                    .get_ref()
                    .map(|inner| -> &(dyn Error + 'static) { inner }),
            },
            None => inner.source(),
        };
    }
    error.kind() == ErrorKind::OutOfMemory
}

impl<A> AsRawFd for BackendSubscriber<A> {
    /// Readable while a connection waits, unless accepting is paused.
    fn as_raw_fd(&self) -> RawFd {
        self.watcher.as_raw_fd()
    }
}

impl<A: AcceptHandler> MutEventSubscriber for BackendSubscriber<A> {
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

impl<A> fmt::Debug for BackendSubscriber<A> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("BackendSubscriber")
            .field("backend", &self.backend.r#type())
            .field("limits", &self.limits)
            .field("paused", &self.paused)
            .field("counters", &self.counters)
            .finish_non_exhaustive()
    }
}
