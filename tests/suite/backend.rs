// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Connections that the application opens, and how they end.

use std::io::{ErrorKind, Read, Write};
use std::os::fd::AsRawFd;

use vsock_backend_api::VsockBackend;
use vsock_compliance::poll::{PollInterest, Watch, is_readable};
use vsock_inner::{Capacity, VsockInnerBackend, VsockInnerConfig, VsockInnerStream};
use vsock_tests::assert_fails;

use crate::{soon, waiting};

fn with_pending(pending: usize) -> VsockInnerBackend {
    VsockInnerBackend::with_config(VsockInnerConfig::default().pending(pending)).unwrap()
}

#[test]
fn s16_a_connection_beyond_the_backlog_is_refused_as_backlog_full() {
    let mut backend = with_pending(2);
    let connector = backend.get_connector();
    let _waiting = [connector.connect().unwrap(), connector.connect().unwrap()];
    let refused = connector.connect().err().unwrap();
    assert_eq!(refused.kind(), ErrorKind::ConnectionRefused);
    assert!(refused.to_string().contains("backlog full"), "{refused}");

    backend.accept().unwrap();
    connector.connect().unwrap();
    assert!(connector.connect().is_err(), "full again");
}

#[test]
fn a_backlog_of_zero_refuses_every_connection_immediately() {
    let backend = with_pending(0);
    let connector = backend.get_connector();
    let refusals = [connector.connect_stream(), connector.connect_to(52)];
    for refused in refusals.map(Result::unwrap_err) {
        assert_eq!(refused.kind(), ErrorKind::ConnectionRefused);
        assert!(refused.to_string().contains("backlog full"), "{refused}");
    }
}

#[test]
fn a_connector_outlives_its_backend_and_is_refused() {
    let connector = VsockInnerBackend::new().unwrap().get_connector();
    let another = connector.clone();
    let refusals = [
        connector.connect().map(drop),
        another.connect_stream().map(drop),
        another.connect_to(1).map(drop),
        another.listen(1).map(drop),
    ];
    for refused in refusals {
        assert_fails(refused, ErrorKind::ConnectionRefused);
    }
}

#[test]
fn the_default_backlog_is_1024_connections() {
    let backend = VsockInnerBackend::new().unwrap();
    let connector = backend.get_connector();
    let waiting: Vec<_> = (0..1024).map(|_| connector.connect().unwrap()).collect();
    assert_fails(connector.connect(), ErrorKind::ConnectionRefused);
    drop(waiting);
}

#[test]
fn a_client_that_gave_up_is_still_accepted_with_its_bytes() {
    let mut backend = VsockInnerBackend::new().unwrap();
    let mut client = backend.get_connector().connect().unwrap();
    client.write_all(b"bye").unwrap();
    drop(client);
    let mut stream = backend.accept().unwrap();
    let mut got = [0; 8];
    assert_eq!(stream.read(&mut got).unwrap(), 3);
    assert_eq!(stream.read(&mut got).unwrap(), 0);
}

#[test]
fn a_client_that_waits_is_reset_by_the_drop_of_the_backend() {
    let backend = VsockInnerBackend::new().unwrap();
    let mut client = backend.get_connector().connect_stream().unwrap();
    let reading = waiting(move || client.read(&mut [0; 8]));
    drop(backend);
    assert_fails(reading.finish(soon()).unwrap(), ErrorKind::ConnectionReset);
}

#[test]
fn the_backends_fd_has_an_edge_for_the_first_waiting_connection() {
    let mut backend = VsockInnerBackend::new().unwrap();
    let mut edges = Watch::edges(backend.as_raw_fd(), PollInterest::Read).unwrap();
    assert!(edges.now().unwrap().is_none());
    for _ in 0..3 {
        let _client = backend.get_connector().connect().unwrap();
        assert!(edges.now().unwrap().is_some());
        backend.accept().unwrap();
    }
}

#[test]
fn the_backends_fd_is_right_when_first_taken_late() {
    let mut backend = VsockInnerBackend::new().unwrap();
    let _client = backend.get_connector().connect().unwrap();
    assert!(is_readable(backend.as_raw_fd()).unwrap());
    backend.accept().unwrap();
    assert!(!is_readable(backend.as_raw_fd()).unwrap());
}

#[test]
fn counters_show_open_pending_and_refused_connections() {
    let mut backend = with_pending(1);
    let connector = backend.get_connector();
    let read = |backend: &VsockInnerBackend| {
        let counters = backend.counters();
        (counters.open, counters.pending, counters.refused)
    };
    assert_eq!(read(&backend), (0, 0, 0));
    let client = connector.connect().unwrap();
    assert_eq!(read(&backend), (1, 1, 0));
    assert!(connector.connect().is_err());
    assert_eq!(
        read(&backend),
        (1, 1, 1),
        "a refused connection is neither open nor pending"
    );
    let stream = backend.accept().unwrap();
    assert_eq!(read(&backend), (1, 0, 1));
    assert!(backend.connect(7).is_err());
    assert_eq!(
        read(&backend),
        (1, 0, 2),
        "a port without a listener refuses"
    );
    drop(client);
    assert_eq!(read(&backend), (1, 0, 2), "one end still exists");
    drop(stream);
    assert_eq!(read(&backend), (0, 0, 2));
    assert_eq!(connector.counters(), backend.counters());

    let listener = backend.listen(5).unwrap();
    let _device = backend.connect(5).unwrap();
    assert_eq!(read(&backend), (1, 1, 2), "it waits at the listener");
    let _application = listener.accept().unwrap();
    assert_eq!(read(&backend), (1, 0, 2));
}

#[test]
fn a_capacity_out_of_range_is_invalid_input() {
    for bytes in [0, (1 << 30) + 1, usize::MAX] {
        let wrong = Capacity::Bytes(bytes);
        for config in [
            VsockInnerConfig::default().to_device(wrong),
            VsockInnerConfig::default().to_application(wrong),
        ] {
            assert_fails(
                VsockInnerBackend::with_config(config),
                ErrorKind::InvalidInput,
            );
            assert_fails(
                VsockInnerStream::pair_with(&config),
                ErrorKind::InvalidInput,
            );
        }
    }
    for bytes in [1, 1 << 30] {
        let config = VsockInnerConfig::default().to_device(Capacity::Bytes(bytes));
        VsockInnerStream::pair_with(&config).unwrap();
    }
}
