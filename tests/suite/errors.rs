// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! What errors say: the kind is the contract's, the message says what was attempted.

use std::error::Error;
use std::io::{self, ErrorKind, Read, Write};
use std::net::Shutdown;
use std::os::fd::AsRawFd;
use std::time::Duration;

use vsock_backend_api::VsockStream;
use vsock_inner::{ConnectError, ListenError, StreamError, VsockInnerBackend, VsockInnerStream};

fn names_the_fd(stream: &VsockInnerStream, error: &io::Error) {
    let fd = stream.as_raw_fd().to_string();
    assert!(
        error.to_string().contains(&fd),
        "{error} does not name descriptor {fd}"
    );
}

#[test]
fn errors_of_a_stream_name_its_descriptor() {
    let (mut near, _far) = VsockInnerStream::pair().unwrap();
    near.set_read_timeout(Some(Duration::from_millis(1)))
        .unwrap();
    let late = near.read(&mut [0]).unwrap_err();
    assert_eq!(late.kind(), ErrorKind::TimedOut);
    names_the_fd(&near, &late);

    near.shutdown(Shutdown::Write).unwrap();
    let shut = near.write(b"x").unwrap_err();
    assert_eq!(shut.kind(), ErrorKind::BrokenPipe);
    names_the_fd(&near, &shut);

    let (near, mut far) = VsockInnerStream::pair().unwrap();
    near.abort();
    let reset = far.write(b"x").unwrap_err();
    assert_eq!(reset.kind(), ErrorKind::ConnectionReset);
    names_the_fd(&far, &reset);
}

#[test]
fn would_block_costs_no_allocation_of_a_message() {
    let (mut near, _far) = VsockInnerStream::pair().unwrap();
    near.set_nonblocking(true).unwrap();
    let error = near.read(&mut [0]).unwrap_err();
    assert!(
        error.get_ref().is_none(),
        "it is the answer of every drained read"
    );
}

#[test]
fn the_source_of_an_error_is_kept_with_its_type() {
    let (near, mut far) = VsockInnerStream::pair().unwrap();
    near.abort();
    let error = far.read(&mut [0]).unwrap_err();
    assert!(
        error
            .get_ref()
            .is_some_and(|inner| inner.is::<StreamError>())
    );

    let backend = VsockInnerBackend::new().unwrap();
    let error = backend.listen(0).unwrap_err();
    assert!(
        error
            .get_ref()
            .is_some_and(|inner| inner.is::<ListenError>())
    );
    let connector = backend.get_connector();
    drop(backend);
    let error = connector.connect_stream().unwrap_err();
    assert!(
        error
            .get_ref()
            .is_some_and(|inner| inner.is::<ConnectError>())
    );
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
