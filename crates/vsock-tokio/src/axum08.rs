// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! A listener that axum 0.8 can serve.

use std::future::pending;
use std::io;

use axum08::extract::connect_info::Connected;
use axum08::serve::{IncomingStream, Listener};
use vsock_inner::VsockAddr;

use crate::connect_info::VsockConnectInfo;
use crate::listener::AsyncListener;
use crate::stream::AsyncStream;

impl Listener for AsyncListener {
    type Io = AsyncStream;
    type Addr = Option<VsockAddr>;

    /// Waits indefinitely once no more connections can arrive: after the backend has been dropped,
    /// or after a cancellation.
    async fn accept(&mut self) -> (AsyncStream, Option<VsockAddr>) {
        match Self::accept(self).await {
            Ok(accepted) => accepted,
            Err(_) => pending().await,
        }
    }

    fn local_addr(&self) -> io::Result<Option<VsockAddr>> {
        Self::local_addr(self).map(Some)
    }
}

impl Connected<IncomingStream<'_, AsyncListener>> for VsockConnectInfo {
    fn connect_info(stream: IncomingStream<'_, AsyncListener>) -> Self {
        Self::of(stream.io())
    }
}
