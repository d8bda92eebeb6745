// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! What a test needs of a transport: pairs of connected streams, and what is promised of them.

use std::fmt;
use std::io;

use vsock_backend_api::{VsockBackend, VsockStream};

/// A stream of any backend.
pub type BoxedStream = Box<dyn VsockStream>;

/// One of the two ends of a connection.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub enum ConnectionEnd {
    /// The application's.
    Application,
    /// The device's.
    Device,
}

impl ConnectionEnd {
    /// Both.
    pub const BOTH: [Self; 2] = [Self::Application, Self::Device];

    /// The other one.
    #[must_use]
    pub const fn peer(self) -> Self {
        match self {
            Self::Application => Self::Device,
            Self::Device => Self::Application,
        }
    }
}

impl fmt::Display for ConnectionEnd {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Application => "application",
            Self::Device => "device",
        })
    }
}

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

/// How many bytes a transport promises that a direction holds.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub enum CapacityPromise {
    /// Exactly that many.
    Bytes(usize),
    /// As many as there is memory.
    Unbounded,
    /// It is bounded, and the bound is not promised.
    Unknown,
}

/// How many bytes must be free after a refused write before the next one is accepted.
///
/// ```
/// use vsock_compliance::refusal_threshold;
///
/// assert_eq!(refusal_threshold(256 * 1024), 64 * 1024);
/// assert_eq!(refusal_threshold(4096), 1024);
/// assert_eq!(refusal_threshold(3), 1, "at least one byte");
/// ```
#[must_use]
pub fn refusal_threshold(capacity: usize) -> usize {
    (capacity / 4).clamp(1, 64 * 1024)
}

/// What an end consists of.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub enum Ends {
    /// One object for both directions.
    Whole,
    /// Two halves that know nothing of each other: the drop of one tells of its direction alone.
    Halves,
}

/// Bytes that are queued in each direction, as one end counts them.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub struct QueuedBytes {
    /// Those that wait to be read by the end.
    pub incoming: u64,
    /// Those that the end has written and the peer has not read.
    pub outgoing: u64,
}

/// What has happened to the tasks that wait for each direction of an end, of a transport that has
/// such.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub struct WokenTasks {
    /// Whether the one that waits to read was woken since it began to wait. `None`: none waits.
    pub reading: Option<bool>,
    /// Whether the one that waits to write was.
    pub writing: Option<bool>,
}

/// Makes connected pairs of streams: the transport under test.
pub trait PairSource {
    /// A new connection that has carried nothing, each end in the mode that it starts in: the
    /// application's end, and the device's.
    ///
    /// # Errors
    ///
    /// Those of connecting.
    fn pair(&self) -> io::Result<(BoxedStream, BoxedStream)>;

    /// How many bytes that `writer` has written the direction holds.
    /// [`Unknown`](CapacityPromise::Unknown) is the default.
    fn capacity(&self, _writer: ConnectionEnd) -> CapacityPromise {
        CapacityPromise::Unknown
    }

    /// The mode that an end must start in. [`Blocking`](Mode::Blocking) is the default.
    fn initial_mode(&self, _end: ConnectionEnd) -> Mode {
        Mode::Blocking
    }

    /// What an end consists of. [`Whole`](Ends::Whole) is the default.
    fn ends(&self) -> Ends {
        Ends::Whole
    }

    /// A read that takes nothing, on a stream that this source made. `None` is the default: the
    /// transport has none.
    fn peek(&self, _stream: &mut dyn VsockStream, _buf: &mut [u8]) -> Option<io::Result<usize>> {
        None
    }

    /// What a stream that this source made counts. `None` is the default: the transport does not
    /// count.
    fn queued(&self, _stream: &dyn VsockStream) -> Option<QueuedBytes> {
        None
    }

    /// What has happened to the tasks that wait at a stream that this source made. A task that was
    /// woken is told of once, and waits no more. `None` is the default: the transport has none.
    fn woken(&self, _stream: &dyn VsockStream) -> Option<WokenTasks> {
        None
    }
}

/// A backend, and how an application connects to it.
pub struct ServedBackend {
    /// The device's side.
    pub backend: Box<dyn VsockBackend>,
    /// The application's side.
    pub connect: Box<dyn Fn() -> io::Result<BoxedStream>>,
}

impl fmt::Debug for ServedBackend {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ServedBackend")
            .field("backend", &self.backend.r#type())
            .finish_non_exhaustive()
    }
}

/// Makes backends: the transport under test.
///
/// ```no_run
/// use std::io;
/// use vsock_compliance::{BackendSource, ServedBackend, judge_backends};
/// # use vsock_compliance::{BoxedStream, vsock_backend_api::VsockBackend};
/// # fn new_backend() -> io::Result<(Box<dyn VsockBackend>, fn() -> io::Result<BoxedStream>)> {
/// #     Err(io::ErrorKind::Unsupported.into())
/// # }
///
/// struct Mine;
///
/// impl BackendSource for Mine {
///     fn backend(&self) -> io::Result<ServedBackend> {
///         let (backend, connect) = new_backend()?; // what an application calls to connect to it
///         Ok(ServedBackend { backend, connect: Box::new(connect) })
///     }
/// }
///
/// let report = judge_backends(&Mine, &[]);
/// assert!(report.is_good(), "{report}");
/// ```
pub trait BackendSource {
    /// A new backend without any connection.
    ///
    /// # Errors
    ///
    /// Those of making it.
    fn backend(&self) -> io::Result<ServedBackend>;
}
