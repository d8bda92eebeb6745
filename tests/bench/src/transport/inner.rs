// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

use std::io;
use std::os::fd::{AsRawFd, RawFd};

use vsock_backend_api::{VsockBackend, VsockStream};
use vsock_inner::{VsockInnerBackend, VsockInnerConfig, VsockInnerConnector, VsockInnerStream};

use crate::transport::{Endpoint, Transport};

/// The stream that this bench is for.
pub(crate) struct Inner(pub(crate) VsockInnerConfig);

impl Transport for Inner {
    type End = VsockInnerStream;

    fn pair(&self) -> io::Result<(VsockInnerStream, VsockInnerStream)> {
        VsockInnerStream::pair_with(&self.0)
    }
}

/// The backend and its connector, which a device and a host component have.
pub(crate) struct InnerEndpoint {
    backend: VsockInnerBackend,
    connector: VsockInnerConnector,
}

impl InnerEndpoint {
    /// Returns a backend without connections.
    pub(crate) fn open(config: VsockInnerConfig) -> io::Result<Self> {
        let backend = VsockInnerBackend::with_config(config)?;
        let connector = backend.get_connector();
        Ok(Self { backend, connector })
    }
}

impl Endpoint for InnerEndpoint {
    type Near = VsockInnerStream;
    type Far = Accepted;

    fn connect(&mut self) -> io::Result<VsockInnerStream> {
        self.connector.connect_stream()
    }

    fn accept(&mut self) -> io::Result<Accepted> {
        self.backend.accept().map(Accepted)
    }

    fn waiting_fd(&self) -> RawFd {
        self.backend.as_raw_fd()
    }
}

/// The device end.
pub(crate) struct Accepted(Box<dyn VsockStream>);

impl AsRawFd for Accepted {
    fn as_raw_fd(&self) -> RawFd {
        self.0.as_raw_fd()
    }
}
