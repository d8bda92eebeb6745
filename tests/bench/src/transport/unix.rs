// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

use std::io;
use std::os::unix::net::UnixStream;

use crate::transport::Transport;

/// A Unix socket pair with the socket buffers that the kernel gives by default.
pub(crate) struct UnixPair;

impl Transport for UnixPair {
    type End = UnixStream;

    fn pair(&self) -> io::Result<(UnixStream, UnixStream)> {
        UnixStream::pair()
    }
}
