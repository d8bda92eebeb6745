// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! The exchange between the loop and the streams: events in, news for the handler out.

use vmm_sys_util::epoll::{EpollEvent, EventSet};

use super::Streams;
use crate::entry::{Entry, Pending};
use crate::{LoopError, StreamFailure, StreamId, Trigger};

/// News for the handler.
pub(crate) enum News<T> {
    Space(StreamId),
    Ended(StreamId),
    Gone(StreamId),
    Failed(StreamId, StreamFailure),
    Closed(StreamId, T),
}

impl<T> Streams<T> {
    pub(crate) fn ready(&self, events: &mut [EpollEvent]) -> Result<usize, LoopError> {
        self.watcher.ready(events)
    }

    /// Starts a dispatch.
    pub(crate) fn begin_dispatch(&mut self) {
        self.dispatching = true;
    }

    /// Ends a dispatch. The loop wakes again if there is more to do.
    pub(crate) fn end_dispatch(&mut self) {
        self.dispatching = false;
        if !self.more.is_empty() || !self.news.is_empty() || !self.departed.is_empty() {
            self.waker.wake();
        }
    }

    /// Called when the loop was woken by its own waker.
    pub(crate) fn woken(&mut self) {
        self.waker.woken();
    }

    /// Wakes the loop because there is news, possibly from another thread.
    pub(super) fn rouse(&mut self) {
        if !self.dispatching {
            self.waker.wake();
        }
    }

    /// Starts the turn of a stream: writes its backlog. Returns whether there may be something to
    /// read.
    pub(crate) fn begin(&mut self, id: StreamId, events: EventSet) -> bool {
        let turn = self.limits.turn;
        let Some(entry) = self.table.get_mut(id) else {
            self.counters.stale += 1;
            return false;
        };
        entry.begin_turn(turn);
        if entry.writing() && Entry::<T>::may_write(events) {
            self.flush(id);
        }
        // A failed write in `flush` does not remove the entry; the lookup only satisfies the
        // borrow.
        let Some(entry) = self.table.get_mut(id) else {
            return false;
        };
        if entry.reading() {
            return Entry::<T>::may_read(events);
        }
        // The incoming direction has ended, and the peer is gone too: what this stream could still
        // write has no reader.
        if entry.is_deserted(events) {
            entry.broken(StreamFailure::PeerGone);
            self.counters.errors += 1;
            self.changed(id);
            return false;
        }
        // Paused, perhaps earlier in this batch, or its incoming direction has ended.
        entry.turn.moved = true;
        if entry.see_gone(events) {
            self.changed(id);
        }
        false
    }

    /// Ends the turn of a stream. If it has more to read, it joins the line.
    pub(crate) fn end(&mut self, id: StreamId) {
        let Some(entry) = self.table.get_mut(id) else {
            return;
        };
        self.counters.spurious += u64::from(!entry.turn.moved && entry.turn.dry);
        let edge = self.limits.trigger == Trigger::Edge;
        // An edge is reported once, so unread data must be remembered here.
        if edge && entry.reading() && !entry.turn.dry && !entry.queued {
            entry.queued = true;
            self.more.push_back(id);
        }
    }

    /// How many streams are in line.
    pub(crate) fn in_line(&self) -> usize {
        self.more.len()
    }

    /// Takes the first stream in line.
    pub(crate) fn next_in_line(&mut self) -> Option<StreamId> {
        loop {
            let id = self.more.pop_front()?;
            if let Some(entry) = self.table.get_mut(id) {
                entry.queued = false;
                return Some(id);
            }
        }
    }

    /// Writes the backlog of a stream.
    fn flush(&mut self, id: StreamId) {
        let Some(entry) = self.table.get_mut(id) else {
            return;
        };
        let (taken, result) = entry.flush();
        self.counters.bytes_out += taken as u64;
        if let Err(error) = result {
            return self.break_off(id, StreamFailure::Write(error));
        }
        if taken > 0 {
            self.touch(id);
        } else {
            self.counters.spurious += 1;
        }
        self.changed(id);
    }

    /// Records that the outgoing direction has failed.
    pub(super) fn break_off(&mut self, id: StreamId, failure: StreamFailure) {
        if let Some(entry) = self.table.get_mut(id) {
            self.counters.bytes_lost += entry.broken(failure) as u64;
            self.counters.errors += 1;
            self.changed(id);
        }
    }

    /// Records that the stream has failed.
    pub(super) fn fail(&mut self, id: StreamId, failure: StreamFailure) {
        if let Some(entry) = self.table.get_mut(id) {
            entry.fail(failure);
            self.counters.errors += 1;
            self.changed(id);
        }
    }

    /// Called when a stream has changed: updates what is watched, and queues it if there is news.
    pub(super) fn changed(&mut self, id: StreamId) {
        self.watch(id);
        let limit = self.limits.backlog;
        let Some(entry) = self.table.get_mut(id) else {
            return;
        };
        if entry.has_pending(limit) && !entry.noted {
            entry.noted = true;
            self.news.push_back(id);
            self.rouse();
        }
    }

    /// Watches a stream for exactly what it waits for.
    pub(super) fn watch(&mut self, id: StreamId) {
        let trigger = self.limits.trigger;
        let Some(entry) = self.table.get_mut(id) else {
            return;
        };
        if let Err(error) = entry.watch(&self.watcher, id, trigger) {
            entry.stop_reading();
            self.counters.bytes_lost += entry.broken(StreamFailure::Register(error)) as u64;
            self.counters.errors += 1;
            if !entry.noted {
                entry.noted = true;
                self.news.push_back(id);
                self.rouse();
            }
        }
    }

    /// Takes the next news for the handler.
    pub(crate) fn next_news(&mut self) -> Option<News<T>> {
        let limit = self.limits.backlog;
        loop {
            if let Some((id, state)) = self.departed.pop_front() {
                return Some(News::Closed(id, state));
            }
            let id = self.news.pop_front()?;
            let Some(entry) = self.table.get_mut(id) else {
                continue;
            };
            entry.noted = false;
            let pending = entry.take_pending(limit);
            self.changed(id);
            match pending {
                Some(Pending::Failed(failure)) => return Some(News::Failed(id, failure)),
                Some(Pending::Space) => return Some(News::Space(id)),
                Some(Pending::End) => return Some(News::Ended(id)),
                Some(Pending::PeerGone) => return Some(News::Gone(id)),
                Some(Pending::Close) => {
                    self.close(id);
                }
                None => {}
            }
        }
    }

    /// Stores the first error of the loop itself.
    pub(crate) fn keep(&mut self, error: LoopError) {
        self.counters.errors += 1;
        self.error.get_or_insert(error);
    }

    pub(crate) fn take_error(&mut self) -> Option<LoopError> {
        self.error.take()
    }
}
