// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! The streams of a loop, and everything that can be done with them.

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

/// The words of the waker and of the timer in the epoll. No id has generation zero.
pub(crate) const WAKE: u64 = 0;
pub(crate) const TIMER: u64 = 1;

/// Whether there is more to come.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Phase {
    Serving,
    /// What was accepted is being written, until then at the latest.
    Draining(Option<Instant>),
    Stopped,
}

/// The streams of one loop, each with a state `T` of the handler's.
///
/// A handler gets it in every call, and may do anything with any stream: what it does takes effect
/// immediately. An id whose stream is gone is no error: nothing is read, nothing is written.
///
/// Nothing here ever waits.
pub struct Streams<T> {
    limits: StreamLimits,
    watcher: Watcher,
    waker: OwnWaker,
    timer: Timer,
    table: Table<Entry<T>>,
    deadlines: Deadlines,
    /// Streams with news for the handler.
    news: VecDeque<StreamId>,
    /// Streams with more to read, of which no edge will tell.
    more: VecDeque<StreamId>,
    /// What is gone, and the handler has not been told of.
    departed: VecDeque<(StreamId, T)>,
    phase: Phase,
    /// The handler's turn: news is told before the loop rests.
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

    /// Serves one stream more. It is made non-blocking.
    ///
    /// # Errors
    ///
    /// [`AddError`] gives the stream back, and says why: there are too many, the loop is ending, or
    /// the kernel lacks something. `state` is dropped then.
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

    /// Reads what is there into `buf`, and returns how much that was. Zero says that there is
    /// nothing to read in this turn: nothing has come, the stream has had its share, it is paused,
    /// or its end has come, of which [`ended`](crate::StreamHandler::ended) or
    /// [`failed`](crate::StreamHandler::failed) will tell.
    ///
    /// A handler reads until zero, or pauses the stream.
    #[must_use = "what is read is in the first bytes of the buffer only"]
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

    /// Writes `bytes`, and returns how many of them were accepted: the stream has them, or they
    /// wait in the backlog for it to have space. If it is not all of them,
    /// [`writable`](crate::StreamHandler::writable) tells when there is space again.
    ///
    /// Zero is also the answer when the direction has ended or failed, of which
    /// [`failed`](crate::StreamHandler::failed) tells.
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

    /// How many bytes [`write`](Self::write) is sure to accept.
    #[must_use]
    pub fn room(&self, id: StreamId) -> usize {
        let entry = self.table.get(id).filter(|entry| entry.is_writable());
        entry.map_or(0, |entry| {
            self.limits.backlog.saturating_sub(entry.waiting())
        })
    }

    /// Asks to be told by [`writable`](crate::StreamHandler::writable), once, when half of the
    /// backlog is free. If it is already, that is soon.
    pub fn await_space(&mut self, id: StreamId) {
        if let Some(entry) = self.table.get_mut(id) {
            entry.await_space();
            self.changed(id);
        }
    }

    /// Reads no more until [`resume`](Self::resume). What comes meanwhile waits in the transport,
    /// which pushes back. That the peer is gone is told by
    /// [`peer_gone`](crate::StreamHandler::peer_gone).
    pub fn pause(&mut self, id: StreamId) {
        if self.table.get_mut(id).is_some_and(Entry::pause) {
            self.watch(id);
        }
    }

    /// Goes on reading.
    pub fn resume(&mut self, id: StreamId) {
        if self.table.get_mut(id).is_some_and(Entry::resume) {
            self.watch(id);
        }
    }

    /// Ends the incoming direction: what has not been read is never read, and the peer's writes
    /// fail.
    pub fn stop_reading(&mut self, id: StreamId) {
        if let Some(entry) = self.table.get_mut(id) {
            if entry.stop_reading() {
                // Whether the peer can be told, or is gone: nothing is read here any more.
                entry.stream.shutdown(Shutdown::Read).ok();
                self.changed(id);
            }
        }
    }

    /// Ends the outgoing direction, after everything that was accepted for writing. When the
    /// incoming one has ended too, the stream is closed.
    pub fn finish(&mut self, id: StreamId) {
        self.finish_then(id, Then::ReadOn);
    }

    /// As [`finish`](Self::finish), and then closes the stream, whatever the peer does.
    pub fn finish_and_close(&mut self, id: StreamId) {
        self.finish_then(id, Then::Close);
    }

    fn finish_then(&mut self, id: StreamId, then: Then) {
        if let Some(entry) = self.table.get_mut(id) {
            entry.finish(then);
            self.changed(id);
        }
    }

    /// Closes a stream immediately. What waits in its backlog is lost, and then the peer gets a
    /// reset, as by [`abort`](Self::abort): an end would look as if all had come. Says whether
    /// there was one.
    pub fn close(&mut self, id: StreamId) -> bool {
        let last = if self.backlog(id) > 0 {
            Contained::abort
        } else {
            Contained::close
        };
        self.remove(id, last)
    }

    /// Closes a stream immediately, with a reset for the peer where the stream knows one
    /// ([`VsockStream::abort`]). What waits in its backlog is lost. Says whether there was one.
    pub fn abort(&mut self, id: StreamId) -> bool {
        self.remove(id, Contained::abort)
    }

    /// Takes a stream out; `last` is the last that is done to it.
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

    /// Calls [`timer`](crate::StreamHandler::timer) once, after so long, or not at all. Setting it
    /// anew forgets what was set before.
    pub fn set_timer(&mut self, id: StreamId, after: Option<Duration>) {
        if let Some(entry) = self.table.get_mut(id) {
            // What is too far away for the clock never comes.
            entry.deadline = after.and_then(|after| Instant::now().checked_add(after));
            self.schedule(id);
        }
    }

    /// The state of a stream.
    pub fn state_mut(&mut self, id: StreamId) -> Option<&mut T> {
        self.table.get_mut(id).map(|entry| &mut entry.state)
    }

    /// The state of a stream.
    #[must_use]
    pub fn state(&self, id: StreamId) -> Option<&T> {
        self.table.get(id).map(|entry| &entry.state)
    }

    /// The stream itself, to ask it what its kind knows.
    #[must_use]
    pub fn stream(&self, id: StreamId) -> Option<&dyn VsockStream> {
        self.table.get(id).map(|entry| entry.stream.get())
    }

    /// How many bytes of a stream wait to be written.
    #[must_use]
    pub fn backlog(&self, id: StreamId) -> usize {
        self.table.get(id).map_or(0, Entry::waiting)
    }

    /// The streams that there are.
    pub fn ids(&self) -> impl Iterator<Item = StreamId> {
        self.table.ids()
    }

    /// How many streams there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.table.len()
    }

    /// Whether there is no stream.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// What was done so far.
    #[must_use]
    pub fn counters(&self) -> LoopCounters {
        self.counters
    }

    /// The limits that it was made with.
    #[must_use]
    pub fn limits(&self) -> &StreamLimits {
        &self.limits
    }
}

impl<T> AsRawFd for Streams<T> {
    /// The one descriptor of the loop: readable while there is something to do.
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
    /// As [`stop`](Self::stop): what waits in a backlog is lost, and its peer gets a reset.
    fn drop(&mut self) {
        self.stop();
    }
}
