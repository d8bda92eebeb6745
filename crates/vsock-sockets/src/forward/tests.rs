// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

use std::io::{Read, Write};
use std::os::fd::AsRawFd;
use std::os::unix::net::{UnixDatagram, UnixListener};

use tempfile::TempDir;
use vsock_compliance::poll::is_readable;

use super::*;
use crate::UnixBackend;

fn kind(result: io::Result<Box<dyn VsockStream>>) -> ErrorKind {
    result.err().unwrap().kind()
}

#[test]
fn each_port_has_a_target_and_its_socket_types() {
    let dir = TempDir::new().unwrap();
    let path = |name: &str| dir.path().join(name);
    let tcp = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let mut backend = ForwardBackend::new([
        (1, ForwardTarget::Unix(path("stream"))),
        (2, ForwardTarget::Datagrams(path("notify"))),
        (3, ForwardTarget::Tcp(tcp.local_addr().unwrap())),
    ])
    .unwrap();
    assert_eq!(kind(backend.connect(1)), ErrorKind::NotFound);
    assert_eq!(backend.listener(1), None);
    let service = UnixListener::bind(path("stream")).unwrap();
    assert!(backend.listener(1).is_some());
    let mut device = backend.connect(1).unwrap();
    device.finish_connect().unwrap();
    device.write_all(b"x").unwrap();
    service.accept().unwrap().0.read_exact(&mut [0]).unwrap();
    assert!(
        backend.connect_seqpacket(1).is_err(),
        "the target only takes streams"
    );
    let _receiver = UnixDatagram::bind(path("notify")).unwrap();
    assert!(backend.listener(2).is_some() && backend.listener(3).is_none());
    let mut messages = backend.connect_seqpacket(2).unwrap();
    assert!(messages.messages().is_some());
    for refused in [
        backend.connect(2),
        backend.connect_seqpacket(3),
        backend.connect(4),
        backend.connect_seqpacket(4),
    ] {
        assert_eq!(kind(refused), ErrorKind::ConnectionRefused);
    }
    assert!(backend.connect(3).is_ok() && backend.has_seqpacket());
    assert_eq!(backend.r#type(), VsockBackendType::Other("forward"));
    assert!(backend.as_any().is::<ForwardBackend>());
    assert_eq!(kind(backend.accept()), ErrorKind::WouldBlock);
    assert!(!is_readable(backend.as_raw_fd()).unwrap());
}

#[test]
fn every_port_can_have_its_name_under_a_path() {
    let dir = TempDir::new().unwrap();
    let base = dir.path().join("vm");
    let backend = ForwardBackend::each_port(&base).unwrap();
    let _service = UnixListener::bind(dir.path().join("vm_7")).unwrap();
    assert!(backend.connect(7).is_ok() && backend.listener(7).is_some());
    assert_eq!(kind(backend.connect(8)), ErrorKind::NotFound);
    assert!(backend.has_seqpacket() && !base.exists());
    let taken = UnixBackend::bind(dir.path().join("vm_9")).unwrap_err();
    assert_eq!(taken.kind(), ErrorKind::AddrInUse);
}

#[test]
fn t35_connecting_to_a_full_backlog_would_block() {
    let dir = TempDir::new().unwrap();
    let path = dir.path().join("stream");
    let service = UnixListener::bind(&path).unwrap();
    // The usual backlog is longer than some limits on descriptors.
    rustix::net::listen(&service, 4).unwrap();
    let backend = ForwardBackend::new([(1, ForwardTarget::Unix(path.clone()))]).unwrap();
    let mut waiting = Vec::new();
    let full = loop {
        match backend.connect(1) {
            Ok(device) => waiting.push(device),
            Err(error) => break error,
        }
    };
    assert_eq!(full.kind(), ErrorKind::WouldBlock);
}

#[test]
fn t125_a_target_cannot_be_a_socket_of_this_process() {
    let dir = TempDir::new().unwrap();
    let path = |name: &str| dir.path().join(name);
    let listener = UnixBackend::bind(path("vm")).unwrap();
    std::os::unix::fs::symlink("vm", path("link")).unwrap();
    for name in ["vm", "link"] {
        for target in [ForwardTarget::Unix, ForwardTarget::Datagrams] {
            let taken = ForwardBackend::new([(1, target(path(name)))]);
            assert_eq!(taken.unwrap_err().kind(), ErrorKind::AddrInUse);
        }
    }
    drop(listener);
    let _forward = ForwardBackend::new([(1, ForwardTarget::Unix(path("vm")))]).unwrap();
    let taken = UnixBackend::bind(path("vm")).unwrap_err();
    assert_eq!(taken.kind(), ErrorKind::AddrInUse);
    let same = ForwardTarget::Unix(path("x"));
    let twice = ForwardBackend::new([(1, same.clone()), (1, same)]);
    assert_eq!(twice.unwrap_err().kind(), ErrorKind::InvalidInput);
}
