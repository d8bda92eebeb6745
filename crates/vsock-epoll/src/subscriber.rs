// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

use std::fmt;
use std::os::fd::{AsRawFd, RawFd};
use std::time::Instant;

#[cfg(feature = "event-manager")]
use event_manager::{EventOps, Events, MutEventSubscriber};
use vmm_sys_util::epoll::{EpollEvent, EventSet};

use crate::contain::contain;
use crate::streams::{News, TIMER, WAKE};
use crate::{
    After, LoopCounters, LoopError, StreamFailure, StreamHandler, StreamId, StreamLimits, Streams,
};

/// How many calls of the handler each event in a wake-up may cause. This is enough for everything
/// that one event can entail: space, an end or failure, the peer's departure, and the close. It is
/// not more, because a handler whose calls cause further calls would otherwise occupy the thread.
const NEWS_FOR_AN_EVENT: usize = 4;

/// Many streams and their handler, as one subscriber of an event manager.
///
/// It has its own epoll for its streams, and the event manager polls only that one descriptor. So
/// any other loop can drive it too: poll [`as_raw_fd`](AsRawFd::as_raw_fd) for reading, and call
/// [`dispatch`](Self::dispatch) when it is readable.
///
/// ```
/// use std::io::{Read, Write};
/// use std::net::Shutdown;
/// use std::os::fd::AsRawFd;
/// use vmm_sys_util::epoll::{ControlOperation, Epoll, EpollEvent, EventSet};
/// use vsock_epoll::services::Echo;
/// use vsock_epoll::{StreamLimits, StreamSubscriber};
/// use vsock_inner::VsockInnerStream;
///
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let (mut host, device) = VsockInnerStream::pair()?;
/// let mut echo = StreamSubscriber::new(Echo::new(), StreamLimits::default())?;
/// echo.streams().add(Box::new(device), ())?;
///
/// // The VMM's own loop, which has other descriptors as well.
/// let epoll = Epoll::new()?;
/// let event = EpollEvent::new(EventSet::IN, 0);
/// epoll.ctl(ControlOperation::Add, echo.as_raw_fd(), event)?;
///
/// host.write_all(b"hello")?;
/// host.shutdown(Shutdown::Write)?;
/// while !echo.streams().is_empty() {
///     epoll.wait(-1, &mut [EpollEvent::default()])?;
///     echo.dispatch()?;
/// }
/// let mut back = String::new();
/// host.read_to_string(&mut back)?;
/// assert_eq!(back, "hello");
/// # Ok(())
/// # }
/// ```
pub struct StreamSubscriber<H: StreamHandler> {
    streams: Streams<H::State>,
    handler: H,
    events: Vec<EpollEvent>,
    /// How many more calls this wake-up may make to report news of streams.
    news_left: usize,
}

impl<H: StreamHandler> StreamSubscriber<H> {
    /// Creates a loop without streams.
    ///
    /// # Errors
    ///
    /// [`LoopError::Limit`] and [`LoopError::Descriptor`]: it needs three descriptors.
    pub fn new(handler: H, limits: StreamLimits) -> Result<Self, LoopError> {
        let streams = Streams::new(limits)?;
        Ok(Self {
            streams,
            handler,
            events: vec![EpollEvent::default(); limits.events],
            news_left: 0,
        })
    }

    /// Serves ready streams, within the [`StreamLimits`], and returns the number of events. Never
    /// blocks.
    ///
    /// # Errors
    ///
    /// [`LoopError::Wait`] and [`LoopError::Timer`]; the loop can be tried again. As a subscriber
    /// of an event manager, it stores the first error for [`take_error`](Self::take_error).
    pub fn dispatch(&mut self) -> Result<usize, LoopError> {
        self.streams.counters.wakeups += 1;
        self.streams.begin_dispatch();
        self.news_left = NEWS_FOR_AN_EVENT * self.events.len();
        let served = self.serve();
        self.report_news();
        self.streams.end_dispatch();
        served
    }

    /// Returns the streams, to use them between the turns of the loop.
    pub fn streams(&mut self) -> &mut Streams<H::State> {
        &mut self.streams
    }

    /// Returns the handler.
    pub fn handler(&mut self) -> &mut H {
        &mut self.handler
    }

    /// Returns a snapshot of the counters.
    #[must_use]
    pub fn counters(&self) -> LoopCounters {
        self.streams.counters()
    }

    /// Takes the first error of the loop itself, if any. An event manager cannot return it, so
    /// check this after adding the subscriber.
    pub fn take_error(&mut self) -> Option<LoopError> {
        self.streams.take_error()
    }

    fn serve(&mut self) -> Result<usize, LoopError> {
        // Only those that were in line before this turn, not those that join it.
        let in_line = self.streams.in_line().min(self.events.len());
        let ready = self.streams.ready(&mut self.events)?;
        self.streams.counters.events += ready as u64;
        for at in 0..ready {
            let event = self.events[at];
            match event.data() {
                WAKE => self.streams.woken(), // every turn does what the wake-up was for
                TIMER => self.serve_timers(),
                word => self.serve_stream(StreamId::from_word(word), event.event_set()),
            }
        }
        for _ in 0..in_line {
            let Some(id) = self.streams.next_in_line() else {
                break;
            };
            self.serve_stream(id, EventSet::IN);
        }
        Ok(ready)
    }

    fn serve_stream(&mut self, id: StreamId, events: EventSet) {
        if self.streams.begin(id, events) {
            self.call(id, |handler, streams| handler.readable(streams, id));
        }
        self.streams.end(id);
        self.report_news();
    }

    fn serve_timers(&mut self) {
        let now = Instant::now();
        self.streams.timer_fired(now);
        for _ in 0..self.events.len() {
            let Some(id) = self.streams.next_due(now) else {
                break;
            };
            self.call(id, |handler, streams| handler.timer(streams, id));
            self.report_news();
        }
        self.streams.arm();
    }

    fn report_news(&mut self) {
        while self.news_left > 0 {
            let Some(news) = self.streams.next_news() else {
                break;
            };
            self.news_left -= 1;
            match news {
                News::Space(id) => {
                    self.call(id, |handler, streams| handler.writable(streams, id));
                }
                News::Ended(id) => {
                    self.call(id, |handler, streams| handler.ended(streams, id));
                }
                News::Gone(id) => {
                    self.call(id, |handler, streams| handler.peer_gone(streams, id));
                }
                News::Failed(id, failure) => self.report_failure(id, failure),
                News::Closed(id, state) => {
                    self.call(id, |handler, streams| {
                        handler.closed(streams, id, state);
                    });
                }
            }
        }
    }

    fn report_failure(&mut self, id: StreamId, failure: StreamFailure) {
        let read_on = matches!(failure, StreamFailure::Write(_));
        let after = self.call(id, |handler, streams| handler.failed(streams, id, failure));
        if !(read_on && after == Some(After::ReadOn)) {
            self.streams.close(id);
        }
    }

    /// Calls the handler. If it panics, its stream is aborted and the loop continues.
    fn call<R>(
        &mut self,
        id: StreamId,
        what: impl FnOnce(&mut H, &mut Streams<H::State>) -> R,
    ) -> Option<R> {
        let (handler, streams) = (&mut self.handler, &mut self.streams);
        // The streams are consistent whenever a handler runs, because it runs inside none of their
        // methods, and panics inside those are contained. The handler's documentation covers its
        // own state.
        let called = contain(|| what(handler, streams));
        if called.is_none() {
            self.streams.counters.panics += 1;
            self.streams.abort(id);
        }
        called
    }
}

impl<H: StreamHandler> AsRawFd for StreamSubscriber<H> {
    /// For polling only: readable while [`dispatch`](Self::dispatch) has something to do.
    fn as_raw_fd(&self) -> RawFd {
        self.streams.as_raw_fd()
    }
}

#[cfg(feature = "event-manager")]
impl<H: StreamHandler> MutEventSubscriber for StreamSubscriber<H> {
    fn process(&mut self, _events: Events, _ops: &mut EventOps<'_>) {
        if let Err(error) = self.dispatch() {
            self.streams.keep(error);
        }
    }

    fn init(&mut self, ops: &mut EventOps<'_>) {
        let events = Events::new_raw(self.as_raw_fd(), EventSet::IN);
        if let Err(error) = ops.add(events) {
            self.streams.keep(LoopError::Manager(error));
        }
    }
}

impl<H: StreamHandler + fmt::Debug> fmt::Debug for StreamSubscriber<H> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("StreamSubscriber")
            .field("streams", &self.streams)
            .field("handler", &self.handler)
            .finish_non_exhaustive()
    }
}
