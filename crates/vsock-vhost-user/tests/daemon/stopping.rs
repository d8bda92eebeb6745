// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! What a device lets go when it ends, with its owner looking elsewhere.

use std::any::Any;
use std::io::{self, ErrorKind};
use std::os::fd::{AsRawFd, RawFd};
use std::os::unix::net::UnixStream;
use std::sync::mpsc::{self, Receiver};
use std::thread;

use tempfile::TempDir;
use vsock_backend_api::{VsockBackend, VsockBackendType, VsockStream};
use vsock_inner::VsockInnerConnector;
use vsock_vhost_user::{DeviceBuilder, DeviceError, UnixBackend, VsockDevice};

use crate::guest::{Guest, PATIENCE};

/// A backend with a defect: it panics when it is asked for a client.
struct Defective(UnixStream);

impl AsRawFd for Defective {
    fn as_raw_fd(&self) -> RawFd {
        self.0.as_raw_fd()
    }
}

impl VsockBackend for Defective {
    fn accept(&mut self) -> io::Result<Box<dyn VsockStream>> {
        panic!("on purpose")
    }

    fn connect(&self, _port: u32) -> io::Result<Box<dyn VsockStream>> {
        Err(ErrorKind::ConnectionRefused.into())
    }

    fn r#type(&self) -> VsockBackendType {
        VsockBackendType::Other("defective")
    }

    fn as_any(&self) -> &dyn Any {
        self
    }
}

#[test]
fn a_stop_alone_ends_the_waits_of_host_threads_and_removes_the_sockets_of_backends() {
    let dir = TempDir::new().unwrap();
    let uds = dir.path().join("vm.vsock");
    let (builder, connector) = DeviceBuilder::new(151, dir.path().join("vhost.sock"))
        // Backends go in this order: its file has gone when the listener ends.
        .backend(Box::new(UnixBackend::bind(&uds).unwrap()))
        .in_process()
        .unwrap();
    let device = builder.spawn().unwrap();
    let accepted = accepting(&connector);
    let (connects, connected) = mpsc::channel();
    let connect = || {
        let (connector, connects) = (connector.clone(), connects.clone());
        thread::spawn(move || connects.send(connector.connect_to(52).map(drop)));
    };
    connect();
    device.stopper().stop();
    let end = accepted.recv_timeout(PATIENCE).unwrap();
    assert_eq!(end.unwrap_err().kind(), ErrorKind::NotConnected);
    assert!(!uds.exists());
    // Who comes later does not wait either.
    connect();
    for _ in 0..2 {
        let end = connected.recv_timeout(PATIENCE).unwrap();
        assert_eq!(end.unwrap_err().kind(), ErrorKind::ConnectionRefused);
    }
    assert_eq!(device.counters().packets_from_guest, 0);
    assert!(device.socket().exists());
    device.join().unwrap();
}

/// A thread of the host that waits for a connection; how that ends.
fn accepting(connector: &VsockInnerConnector) -> Receiver<io::Result<()>> {
    let listener = connector.listen(1).unwrap();
    let (accepts, accepted) = mpsc::channel();
    thread::spawn(move || accepts.send(listener.accept().map(drop)));
    accepted
}

/// The wait has ended, by a panic of the device.
fn assert_panicked(accepted: &Receiver<io::Result<()>>, device: VsockDevice) {
    let end = accepted.recv_timeout(PATIENCE).unwrap();
    assert_eq!(end.unwrap_err().kind(), ErrorKind::NotConnected);
    let ended = device.join().unwrap_err();
    assert!(matches!(ended, DeviceError::Panicked), "{ended}");
}

#[test]
fn a_panic_ends_the_waits_of_host_threads_too() {
    let dir = TempDir::new().unwrap();
    let socket = dir.path().join("vhost.sock");
    let (readable, peer) = UnixStream::pair().unwrap();
    drop(peer);
    let (builder, connector) = DeviceBuilder::new(155, &socket)
        .backend(Box::new(Defective(readable)))
        .in_process()
        .unwrap();
    let device = builder.spawn().unwrap();
    let accepted = accepting(&connector);
    let _guest = Guest::boot(&socket, 155);
    assert_panicked(&accepted, device);
}

/// A stream, or a backend, that panics where it is told to.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Where {
    Connect,
    Write,
    Drop,
    DropOfBackend,
}

struct Panicking(Where);

impl Drop for Panicking {
    fn drop(&mut self) {
        assert!(
            thread::panicking() || self.0 != Where::DropOfBackend,
            "on purpose"
        );
    }
}

impl AsRawFd for Panicking {
    fn as_raw_fd(&self) -> RawFd {
        -1
    }
}

impl VsockBackend for Panicking {
    fn accept(&mut self) -> io::Result<Box<dyn VsockStream>> {
        Err(ErrorKind::WouldBlock.into())
    }

    fn connect(&self, _port: u32) -> io::Result<Box<dyn VsockStream>> {
        assert_ne!(self.0, Where::Connect, "on purpose");
        Ok(Box::new(PanickingStream(self.0)))
    }

    fn r#type(&self) -> VsockBackendType {
        VsockBackendType::Other("panicking")
    }

    fn as_any(&self) -> &dyn Any {
        self
    }
}

struct PanickingStream(Where);

impl io::Read for PanickingStream {
    fn read(&mut self, _buf: &mut [u8]) -> io::Result<usize> {
        Err(ErrorKind::WouldBlock.into())
    }
}

impl io::Write for PanickingStream {
    fn write(&mut self, buf: &[u8]) -> io::Result<usize> {
        assert_ne!(self.0, Where::Write, "on purpose");
        Ok(buf.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl AsRawFd for PanickingStream {
    fn as_raw_fd(&self) -> RawFd {
        -1
    }
}

impl VsockStream for PanickingStream {
    fn backend_type(&self) -> VsockBackendType {
        VsockBackendType::Other("panicking")
    }

    fn as_any(&self) -> &dyn Any {
        self
    }
}

impl Drop for PanickingStream {
    fn drop(&mut self) {
        assert!(thread::panicking() || self.0 != Where::Drop, "on purpose");
    }
}

/// Panics at this place; the waits of host threads end.
fn assert_ends(at: Where, cid: u64, stop: bool) {
    let dir = TempDir::new().unwrap();
    let socket = dir.path().join("vhost.sock");
    let (builder, connector) = DeviceBuilder::new(cid, &socket)
        .backend(Box::new(Panicking(at)))
        .in_process()
        .unwrap();
    let device = builder.spawn().unwrap();
    let accepted = accepting(&connector);
    let mut guest = Guest::boot(&socket, cid);
    let connection = guest.request(2000, 7);
    if at != Where::Connect {
        guest.packet();
    }
    if at == Where::Write {
        guest.write(&connection, b"x");
    }
    if stop {
        device.stopper().stop();
    } else if at == Where::Drop {
        guest.say(&connection, vsock_proto::Op::Reset, 0, &[]);
    }
    assert_panicked(&accepted, device);
}

#[test]
fn a_panic_of_a_backend_in_the_middle_of_a_queue_ends_the_waits() {
    assert_ends(Where::Connect, 163, false);
}

#[test]
fn a_panic_of_a_stream_ends_the_waits() {
    assert_ends(Where::Write, 164, false);
}

#[test]
fn a_panic_of_a_stream_that_is_dropped_ends_the_waits() {
    assert_ends(Where::Drop, 165, false);
}

#[test]
fn a_panic_of_a_stream_that_is_dropped_by_a_stop_ends_the_waits() {
    assert_ends(Where::Drop, 166, true);
}

#[test]
fn t132_a_panic_of_a_backend_that_is_dropped_ends_the_waits() {
    assert_ends(Where::DropOfBackend, 167, true);
}
