// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Many connections, in sequence and at the same time.

use std::io::{ErrorKind, Read, Write};
use std::os::fd::AsRawFd;

use vsock_backend_api::VsockBackend;
use vsock_compliance::call::Call;
use vsock_compliance::poll::{PollInterest, wait_ready};
use vsock_inner::{VsockInnerBackend, VsockInnerConnector, VsockInnerStream};
use vsock_tests::assert_fails;

use crate::{deadline, factor};

const CONNECTIONS: u32 = 100_000;

fn accept_when_there(backend: &mut VsockInnerBackend) -> Box<dyn vsock_backend_api::VsockStream> {
    loop {
        match backend.accept() {
            Ok(stream) => return stream,
            Err(error) => assert_eq!(error.kind(), ErrorKind::WouldBlock),
        }
        wait_ready(backend.as_raw_fd(), PollInterest::Read, deadline()).expect("a client connects");
    }
}

/// Connects. Waits for the acceptor while the backlog is full.
fn connect(connector: &VsockInnerConnector) -> VsockInnerStream {
    loop {
        match connector.connect_stream() {
            Ok(stream) => return stream,
            Err(error) => assert_eq!(error.kind(), ErrorKind::ConnectionRefused),
        }
        std::thread::yield_now();
    }
}

#[test]
fn a_hundred_thousand_connections_come_and_go() {
    let mut backend = VsockInnerBackend::new().unwrap();
    let connector = backend.get_connector();
    for number in 0..CONNECTIONS * factor() {
        let mut client = connector.connect_stream().unwrap();
        let mut stream = backend.accept().unwrap();
        if number % 3 == 0 {
            client.write_all(&number.to_le_bytes()).unwrap();
            drop(client);
            let mut got = [0; 4];
            stream.read_exact(&mut got).unwrap();
            assert_eq!(u32::from_le_bytes(got), number);
            assert_eq!(stream.read(&mut got).unwrap(), 0);
        }
    }
    let counters = backend.counters();
    assert_eq!(
        (counters.open, counters.pending, counters.refused),
        (0, 0, 0)
    );
}

#[test]
fn every_one_of_sixteen_connecting_threads_is_served() {
    const THREADS: u32 = 16;
    let each = 1000 * factor();
    let mut backend = VsockInnerBackend::new().unwrap();
    let clients: Vec<_> = (0..THREADS)
        .map(|thread| {
            let connector = backend.get_connector();
            Call::start(move || {
                for number in 0..each {
                    let mut client = connect(&connector);
                    let name = (thread << 24 | number).to_le_bytes();
                    client.write_all(&name).unwrap();
                    let mut echo = [0; 4];
                    client.read_exact(&mut echo).unwrap();
                    assert_eq!(echo, name);
                }
            })
            .unwrap()
        })
        .collect();
    for _ in 0..THREADS * each {
        let mut stream = accept_when_there(&mut backend);
        stream.set_nonblocking(false).unwrap();
        let mut name = [0; 4];
        stream.read_exact(&mut name).unwrap();
        stream.write_all(&name).unwrap();
    }
    for client in clients {
        client.finish(deadline()).expect("the client finishes");
    }
    assert_eq!(backend.counters().open, 0);
}

#[test]
fn listeners_come_and_go_while_clients_connect() {
    let backend = VsockInnerBackend::new().unwrap();
    let connector = backend.get_connector();
    let rounds = 20_000 * factor();
    let listening = Call::start(move || {
        for _ in 0..rounds {
            let listener = connector.listen(7).unwrap();
            listener.set_nonblocking(true).unwrap();
            if let Ok(mut stream) = listener.accept() {
                stream.write_all(b"x").unwrap_or_default();
            }
        }
    })
    .unwrap();
    let mut served = 0_u32;
    while !listening.has_returned() {
        match backend.connect(7) {
            Ok(mut stream) => {
                // The connection must be served, or reset by the drop.
                stream.set_nonblocking(false).unwrap();
                served += u32::from(stream.read(&mut [0]).is_ok());
            }
            Err(error) => assert_eq!(error.kind(), ErrorKind::ConnectionRefused),
        }
    }
    listening.finish(deadline()).unwrap();
    assert_eq!(
        (backend.counters().open, backend.counters().pending),
        (0, 0),
        "{served} served"
    );
}

#[test]
fn backends_are_dropped_while_clients_connect() {
    for _ in 0..500 * factor() {
        let backend = VsockInnerBackend::new().unwrap();
        let connector = backend.get_connector();
        let connecting = Call::start(move || {
            let mut connected = 0;
            loop {
                match connector.connect_stream() {
                    Ok(mut client) => {
                        // Nothing accepts: only a reset can end this read.
                        assert_fails(client.read(&mut [0]), ErrorKind::ConnectionReset);
                        connected += 1;
                    }
                    Err(error) => return (connected, error.kind()),
                }
            }
        })
        .unwrap();
        drop(backend);
        let (_, refused) = connecting.finish(deadline()).expect("the client finishes");
        assert_eq!(refused, ErrorKind::ConnectionRefused);
    }
}
