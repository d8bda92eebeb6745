// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

use std::fmt;

use thiserror::Error;

use super::PIECE;
use crate::{StreamHandler, StreamId, Streams};

/// What a service of lines does after a line.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub enum Reply {
    /// Sends what was put into the answer, and goes on.
    #[default]
    Send,
    /// Sends it, and then closes the stream.
    SendAndClose,
}

/// Why a service of lines cannot be made.
#[derive(Clone, Copy, Debug, Eq, Error, PartialEq)]
#[non_exhaustive]
pub enum LinesError {
    /// A line of no length.
    #[error("a line must be allowed at least one byte")]
    NoLength,
}

/// Answers lines. For each, a closure puts its answer into a buffer.
///
/// A line ends with `\n`, which the closure does not see. One that is longer than allowed closes
/// the stream, and so does an answer that neither the stream nor half of its backlog takes. A line
/// that the end cuts off is no line. Requests wait while a stream has no room for answers.
///
/// ```
/// use vsock_epoll::services::{Lines, Reply};
///
/// let upper = Lines::new(1024, |line: &[u8], answer: &mut Vec<u8>| {
///     answer.extend(line.to_ascii_uppercase());
///     answer.push(b'\n');
///     Reply::Send
/// })?;
/// # Ok::<(), vsock_epoll::services::LinesError>(())
/// ```
pub struct Lines<F> {
    answer_to: F,
    longest: usize,
    buf: Vec<u8>,
    answer: Vec<u8>,
}

impl<F: FnMut(&[u8], &mut Vec<u8>) -> Reply> Lines<F> {
    /// A service whose lines have at most `longest` bytes.
    ///
    /// # Errors
    ///
    /// [`LinesError::NoLength`]: `longest` is zero.
    pub fn new(longest: usize, answer_to: F) -> Result<Self, LinesError> {
        if longest == 0 {
            return Err(LinesError::NoLength);
        }
        Ok(Self {
            answer_to,
            longest,
            buf: vec![0; PIECE],
            answer: Vec::new(),
        })
    }

    /// Answers the lines that are whole, until there is no room; says whether to go on reading.
    fn answer_all(&mut self, streams: &mut Streams<Vec<u8>>, id: StreamId) -> bool {
        let Some(state) = streams.state_mut(id) else {
            return false;
        };
        let mut pending = std::mem::take(state);
        let mut done = 0;
        let mut go_on = true;
        while let Some(len) = pending[done..].iter().position(|byte| *byte == b'\n') {
            if len > self.longest {
                streams.close(id);
                return false;
            }
            if streams.room(id) < streams.limits().backlog.div_ceil(2) {
                // The peer is to take something first.
                streams.await_space(id);
                go_on = false;
                break;
            }
            self.answer.clear();
            let reply = (self.answer_to)(&pending[done..done + len], &mut self.answer);
            done += len + 1;
            if streams.write(id, &self.answer) < self.answer.len() {
                streams.close(id);
                return false;
            }
            if reply == Reply::SendAndClose {
                streams.finish_and_close(id);
                return false;
            }
        }
        pending.drain(..done);
        let too_long = go_on && pending.len() > self.longest;
        if let Some(state) = streams.state_mut(id) {
            *state = pending;
        }
        if too_long {
            streams.close(id);
        }
        go_on && !too_long
    }
}

impl<F: FnMut(&[u8], &mut Vec<u8>) -> Reply> StreamHandler for Lines<F> {
    /// The line that has begun.
    type State = Vec<u8>;

    fn readable(&mut self, streams: &mut Streams<Vec<u8>>, id: StreamId) {
        loop {
            let read = streams.read(id, &mut self.buf);
            if read == 0 {
                return;
            }
            if let Some(state) = streams.state_mut(id) {
                state.extend(&self.buf[..read]);
            }
            if !self.answer_all(streams, id) {
                return streams.pause(id);
            }
        }
    }

    fn writable(&mut self, streams: &mut Streams<Vec<u8>>, id: StreamId) {
        if self.answer_all(streams, id) {
            streams.resume(id);
        }
    }
}

impl<F> fmt::Debug for Lines<F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Lines")
            .field("longest", &self.longest)
            .finish_non_exhaustive()
    }
}
