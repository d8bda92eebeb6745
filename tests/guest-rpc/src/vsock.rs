// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! The guest's sockets, by `tokio-vsock`.

use std::io;

use nix::sys::socket::{Backlog, listen};
use tokio_stream::StreamExt;
use tokio_vsock::{VMADDR_CID_ANY, VMADDR_CID_HOST, VsockAddr, VsockListener, VsockStream};

use crate::frames::ByFrame;
use crate::task::Wake;
use crate::transport::{Connection, Incoming, Later, Transport};

/// A transport whose readers are woken as [`Wake`] says.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Vsock(pub(crate) Wake);

impl Transport for Vsock {
    fn connect(&self, port: u32) -> Later<io::Result<Connection>> {
        let Self(wake) = *self;
        Box::pin(async move {
            let stream = VsockStream::connect(VsockAddr::new(VMADDR_CID_HOST, port)).await?;
            Ok(connection(wake, stream, false))
        })
    }

    fn listen(&self, port: u32) -> io::Result<Incoming> {
        let Self(wake) = *self;
        let listener = VsockListener::bind(VsockAddr::new(VMADDR_CID_ANY, port))?;
        // `bind` asks for 128. A storm of clients leaves more connections for a slow guest to
        // accept.
        listen(&listener, Backlog::new(1024)?)?;
        let streams = listener.incoming();
        Ok(Box::pin(streams.map(move |stream| {
            stream.map(|stream| connection(wake, stream, true))
        })))
    }
}

fn connection(wake: Wake, stream: VsockStream, accepted: bool) -> Connection {
    match wake {
        Wake::AnyByte => Connection::new(stream),
        Wake::Frame => Connection::new(ByFrame::new(stream, accepted)),
    }
}
