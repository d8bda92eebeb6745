// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

use std::net::TcpListener;
use std::os::fd::AsRawFd;

use vsock_backend_api::VsockBackend;
use vsock_compliance::poll::{Deadline, PollInterest, wait_ready};

use super::*;
use crate::TcpBackend;
use crate::tcp::dial;
use crate::testing::assert_endings;

const SOON: Duration = Duration::from_secs(20);

fn backend(target: &TcpListener) -> TcpBackend {
    let target = target.local_addr().unwrap();
    let backend = TcpBackend::bind("127.0.0.1:0".parse().unwrap()).unwrap();
    backend.forward([(80, target)]).unwrap()
}

/// Waits for the peer's answer.
fn finish(device: &mut dyn VsockStream) -> io::Result<()> {
    loop {
        wait_ready(
            device.as_raw_fd(),
            PollInterest::Write,
            Deadline::after(SOON),
        )
        .unwrap();
        match device.finish_connect() {
            Err(error) if error.kind() == ErrorKind::WouldBlock => {}
            end => return end,
        }
    }
}

#[test]
fn the_guest_reaches_ipv4_and_ipv6_addresses() {
    for any in ["127.0.0.1:0", "[::1]:0"] {
        let service = TcpListener::bind(any).unwrap();
        let backend = backend(&service);
        let mut device = backend.connect(80).unwrap();
        finish(&mut *device).unwrap();
        device.finish_connect().unwrap();
        device.write_all(b"question").unwrap();
        device.shutdown(Shutdown::Write).unwrap();
        let (mut served, _) = service.accept().unwrap();
        let mut text = String::new();
        served.read_to_string(&mut text).unwrap();
        assert_eq!(text, "question");
        served.write_all(b"answer").unwrap();
        drop(served);
        device.set_nonblocking(false).unwrap();
        text.clear();
        device.read_to_string(&mut text).unwrap();
        assert_eq!(text, "answer");
        device.shutdown(Shutdown::Both).unwrap();
        device.shutdown(Shutdown::Both).unwrap();
    }
}

#[test]
fn a_port_without_a_listener_or_without_an_address_is_refused() {
    let service = TcpListener::bind("127.0.0.1:0").unwrap();
    let backend = backend(&service);
    drop(service);
    let end = backend
        .connect(80)
        .and_then(|mut device| finish(&mut *device));
    assert_eq!(end.unwrap_err().kind(), ErrorKind::ConnectionRefused);
    let unmapped = backend.connect(81).err().unwrap();
    assert_eq!(unmapped.kind(), ErrorKind::ConnectionRefused);
}

#[test]
fn t35_connecting_to_a_listener_with_a_full_backlog_does_not_block() {
    let socket = rustix::net::socket(
        rustix::net::AddressFamily::INET,
        rustix::net::SocketType::STREAM,
        None,
    )
    .unwrap();
    let any: std::net::SocketAddr = "127.0.0.1:0".parse().unwrap();
    rustix::net::bind(&socket, &any).unwrap();
    rustix::net::listen(&socket, 0).unwrap();
    let service = TcpListener::from(socket);
    let backend = backend(&service);
    let mut first = backend.connect(80).unwrap();
    finish(&mut *first).unwrap();
    let mut late = backend.connect(80).unwrap();
    let waits = late.finish_connect().unwrap_err();
    assert_eq!(waits.kind(), ErrorKind::WouldBlock);
    for call in [late.read(&mut [0]), late.write(b"x")] {
        assert_eq!(call.unwrap_err().kind(), ErrorKind::WouldBlock);
    }
    drop(service);
    drop(late);
}

#[test]
fn an_abort_is_a_reset_and_a_drop_is_an_end() {
    assert_endings(|socket| Box::new(TcpVsockStream::new(socket)));
}

#[test]
fn a_socket_connected_to_itself_is_refused() {
    let any = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = any.local_addr().unwrap();
    drop(any);
    let socket = rustix::net::socket(
        rustix::net::AddressFamily::INET,
        rustix::net::SocketType::STREAM,
        None,
    )
    .unwrap();
    rustix::net::bind(&socket, &address).unwrap();
    rustix::net::connect(&socket, &address).unwrap();
    let mut device = TcpVsockStream::dialled(GuardedSocket::without_files(socket));
    let refused = device.finish_connect().unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::ConnectionRefused);
}

#[test]
fn nodelay_and_keepalive_are_set() {
    let service = TcpListener::bind("127.0.0.1:0").unwrap();
    let mut backend = backend(&service);
    let dialled = dial(service.local_addr().unwrap()).unwrap();
    let _client = TcpStream::connect(backend.local_addr()).unwrap();
    wait_ready(
        backend.as_raw_fd(),
        PollInterest::Read,
        Deadline::after(SOON),
    )
    .unwrap();
    let accepted = backend.accept().unwrap();
    let accepted = accepted.as_any().downcast_ref::<TcpVsockStream>();
    for stream in [&dialled, accepted.unwrap()] {
        assert!(sockopt::tcp_nodelay(stream).unwrap());
        assert!(sockopt::socket_keepalive(stream).unwrap());
    }
}

#[test]
fn clients_are_accepted_and_name_their_port() {
    let service = TcpListener::bind("127.0.0.1:0").unwrap();
    let mut backend = backend(&service);
    assert_eq!(
        backend.accept().err().unwrap().kind(),
        ErrorKind::WouldBlock
    );
    assert_eq!(backend.r#type(), VsockBackendType::Tcp);
    assert!(backend.as_any().is::<TcpBackend>());
    let mut client = TcpStream::connect(backend.local_addr()).unwrap();
    client.write_all(b"CONNECT 5\n").unwrap();
    wait_ready(
        backend.as_raw_fd(),
        PollInterest::Read,
        Deadline::after(SOON),
    )
    .unwrap();
    let mut device = backend.accept().unwrap();
    assert_eq!(device.backend_type(), VsockBackendType::Tcp);
    assert_eq!(device.requested_port(), None);
    assert_eq!(
        device.confirm(1).unwrap_err().kind(),
        ErrorKind::Unsupported
    );
    wait_ready(
        device.as_raw_fd(),
        PollInterest::Read,
        Deadline::after(SOON),
    )
    .unwrap();
    assert_eq!(device.read(&mut [0; 20]).unwrap(), 10);
}

#[test]
fn t125_a_backends_address_cannot_be_a_port_of_a_guest() {
    let taken = |result: io::Result<TcpBackend>| {
        assert_eq!(result.unwrap_err().kind(), ErrorKind::AddrInUse);
    };
    let any = "127.0.0.1:0".parse().unwrap();
    let first = TcpBackend::bind(any).unwrap();
    let second = TcpBackend::bind(any).unwrap();
    taken(second.forward([(80, first.local_addr())]));
    let own = first.local_addr();
    taken(first.forward([(80, own)]));
    let free = TcpListener::bind(any).unwrap().local_addr().unwrap();
    let mapped = TcpBackend::bind(any)
        .unwrap()
        .forward([(80, free)])
        .unwrap();
    taken(TcpBackend::bind(free));
    drop(mapped);
    let _now_free = TcpBackend::bind(free).unwrap();
    let twice = TcpBackend::bind(any)
        .unwrap()
        .forward([(1, own), (1, free)]);
    assert_eq!(twice.unwrap_err().kind(), ErrorKind::InvalidInput);
}

#[test]
fn vectored_and_volatile_calls_move_bytes() {
    let service = TcpListener::bind("127.0.0.1:0").unwrap();
    let mut far = TcpStream::connect(service.local_addr().unwrap()).unwrap();
    far.set_read_timeout(Some(SOON)).unwrap();
    let mut device = TcpVsockStream::new(service.accept().unwrap().0);
    assert!(device.readable_bytes() > 0);
    let written = device.write_vectored(&[IoSlice::new(b"ab"), IoSlice::new(b"cd")]);
    assert_eq!(written.unwrap(), 4);
    device.flush().unwrap();
    let (mut ef, mut gh) = (*b"ef", *b"gh");
    let pieces = [&mut ef, &mut gh].map(|piece| VolatileSlice::from(&mut piece[..]));
    assert_eq!(device.write_volatile(&pieces[0]).unwrap(), 2);
    assert_eq!(device.write_volatile_vectored(&pieces[1..]).unwrap(), 2);
    let mut got = [0; 8];
    far.read_exact(&mut got).unwrap();
    assert_eq!(&got, b"abcdefgh");
    far.write_all(&got).unwrap();
    far.shutdown(Shutdown::Write).unwrap();
    let mut all = Vec::new();
    let (mut one, mut two, mut three) = ([0; 2], [0; 2], [0; 2]);
    let read = device.read_vectored(&mut [IoSliceMut::new(&mut one)]);
    assert_eq!(read.unwrap(), 2);
    let piece = &mut VolatileSlice::from(&mut two[..]);
    assert_eq!(device.read_volatile(piece).unwrap(), 2);
    let pieces = [VolatileSlice::from(&mut three[..])];
    assert_eq!(device.read_volatile_vectored(&pieces).unwrap(), 2);
    device.read_to_end(&mut all).unwrap();
    assert_eq!([&one[..], &two, &three, &all].concat(), b"abcdefgh");
}
