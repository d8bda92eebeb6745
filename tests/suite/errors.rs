// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Errors: the kind follows the contract, and the message says what was attempted.

use std::error::Error;
use std::io::{self, ErrorKind, Read, Write};
use std::net::Shutdown;
use std::os::fd::AsRawFd;
use std::time::Duration;

use vsock_backend_api::VsockStream;
use vsock_inner::{ConnectError, ListenError, StreamError, VsockInnerBackend, VsockInnerStream};

/// Checks that the call failed, and that its message contains the stream's descriptor.
#[track_caller]
fn assert_fails(stream: &VsockInnerStream, result: io::Result<usize>, kind: ErrorKind) {
    let error = result.unwrap_err();
    let fd = stream.as_raw_fd().to_string();
    assert!(
        error.kind() == kind && error.to_string().contains(&fd),
        "{fd}: {error:?}"
    );
}

#[test]
fn errors_of_a_stream_name_its_descriptor() {
    let (mut near, _far) = VsockInnerStream::pair().unwrap();
    near.set_read_timeout(Some(Duration::from_millis(1)))
        .unwrap();
    let late = near.read(&mut [0]);
    assert_fails(&near, late, ErrorKind::TimedOut);
    near.shutdown(Shutdown::Write).unwrap();
    let shut = near.write(b"x");
    assert_fails(&near, shut, ErrorKind::BrokenPipe);

    let (near, mut far) = VsockInnerStream::pair().unwrap();
    near.abort();
    let reset = far.write(b"x");
    assert_fails(&far, reset, ErrorKind::ConnectionReset);
}

#[test]
fn would_block_allocates_no_message() {
    let (mut near, _far) = VsockInnerStream::pair().unwrap();
    near.set_nonblocking(true).unwrap();
    let error = near.read(&mut [0]).unwrap_err();
    assert!(error.get_ref().is_none(), "every drained read returns it");
}

#[test]
fn the_source_of_an_error_is_kept_with_its_type() {
    fn is<E: Error + 'static, T>(result: io::Result<T>) -> bool {
        let error = result.err().unwrap();
        error.get_ref().is_some_and(|inner| inner.is::<E>())
    }
    let (near, mut far) = VsockInnerStream::pair().unwrap();
    near.abort();
    assert!(is::<StreamError, _>(far.read(&mut [0])));
    let backend = VsockInnerBackend::new().unwrap();
    assert!(is::<ListenError, _>(backend.listen(0)));
    let connector = backend.get_connector();
    drop(backend);
    assert!(is::<ConnectError, _>(connector.connect_stream()));
}

#[test]
fn errors_are_errors_and_can_cross_threads() {
    fn is<E: Error + Send + Sync + 'static>() {}
    is::<StreamError>();
    is::<ListenError>();
    is::<ConnectError>();
    is::<vsock_inner::VsockInnerConfigError>();
    is::<vsock_inner::HandshakeError>();
    is::<vsock_inner::AcceptError>();
}
