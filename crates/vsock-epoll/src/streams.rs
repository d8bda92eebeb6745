// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! The streams of a loop, and every operation on them.
//!
//! Each operation changes an [`Entry`] and then calls `changed`, which updates what is watched and
//! queues the stream if its handler must be told something (`news`). The subscriber takes news from
//! that queue between calls, so no handler runs inside a method of [`Streams`].

mod ending;
mod news;
mod timers;

use std::collections::VecDeque;
use std::fmt;
use std::net::Shutdown;
use std::os::fd::{AsRawFd, RawFd};
use std::time::{Duration, Instant};

use vsock_backend_api::VsockStream;

pub(crate) use self::news::News;
use crate::contain::Contained;
use crate::deadlines::Deadlines;
use crate::entry::{Entry, Then, Written};
use crate::table::Table;
use crate::watch::{OwnWaker, Timer, Watcher};
use crate::{AddError, LoopCounters, LoopError, Refusal, StreamFailure, StreamId, StreamLimits};

/// The words of the waker and the timer in the epoll. No id has generation zero.
pub(crate) const WAKE: u64 = 0;
pub(crate) const TIMER: u64 = 1;

/// The phase of the loop.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Phase {
    Serving,
    /// Backlogs are being written, until this time at the latest.
    Draining(Option<Instant>),
    Stopped,
}

/// The streams of one loop, each with a state `T` of the handler.
///
/// A handler receives it in every call, and may use any stream. Every operation takes effect
/// immediately. Using the id of a stream that is gone is not an error: it reads and writes nothing.
///
/// No method blocks.
pub struct Streams<T> {
    limits: StreamLimits,
    watcher: Watcher,
    waker: OwnWaker,
    timer: Timer,
    table: Table<Entry<T>>,
    deadlines: Deadlines,
    /// Streams with news for the handler.
    news: VecDeque<StreamId>,
    /// Streams with more to read, which no edge will report.
    more: VecDeque<StreamId>,
    /// Removed streams that the handler has not been told of.
    departed: VecDeque<(StreamId, T)>,
    phase: Phase,
    /// The subscriber is dispatching, and will report news before it returns.
    dispatching: bool,
    error: Option<LoopError>,
    pub(crate) counters: LoopCounters,
}

impl<T> Streams<T> {
    pub(crate) fn new(limits: StreamLimits) -> Result<Self, LoopError> {
        limits.check()?;
        let watcher = Watcher::new()?;
        let waker = OwnWaker::new(&watcher, WAKE)?;
        let timer = Timer::new(&watcher, TIMER)?;
        Ok(Self {
            limits,
            watcher,
            waker,
            timer,
            table: Table::new(),
            deadlines: Deadlines::default(),
            news: VecDeque::new(),
            more: VecDeque::new(),
            departed: VecDeque::new(),
            phase: Phase::Serving,
            dispatching: false,
            error: None,
            counters: LoopCounters::default(),
        })
    }

    /// Adds a stream, and makes it non-blocking.
    ///
    /// # Errors
    ///
    /// [`AddError`] returns the stream with the reason: there are too many streams, the loop is
    /// ending, or the kernel lacks a resource. `state` is dropped.
    pub fn add(&mut self, stream: Box<dyn VsockStream>, state: T) -> Result<StreamId, AddError> {
        self.try_add(stream, state).inspect_err(|_| {
            self.counters.refused += 1;
        })
    }

    fn try_add(&mut self, stream: Box<dyn VsockStream>, state: T) -> Result<StreamId, AddError> {
        if self.phase != Phase::Serving {
            let refusal = Refusal::Ending;
            return Err(AddError { refusal, stream });
        }
        let limit = self.limits.streams;
        let full = Refusal::Full { limit };
        if self.table.len() >= limit {
            return Err(AddError {
                refusal: full,
                stream,
            });
        }
        let stream = Contained::take(stream)?;
        let mut entry = Entry::new(stream, state, self.limits.turn, Instant::now());
        let Some(id) = self.table.reserve() else {
            return Err(AddError {
                refusal: full,
                stream: entry.stream.into_inner(),
            });
        };
        if let Err(error) = entry.watch(&self.watcher, id, self.limits.trigger) {
            self.table.release(id);
            return Err(AddError {
                refusal: Refusal::Register(error),
                stream: entry.stream.into_inner(),
            });
        }
        self.table.fill(id, entry);
        self.counters.accepts += 1;
        self.schedule(id);
        Ok(id)
    }

    /// Reads available data into `buf`, and returns its length. Zero means that there is nothing to
    /// read in this turn: no data has arrived, the stream has used its share, it is paused, or its
    /// end has come, which is reported to [`ended`](crate::StreamHandler::ended) or
    /// [`failed`](crate::StreamHandler::failed).
    ///
    /// A handler must read until zero, or pause the stream.
    #[must_use = "only this many bytes of the buffer contain data"]
    pub fn read(&mut self, id: StreamId, buf: &mut [u8]) -> usize {
        let Some(entry) = self.table.get_mut(id) else {
            return 0;
        };
        let most = buf.len().min(entry.turn.budget);
        if most == 0 || !entry.reading() || entry.turn.dry {
            return 0;
        }
        match entry.read(&mut buf[..most], self.limits.trigger) {
            Ok(None) => 0,
            Ok(Some(0)) => {
                self.changed(id);
                0
            }
            Ok(Some(read)) => {
                self.counters.bytes_in += read as u64;
                self.touch(id);
                read
            }
            Err(error) => {
                self.fail(id, StreamFailure::Read(error));
                0
            }
        }
    }

    /// Writes `bytes`, and returns how many were accepted: by the stream, or into the backlog,
    /// where they wait for space. If not all were accepted,
    /// [`writable`](crate::StreamHandler::writable) is called when there is space again.
    ///
    /// Returns zero also if the direction has ended or failed; a failure is reported to
    /// [`failed`](crate::StreamHandler::failed).
    pub fn write(&mut self, id: StreamId, bytes: &[u8]) -> usize {
        let limit = self.limits.backlog;
        let Some(entry) = self.table.get_mut(id) else {
            return 0;
        };
        if !entry.is_writable() || bytes.is_empty() {
            return 0;
        }
        match entry.write(bytes, limit) {
            Ok(Written { taken, kept }) => {
                let waits = entry.writing();
                self.counters.bytes_out += taken as u64;
                if taken > 0 {
                    self.touch(id);
                }
                if waits {
                    self.watch(id);
                }
                taken + kept
            }
            Err(error) => {
                self.break_off(id, StreamFailure::Write(error));
                0
            }
        }
    }

    /// Returns how many bytes [`write`](Self::write) is certain to accept.
    #[must_use]
    pub fn room(&self, id: StreamId) -> usize {
        let entry = self.table.get(id).filter(|entry| entry.is_writable());
        entry.map_or(0, |entry| {
            self.limits.backlog.saturating_sub(entry.waiting())
        })
    }

    /// Requests one call of [`writable`](crate::StreamHandler::writable) when half of the backlog
    /// is free. If it already is, the call comes soon.
    pub fn await_space(&mut self, id: StreamId) {
        if let Some(entry) = self.table.get_mut(id) {
            entry.await_space();
            self.changed(id);
        }
    }

    /// Stops reading until [`resume`](Self::resume). New data waits in the transport, which exerts
    /// back-pressure. If the peer closes its end, [`peer_gone`](crate::StreamHandler::peer_gone) is
    /// called.
    pub fn pause(&mut self, id: StreamId) {
        if self.table.get_mut(id).is_some_and(Entry::pause) {
            self.watch(id);
        }
    }

    /// Continues reading.
    pub fn resume(&mut self, id: StreamId) {
        if self.table.get_mut(id).is_some_and(Entry::resume) {
            self.watch(id);
        }
    }

    /// Ends the incoming direction: unread data is never read, and the peer's writes fail.
    pub fn stop_reading(&mut self, id: StreamId) {
        if let Some(entry) = self.table.get_mut(id) {
            if entry.stop_reading() {
                // Ignore errors: whether or not the peer can be notified, nothing is read here any
                // more.
                entry.stream.shutdown(Shutdown::Read).ok();
                self.changed(id);
            }
        }
    }

    /// Ends the outgoing direction, after everything that was accepted for writing. Once the
    /// incoming direction has ended too, the stream is closed.
    pub fn finish(&mut self, id: StreamId) {
        self.finish_then(id, Then::ReadOn);
    }

    /// Like [`finish`](Self::finish), but then closes the stream, whatever the peer does.
    pub fn finish_and_close(&mut self, id: StreamId) {
        self.finish_then(id, Then::Close);
    }

    fn finish_then(&mut self, id: StreamId, then: Then) {
        if let Some(entry) = self.table.get_mut(id) {
            entry.finish(then);
            self.changed(id);
        }
    }

    /// Closes a stream immediately. If its backlog is not empty, that data is lost and the peer
    /// gets a reset, as with [`abort`](Self::abort), because an ordinary end would suggest that
    /// everything had arrived. Returns whether the stream existed.
    pub fn close(&mut self, id: StreamId) -> bool {
        let last = if self.backlog(id) > 0 {
            Contained::abort
        } else {
            Contained::close
        };
        self.remove(id, last)
    }

    /// Closes a stream immediately, with a reset for the peer if the stream supports it
    /// ([`VsockStream::abort`]). Data in its backlog is lost. Returns whether the stream existed.
    pub fn abort(&mut self, id: StreamId) -> bool {
        self.remove(id, Contained::abort)
    }

    /// Removes a stream; `last` disposes of it.
    fn remove(&mut self, id: StreamId, last: fn(Contained)) -> bool {
        let Some(mut entry) = self.table.remove(id) else {
            return false;
        };
        entry.unwatch(&self.watcher);
        self.counters.closes += 1;
        self.counters.bytes_lost += entry.waiting() as u64;
        let Entry { stream, state, .. } = entry;
        last(stream);
        self.departed.push_back((id, state));
        self.rouse();
        true
    }

    /// Calls [`timer`](crate::StreamHandler::timer) once, after the given time, or never. Replaces
    /// the previous setting.
    pub fn set_timer(&mut self, id: StreamId, after: Option<Duration>) {
        if let Some(entry) = self.table.get_mut(id) {
            // A time too far ahead for the clock never comes.
            entry.deadline = after.and_then(|after| Instant::now().checked_add(after));
            self.schedule(id);
        }
    }

    /// Returns the state of a stream.
    pub fn state_mut(&mut self, id: StreamId) -> Option<&mut T> {
        self.table.get_mut(id).map(|entry| &mut entry.state)
    }

    /// Returns the state of a stream.
    #[must_use]
    pub fn state(&self, id: StreamId) -> Option<&T> {
        self.table.get(id).map(|entry| &entry.state)
    }

    /// Returns the stream itself, for methods that are specific to its type.
    #[must_use]
    pub fn stream(&self, id: StreamId) -> Option<&dyn VsockStream> {
        self.table.get(id).map(|entry| entry.stream.get())
    }

    /// Returns how many bytes of a stream wait to be written.
    #[must_use]
    pub fn backlog(&self, id: StreamId) -> usize {
        self.table.get(id).map_or(0, Entry::waiting)
    }

    /// Returns the ids of all streams.
    pub fn ids(&self) -> impl Iterator<Item = StreamId> {
        self.table.ids()
    }

    /// Returns the number of streams.
    #[must_use]
    pub fn len(&self) -> usize {
        self.table.len()
    }

    /// Returns whether there are no streams.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Returns a snapshot of the counters.
    #[must_use]
    pub fn counters(&self) -> LoopCounters {
        self.counters
    }

    /// Returns the limits of this loop.
    #[must_use]
    pub fn limits(&self) -> &StreamLimits {
        &self.limits
    }
}

impl<T> AsRawFd for Streams<T> {
    /// The loop's only descriptor, readable while there is something to do.
    fn as_raw_fd(&self) -> RawFd {
        self.watcher.as_raw_fd()
    }
}

impl<T> fmt::Debug for Streams<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Streams")
            .field("streams", &self.table.len())
            .field("phase", &self.phase)
            .field("limits", &self.limits)
            .field("counters", &self.counters)
            .finish_non_exhaustive()
    }
}

impl<T> Drop for Streams<T> {
    /// Like [`stop`](Self::stop): data in a backlog is lost, and its peer gets a reset.
    fn drop(&mut self) {
        self.stop();
    }
}
