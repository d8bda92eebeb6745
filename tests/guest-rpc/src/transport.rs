// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! How a side connects and listens.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use hyper_util::client::legacy::connect::{Connected, Connection as HyperConnection};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::{Sleep, sleep};
use tokio_stream::Stream;

/// A future that a transport returns.
pub type Later<T> = Pin<Box<dyn Future<Output = T> + Send>>;
/// The connections that arrive at a port.
pub type Incoming = Pin<Box<dyn Stream<Item = io::Result<Connection>> + Send>>;

/// One side of a vsock device.
pub trait Transport: Send + Sync {
    /// Connects to a port of the other side.
    fn connect(&self, port: u32) -> Later<io::Result<Connection>>;
    /// Listens on a port of this side.
    fn listen(&self, port: u32) -> io::Result<Incoming>;
}

/// What all RPC libraries require of a stream.
pub trait Duplex: AsyncRead + AsyncWrite + Send + Sync + Unpin {}

impl<T: AsyncRead + AsyncWrite + Send + Sync + Unpin> Duplex for T {}

/// How to split writes, as a slow program would.
#[derive(Clone, Copy, Debug)]
pub struct Crumbs {
    /// Bytes in each write, at least one.
    pub bytes: usize,
    /// How many writes are followed by a pause. During the pause the device sends each write in a
    /// packet of its own.
    pub apart: u32,
}

/// The pause after a write: as short as tokio's timer allows.
const PAUSE: Duration = Duration::from_millis(1);

/// A stream of any transport.
#[expect(
    missing_debug_implementations,
    reason = "the streams are of many kinds and never printed"
)]
pub struct Connection {
    stream: Box<dyn Duplex>,
    crumbs: Option<Crumbs>,
    pause: Option<Pin<Box<Sleep>>>,
    _with: Option<Box<dyn Send + Sync>>,
}

impl Connection {
    /// Wraps a stream of any type.
    pub fn new(stream: impl Duplex + 'static) -> Self {
        Self {
            stream: Box::new(stream),
            crumbs: None,
            pause: None,
            _with: None,
        }
    }

    /// Splits later writes.
    #[must_use]
    pub fn in_crumbs(mut self, crumbs: Crumbs) -> Self {
        self.crumbs = Some(crumbs);
        self
    }

    /// Drops `guard` when the connection is dropped.
    pub(crate) fn with(mut self, guard: impl Send + Sync + 'static) -> Self {
        self._with = Some(Box::new(guard));
        self
    }
}

impl AsyncRead for Connection {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(context, buffer)
    }
}

impl AsyncWrite for Connection {
    #[expect(
        clippy::disallowed_methods,
        reason = "the pace is under test: writes this far apart become separate packets"
    )]
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let Some(crumbs) = self.crumbs else {
            return Pin::new(&mut self.stream).poll_write(context, bytes);
        };
        if let Some(pause) = &mut self.pause {
            ready!(pause.as_mut().poll(context));
            self.pause = None;
        }
        let len = bytes.len().min(crumbs.bytes.max(1));
        let written = ready!(Pin::new(&mut self.stream).poll_write(context, &bytes[..len]))?;
        if let Some(apart) = crumbs.apart.checked_sub(1) {
            self.crumbs = Some(Crumbs { apart, ..crumbs });
            self.pause = Some(Box::pin(sleep(PAUSE)));
        }
        Poll::Ready(Ok(written))
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        pieces: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        if self.is_write_vectored() {
            return Pin::new(&mut self.stream).poll_write_vectored(context, pieces);
        }
        let piece = pieces.iter().find(|piece| !piece.is_empty());
        self.poll_write(context, piece.map_or(&[], |piece| piece))
    }

    fn is_write_vectored(&self) -> bool {
        self.crumbs.is_none() && self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}

impl tonic014::transport::server::Connected for Connection {
    type ConnectInfo = ();

    fn connect_info(&self) {}
}

impl HyperConnection for Connection {
    fn connected(&self) -> Connected {
        Connected::new()
    }
}
