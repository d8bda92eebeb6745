// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! What a device lets go when it ends, with its owner looking elsewhere.

use std::any::Any;
use std::fs::File;
use std::io::{self, ErrorKind, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::os::fd::{AsRawFd, RawFd};
use std::os::unix::net::UnixStream;
use std::sync::mpsc::{self, Receiver};
use std::thread;

use tempfile::TempDir;
use vhost::vhost_user::message::FrontendReq;
use vmm_sys_util::sock_ctrl_msg::ScmSocket;
use vsock_backend_api::{VsockBackend, VsockBackendType, VsockStream};
use vsock_compliance::poll::{Deadline, Stopwatch, wait_until};
use vsock_inner::VsockInnerConnector;
use vsock_proto::Op;
use vsock_vhost_user::{
    DeviceBuilder, DeviceError, UnixBackend, UnixSeqpacketBackend, VsockDevice,
};

use crate::descriptors::{STOP, assert_served};
use crate::guest::{Guest, PATIENCE};
use crate::ring::BUFFER;
use crate::vmm::{FEATURES, RX, Vmm, header};

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
    // It may panic before it has answered the last request.
    let mut vmm = Vmm::connect(&socket);
    let _started = vmm.start(FEATURES);
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

impl Read for PanickingStream {
    fn read(&mut self, _buf: &mut [u8]) -> io::Result<usize> {
        Err(ErrorKind::WouldBlock.into())
    }
}

impl Write for PanickingStream {
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
        guest.say(&connection, Op::Reset, 0, &[]);
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

/// What panics when it is dropped.
struct Bomb;

impl Drop for Bomb {
    fn drop(&mut self) {
        assert!(thread::panicking(), "on purpose");
    }
}

/// A stream that panics when it is dropped, with what panics when it is dropped.
struct Nested(mpsc::Sender<()>);

impl Write for Nested {
    fn write(&mut self, buf: &[u8]) -> io::Result<usize> {
        Ok(buf.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Read for Nested {
    fn read(&mut self, _buf: &mut [u8]) -> io::Result<usize> {
        Err(ErrorKind::WouldBlock.into())
    }
}

impl AsRawFd for Nested {
    fn as_raw_fd(&self) -> RawFd {
        -1
    }
}

impl VsockStream for Nested {
    fn backend_type(&self) -> VsockBackendType {
        VsockBackendType::Other("nested")
    }

    fn as_any(&self) -> &dyn Any {
        self
    }
}

impl Drop for Nested {
    fn drop(&mut self) {
        let _told = self.0.send(());
        std::panic::panic_any(Bomb);
    }
}

struct NestedBackend(mpsc::Sender<()>);

impl AsRawFd for NestedBackend {
    fn as_raw_fd(&self) -> RawFd {
        -1
    }
}

impl VsockBackend for NestedBackend {
    fn accept(&mut self) -> io::Result<Box<dyn VsockStream>> {
        Err(ErrorKind::WouldBlock.into())
    }

    fn connect(&self, _port: u32) -> io::Result<Box<dyn VsockStream>> {
        Ok(Box::new(Nested(self.0.clone())))
    }

    fn r#type(&self) -> VsockBackendType {
        VsockBackendType::Other("nested")
    }

    fn as_any(&self) -> &dyn Any {
        self
    }
}

/// A backend that panics when it is dropped.
struct BombBackend;

impl AsRawFd for BombBackend {
    fn as_raw_fd(&self) -> RawFd {
        -1
    }
}

impl VsockBackend for BombBackend {
    fn accept(&mut self) -> io::Result<Box<dyn VsockStream>> {
        Err(ErrorKind::WouldBlock.into())
    }

    fn connect(&self, _port: u32) -> io::Result<Box<dyn VsockStream>> {
        Err(ErrorKind::ConnectionRefused.into())
    }

    fn r#type(&self) -> VsockBackendType {
        VsockBackendType::Other("bomb")
    }

    fn as_any(&self) -> &dyn Any {
        self
    }
}

impl Drop for BombBackend {
    fn drop(&mut self) {
        assert!(thread::panicking(), "on purpose");
    }
}

#[test]
fn t132_streams_and_backends_that_all_panic_when_they_are_dropped_end_their_device_alone() {
    let dir = TempDir::new().unwrap();
    let socket = dir.path().join("vhost.sock");
    let (tells, dropped) = mpsc::channel();
    let (builder, connector) = DeviceBuilder::new(172, &socket)
        .backend_for(Box::new(BombBackend), &[8])
        .backend_for(Box::new(BombBackend), &[9])
        .backend(Box::new(NestedBackend(tells)))
        .in_process()
        .unwrap();
    let device = builder.spawn().unwrap();
    let accepted = accepting(&connector);
    let mut guest = Guest::boot(&socket, 172);
    for port in 2000..2010 {
        let (_, answer) = guest.connect(port, 7);
        assert_eq!(answer.op, u16::from(Op::Response));
    }
    device.stopper().stop();
    assert_panicked(&accepted, device);
    assert_eq!(dropped.iter().count(), 10, "none is left");
    let again = DeviceBuilder::new(172, &socket).spawn().unwrap();
    again.stop().unwrap();
}

/// A backend whose `accept` does not return before it is let go.
struct Stuck {
    readable: UnixStream,
    entered: mpsc::Sender<()>,
    let_go: Receiver<()>,
}

impl AsRawFd for Stuck {
    fn as_raw_fd(&self) -> RawFd {
        self.readable.as_raw_fd()
    }
}

impl VsockBackend for Stuck {
    fn accept(&mut self) -> io::Result<Box<dyn VsockStream>> {
        let _told = self.entered.send(());
        let _gone = self.let_go.recv();
        Err(ErrorKind::WouldBlock.into())
    }

    fn connect(&self, _port: u32) -> io::Result<Box<dyn VsockStream>> {
        Err(ErrorKind::ConnectionRefused.into())
    }

    fn r#type(&self) -> VsockBackendType {
        VsockBackendType::Other("stuck")
    }

    fn as_any(&self) -> &dyn Any {
        self
    }
}

#[test]
fn a_stop_ends_though_a_backend_does_not_and_says_so() {
    let dir = TempDir::new().unwrap();
    let (socket, uds) = (dir.path().join("vhost.sock"), dir.path().join("vm.vsock"));
    let (readable, peer) = UnixStream::pair().unwrap();
    drop(peer);
    let ((entered, enters), (lets_go, let_go)) = (mpsc::channel(), mpsc::channel());
    let stuck = Stuck {
        readable,
        entered,
        let_go,
    };
    let device = DeviceBuilder::new(167, &socket)
        .backend(Box::new(stuck))
        .backend(Box::new(UnixBackend::bind(&uds).unwrap()))
        .backend(Box::new(UnixSeqpacketBackend::bind(&uds).unwrap()))
        .spawn()
        .unwrap();
    let mut vmm = Vmm::connect(&socket);
    vmm.start(FEATURES).unwrap();
    enters.recv_timeout(PATIENCE).unwrap();
    let watch = Stopwatch::start();
    let ended = device.stop().unwrap_err();
    assert!(matches!(ended, DeviceError::NotEnded(_)), "{ended}");
    assert!(ended.to_string().contains("moves bytes"), "{ended}");
    assert!(watch.elapsed() < 2 * STOP, "{:?}", watch.elapsed());
    assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0);
    // The front-end is not left waiting.
    let end = vmm.socket().read(&mut [0]).map_err(|error| error.kind());
    assert!(
        matches!(end, Ok(0) | Err(ErrorKind::ConnectionReset)),
        "{end:?}"
    );
    // What still runs shares its CID with nobody, until it has ended.
    let taken = DeviceBuilder::new(167, &socket).spawn().unwrap_err();
    assert!(matches!(taken, DeviceError::CidTaken(_)), "{taken}");
    drop(lets_go);
    wait_until(Deadline::after(PATIENCE), || {
        DeviceBuilder::new(167, &socket).spawn().is_ok()
    })
    .unwrap();
}

/// A socket whose last `close` waits until its peer has read everything, and the peer, which does not.
fn lingering() -> (TcpStream, TcpStream) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let mut near = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
    let (far, _) = listener.accept().unwrap();
    near.set_nonblocking(true).unwrap();
    while near.write(&[0; 65_536]).is_ok() {}
    near.set_nonblocking(false).unwrap();
    rustix::net::sockopt::set_socket_linger(&near, Some(100 * PATIENCE)).unwrap();
    (near, far)
}

/// Lets the device close a file that is slow to close; it is closed when this is dropped.
pub(crate) fn hold_up(vmm: &Vmm) -> TcpStream {
    let (near, far) = lingering();
    let request = [&header(FrontendReq::SET_VRING_ERR, 0, 8)[..], &[0; 8]].concat();
    let (first, rest) = request.split_at(1);
    let fds = [near.as_raw_fd()];
    let mut front_end = vmm.socket();
    front_end.send_with_fds(&[first], &fds).unwrap();
    // From here on the device's is the last one.
    drop(near);
    front_end.write_all(rest).unwrap();
    far
}

#[test]
fn t119_a_file_that_is_slow_to_close_stops_no_byte_and_no_stop() {
    let dir = TempDir::new().unwrap();
    let socket = dir.path().join("vhost.sock");
    let (builder, connector) = DeviceBuilder::new(173, &socket).in_process().unwrap();
    let device = builder.spawn().unwrap();
    let mut guest = Guest::boot(&socket, 173);
    let far = hold_up(&guest.vmm);
    for port in 1..20 {
        assert_served(&mut guest, &connector, port);
    }
    let watch = Stopwatch::start();
    let ended = device.stop().unwrap_err();
    assert!(watch.elapsed() < 2 * STOP, "{:?}", watch.elapsed());
    assert!(ended.to_string().contains("requests"), "{ended}");
    assert!(!socket.exists());
    drop(far);
    wait_until(Deadline::after(PATIENCE), || {
        DeviceBuilder::new(173, &socket).spawn().is_ok()
    })
    .unwrap();
}

/// A backend that does not go before it is let go.
struct Clinging(Receiver<()>);

impl AsRawFd for Clinging {
    fn as_raw_fd(&self) -> RawFd {
        -1
    }
}

impl VsockBackend for Clinging {
    fn accept(&mut self) -> io::Result<Box<dyn VsockStream>> {
        Err(ErrorKind::WouldBlock.into())
    }

    fn connect(&self, _port: u32) -> io::Result<Box<dyn VsockStream>> {
        Err(ErrorKind::ConnectionRefused.into())
    }

    fn r#type(&self) -> VsockBackendType {
        VsockBackendType::Other("clinging")
    }

    fn as_any(&self) -> &dyn Any {
        self
    }
}

impl Drop for Clinging {
    fn drop(&mut self) {
        let _gone = self.0.recv();
    }
}

#[test]
fn a_backend_that_does_not_go_is_what_a_stop_names() {
    let dir = TempDir::new().unwrap();
    let (lets_go, let_go) = mpsc::channel();
    let device = DeviceBuilder::new(168, dir.path().join("vhost.sock"))
        .backend(Box::new(Clinging(let_go)))
        .spawn()
        .unwrap();
    let ended = device.stop().unwrap_err();
    assert!(ended.to_string().contains("from its drop"), "{ended}");
    drop(lets_go);
}

#[test]
fn t133_a_stop_resets_the_connections_of_a_guest_that_has_room_for_it() {
    let dir = TempDir::new().unwrap();
    let socket = dir.path().join("vhost.sock");
    let (builder, connector) = DeviceBuilder::new(169, &socket).in_process().unwrap();
    let device = builder.spawn().unwrap();
    let listener = connector.listen(1).unwrap();
    let mut guest = Guest::boot(&socket, 169);
    let mut held = Vec::new();
    for guest_port in 2000..2010 {
        let (_, answer) = guest.connect(guest_port, 1);
        assert_eq!(answer.op, u16::from(Op::Response));
        held.push(listener.accept().unwrap());
    }
    device.stop().unwrap();
    // The device has gone. What it had to say is in the guest's ring.
    let mut told: Vec<u32> = (2000..2010)
        .map(|_| guest.expect(Op::Reset).0.dst_port)
        .collect();
    told.sort_unstable();
    assert!(told.into_iter().eq(2000..2010));
    for mut stream in held {
        stream.read(&mut [0]).unwrap_err();
    }
}

#[test]
fn t133_a_guest_without_room_does_not_hold_up_a_stop() {
    let dir = TempDir::new().unwrap();
    let socket = dir.path().join("vhost.sock");
    let (builder, connector) = DeviceBuilder::new(170, &socket).in_process().unwrap();
    let device = builder.spawn().unwrap();
    let listener = connector.listen(1).unwrap();
    let mut vmm = Vmm::connect(&socket);
    vmm.start(FEATURES).unwrap();
    // One buffer, for the answer.
    vmm.rings[RX].offer(BUFFER, true);
    vmm.rings[RX].notify(0);
    let mut guest = Guest::of(vmm, 170);
    guest.request(2000, 1);
    let _held = listener.accept().unwrap();
    let watch = Stopwatch::start();
    device.stop().unwrap();
    assert!(watch.elapsed() < STOP, "{:?}", watch.elapsed());
}

/// A stream that notes which signals are blocked where it is written to.
struct Observing(mpsc::Sender<String>);

impl Read for Observing {
    fn read(&mut self, _buf: &mut [u8]) -> io::Result<usize> {
        Err(ErrorKind::WouldBlock.into())
    }
}

impl Write for Observing {
    fn write(&mut self, buf: &[u8]) -> io::Result<usize> {
        let status = std::fs::read_to_string("/proc/thread-self/status")?;
        let _told = self.0.send(status);
        Ok(buf.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl AsRawFd for Observing {
    fn as_raw_fd(&self) -> RawFd {
        -1
    }
}

impl VsockStream for Observing {
    fn backend_type(&self) -> VsockBackendType {
        VsockBackendType::Other("observing")
    }

    fn as_any(&self) -> &dyn Any {
        self
    }
}

impl AsRawFd for ObservingBackend {
    fn as_raw_fd(&self) -> RawFd {
        -1
    }
}

struct ObservingBackend(mpsc::Sender<String>);

impl VsockBackend for ObservingBackend {
    fn accept(&mut self) -> io::Result<Box<dyn VsockStream>> {
        Err(ErrorKind::WouldBlock.into())
    }

    fn connect(&self, _port: u32) -> io::Result<Box<dyn VsockStream>> {
        Ok(Box::new(Observing(self.0.clone())))
    }

    fn r#type(&self) -> VsockBackendType {
        VsockBackendType::Other("observing")
    }

    fn as_any(&self) -> &dyn Any {
        self
    }
}

/// A stream of a caller's may write to a pipe or a socket whose reader has gone, in a process that has
/// not changed what `SIGPIPE` does: it would end the process.
#[test]
fn a_stream_that_writes_to_what_has_gone_raises_no_signal() {
    let dir = TempDir::new().unwrap();
    let socket = dir.path().join("vhost.sock");
    let (tells, told) = mpsc::channel();
    let _device = DeviceBuilder::new(171, &socket)
        .backend(Box::new(ObservingBackend(tells)))
        .spawn()
        .unwrap();
    let mut guest = Guest::boot(&socket, 171);
    let (connection, _) = guest.connect(2000, 7);
    guest.write(&connection, b"x");
    let status = told.recv_timeout(PATIENCE).unwrap();
    let blocked = status
        .lines()
        .find_map(|line| line.strip_prefix("SigBlk:"))
        .unwrap();
    let blocked = u64::from_str_radix(blocked.trim(), 16).unwrap();
    let sigpipe = rustix::process::Signal::PIPE.as_raw() - 1;
    assert_eq!(blocked >> sigpipe & 1, 1, "{blocked:#x}");
}

#[test]
fn t132_a_panic_of_a_backend_that_is_dropped_ends_the_waits() {
    assert_ends(Where::DropOfBackend, 190, true);
}

#[test]
fn t126_a_lock_of_the_directory_that_is_never_given_back_holds_no_stop_up() {
    let dir = TempDir::new().unwrap();
    let (socket, uds) = (dir.path().join("vhost.sock"), dir.path().join("vm.vsock"));
    let device = DeviceBuilder::new(179, &socket)
        .backend(Box::new(UnixBackend::bind(&uds).unwrap()))
        .backend(Box::new(UnixSeqpacketBackend::bind(&uds).unwrap()))
        .spawn()
        .unwrap();
    let directory = File::open(dir.path()).unwrap();
    directory.lock().unwrap();
    let watch = Stopwatch::start();
    device.stop().unwrap();
    assert!(watch.elapsed() < STOP, "{:?}", watch.elapsed());
}

#[test]
fn t119_a_file_in_the_queue_of_a_front_end_that_waits_does_not_hold_up_a_stop() {
    let dir = TempDir::new().unwrap();
    let socket = dir.path().join("vhost.sock");
    let device = DeviceBuilder::new(180, &socket).spawn().unwrap();
    let mut vmm = Vmm::connect(&socket);
    vmm.start(FEATURES).unwrap();
    let (near, far) = lingering();
    let waits = UnixStream::connect(&socket).unwrap();
    waits
        .send_with_fds(&[&b"x"[..]], &[near.as_raw_fd()])
        .unwrap();
    drop(near);
    let (tells, ended) = mpsc::channel();
    let stop = thread::spawn(move || tells.send(device.stop()));
    let ended = ended.recv_timeout(2 * STOP);
    drop(far);
    stop.join().unwrap().unwrap();
    ended.unwrap().unwrap();
}
