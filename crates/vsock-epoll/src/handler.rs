// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

use crate::{Failure, Streams, Token};

/// What becomes of a stream that has failed.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
#[non_exhaustive]
pub enum After {
    /// It is closed.
    #[default]
    Close,
    /// It is read to its end, and closed then. Of use after [`Failure::Write`] only: what else fails
    /// is closed in any case.
    ReadOn,
}

/// What a service does with its streams.
///
/// One handler serves all streams of a loop. It is called on the loop's thread and must not wait. It
/// may use any stream in any call: [`Streams`] has all that can be done.
///
/// A call that panics is contained: its stream is aborted, and the loop goes on with the others and
/// with the same handler. A handler whose own state does not survive that should count
/// [`panics`](crate::Counters#structfield.panics) and stop. A stream that panics in a call, or counts more bytes
/// than it was offered, has failed as one that returns an error, whoever has made the call.
///
/// ```
/// use vsock_epoll::{StreamHandler, Streams, Token};
///
/// /// Counts what comes, and answers the count at the end.
/// struct Count;
///
/// impl StreamHandler for Count {
///     type State = u64;
///
///     fn readable(&mut self, streams: &mut Streams<u64>, token: Token) {
///         let mut buf = [0; 4096];
///         loop {
///             let read = streams.read(token, &mut buf) as u64;
///             match streams.state_mut(token) {
///                 Some(count) if read > 0 => *count += read,
///                 _ => return,
///             }
///         }
///     }
///
///     fn ended(&mut self, streams: &mut Streams<u64>, token: Token) {
///         let count = streams.state(token).copied().unwrap_or_default();
///         streams.write(token, &count.to_le_bytes());
///         streams.finish(token);
///     }
/// }
/// ```
pub trait StreamHandler {
    /// What the handler keeps for each stream. It goes with the stream.
    type State;

    /// There is something to read. To be read until [`Streams::read`] returns zero, or to be
    /// [paused](Streams::pause): what is left is told again, at once.
    fn readable(&mut self, streams: &mut Streams<Self::State>, token: Token);

    /// Half of the backlog, or more, is free again, after a [`Streams::write`] that was not accepted
    /// whole, or a [`Streams::await_space`].
    fn writable(&mut self, streams: &mut Streams<Self::State>, token: Token) {
        _ = (streams, token);
    }

    /// The peer has ended its direction, and everything is read. The other direction goes on. The
    /// default ends it, too.
    fn ended(&mut self, streams: &mut Streams<Self::State>, token: Token) {
        streams.finish(token);
    }

    /// The peer of a [paused](Streams::pause) stream is gone. What it has sent before can still be read,
    /// after [`Streams::resume`], and its end or its reset comes behind that. To be told, once, is of use
    /// to a handler that works on an answer nobody waits for any more. The default does nothing.
    fn peer_gone(&mut self, streams: &mut Streams<Self::State>, token: Token) {
        _ = (streams, token);
    }

    /// The stream has failed.
    fn failed(
        &mut self,
        streams: &mut Streams<Self::State>,
        token: Token,
        failure: Failure,
    ) -> After {
        _ = (streams, token);
        drop(failure);
        After::Close
    }

    /// The time that [`Streams::set_timer`] has set is over.
    fn timer(&mut self, streams: &mut Streams<Self::State>, token: Token) {
        _ = (streams, token);
    }

    /// A stream is gone, for whatever reason: told once of each that was added, unless the loop itself
    /// is dropped.
    fn closed(&mut self, streams: &mut Streams<Self::State>, token: Token, state: Self::State) {
        _ = (streams, token);
        drop(state);
    }
}
