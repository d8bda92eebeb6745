// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! What connects the host component and the service.

use std::any::Any;
use std::io::{self, IoSlice, Read, Write};
use std::net::Shutdown;
use std::os::fd::{AsRawFd, RawFd};
use std::os::unix::net::UnixStream;

use vsock_backend_api::{VsockBackendType, VsockStream};
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
            device: Box::new(UnixEnd(device)),
        })
    }
}

impl HostWriter for UnixStream {
    fn finish(&mut self) -> io::Result<()> {
        self.shutdown(Shutdown::Write)
    }
}

/// A Unix socket as a device sees it.
struct UnixEnd(UnixStream);

impl Read for UnixEnd {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        self.0.read(buf)
    }
}

impl Write for UnixEnd {
    fn write(&mut self, buf: &[u8]) -> io::Result<usize> {
        self.0.write(buf)
    }

    fn write_vectored(&mut self, bufs: &[IoSlice<'_>]) -> io::Result<usize> {
        self.0.write_vectored(bufs)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.0.flush()
    }
}

impl AsRawFd for UnixEnd {
    fn as_raw_fd(&self) -> RawFd {
        self.0.as_raw_fd()
    }
}

impl VsockStream for UnixEnd {
    fn backend_type(&self) -> VsockBackendType {
        VsockBackendType::UnixStream
    }

    fn set_nonblocking(&mut self, nonblocking: bool) -> io::Result<()> {
        self.0.set_nonblocking(nonblocking)
    }

    fn shutdown(&mut self, how: Shutdown) -> io::Result<()> {
        self.0.shutdown(how)
    }

    fn as_any(&self) -> &dyn Any {
        self
    }
}
