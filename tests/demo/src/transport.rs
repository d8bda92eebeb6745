// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! What connects the host component and the service.

use std::io::{self, Read, Write};
use std::net::Shutdown;
use std::os::unix::net::UnixStream;

use vsock_backend_api::VsockStream;
use vsock_epoll::{AcceptLimits, BackendSubscriber, More};
use vsock_inner::{VsockInnerBackend, VsockInnerStream, VsockInnerWriter};

/// A connection: the host component's two halves, and the device's end.
pub(crate) struct Connected {
    pub(crate) writer: Box<dyn HostWriter>,
    pub(crate) reader: Box<dyn Read + Send>,
    pub(crate) device: Box<dyn VsockStream>,
}

/// The writing half of the host component.
pub(crate) trait HostWriter: Write + Send {
    /// Ends the direction.
    fn finish(&mut self) -> io::Result<()>;
}

/// Writes all of `bytes`, and ends the direction.
pub(crate) fn send(mut writer: Box<dyn HostWriter>, bytes: &[u8]) -> io::Result<()> {
    vsock_report::send(&mut writer, bytes)?;
    writer.finish()
}

/// A way to connect the two.
pub(crate) trait Transport {
    fn name(&self) -> &'static str;
    fn connect(&self) -> io::Result<Connected>;
}

/// Through a backend, as a VMM has it.
pub(crate) struct InProcess;

impl Transport for InProcess {
    fn name(&self) -> &'static str {
        "vsock-inner"
    }

    fn connect(&self) -> io::Result<Connected> {
        let backend = VsockInnerBackend::new()?;
        let connector = backend.get_connector();
        let mut device = None;
        let take = |stream| {
            device = Some(stream);
            More::Accept
        };
        let subscriber = BackendSubscriber::new(Box::new(backend), take, AcceptLimits::default());
        let mut subscriber = subscriber.map_err(io::Error::other)?;
        let host: VsockInnerStream = connector.connect_stream()?;
        subscriber.dispatch().map_err(io::Error::other)?;
        drop(subscriber);
        let device = device.ok_or(io::ErrorKind::ConnectionRefused)?;
        let (reader, writer) = host.into_split();
        Ok(Connected {
            writer: Box::new(writer),
            reader: Box::new(reader),
            device,
        })
    }
}

impl HostWriter for VsockInnerWriter {
    fn finish(&mut self) -> io::Result<()> {
        self.shutdown()
    }
}

/// Over a socket pair.
pub(crate) struct UnixPair;

impl Transport for UnixPair {
    fn name(&self) -> &'static str {
        "Unix socket pair"
    }

    fn connect(&self) -> io::Result<Connected> {
        let (host, device) = UnixStream::pair()?;
        Ok(Connected {
            writer: Box::new(host.try_clone()?),
            reader: Box::new(host),
            device: Box::new(device),
        })
    }
}

impl HostWriter for UnixStream {
    fn finish(&mut self) -> io::Result<()> {
        self.shutdown(Shutdown::Write)
    }
}
