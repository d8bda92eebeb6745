// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! The guest and its device, played by the tests.

use tokio::task::yield_now;
use vsock_inner::{
    VsockAddr, VsockBackend, VsockInnerBackend, VsockInnerConfig, VsockInnerStream, VsockStream,
};
use vsock_tokio::{AsyncConnector, AsyncListener, AsyncStream};

pub(crate) const GUEST: VsockAddr = VsockAddr { cid: 3, port: 4000 };
pub(crate) const HOST: VsockAddr = VsockAddr { cid: 2, port: 1024 };

/// A backend, owned by a device.
pub(crate) struct Guest {
    pub(crate) backend: VsockInnerBackend,
}

impl Guest {
    pub(crate) fn new() -> Self {
        Self::with(VsockInnerConfig::default())
    }

    pub(crate) fn with(config: VsockInnerConfig) -> Self {
        let backend = VsockInnerBackend::with_config(config).unwrap();
        Self { backend }
    }

    pub(crate) fn connector(&self) -> AsyncConnector {
        self.backend.get_connector().into()
    }

    pub(crate) fn listener(&self) -> AsyncListener {
        self.backend.listen(HOST.port).unwrap().into()
    }

    /// Connects to the port of the host. Returns the device end.
    pub(crate) fn connect(&self) -> AsyncStream {
        let device = self.backend.connect_from(GUEST, HOST).unwrap();
        whole(device).into()
    }

    /// Takes the connection that waits, or the next one, without answering it.
    pub(crate) async fn asked(&mut self) -> Box<dyn VsockStream> {
        while self.backend.counters().pending == 0 {
            yield_now().await;
        }
        self.backend.accept().unwrap()
    }

    /// Accepts the connection that waits, or the next one. Returns the device end.
    pub(crate) async fn accept(&mut self) -> (u32, AsyncStream) {
        let mut device = self.asked().await;
        let port = device.requested_port().unwrap();
        let guest = VsockAddr { port, ..GUEST };
        device.confirm_from(guest, HOST).unwrap();
        (port, whole(device).into())
    }
}

fn whole(device: Box<dyn VsockStream>) -> VsockInnerStream {
    let any = device.into_any().unwrap();
    *any.downcast::<VsockInnerStream>().unwrap()
}
