// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Helpers that the tests of several modules share.
//!
//! No unit test of this crate may start a program. Until its `exec`, the new process would hold
//! copies of the descriptors of all other tests, many of which check that a drop closes a socket
//! immediately. A test that changes the whole process is an integration test, such as
//! `tests/descriptors.rs`.

use std::io::{ErrorKind, Read};
use std::net::{TcpListener, TcpStream};
use std::time::Duration;

use vsock_backend_api::VsockStream;

/// Returns both ends of a TCP connection.
pub(crate) fn tcp() -> (TcpStream, TcpStream) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let near = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
    let (far, _) = listener.accept().unwrap();
    far.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
    (near, far)
}

/// Checks what the far end of a TCP connection reads after the device's stream over the near end
/// was closed: the end after a drop, a reset after an abort.
pub(crate) fn assert_endings(mut stream: impl FnMut(TcpStream) -> Box<dyn VsockStream>) {
    type Close = fn(Box<dyn VsockStream>);
    let endings: [(Close, _); 2] = [
        (drop, Ok(0)),
        (<dyn VsockStream>::abort, Err(ErrorKind::ConnectionReset)),
    ];
    for (close, expected) in endings {
        let (near, mut far) = tcp();
        close(stream(near));
        let end = far.read(&mut [0]).map_err(|error| error.kind());
        assert_eq!(end, expected);
    }
}
