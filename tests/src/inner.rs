// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! The in-process transport, by every way to a connected pair.

use std::io;

use vsock_backend_api::{VsockBackend, VsockStream};
use vsock_inner::{Capacity, VsockInnerBackend, VsockInnerConfig, VsockInnerStream};
use vsock_muxer_harness::source::{BackendSource, Mode, PairSource, Room, Served, Stream};

use crate::halves::Halves;

/// How a pair comes about.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Way {
    /// `VsockInnerStream::pair_with`.
    Pair,
    /// The application connects, the backend accepts.
    BackendAccepts,
    /// The backend connects to a port, the application's listener accepts.
    ListenerAccepts,
    /// As `Pair`, and both ends are split.
    Split,
}

/// A source of pairs of one configuration.
#[derive(Clone, Copy, Debug)]
pub struct Inner {
    /// How they come about.
    pub way: Way,
    /// What they are allowed.
    pub config: VsockInnerConfig,
}

impl Inner {
    /// With the default limits.
    #[must_use]
    pub fn by(way: Way) -> Self {
        Self {
            way,
            config: VsockInnerConfig::default(),
        }
    }

    /// Pairs that hold so many bytes in either direction.
    #[must_use]
    pub fn holding(bytes: usize) -> Self {
        let capacity = Capacity::Bytes(bytes);
        let config = VsockInnerConfig::default()
            .to_device(capacity)
            .to_application(capacity);
        Self {
            way: Way::Pair,
            config,
        }
    }

    /// The same by another way.
    #[must_use]
    pub fn made_by(mut self, way: Way) -> Self {
        self.way = way;
        self
    }
}

/// The port of the listener.
const PORT: u32 = 1024;

impl PairSource for Inner {
    fn pair(&self) -> io::Result<(Stream, Stream)> {
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

    fn room(&self) -> (Room, Room) {
        let room = |capacity| match capacity {
            Capacity::Bytes(bytes) => Room::Bytes(bytes),
            Capacity::Unbounded => Room::Unbounded,
        };
        (
            room(self.config.to_device),
            room(self.config.to_application),
        )
    }

    fn modes(&self) -> (Mode, Mode) {
        match self.way {
            Way::Pair | Way::Split => (Mode::Blocking, Mode::Blocking),
            Way::BackendAccepts | Way::ListenerAccepts => (Mode::Blocking, Mode::Nonblocking),
        }
    }

    fn halves(&self) -> bool {
        self.way == Way::Split
    }

    fn peek(&self, stream: &mut dyn VsockStream, buf: &mut [u8]) -> Option<io::Result<usize>> {
        let any = stream.as_any_mut()?;
        if let Some(halves) = any.downcast_mut::<Halves>() {
            return Some(halves.reader.peek(buf));
        }
        any.downcast_mut::<VsockInnerStream>()
            .map(|stream| stream.peek(buf))
    }

    fn queued(&self, stream: &dyn VsockStream) -> Option<(u64, u64)> {
        let any = stream.as_any();
        if let Some(Halves { reader, writer }) = any.downcast_ref() {
            return Some((reader.queued(), writer.queued()));
        }
        let stream: &VsockInnerStream = any.downcast_ref()?;
        Some((stream.queued_in(), stream.queued_out()))
    }
}

impl BackendSource for Inner {
    fn backend(&self) -> io::Result<Served> {
        let backend = VsockInnerBackend::with_config(self.config)?;
        let connector = backend.get_connector();
        Ok(Served {
            backend: Box::new(backend),
            connect: Box::new(move || connector.connect()),
        })
    }
}
