// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! The reference model of a connection: two byte queues with ends.
//!
//! It says what a call on one end returns when no other call is in progress, and what its
//! descriptors then are. It is written to be obviously right, not fast.

use std::collections::VecDeque;
use std::io::ErrorKind;
use std::net::Shutdown;

/// What a call returns.
pub type Outcome<T> = Result<T, ErrorKind>;

/// How many bytes must be free after a refused write before the next one is accepted.
///
/// ```
/// use vsock_muxer_harness::model::refusal_threshold;
///
/// assert_eq!(refusal_threshold(256 * 1024), 64 * 1024);
/// assert_eq!(refusal_threshold(4096), 1024);
/// assert_eq!(refusal_threshold(3), 1, "at least one byte");
/// ```
#[must_use]
pub fn refusal_threshold(capacity: usize) -> usize {
    (capacity / 4).clamp(1, 64 * 1024)
}

/// How one side of a direction is.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
enum Side {
    #[default]
    Open,
    /// It was shut down, or closed by a drop.
    Shut,
    /// It was broken off without being shut down before.
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
    /// `None` is unbounded.
    capacity: Option<usize>,
    writer: Side,
    reader: Side,
    /// Whether a write was refused since there was last space enough.
    refused: bool,
}

impl Direction {
    /// A direction that has carried nothing; without a `capacity` it is unbounded.
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

    /// How many bytes are queued.
    #[must_use]
    pub fn queued(&self) -> usize {
        self.bytes.len()
    }

    /// What a read of at most `len` bytes returns without waiting; it takes nothing.
    ///
    /// # Errors
    ///
    /// The kind that the read fails with.
    pub fn peek(&self, len: usize) -> Outcome<Vec<u8>> {
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

    /// A read of at most `len` bytes that does not wait.
    ///
    /// # Errors
    ///
    /// The kind that the read fails with.
    pub fn read(&mut self, len: usize) -> Outcome<Vec<u8>> {
        let bytes = self.peek(len)?;
        self.bytes.drain(..bytes.len());
        Ok(bytes)
    }

    /// A write that does not wait: how many of the `bytes` are taken.
    ///
    /// # Errors
    ///
    /// The kind that the write fails with.
    pub fn write(&mut self, bytes: &[u8]) -> Outcome<usize> {
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

    /// A blocking write that times out, because nobody reads meanwhile.
    ///
    /// # Errors
    ///
    /// The kind that the write fails with.
    pub fn write_until_timeout(&mut self, bytes: &[u8]) -> Outcome<usize> {
        match self.write(bytes) {
            Ok(len) if len < bytes.len() => {
                self.refused = true; // the rest was, while the call waited
                Ok(len)
            }
            Err(ErrorKind::WouldBlock) => Err(ErrorKind::TimedOut),
            done => done,
        }
    }

    /// Whether a read would not wait.
    #[must_use]
    pub fn is_readable(&self) -> bool {
        self.peek(1) != Err(ErrorKind::WouldBlock)
    }

    /// Whether a write would not wait.
    #[must_use]
    pub fn is_writable(&self) -> bool {
        self.writable() != Ok(0)
    }

    /// How many bytes a write may take now.
    fn writable(&self) -> Outcome<usize> {
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

/// One of the two ends.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
#[repr(u8)]
pub enum End {
    /// The application's.
    Application,
    /// The device's.
    Device,
}

impl End {
    /// Both.
    pub const BOTH: [Self; 2] = [Self::Application, Self::Device];

    /// The other one.
    #[must_use]
    pub fn peer(self) -> Self {
        match self {
            Self::Application => Self::Device,
            Self::Device => Self::Application,
        }
    }

    fn index(self) -> usize {
        usize::from(self == Self::Device)
    }
}

/// A connection.
///
/// ```
/// use std::io::ErrorKind;
/// use vsock_muxer_harness::model::{End, Model};
///
/// let mut model = Model::new(Some(4), None);
/// assert_eq!(model.outgoing(End::Application).write(b"hello"), Ok(4));
/// model.drop_end(End::Application);
/// assert_eq!(model.incoming(End::Device).read(10), Ok(b"hell".to_vec()));
/// assert_eq!(model.incoming(End::Device).read(10), Ok(b"".to_vec()));
/// assert_eq!(model.outgoing(End::Device).write(b"hello"), Err(ErrorKind::BrokenPipe));
/// assert!(model.peer_gone(End::Device));
/// ```
#[derive(Clone, Debug)]
pub struct Model {
    /// The direction that each end writes to.
    directions: [Direction; 2],
    dropped: [bool; 2],
    /// Whether an end is two halves that know nothing of each other.
    halves: bool,
}

impl Model {
    /// A fresh connection with these capacities; `None` is unbounded.
    #[must_use]
    pub fn new(to_device: Option<usize>, to_application: Option<usize>) -> Self {
        let directions = [Direction::new(to_device), Direction::new(to_application)];
        Self {
            directions,
            dropped: [false; 2],
            halves: false,
        }
    }

    /// The same with ends that are two halves each: a half that is dropped closes its direction alone.
    #[must_use]
    pub const fn of_halves(mut self, halves: bool) -> Self {
        self.halves = halves;
        self
    }

    /// The direction that `end` writes to.
    pub fn outgoing(&mut self, end: End) -> &mut Direction {
        &mut self.directions[end.index()]
    }

    /// The direction that `end` reads from.
    pub fn incoming(&mut self, end: End) -> &mut Direction {
        &mut self.directions[end.peer().index()]
    }

    /// `end` shuts down.
    pub fn shutdown(&mut self, end: End, how: Shutdown) {
        if how != Shutdown::Write {
            self.incoming(end).reader.shut();
        }
        if how != Shutdown::Read {
            self.outgoing(end).writer.shut();
        }
    }

    /// `end` is dropped: with a reset, if it leaves bytes unread.
    pub fn drop_end(&mut self, end: End) {
        let unread = self.incoming(end).queued() > 0;
        self.end(end, unread, unread && !self.halves);
    }

    /// `end` is aborted: what it has not ended in order is broken off.
    pub fn abort_end(&mut self, end: End) {
        self.end(end, true, true);
    }

    /// `end` is gone, and each of its directions broken off or closed. Where a whole one has ended its
    /// writing before, nothing is broken off.
    fn end(&mut self, end: End, breaks_reading: bool, breaks_writing: bool) {
        if self.halves || self.outgoing(end).writer == Side::Open {
            if breaks_reading {
                self.incoming(end).reader.reset();
            }
            if breaks_writing {
                self.outgoing(end).writer.reset();
            }
        }
        self.shutdown(end, Shutdown::Both);
        self.dropped[end.index()] = true;
    }

    /// Whether `end` lives.
    #[must_use]
    pub fn is_alive(&self, end: End) -> bool {
        !self.dropped[end.index()]
    }

    /// Whether the peer of `end` was dropped.
    #[must_use]
    pub fn peer_gone(&self, end: End) -> bool {
        !self.is_alive(end.peer())
    }

    /// Whether the read fd of `end` is readable.
    #[must_use]
    pub fn is_readable(&self, end: End) -> bool {
        self.directions[end.peer().index()].is_readable()
    }

    /// Whether the write fd of `end` is writable.
    #[must_use]
    pub fn is_writable(&self, end: End) -> bool {
        self.directions[end.index()].is_writable()
    }
}
