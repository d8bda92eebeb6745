// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Connections from the guest to listeners on the host.

use std::io::{ErrorKind, Read, Write};
use std::os::fd::AsRawFd;

use vsock_backend_api::{VsockAddr, VsockBackend};
use vsock_compliance::fd;
use vsock_compliance::poll::{PollInterest, Watch, is_readable};
use vsock_inner::{VsockInnerBackend, VsockInnerConfig};
use vsock_tests::assert_fails;

use crate::{listening, soon, waiting};

const PORT: u32 = 1024;

#[test]
fn the_refusal_of_a_port_without_a_listener_names_the_port() {
    let backend = VsockInnerBackend::new().unwrap();
    let guest = VsockAddr { cid: 3, port: 1 };
    for port in [0, 1, 4711, PORT, u32::MAX] {
        let with_address = backend.connect_from(guest, VsockAddr { cid: 2, port });
        for refused in [backend.connect(port), with_address] {
            let refused = refused.err().unwrap();
            assert_eq!(refused.kind(), ErrorKind::ConnectionRefused);
            assert!(refused.to_string().contains(&port.to_string()), "{refused}");
        }
    }
}

#[test]
fn a_port_in_use_cannot_be_listened_on_again() {
    let backend = VsockInnerBackend::new().unwrap();
    let _listener = backend.listen(PORT).unwrap();
    assert_fails(backend.listen(PORT), ErrorKind::AddrInUse);
    assert_fails(backend.get_connector().listen(PORT), ErrorKind::AddrInUse);
    backend.listen(PORT + 1).unwrap();
}

#[test]
fn reserved_ports_are_invalid() {
    let backend = VsockInnerBackend::new().unwrap();
    for port in [0, u32::MAX] {
        assert_fails(backend.listen(port), ErrorKind::InvalidInput);
    }
    for port in [1, u32::MAX - 1] {
        assert_eq!(backend.listen(port).unwrap().port(), port);
    }
}

#[test]
fn dropping_a_listener_frees_its_port() {
    let backend = VsockInnerBackend::new().unwrap();
    for _ in 0..3 {
        let listener = backend.listen(PORT).unwrap();
        backend.connect(PORT).unwrap();
        drop(listener);
        assert_fails(backend.connect(PORT), ErrorKind::ConnectionRefused);
    }
}

#[test]
fn dropping_a_listener_resets_its_pending_connections() {
    let (backend, listener) = listening();
    let mut waiting = backend.connect(PORT).unwrap();
    let mut accepted = backend.connect(PORT).unwrap();
    let mut application = listener.accept().unwrap(); // the first of the two
    std::mem::swap(&mut waiting, &mut accepted);
    drop(listener);
    assert_fails(waiting.read(&mut [0]), ErrorKind::ConnectionReset);
    assert_fails(waiting.write(b"x"), ErrorKind::ConnectionReset);
    accepted.write_all(b"x").unwrap();
    assert_eq!(
        application.read(&mut [0; 8]).unwrap(),
        1,
        "an accepted connection survives"
    );
}

#[test]
fn a_listener_has_a_backlog_of_its_own() {
    let backend = VsockInnerBackend::with_config(VsockInnerConfig::default().pending(1)).unwrap();
    let listener = backend.listen(PORT).unwrap();
    let _other = backend.listen(PORT + 1).unwrap();
    let _waiting = backend.connect(PORT).unwrap();
    let refused = backend.connect(PORT).err().unwrap();
    assert_eq!(refused.kind(), ErrorKind::ConnectionRefused);
    assert!(refused.to_string().contains("backlog full"), "{refused}");
    backend.connect(PORT + 1).unwrap();
    backend.get_connector().connect().unwrap();
    listener.accept().unwrap();
    backend.connect(PORT).unwrap();
}

#[test]
fn s18_a_listener_starts_blocking_and_waits_for_the_guest() {
    let (backend, listener) = listening();
    let accepting = waiting(move || listener.accept().map(|stream| (stream, listener)));
    let mut device = backend.connect(PORT).unwrap();
    let (mut application, _listener) = accepting.finish(soon()).unwrap().unwrap();
    device.write_all(b"x").unwrap();
    assert_eq!(application.read(&mut [0; 8]).unwrap(), 1);
}

#[test]
fn an_accept_of_nothing_would_block_in_nonblocking_mode() {
    let (backend, listener) = listening();
    listener.set_nonblocking(true).unwrap();
    assert_fails(listener.accept(), ErrorKind::WouldBlock);
    backend.connect(PORT).unwrap();
    listener.accept().unwrap();
    assert_fails(listener.accept(), ErrorKind::WouldBlock);
}

#[test]
fn the_listeners_fd_is_readable_exactly_while_a_connection_waits() {
    let (backend, listener) = listening();
    assert!(fd::is_close_on_exec(listener.as_raw_fd()).unwrap());
    let mut edges = Watch::edges(listener.as_raw_fd(), PollInterest::Read).unwrap();
    for _ in 0..3 {
        assert!(!is_readable(listener.as_raw_fd()).unwrap());
        let _first = backend.connect(PORT).unwrap();
        assert!(edges.now().unwrap().is_some());
        let _second = backend.connect(PORT).unwrap();
        for _ in 0..2 {
            assert!(is_readable(listener.as_raw_fd()).unwrap());
            listener.accept().unwrap();
        }
        edges.now().unwrap();
    }
    assert!(!is_readable(listener.as_raw_fd()).unwrap());
}

#[test]
fn dropping_the_backend_ends_a_listener() {
    let (backend, listener) = listening();
    let idle = backend.listen(PORT + 1).unwrap();
    let mut edges = Watch::edges(idle.as_raw_fd(), PollInterest::Read).unwrap();
    assert!(edges.now().unwrap().is_none());
    let mut waiting = backend.connect(PORT).unwrap();
    drop(backend);

    assert_fails(waiting.read(&mut [0]), ErrorKind::ConnectionReset);
    for listener in [&listener, &idle] {
        for nonblocking in [false, true, false] {
            listener.set_nonblocking(nonblocking).unwrap();
            assert_fails(listener.accept(), ErrorKind::NotConnected);
            assert!(is_readable(listener.as_raw_fd()).unwrap());
        }
    }
    assert!(edges.now().unwrap().is_some());
}

#[test]
fn every_blocked_accept_of_a_shared_listener_ends_with_the_backend() {
    let backend = VsockInnerBackend::new().unwrap();
    let listener = std::sync::Arc::new(backend.listen(PORT).unwrap());
    let accepting = [(); 3].map(|()| {
        let listener = std::sync::Arc::clone(&listener);
        waiting(move || listener.accept())
    });
    drop(backend);
    for call in accepting {
        assert_fails(call.finish(soon()).unwrap(), ErrorKind::NotConnected);
    }
}

#[test]
fn a_connector_listens_while_the_backend_is_on_another_thread() {
    let backend = VsockInnerBackend::new().unwrap();
    let connector = backend.get_connector();
    let muxer: Box<dyn VsockBackend> = Box::new(backend);
    let listener = connector.listen(PORT).unwrap();
    let mut device = muxer.connect(PORT).unwrap();
    let mut application = listener.accept().unwrap();
    application.write_all(b"hello").unwrap();
    let mut got = [0; 5];
    device.read_exact(&mut got).unwrap();
    assert_eq!(&got, b"hello");
}

#[test]
fn an_accepted_stream_has_its_peers_address() {
    let (backend, listener) = listening();
    let addr = |cid, port| VsockAddr { cid, port };
    let host = addr(2, PORT);
    for guest in [addr(3, 4000), addr(4, 4001)] {
        let device = backend.connect_from(guest, host).unwrap();
        let stream = listener.accept().unwrap();
        assert_eq!((stream.peer(), stream.local()), (Some(guest), Some(host)));
        assert_eq!((device.peer(), device.local()), (Some(host), Some(guest)));
    }
    let _device = backend.connect(PORT).unwrap();
    let stream = listener.accept().unwrap();
    assert_eq!((stream.peer(), stream.local()), (None, None));
}
