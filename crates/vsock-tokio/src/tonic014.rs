// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Streams that tonic 0.14 can serve, and a connector for its channels.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};

use hyper_util::rt::TokioIo;
use tonic014::transport::Uri;
use tonic014::transport::server::Connected;
use tower_service::Service;

use crate::connect_info::VsockConnectInfo;
use crate::connector::AsyncConnector;
#[cfg(feature = "fd")]
use crate::fd_stream::AsyncFdStream;
use crate::stream::AsyncStream;

impl Connected for AsyncStream {
    type ConnectInfo = VsockConnectInfo;

    fn connect_info(&self) -> VsockConnectInfo {
        VsockConnectInfo::of(self)
    }
}

#[cfg(feature = "fd")]
impl Connected for AsyncFdStream {
    type ConnectInfo = VsockConnectInfo;

    fn connect_info(&self) -> VsockConnectInfo {
        VsockConnectInfo {
            peer: self.peer_addr().ok(),
            local: self.local_addr().ok(),
        }
    }
}

/// Connects a tonic `Channel` to a guest port; created by
/// [`AsyncConnector::to_port`](crate::AsyncConnector::to_port).
///
/// The channel's URI names the service for the other side (`:authority`) and does not affect where
/// it connects. The channel replaces a broken connection on the next call.
///
/// ```no_run
/// use tonic014::transport::{Channel, Endpoint};
/// use vsock_tokio::AsyncConnector;
///
/// async fn channel(connector: &AsyncConnector) -> Result<Channel, tonic014::transport::Error> {
///     let endpoint = Endpoint::from_static("http://guest");
///     endpoint.connect_with_connector(connector.to_port(50_051)).await
/// }
/// ```
#[derive(Clone, Debug)]
pub struct PortConnector {
    connector: AsyncConnector,
    port: u32,
}

impl AsyncConnector {
    /// Creates a connector for a tonic `Channel` to this port of the guest.
    #[must_use]
    pub fn to_port(&self, port: u32) -> PortConnector {
        let connector = self.clone();
        PortConnector { connector, port }
    }
}

impl Service<Uri> for PortConnector {
    type Response = TokioIo<AsyncStream>;
    type Error = io::Error;
    type Future = Pin<Box<dyn Future<Output = io::Result<Self::Response>> + Send>>;

    fn poll_ready(&mut self, _cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, _uri: Uri) -> Self::Future {
        let Self { connector, port } = self.clone();
        Box::pin(async move { connector.connect_to(port).await.map(TokioIo::new) })
    }
}
