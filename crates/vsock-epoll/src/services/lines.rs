// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

use std::fmt;

use thiserror::Error;

use super::PIECE;
use crate::{StreamHandler, StreamId, Streams};

/// What a line-based service does after a line.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub enum Reply {
    /// Send the answer, and continue.
    #[default]
    Send,
    /// Send the answer, then close the stream.
    SendAndClose,
}

/// Why a line-based service could not be created.
#[derive(Clone, Copy, Debug, Eq, Error, PartialEq)]
#[non_exhaustive]
pub enum LinesError {
    /// The maximum length is zero.
    #[error("invalid maximum line length: expected at least 1 byte")]
    NoLength,
}

/// Answers lines: a closure writes the answer to each line into a buffer.
///
/// A line ends with `\n`, which is not passed to the closure. The stream is closed if a line is too
/// long, or if an answer fits neither in the stream nor in half of its backlog. An incomplete last
/// line is ignored. While a stream has no room for answers, its requests wait.
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
    /// Creates a service for lines of at most `longest` bytes.
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

    /// Answers complete lines until there is no more room. Returns whether to continue reading.
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
                // Wait until the peer has taken some of the answers.
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
    /// The part of the current line that has arrived.
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
