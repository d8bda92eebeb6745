// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

use crate::{StreamFailure, StreamId, Streams};

/// What to do with a stream that has failed.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
#[non_exhaustive]
pub enum After {
    /// Close it.
    #[default]
    Close,
    /// Read it to its end, then close it. Effective only after [`StreamFailure::Write`]; on any
    /// other failure the stream is closed anyway.
    ReadOn,
}

/// The behaviour of a service.
///
/// One handler serves all streams of a loop. It is called on the loop's thread and must not block.
/// Any call may use any stream, through the methods of [`Streams`].
///
/// If a call panics, its stream is aborted, and the loop continues with the other streams and the
/// same handler. A handler whose own state may be inconsistent after a panic should watch
/// [`panics`](crate::LoopCounters#structfield.panics) and stop. If a stream panics, or reports more
/// bytes than it was offered, that counts as an error of that stream.
///
/// ```
/// use vsock_epoll::{StreamHandler, Streams, StreamId};
///
/// /// Counts the incoming bytes, and sends the count at the end.
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
    /// The handler's state for each stream. [`closed`](Self::closed) receives it at the end.
    type State;

    /// Data is available. Read until [`Streams::read`] returns zero, or [pause](Streams::pause) the
    /// stream; otherwise this is called again immediately.
    fn readable(&mut self, streams: &mut Streams<Self::State>, id: StreamId);

    /// At least half of the backlog is free again. Called after a [`Streams::write`] that was not
    /// accepted completely, or after [`Streams::await_space`].
    fn writable(&mut self, streams: &mut Streams<Self::State>, id: StreamId) {
        _ = (streams, id);
    }

    /// The peer has ended its direction, and everything has been read. The other direction is still
    /// open. The default ends it too.
    fn ended(&mut self, streams: &mut Streams<Self::State>, id: StreamId) {
        streams.finish(id);
    }

    /// The peer of a [paused](Streams::pause) stream has closed its end. What it sent before can
    /// still be read after [`Streams::resume`], followed by its end or reset. This is called once,
    /// so that a handler can abandon an answer that has no reader. The default does nothing.
    fn peer_gone(&mut self, streams: &mut Streams<Self::State>, id: StreamId) {
        _ = (streams, id);
    }

    /// The stream has failed. Returns what to do with it.
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

    /// The time set with [`Streams::set_timer`] has passed.
    fn timer(&mut self, streams: &mut Streams<Self::State>, id: StreamId) {
        _ = (streams, id);
    }

    /// A stream has been removed, for whatever reason. Called exactly once for each stream that was
    /// added, unless the loop itself is dropped.
    fn closed(&mut self, streams: &mut Streams<Self::State>, id: StreamId, state: Self::State) {
        _ = (streams, id);
        drop(state);
    }
}
