// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! What carries the bytes: a way to connect, and a way to listen.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};

use hyper_util::client::legacy::connect::{Connected, Connection as HyperConnection};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio_stream::Stream;

/// A future of a transport.
pub type Later<T> = Pin<Box<dyn Future<Output = T> + Send>>;
/// Connections as they come to a port.
pub type Incoming = Pin<Box<dyn Stream<Item = io::Result<Connection>> + Send>>;

/// One side of a vsock device.
pub trait Transport: Send + Sync {
    /// Connects to a port of the other side.
    fn connect(&self, port: u32) -> Later<io::Result<Connection>>;
    /// Takes what the other side connects to a port of this one.
    fn listen(&self, port: u32) -> io::Result<Incoming>;
}

/// What all the libraries ask of a stream.
pub trait Duplex: AsyncRead + AsyncWrite + Send + Sync + Unpin {}

impl<T: AsyncRead + AsyncWrite + Send + Sync + Unpin> Duplex for T {}

/// A stream of any transport.
#[expect(
    missing_debug_implementations,
    reason = "streams of many kinds, none of which is looked at"
)]
pub struct Connection {
    stream: Box<dyn Duplex>,
    most: usize,
    _with: Option<Box<dyn Send + Sync>>,
}

impl Connection {
    /// Hides which stream it is.
    pub fn new(stream: impl Duplex + 'static) -> Self {
        Self {
            stream: Box::new(stream),
            most: usize::MAX,
            _with: None,
        }
    }

    /// Hands over at most this many bytes in one write from now on, so that a device has many small
    /// packets to send.
    #[must_use]
    pub fn in_crumbs(mut self, most: usize) -> Self {
        self.most = most.max(1);
        self
    }

    /// Drops this when the connection is dropped.
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
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let len = bytes.len().min(self.most);
        Pin::new(&mut self.stream).poll_write(context, &bytes[..len])
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
        self.most == usize::MAX && self.stream.is_write_vectored()
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
