// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

use std::io;
use std::os::fd::{AsRawFd, RawFd};

use vsock_backend_api::{VsockBackend, VsockStream};
use vsock_inner::{VsockInnerBackend, VsockInnerConfig, VsockInnerConnector, VsockInnerStream};

use crate::transport::{Door, Pollable, Transport};

/// What this bench is about.
pub(crate) struct Inner(pub(crate) VsockInnerConfig);

impl Transport for Inner {
    type End = VsockInnerStream;

    fn pair(&self) -> io::Result<(VsockInnerStream, VsockInnerStream)> {
        VsockInnerStream::pair_with(&self.0)
    }
}

impl Pollable for VsockInnerStream {
    fn set_nonblocking(&mut self, nonblocking: bool) -> io::Result<()> {
        VsockStream::set_nonblocking(self, nonblocking)
    }

    fn readable_fd(&self) -> RawFd {
        self.as_raw_fd()
    }

    fn writable_fd(&self) -> io::Result<RawFd> {
        self.write_ready_fd()
    }
}

/// The backend and its connector, as a device and a host component hold them.
pub(crate) struct InnerDoor {
    backend: VsockInnerBackend,
    connector: VsockInnerConnector,
}

impl InnerDoor {
    /// A backend that nobody has connected to.
    pub(crate) fn open(config: VsockInnerConfig) -> io::Result<Self> {
        let backend = VsockInnerBackend::with_config(config)?;
        let connector = backend.get_connector();
        Ok(Self { backend, connector })
    }
}

impl Door for InnerDoor {
    type Near = VsockInnerStream;
    type Far = Box<dyn VsockStream>;

    fn connect(&mut self) -> io::Result<VsockInnerStream> {
        self.connector.connect_stream()
    }

    fn accept(&mut self) -> io::Result<Box<dyn VsockStream>> {
        self.backend.accept()
    }

    fn waiting_fd(&self) -> RawFd {
        self.backend.as_raw_fd()
    }
}

impl Pollable for Box<dyn VsockStream> {
    fn set_nonblocking(&mut self, nonblocking: bool) -> io::Result<()> {
        VsockStream::set_nonblocking(&mut **self, nonblocking)
    }

    fn readable_fd(&self) -> RawFd {
        self.as_raw_fd()
    }

    fn writable_fd(&self) -> io::Result<RawFd> {
        self.write_ready_fd()
    }
}
