// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! What a test needs of a transport: pairs of connected streams, and what is promised of them.

use std::io;

use vsock_backend_api::{VsockBackend, VsockStream};

/// A stream of any backend.
pub type Stream = Box<dyn VsockStream>;

/// Whether calls wait.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub enum Mode {
    /// They wait until they can make progress.
    Blocking,
    /// They return `WouldBlock` where they cannot make progress.
    Nonblocking,
}

impl Mode {
    /// The argument of [`VsockStream::set_nonblocking`].
    #[must_use]
    pub fn is_nonblocking(self) -> bool {
        self == Self::Nonblocking
    }
}

/// How many bytes a direction holds.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub enum Room {
    /// Exactly so many.
    Bytes(usize),
    /// As many as there is memory.
    Unbounded,
    /// It is bounded, and the bound is not promised.
    Unknown,
}

/// Makes connected pairs of streams: the transport under test.
///
/// The first stream of a pair is the application's end, the second one is the device's.
pub trait PairSource {
    /// A new connection that has carried nothing, each end in the mode that it starts in.
    ///
    /// # Errors
    ///
    /// Those of connecting.
    fn pair(&self) -> io::Result<(Stream, Stream)>;

    /// The room towards the device, and the room towards the application.
    fn room(&self) -> (Room, Room);

    /// The modes that the application's end and the device's end must start in.
    fn modes(&self) -> (Mode, Mode);

    /// Whether an end is two halves that know nothing of each other, so that the drop of one tells of its
    /// direction alone. `false` is the default.
    fn halves(&self) -> bool {
        false
    }

    /// A read that takes nothing, on a stream that this source made. `None` is the default: the
    /// transport has none.
    fn peek(&self, _stream: &mut dyn VsockStream, _buf: &mut [u8]) -> Option<io::Result<usize>> {
        None
    }

    /// How many bytes wait to be read by, and how many were written by a stream that this source
    /// made. `None` is the default: the transport does not count them.
    fn queued(&self, _stream: &dyn VsockStream) -> Option<(u64, u64)> {
        None
    }
}

/// A backend, and how an application connects to it.
pub struct Served {
    /// The device's side.
    pub backend: Box<dyn VsockBackend>,
    /// The application's side.
    pub connect: Box<dyn Fn() -> io::Result<Stream>>,
}

impl std::fmt::Debug for Served {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Served")
            .field("backend", &self.backend.r#type())
            .finish_non_exhaustive()
    }
}

/// Makes backends: the transport under test.
pub trait BackendSource {
    /// A new backend that nobody has connected to.
    ///
    /// # Errors
    ///
    /// Those of making it.
    fn backend(&self) -> io::Result<Served>;
}
