// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! The transport under test, as an implementor describes it: how to create connected streams, and
//! what they promise.

use std::fmt;
use std::io;

use vsock_backend_api::{VsockBackend, VsockStream};

/// A stream of any backend.
pub type BoxedStream = Box<dyn VsockStream>;

/// One of the two ends of a connection.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub enum ConnectionEnd {
    /// The application end.
    Application,
    /// The device end.
    Device,
}

impl ConnectionEnd {
    /// Both ends.
    pub const BOTH: [Self; 2] = [Self::Application, Self::Device];

    /// Returns the other end.
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
    /// Calls wait until they can make progress.
    Blocking,
    /// Calls return `WouldBlock` if they cannot make progress.
    Nonblocking,
}

impl Mode {
    /// Returns the argument for [`VsockStream::set_nonblocking`].
    #[must_use]
    pub fn is_nonblocking(self) -> bool {
        self == Self::Nonblocking
    }
}

/// How many bytes a direction holds, as promised by the transport.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub enum CapacityPromise {
    /// Exactly this many bytes.
    Bytes(usize),
    /// As many as memory allows.
    Unbounded,
    /// A bounded but unspecified number.
    Unknown,
}

/// Returns how many bytes must be free after a refused write before another write is accepted.
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

/// The structure of an end.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub enum Ends {
    /// One object for both directions.
    Whole,
    /// Two independent halves: dropping one of them affects its own direction only.
    Halves,
}

/// The bytes that are queued in each direction, as one end counts them.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub struct QueuedBytes {
    /// Bytes that the end has not yet read.
    pub incoming: u64,
    /// Bytes that the end has written and the peer has not yet read.
    pub outgoing: u64,
}

/// Whether the async tasks that wait for each direction of an end were woken, for transports that
/// support tasks.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub struct WokenTasks {
    /// Whether the task that waits to read was woken since it began to wait; `None` if no task
    /// waits.
    pub reading: Option<bool>,
    /// The same for the task that waits to write.
    pub writing: Option<bool>,
}

/// A source of connected pairs of streams: the transport under test.
pub trait PairSource {
    /// Creates a connection that has transferred nothing, with each end in its initial mode.
    /// Returns the application end and the device end.
    ///
    /// # Errors
    ///
    /// The connection cannot be created.
    fn pair(&self) -> io::Result<(BoxedStream, BoxedStream)>;

    /// Returns how many bytes the direction from `writer` holds. The default is
    /// [`Unknown`](CapacityPromise::Unknown).
    fn capacity(&self, _writer: ConnectionEnd) -> CapacityPromise {
        CapacityPromise::Unknown
    }

    /// Returns the mode in which an end must start. The default is [`Blocking`](Mode::Blocking).
    fn initial_mode(&self, _end: ConnectionEnd) -> Mode {
        Mode::Blocking
    }

    /// Returns the structure of an end. The default is [`Whole`](Ends::Whole).
    fn ends(&self) -> Ends {
        Ends::Whole
    }

    /// Reads without removing the bytes, from a stream that this source created. Returns `None`,
    /// the default, if the transport has no such call.
    fn peek(&self, _stream: &mut dyn VsockStream, _buf: &mut [u8]) -> Option<io::Result<usize>> {
        None
    }

    /// Returns the byte counts of a stream that this source created, or `None`, the default, if the
    /// transport does not count.
    fn queued(&self, _stream: &dyn VsockStream) -> Option<QueuedBytes> {
        None
    }

    /// Returns whether the tasks that wait at a stream that this source created were woken.
    ///
    /// A woken task is reported once and no longer waits. The default is `None`: the transport does
    /// not support tasks.
    fn woken(&self, _stream: &dyn VsockStream) -> Option<WokenTasks> {
        None
    }
}

/// A backend, and a way to connect to it.
pub struct ServedBackend {
    /// The backend, which belongs to the device.
    pub backend: Box<dyn VsockBackend>,
    /// Connects to the backend as an application does.
    pub connect: Box<dyn Fn() -> io::Result<BoxedStream>>,
}

impl fmt::Debug for ServedBackend {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ServedBackend")
            .field("backend", &self.backend.r#type())
            .finish_non_exhaustive()
    }
}

/// A source of backends: the transport under test.
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
///         let (backend, connect) = new_backend()?; // `connect` creates an application end
///         Ok(ServedBackend { backend, connect: Box::new(connect) })
///     }
/// }
///
/// let report = judge_backends(&Mine, &[]);
/// assert!(report.is_good(), "{report}");
/// ```
pub trait BackendSource {
    /// Creates a backend without any connections.
    ///
    /// # Errors
    ///
    /// The backend cannot be created.
    fn backend(&self) -> io::Result<ServedBackend>;
}
