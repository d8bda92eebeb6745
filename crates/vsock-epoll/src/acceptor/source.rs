// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

use std::io::{self, ErrorKind};
use std::os::fd::AsRawFd;

use vsock_backend_api::{VsockBackend, VsockListener, VsockStream};

/// A source of connections with a descriptor that is readable while one waits.
#[expect(
    unnameable_types,
    reason = "sealed: implemented only for backends and listeners"
)]
pub trait Source: AsRawFd {
    fn next(&mut self) -> io::Result<Box<dyn VsockStream>>;

    /// Whether the error means that no connection will ever arrive.
    fn is_over(error: &io::Error) -> bool;
}

impl Source for dyn VsockBackend {
    fn next(&mut self) -> io::Result<Box<dyn VsockStream>> {
        self.accept()
    }

    fn is_over(_: &io::Error) -> bool {
        false
    }
}

impl Source for dyn VsockListener {
    fn next(&mut self) -> io::Result<Box<dyn VsockStream>> {
        self.accept()
    }

    fn is_over(error: &io::Error) -> bool {
        error.kind() == ErrorKind::NotConnected
    }
}
