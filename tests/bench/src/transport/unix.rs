// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

use std::io;
use std::os::fd::{AsRawFd, RawFd};
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixListener, UnixStream};
use std::process;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::transport::{Endpoint, Transport};

/// A Unix socket pair, with the kernel's default socket buffers.
pub(crate) struct UnixPair;

impl Transport for UnixPair {
    type End = UnixStream;

    fn pair(&self) -> io::Result<(UnixStream, UnixStream)> {
        UnixStream::pair()
    }
}

/// A Unix listener on an abstract address, which involves no file system.
pub(crate) struct UnixEndpoint {
    listener: UnixListener,
    address: SocketAddr,
}

impl UnixEndpoint {
    /// Listens on a new address.
    pub(crate) fn open() -> io::Result<Self> {
        static COUNT: AtomicU64 = AtomicU64::new(0);
        // ORDER: Relaxed; partner: none, the number only has to be unique.
        let count = COUNT.fetch_add(1, Ordering::Relaxed);
        let name = format!("vsock-bench-{}-{count}", process::id());
        let address = SocketAddr::from_abstract_name(name)?;
        let listener = UnixListener::bind_addr(&address)?;
        Ok(Self { listener, address })
    }
}

impl Endpoint for UnixEndpoint {
    type Near = UnixStream;
    type Far = UnixStream;

    fn connect(&mut self) -> io::Result<UnixStream> {
        UnixStream::connect_addr(&self.address)
    }

    fn accept(&mut self) -> io::Result<UnixStream> {
        self.listener.accept().map(|(stream, _)| stream)
    }

    fn waiting_fd(&self) -> RawFd {
        self.listener.as_raw_fd()
    }
}
