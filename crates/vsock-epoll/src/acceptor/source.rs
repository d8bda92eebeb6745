// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

use std::io::{self, ErrorKind};
use std::os::fd::AsRawFd;

use vsock_backend_api::{VsockBackend, VsockListener, VsockStream};

/// Gives connections, and has a descriptor that is readable while one waits.
#[expect(
    unnameable_types,
    reason = "sealed: a backend and a listener are all that there is"
)]
pub trait Source: AsRawFd {
    fn next(&mut self) -> io::Result<Box<dyn VsockStream>>;

    /// Whether the error says that no connection will ever come.
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
