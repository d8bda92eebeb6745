// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! The host's ends of connections for async tasks on tokio.

use std::io::{self, ErrorKind};
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::task::{Context, Poll};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{UnixListener, UnixStream};
use tokio_stream::{Stream, StreamExt};
use vsock_guest_rpc::transport::{Connection, Crumbs, Incoming, Later, Transport};
use vsock_proto::handshake::{OkParser, Parse};
use vsock_tokio::AsyncConnector;

use crate::device::Ends;

/// A transport over a device's host ends.
pub(crate) struct Host {
    pub(crate) ends: Ends,
    /// How to split writes. `None` writes as much as possible in one call.
    pub(crate) crumbs: Option<Crumbs>,
}

impl Transport for Host {
    fn connect(&self, port: u32) -> Later<io::Result<Connection>> {
        let (ends, crumbs) = (self.ends.clone(), self.crumbs);
        Box::pin(async move {
            let stream = match ends {
                Ends::InProcess(connector) => {
                    Connection::new(AsyncConnector::from(connector).connect_to(port).await?)
                }
                Ends::Unix(path) => Connection::new(connect(&path, port).await?),
            };
            Ok(in_crumbs(stream, crumbs))
        })
    }

    fn listen(&self, port: u32) -> io::Result<Incoming> {
        let streams: Incoming = match &self.ends {
            Ends::InProcess(connector) => {
                let listener = AsyncConnector::from(connector.clone()).listen(port)?;
                let streams = listener.incoming();
                Box::pin(streams.map(|stream| stream.map(Connection::new)))
            }
            Ends::Unix(path) => Box::pin(Port::new(path, port)?),
        };
        let crumbs = self.crumbs;
        Ok(Box::pin(streams.map(move |stream| {
            stream.map(|stream| in_crumbs(stream, crumbs))
        })))
    }
}

fn in_crumbs(stream: Connection, crumbs: Option<Crumbs>) -> Connection {
    match crumbs {
        Some(crumbs) => stream.in_crumbs(crumbs),
        None => stream,
    }
}

/// Connects to a port of the guest. Returns after the device has confirmed it.
async fn connect(path: &Path, port: u32) -> io::Result<UnixStream> {
    let mut stream = UnixStream::connect(path).await?;
    stream
        .write_all(format!("CONNECT {port}\n").as_bytes())
        .await?;
    let mut parser = OkParser::new();
    loop {
        // Byte by byte, because everything after the line is the guest's data.
        let mut byte = [0; 1];
        if stream.read(&mut byte).await? == 0 {
            return Err(ErrorKind::ConnectionRefused.into());
        }
        match parser.feed(&byte) {
            Ok(Parse::Line { .. }) => return Ok(stream),
            Ok(Parse::NeedMore) => {}
            Err(error) => return Err(io::Error::new(ErrorKind::InvalidData, error)),
        }
    }
}

/// A listening socket. Its file is removed when it is dropped.
struct Port {
    socket: UnixListener,
    path: PathBuf,
}

impl Port {
    fn new(path: &Path, port: u32) -> io::Result<Self> {
        let mut path = path.to_owned().into_os_string();
        path.push(format!("_{port}"));
        let socket = UnixListener::bind(&path)?;
        let path = path.into();
        Ok(Self { socket, path })
    }
}

impl Stream for Port {
    type Item = io::Result<Connection>;

    fn poll_next(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let accepted = self.socket.poll_accept(context);
        accepted.map(|accepted| Some(accepted.map(|(stream, _)| Connection::new(stream))))
    }
}

impl Drop for Port {
    fn drop(&mut self) {
        std::fs::remove_file(&self.path).ok();
    }
}
