// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! The reference model of a connection: two byte queues with ends.
//!
//! The model determines what a call at one end returns while no other call is in progress, and the
//! readiness of its descriptors afterwards. It is written to be obviously correct rather than fast.

use std::collections::VecDeque;
use std::io::ErrorKind;
use std::net::Shutdown;

use vsock_compliance::{ConnectionEnd, Ends, refusal_threshold};

/// The result of a call.
pub type ModelResult<T> = Result<T, ErrorKind>;

/// The state of one side of a direction.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
enum Side {
    #[default]
    Open,
    /// The side was shut down, or closed by a drop.
    Shut,
    /// The side was broken off without having been shut down.
    Reset,
}

impl Side {
    fn shut(&mut self) {
        if *self == Self::Open {
            *self = Self::Shut;
        }
    }

    fn reset(&mut self) {
        if *self == Self::Open {
            *self = Self::Reset;
        }
    }
}

/// One direction of a connection.
#[derive(Clone, Debug)]
pub struct Direction {
    bytes: VecDeque<u8>,
    /// `None` if unbounded.
    capacity: Option<usize>,
    writer: Side,
    reader: Side,
    /// Whether a write was refused and there has not been enough space since.
    refused: bool,
}

impl Direction {
    /// Creates a direction that has transferred nothing. Without a `capacity`, it is unbounded.
    #[must_use]
    pub fn new(capacity: Option<usize>) -> Self {
        let (bytes, writer, reader) = Default::default();
        Self {
            bytes,
            capacity,
            writer,
            reader,
            refused: false,
        }
    }

    /// Returns the number of queued bytes.
    #[must_use]
    pub fn queued(&self) -> usize {
        self.bytes.len()
    }

    /// Returns the result of a non-blocking read of at most `len` bytes, without removing them.
    ///
    /// # Errors
    ///
    /// The kind of error that the read returns.
    pub fn peek(&self, len: usize) -> ModelResult<Vec<u8>> {
        if len == 0 {
            return Ok(Vec::new());
        }
        if !self.bytes.is_empty() {
            return Ok(self.bytes.iter().take(len).copied().collect());
        }
        match (self.reader, self.writer) {
            (Side::Shut, _) | (_, Side::Shut) => Ok(Vec::new()),
            (_, Side::Reset) => Err(ErrorKind::ConnectionReset),
            (_, Side::Open) => Err(ErrorKind::WouldBlock),
        }
    }

    /// Reads at most `len` bytes without blocking.
    ///
    /// # Errors
    ///
    /// The kind of error that the read returns.
    pub fn read(&mut self, len: usize) -> ModelResult<Vec<u8>> {
        let bytes = self.peek(len)?;
        self.bytes.drain(..bytes.len());
        Ok(bytes)
    }

    /// Writes without blocking. Returns how many of the `bytes` were accepted.
    ///
    /// # Errors
    ///
    /// The kind of error that the write returns.
    pub fn write(&mut self, bytes: &[u8]) -> ModelResult<usize> {
        if bytes.is_empty() {
            return Ok(0);
        }
        let room = self.writable()?;
        if room == 0 {
            self.refused = true;
            return Err(ErrorKind::WouldBlock);
        }
        self.refused = false;
        let len = bytes.len().min(room);
        self.bytes.extend(&bytes[..len]);
        Ok(len)
    }

    /// Makes a blocking write that times out, because the peer does not read in the meantime.
    ///
    /// # Errors
    ///
    /// The kind of error that the write returns.
    pub fn write_until_timeout(&mut self, bytes: &[u8]) -> ModelResult<usize> {
        match self.write(bytes) {
            Ok(len) if len < bytes.len() => {
                self.refused = true; // The rest was refused while the call waited.
                Ok(len)
            }
            Err(ErrorKind::WouldBlock) => Err(ErrorKind::TimedOut),
            done => done,
        }
    }

    /// Returns whether a read would not block.
    #[must_use]
    pub fn is_readable(&self) -> bool {
        self.peek(1) != Err(ErrorKind::WouldBlock)
    }

    /// Returns whether a write would not block.
    #[must_use]
    pub fn is_writable(&self) -> bool {
        self.writable() != Ok(0)
    }

    /// Returns how many bytes a write may transfer now.
    fn writable(&self) -> ModelResult<usize> {
        match (self.writer, self.reader) {
            (Side::Shut, _) | (_, Side::Shut) => return Err(ErrorKind::BrokenPipe),
            (_, Side::Reset) => return Err(ErrorKind::ConnectionReset),
            (_, Side::Open) => {}
        }
        let Some(capacity) = self.capacity else {
            return Ok(usize::MAX);
        };
        let free = capacity - self.bytes.len();
        let counts = !self.refused || free >= refusal_threshold(capacity);
        Ok(if counts { free } else { 0 })
    }
}

/// The reference model of a connection.
///
/// ```
/// use std::io::ErrorKind;
/// use vsock_compliance::ConnectionEnd;
/// use vsock_muxer_harness::model::Model;
///
/// let mut model = Model::new(Some(4), None);
/// assert_eq!(model.outgoing(ConnectionEnd::Application).write(b"hello"), Ok(4));
/// model.drop_end(ConnectionEnd::Application);
/// assert_eq!(model.incoming(ConnectionEnd::Device).read(10), Ok(b"hell".to_vec()));
/// assert_eq!(model.incoming(ConnectionEnd::Device).read(10), Ok(b"".to_vec()));
/// assert_eq!(model.outgoing(ConnectionEnd::Device).write(b"hello"), Err(ErrorKind::BrokenPipe));
/// assert!(model.peer_gone(ConnectionEnd::Device));
/// ```
#[derive(Clone, Debug)]
pub struct Model {
    /// The direction that each end writes to.
    directions: [Direction; 2],
    dropped: [bool; 2],
    ends: Ends,
}

/// What an end breaks off when it is dropped.
#[derive(Clone, Copy, Eq, PartialEq)]
enum Breaks {
    Nothing,
    /// Its own reading, and therefore the peer's writing.
    Reading,
    Both,
}

/// Returns the index of the direction that an end writes to.
pub(crate) fn index(end: ConnectionEnd) -> usize {
    usize::from(end == ConnectionEnd::Device)
}

impl Model {
    /// Creates a new connection with these capacities; `None` is unbounded.
    #[must_use]
    pub fn new(to_device: Option<usize>, to_application: Option<usize>) -> Self {
        let directions = [Direction::new(to_device), Direction::new(to_application)];
        Self {
            directions,
            dropped: [false; 2],
            ends: Ends::Whole,
        }
    }

    /// Sets the structure of the ends. A half that is dropped closes only its own direction.
    #[must_use]
    pub const fn ends(mut self, ends: Ends) -> Self {
        self.ends = ends;
        self
    }

    /// Returns the direction that `end` writes to.
    pub fn outgoing(&mut self, end: ConnectionEnd) -> &mut Direction {
        &mut self.directions[index(end)]
    }

    /// Returns the direction that `end` reads from.
    pub fn incoming(&mut self, end: ConnectionEnd) -> &mut Direction {
        &mut self.directions[index(end.peer())]
    }

    /// Shuts down one or both directions of `end`.
    pub fn shutdown(&mut self, end: ConnectionEnd, how: Shutdown) {
        if how != Shutdown::Write {
            self.incoming(end).reader.shut();
        }
        if how != Shutdown::Read {
            self.outgoing(end).writer.shut();
        }
    }

    /// Drops `end`, which resets the connection if bytes are left unread.
    pub fn drop_end(&mut self, end: ConnectionEnd) {
        let breaks = match (self.incoming(end).queued(), self.ends) {
            (0, _) => Breaks::Nothing,
            (_, Ends::Whole) => Breaks::Both,
            (_, Ends::Halves) => Breaks::Reading,
        };
        self.end(end, breaks);
    }

    /// Aborts `end`, which breaks off every direction that it has not ended in order.
    pub fn abort_end(&mut self, end: ConnectionEnd) {
        self.end(end, Breaks::Both);
    }

    /// Removes `end`, which breaks off or closes each of its directions. If a whole end has already
    /// ended its writing, nothing is broken off.
    fn end(&mut self, end: ConnectionEnd, breaks: Breaks) {
        if self.ends == Ends::Halves || self.outgoing(end).writer == Side::Open {
            if breaks != Breaks::Nothing {
                self.incoming(end).reader.reset();
            }
            if breaks == Breaks::Both {
                self.outgoing(end).writer.reset();
            }
        }
        self.shutdown(end, Shutdown::Both);
        self.dropped[index(end)] = true;
    }

    /// Returns whether `end` still exists.
    #[must_use]
    pub fn is_alive(&self, end: ConnectionEnd) -> bool {
        !self.dropped[index(end)]
    }

    /// Returns whether the peer of `end` was dropped.
    #[must_use]
    pub fn peer_gone(&self, end: ConnectionEnd) -> bool {
        !self.is_alive(end.peer())
    }

    /// Returns whether the read descriptor of `end` is readable.
    #[must_use]
    pub fn is_readable(&self, end: ConnectionEnd) -> bool {
        self.directions[index(end.peer())].is_readable()
    }

    /// Returns whether the write descriptor of `end` is writable.
    #[must_use]
    pub fn is_writable(&self, end: ConnectionEnd) -> bool {
        self.directions[index(end)].is_writable()
    }
}
