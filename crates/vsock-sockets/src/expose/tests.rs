// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::os::fd::AsRawFd;
use std::os::unix::net::UnixStream;

use tempfile::TempDir;
use vsock_compliance::poll::{Deadline, PollInterest, wait_ready};

use super::*;
use crate::{ForwardBackend, ForwardTarget, TcpBackend, UnixBackend};

fn accept(backend: &mut ExposeBackend) -> Box<dyn VsockStream> {
    let soon = Deadline::after(std::time::Duration::from_secs(20));
    wait_ready(backend.as_raw_fd(), PollInterest::Read, soon).unwrap();
    backend.accept().unwrap()
}

#[test]
fn a_client_of_a_unix_socket_is_connected_to_its_port() {
    let dir = TempDir::new().unwrap();
    let path = dir.path().join("ssh");
    let mut backend = ExposeBackend::bind(&ExposedAt::Unix(path.clone()), 22).unwrap();
    assert_eq!(
        backend.accept().err().unwrap().kind(),
        ErrorKind::WouldBlock
    );
    let mut client = UnixStream::connect(&path).unwrap();
    let mut device = accept(&mut backend);
    assert_eq!(device.requested_port(), Some(22));
    device.confirm(1 << 30).unwrap();
    device.write_all(b"SSH").unwrap();
    client.read_exact(&mut [0; 3]).unwrap();
    assert_eq!(
        backend.connect(22).err().unwrap().kind(),
        ErrorKind::ConnectionRefused
    );
    assert_eq!(backend.r#type(), VsockBackendType::UnixStream);
    assert!(backend.as_any().is::<ExposeBackend>());
    let at = format!("unix:{}", path.display());
    assert_eq!(backend.exposed_at().to_string(), at);
    backend.file_remover().unwrap().remove();
    assert!(!path.exists());
    drop(backend);
    let backend = ExposeBackend::bind(&ExposedAt::Unix(path.clone()), 22).unwrap();
    drop(backend);
    assert!(!path.exists());
}

#[test]
fn a_client_of_a_tcp_socket_is_connected_to_its_port() {
    for any in ["tcp:127.0.0.1:0", "tcp:[::1]:0"] {
        let mut backend = ExposeBackend::bind(&any.parse().unwrap(), 22).unwrap();
        let ExposedAt::Tcp(address) = *backend.exposed_at() else {
            panic!("not TCP");
        };
        assert_ne!(address.port(), 0, "the system chose a port");
        assert_eq!(backend.exposed_at().to_string(), format!("tcp:{address}"));
        let _client = TcpStream::connect(address).unwrap();
        let mut device = accept(&mut backend);
        assert_eq!(device.requested_port(), Some(22));
        device.confirm(1 << 30).unwrap();
        assert_eq!(device.backend_type(), VsockBackendType::Tcp);
        assert_eq!(backend.r#type(), VsockBackendType::Tcp);
        assert!(backend.file_remover().is_none());
    }
}

#[test]
fn the_error_names_the_address() {
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let tcp = format!("tcp:{}", taken.local_addr().unwrap());
    for (at, port, kind) in [
        ("unix:/nowhere/x", 22, ErrorKind::NotFound),
        ("unix:/dev/null", 22, ErrorKind::AddrInUse),
        ("unix:/nowhere/x", u32::MAX, ErrorKind::InvalidInput),
        (&tcp, 22, ErrorKind::AddrInUse),
    ] {
        let error = ExposeBackend::bind(&at.parse().unwrap(), port).unwrap_err();
        assert_eq!(error.kind(), kind);
        assert!(error.to_string().starts_with(&format!("{at}: ")), "{error}");
    }
}

#[test]
fn t125_no_guest_can_connect_to_an_exposed_address() {
    let dir = TempDir::new().unwrap();
    let path = dir.path().join("vm_5");
    let in_use = |error: io::Error| assert_eq!(error.kind(), ErrorKind::AddrInUse);
    let exposed = ExposeBackend::bind(&ExposedAt::Unix(path.clone()), 22).unwrap();
    in_use(UnixBackend::bind(dir.path().join("vm")).unwrap_err());
    in_use(ForwardBackend::new([(5, ForwardTarget::Unix(path.clone()))]).unwrap_err());
    in_use(ExposeBackend::bind(&ExposedAt::Unix(path), 23).unwrap_err());
    drop(exposed);
    let exposed = ExposeBackend::bind(&"tcp:127.0.0.1:0".parse().unwrap(), 22).unwrap();
    let ExposedAt::Tcp(address) = *exposed.exposed_at() else {
        panic!("not TCP");
    };
    in_use(ForwardBackend::new([(5, ForwardTarget::Tcp(address))]).unwrap_err());
    let other = TcpBackend::bind("127.0.0.1:0".parse().unwrap()).unwrap();
    in_use(other.forward([(5, address)]).unwrap_err());
}

#[test]
fn the_error_for_an_invalid_address_says_what_was_expected() {
    for text in [
        "",
        "/x",
        "unix:",
        "tcp:localhost:80",
        "tcp:127.0.0.1",
        "dgram:/x",
    ] {
        assert_eq!(text.parse::<ExposedAt>(), Err(ExposedAtError), "{text}");
    }
    for text in ["unix:/a=b", "tcp:[::]:0"] {
        assert_eq!(text.parse::<ExposedAt>().unwrap().to_string(), text);
    }
}
