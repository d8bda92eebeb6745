// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! The in-process transport, over every way to open a connection.

use std::io;

use vsock_backend_api::{VsockBackend, VsockStream};
use vsock_compliance::{
    BackendSource, BoxedStream, CapacityPromise, ConnectionEnd, Ends, Mode, PairSource,
    QueuedBytes, ServedBackend, WokenTasks,
};
use vsock_inner::{Capacity, VsockInnerBackend, VsockInnerConfig, VsockInnerStream};

use crate::halves::Halves;
use crate::tasks::Tasks;

/// A way to open a pair.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Way {
    /// `VsockInnerStream::pair_with`.
    Pair,
    /// The application connects, the backend accepts.
    BackendAccepts,
    /// The backend connects to a port, the application's listener accepts.
    ListenerAccepts,
    /// As `Pair`, with both ends split.
    Split,
    /// As `Pair`, with tasks at both ends, in non-blocking mode from the start.
    Tasks,
}

/// A source of pairs with one configuration.
#[derive(Clone, Copy, Debug)]
pub struct Inner {
    /// The way to open them.
    pub way: Way,
    /// Their configuration.
    pub config: VsockInnerConfig,
}

impl Inner {
    /// Creates a source with the default configuration.
    #[must_use]
    pub fn by(way: Way) -> Self {
        Self::with(VsockInnerConfig::default()).made_by(way)
    }

    /// Creates a source with this configuration.
    #[must_use]
    pub fn with(config: VsockInnerConfig) -> Self {
        let way = Way::Pair;
        Self { way, config }
    }

    /// Creates a source of pairs that hold this many bytes in each direction.
    #[must_use]
    pub fn holding(bytes: usize) -> Self {
        let capacity = Capacity::Bytes(bytes);
        let config = VsockInnerConfig::default().to_device(capacity);
        Self::with(config.to_application(capacity))
    }

    /// Returns the same source with another way to open pairs.
    #[must_use]
    pub fn made_by(mut self, way: Way) -> Self {
        self.way = way;
        self
    }
}

/// The listener's port.
const PORT: u32 = 1024;

impl PairSource for Inner {
    fn pair(&self) -> io::Result<(BoxedStream, BoxedStream)> {
        Ok(match self.way {
            Way::Pair => {
                let (application, device) = VsockInnerStream::pair_with(&self.config)?;
                (Box::new(application), Box::new(device))
            }
            Way::Split => {
                let (application, device) = VsockInnerStream::pair_with(&self.config)?;
                (
                    Box::new(Halves::from(application)),
                    Box::new(Halves::from(device)),
                )
            }
            Way::Tasks => {
                let (application, device) = VsockInnerStream::pair_with(&self.config)?;
                (
                    Box::new(Tasks::from(application)),
                    Box::new(Tasks::from(device)),
                )
            }
            Way::BackendAccepts => {
                let mut backend = VsockInnerBackend::with_config(self.config)?;
                let application = backend.get_connector().connect()?;
                (application, backend.accept()?)
            }
            Way::ListenerAccepts => {
                let backend = VsockInnerBackend::with_config(self.config)?;
                let listener = backend.listen(PORT)?;
                let device = backend.connect(PORT)?;
                (Box::new(listener.accept()?), device)
            }
        })
    }

    fn capacity(&self, writer: ConnectionEnd) -> CapacityPromise {
        let capacity = match writer {
            ConnectionEnd::Application => self.config.to_device,
            ConnectionEnd::Device => self.config.to_application,
        };
        match capacity {
            Capacity::Bytes(bytes) => CapacityPromise::Bytes(bytes),
            Capacity::Unbounded => CapacityPromise::Unbounded,
        }
    }

    fn initial_mode(&self, end: ConnectionEnd) -> Mode {
        match (end, self.way) {
            (ConnectionEnd::Device, Way::BackendAccepts | Way::ListenerAccepts) => {
                Mode::Nonblocking
            }
            (_, Way::Tasks) => Mode::Nonblocking,
            _ => Mode::Blocking,
        }
    }

    fn ends(&self) -> Ends {
        match self.way {
            Way::Split => Ends::Halves,
            Way::Pair | Way::Tasks | Way::BackendAccepts | Way::ListenerAccepts => Ends::Whole,
        }
    }

    fn peek(&self, stream: &mut dyn VsockStream, buf: &mut [u8]) -> Option<io::Result<usize>> {
        let any = stream.as_any_mut()?;
        if let Some(halves) = any.downcast_mut::<Halves>() {
            return Some(halves.reader.peek(buf));
        }
        if let Some(tasks) = any.downcast_mut::<Tasks>() {
            return Some(tasks.stream.peek(buf));
        }
        any.downcast_mut::<VsockInnerStream>()
            .map(|stream| stream.peek(buf))
    }

    fn queued(&self, stream: &dyn VsockStream) -> Option<QueuedBytes> {
        let any = stream.as_any();
        if let Some(Halves { reader, writer }) = any.downcast_ref() {
            return Some(QueuedBytes {
                incoming: reader.queued(),
                outgoing: writer.queued(),
            });
        }
        let stream = match any.downcast_ref() {
            Some(Tasks { stream, .. }) => stream,
            None => any.downcast_ref::<VsockInnerStream>()?,
        };
        Some(QueuedBytes {
            incoming: stream.queued_in(),
            outgoing: stream.queued_out(),
        })
    }

    fn woken(&self, stream: &dyn VsockStream) -> Option<WokenTasks> {
        let tasks: &Tasks = stream.as_any().downcast_ref()?;
        Some(tasks.woken())
    }
}

impl BackendSource for Inner {
    fn backend(&self) -> io::Result<ServedBackend> {
        let backend = VsockInnerBackend::with_config(self.config)?;
        let connector = backend.get_connector();
        Ok(ServedBackend {
            backend: Box::new(backend),
            connect: Box::new(move || connector.connect()),
        })
    }
}
