// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

use crate::{StreamFailure, StreamId, Streams};

/// What becomes of a stream that has failed.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
#[non_exhaustive]
pub enum After {
    /// It is closed.
    #[default]
    Close,
    /// It is read to its end, and closed then. Of use after [`StreamFailure::Write`] only: what
    /// else fails is closed in any case.
    ReadOn,
}

/// What a service does with its streams.
///
/// One handler serves all streams of a loop. It is called on the loop's thread and must not wait.
/// It may use any stream in any call: [`Streams`] has all that can be done.
///
/// A call that panics is contained: its stream is aborted, and the loop goes on with the others and
/// with the same handler. A handler whose own state does not survive that should count
/// [`panics`](crate::LoopCounters#structfield.panics) and stop. A stream that panics in a call, or
/// counts more bytes than it was offered, has failed as one that returns an error, wherever the
/// call came from.
///
/// ```
/// use vsock_epoll::{StreamHandler, Streams, StreamId};
///
/// /// Counts what comes, and answers the count at the end.
/// struct Count;
///
/// impl StreamHandler for Count {
///     type State = u64;
///
///     fn readable(&mut self, streams: &mut Streams<u64>, id: StreamId) {
///         let mut buf = [0; 4096];
///         loop {
///             let read = streams.read(id, &mut buf) as u64;
///             match streams.state_mut(id) {
///                 Some(count) if read > 0 => *count += read,
///                 _ => return,
///             }
///         }
///     }
///
///     fn ended(&mut self, streams: &mut Streams<u64>, id: StreamId) {
///         let count = streams.state(id).copied().unwrap_or_default();
///         streams.write(id, &count.to_le_bytes());
///         streams.finish(id);
///     }
/// }
/// ```
pub trait StreamHandler {
    /// What the handler keeps for each stream. It goes with the stream.
    type State;

    /// There is something to read. To be read until [`Streams::read`] returns zero, or to be
    /// [paused](Streams::pause): what is left is reported again, immediately.
    fn readable(&mut self, streams: &mut Streams<Self::State>, id: StreamId);

    /// Half of the backlog, or more, is free again, after a [`Streams::write`] that was not
    /// accepted whole, or a [`Streams::await_space`].
    fn writable(&mut self, streams: &mut Streams<Self::State>, id: StreamId) {
        _ = (streams, id);
    }

    /// The peer has ended its direction, and everything is read. The other direction goes on. The
    /// default ends it, too.
    fn ended(&mut self, streams: &mut Streams<Self::State>, id: StreamId) {
        streams.finish(id);
    }

    /// The peer of a [paused](Streams::pause) stream is gone. What it has sent before can still be
    /// read, after [`Streams::resume`], and its end or its reset comes after that. This is reported
    /// once, so that a handler can stop working on an answer that has no reader. The default does
    /// nothing.
    fn peer_gone(&mut self, streams: &mut Streams<Self::State>, id: StreamId) {
        _ = (streams, id);
    }

    /// The stream has failed.
    fn failed(
        &mut self,
        streams: &mut Streams<Self::State>,
        id: StreamId,
        failure: StreamFailure,
    ) -> After {
        _ = (streams, id);
        drop(failure);
        After::Close
    }

    /// The time that [`Streams::set_timer`] has set is over.
    fn timer(&mut self, streams: &mut Streams<Self::State>, id: StreamId) {
        _ = (streams, id);
    }

    /// A stream is gone, for whatever reason: told once of each that was added, unless the loop
    /// itself is dropped.
    fn closed(&mut self, streams: &mut Streams<Self::State>, id: StreamId, state: Self::State) {
        _ = (streams, id);
        drop(state);
    }
}
