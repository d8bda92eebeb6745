// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Connections with programs that do not know vsock: plain Unix sockets, TCP and datagrams.

use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::os::unix::net::{UnixDatagram, UnixListener, UnixStream};

use rustix::net::{AddressFamily, SocketType};
use vsock_compliance::poll::{Deadline, wait_until};
use vsock_proto::Op;
use vsock_vhost_user::{Config, ExposeBackend, ExposedAt, ForwardBackend, ForwardTarget};

use crate::closing::close;
use crate::guest::{GENEROUS, Guest};
use crate::host::Host;
use crate::program::{Program, run};

/// Returns a device that forwards port 7.
fn forwarding(target: impl FnOnce(&std::path::Path) -> ForwardTarget) -> Host {
    Host::with(|path, builder| {
        let target = target(path.parent().unwrap());
        let backend = ForwardBackend::new([(7, target)]).unwrap();
        builder.backend_for(Box::new(backend), &[7])
    })
}

#[test]
fn the_guest_reaches_a_tcp_address_and_half_closes_pass() {
    for any in ["127.0.0.1:0", "[::1]:0"] {
        let service = TcpListener::bind(any).unwrap();
        let address = service.local_addr().unwrap();
        let host = forwarding(|_| ForwardTarget::Tcp(address));
        let mut guest = host.boot();
        let (mut socket, answer) = guest.connect(1234, 7);
        assert_eq!(answer.op, u16::from(Op::Response));
        guest.write(&socket, b"question");
        guest.say(&socket, Op::Shutdown, 2, b"");
        let (mut served, _) = service.accept().unwrap();
        let mut text = String::new();
        served.read_to_string(&mut text).unwrap();
        assert_eq!(text, "question");
        served.write_all(b"answer").unwrap();
        assert_eq!(guest.read(&mut socket, 6), b"answer");
        served.shutdown(Shutdown::Write).unwrap();
        guest.expect(Op::Shutdown);
    }
}

#[test]
fn an_address_without_a_listener_is_refused() {
    let service = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = service.local_addr().unwrap();
    close([service]);
    let host = forwarding(|_| ForwardTarget::Tcp(address));
    let mut guest = host.boot();
    let (_, answer) = guest.connect(1234, 7);
    assert_eq!(answer.op, u16::from(Op::Reset));
}

#[test]
fn a_client_of_an_exposed_address_needs_no_handshake() {
    let mut address = None;
    let host = Host::with(|_, builder| {
        let any = "tcp:127.0.0.1:0".parse().unwrap();
        let backend = ExposeBackend::bind(&any, 22).unwrap();
        if let ExposedAt::Tcp(chosen) = backend.exposed_at() {
            address = Some(*chosen);
        }
        builder.backend_for(Box::new(backend), &[])
    });
    let mut guest = host.boot();
    let mut client = TcpStream::connect(address.unwrap()).unwrap();
    client.set_read_timeout(Some(GENEROUS)).unwrap();
    client.write_all(b"hello").unwrap();
    let mut socket = guest.accept(22);
    assert_eq!(guest.read(&mut socket, 5), b"hello");
    guest.write(&socket, b"SSH-2.0");
    let mut got = [0; 7];
    client.read_exact(&mut got).unwrap();
    assert_eq!(&got, b"SSH-2.0");
}

/// As systemd does: send a message, stop sending, and wait for the end.
#[test]
fn a_systemd_notification_is_a_datagram_and_its_sender_reads_the_end() {
    let mut receiver = None;
    let host = forwarding(|directory| {
        let path = directory.join("notify");
        receiver = Some(UnixDatagram::bind(&path).unwrap());
        ForwardTarget::Datagrams(path)
    });
    let receiver = receiver.unwrap();
    receiver.set_read_timeout(Some(GENEROUS)).unwrap();
    let mut guest = Guest::boot_for_messages(&host.socket(), host.cid);
    let socket = guest.request_as(2, 1234, 7);
    guest.expect(Op::Response);
    let message = b"READY=1\nSTATUS=up\nMAINPID=1";
    guest.send_message(&socket, message, 2000);
    guest.say(&socket, Op::Shutdown, 2, b"");
    let mut buffer = [0; 100];
    let len = receiver.recv(&mut buffer).unwrap();
    assert_eq!(&buffer[..len], message);
    guest.expect(Op::Shutdown);
}

#[test]
fn a_missing_datagram_receiver_affects_only_its_own_port() {
    let mut receiver = None;
    let host = forwarding(|directory| {
        let path = directory.join("notify");
        receiver = Some(UnixDatagram::bind(&path).unwrap());
        ForwardTarget::Datagrams(path)
    });
    let mut guest = Guest::boot_for_messages(&host.socket(), host.cid);
    close(receiver);
    let _socket = guest.request_as(2, 1234, 7);
    guest.expect(Op::Reset);
    host.assert_serves(&mut guest, 9);
}

/// The longest message that the device accepts from the guest.
const LARGE: u32 = 64 << 20;

#[test]
fn a_message_too_long_for_a_datagram_resets_only_its_own_connection() {
    let mut receiver = None;
    let host = Host::with(|path, builder| {
        let path = path.parent().unwrap().join("notify");
        receiver = Some(UnixDatagram::bind(&path).unwrap());
        let target = ForwardTarget::Datagrams(path);
        let backend = ForwardBackend::new([(7, target)]).unwrap();
        let config = Config::builder().buf_alloc(LARGE).max_message(LARGE);
        builder
            .config(config.build().unwrap())
            .backend_for(Box::new(backend), &[7])
    });
    let mut guest = Guest::boot_for_messages(&host.socket(), host.cid);
    let socket = guest.request_as(2, 1234, 7);
    guest.expect(Op::Response);
    guest.send_message(&socket, &vec![7; (LARGE / 2) as usize], 3000);
    guest.expect(Op::Reset);
    let socket = guest.request_as(2, 1235, 7);
    guest.expect(Op::Response);
    guest.send_message(&socket, b"READY=1", 2000);
    let mut buffer = [0; 10];
    assert_eq!(receiver.unwrap().recv(&mut buffer).unwrap(), 7);
}

#[test]
fn t35_an_address_that_does_not_answer_delays_only_its_own_connection() {
    let socket = rustix::net::socket(AddressFamily::INET, SocketType::STREAM, None).unwrap();
    let any: std::net::SocketAddr = "127.0.0.1:0".parse().unwrap();
    rustix::net::bind(&socket, &any).unwrap();
    // The listener has room for one connection, and does not answer others.
    rustix::net::listen(&socket, 0).unwrap();
    let service = TcpListener::from(socket);
    let host = Host::with(|_, builder| {
        let target = ForwardTarget::Tcp(service.local_addr().unwrap());
        let backend = ForwardBackend::new([(7, target)]).unwrap();
        let config = Config::builder().response_timeout(GENEROUS);
        builder
            .config(config.build().unwrap())
            .backend_for(Box::new(backend), &[7])
    });
    let mut guest = host.boot();
    let (_, first) = guest.connect(1, 7);
    assert_eq!(first.op, u16::from(Op::Response));
    let waiting = guest.request(2, 7);
    host.assert_serves(&mut guest, 9);
    let _first = service.accept().unwrap();
    let (answer, _) = guest.expect(Op::Response);
    assert_eq!(answer.dst_port, waiting.guest_port);
}

#[test]
fn tcp_resets_pass_both_ways() {
    let service = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = service.local_addr().unwrap();
    let host = forwarding(|_| ForwardTarget::Tcp(address));
    let mut guest = host.boot();
    for by_guest in [true, false] {
        let (mut socket, answer) = guest.connect(1234, 7);
        assert_eq!(answer.op, u16::from(Op::Response));
        guest.write(&socket, b"question");
        let (mut served, _) = service.accept().unwrap();
        served.set_read_timeout(Some(GENEROUS)).unwrap();
        served.read_exact(&mut [0; 8]).unwrap();
        served.write_all(b"answer").unwrap();
        assert_eq!(guest.read(&mut socket, 6), b"answer");
        if by_guest {
            guest.say(&socket, Op::Reset, 0, b"");
            let end = served.read(&mut [0]).unwrap_err();
            assert_eq!(end.kind(), ErrorKind::ConnectionReset);
        } else {
            let reset = Some(std::time::Duration::ZERO);
            rustix::net::sockopt::set_socket_linger(&served, reset).unwrap();
            drop(served);
            guest.expect(Op::Reset);
        }
    }
}

#[test]
fn a_target_can_come_and_go() {
    let host = forwarding(|directory| ForwardTarget::Unix(directory.join("service")));
    let mut guest = host.boot();
    let path = host.path("service");
    for _ in 0..2 {
        assert_eq!(guest.connect_to(1, 7), Some(Op::Reset));
        let service = UnixListener::bind(&path).unwrap();
        assert_eq!(guest.connect_to(2, 7), Some(Op::Response));
        drop(service);
        guest.expect(Op::Reset);
        assert_eq!(
            guest.connect_to(3, 7),
            Some(Op::Reset),
            "there is no listener"
        );
        std::fs::remove_file(&path).unwrap();
    }
}

#[test]
fn t127_clients_of_an_exposed_socket_that_leave_before_the_guest_boots_are_not_announced() {
    let host = Host::with(|path, builder| {
        let at = ExposedAt::Unix(path.parent().unwrap().join("ssh"));
        builder.backend_for(Box::new(ExposeBackend::bind(&at, 22).unwrap()), &[])
    });
    close((0..100).map(|_| UnixStream::connect(host.path("ssh")).unwrap()));
    let mut client = UnixStream::connect(host.path("ssh")).unwrap();
    client.write_all(b"alive").unwrap();
    let mut guest = host.boot();
    let mut socket = guest.accept(22);
    assert_eq!(guest.read(&mut socket, 5), b"alive");
}

#[test]
fn t100_a_thousand_tcp_connections_leave_no_descriptor_behind() {
    let service = TcpListener::bind("127.0.0.1:0").unwrap();
    let forward = format!("--forward=7=tcp:{}", service.local_addr().unwrap());
    let program = Program::start_one(&[&forward, "--expose=tcp:127.0.0.1:0=22"]);
    let mut guest = program.boot();
    let descriptors = || std::fs::read_dir(program.proc("fd")).unwrap().count();
    let before = descriptors();
    for number in 0..1000 {
        let (socket, answer) = guest.connect(1000 + number, 7);
        assert_eq!(answer.op, u16::from(Op::Response), "{number}");
        let (mut served, _) = service.accept().unwrap();
        guest.write(&socket, b"question");
        served.read_exact(&mut [0; 8]).unwrap();
        guest.say(&socket, Op::Shutdown, 3, b"");
        guest.expect(Op::Reset);
        assert_eq!(served.read(&mut [0]).unwrap(), 0);
    }
    wait_until(Deadline::after(GENEROUS), || descriptors() <= before).unwrap();
}

#[test]
fn the_error_names_an_address_in_use_and_no_socket_is_left() {
    let taken = TcpListener::bind("[::1]:0").unwrap();
    let at = format!("tcp:{}", taken.local_addr().unwrap());
    let dir = tempfile::TempDir::new().unwrap();
    let name = |name: &str| dir.path().join(name).display().to_string();
    let (code, said) = run(&[
        "--guest-cid=3",
        &format!("--socket={}", name("3.sock")),
        &format!("--uds-path={}", name("3.vsock")),
        &format!("--expose={at}=22"),
    ]);
    assert_eq!(code, Some(1));
    assert!(said.contains(&at) && said.contains("in use"), "{said}");
    assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0);
}

#[test]
fn the_program_has_options_to_forward_to_expose_and_not_to_listen() {
    let dir = tempfile::TempDir::new().unwrap();
    let at = |name: &str| dir.path().join(name).display().to_string();
    let program = Program::start_one(&[
        &format!("--forward=7=unix:{}", at("service")),
        &format!("--expose=unix:{}=22", at("ssh")),
        "--no-connect",
    ]);
    assert!(!program.dir.path().join("3.vsock").exists());
    let service = UnixListener::bind(at("service")).unwrap();
    let mut guest = program.boot();
    let (socket, answer) = guest.connect(1234, 7);
    assert_eq!(answer.op, u16::from(Op::Response));
    guest.write(&socket, b"ping");
    let (mut served, _) = service.accept().unwrap();
    let mut got = [0; 4];
    served.read_exact(&mut got).unwrap();
    let _named = program.listen(9);
    let (_, answer) = guest.connect(1235, 9);
    assert_eq!(answer.op, u16::from(Op::Response));
    let mut client = UnixStream::connect(at("ssh")).unwrap();
    client.write_all(b"hello").unwrap();
    let mut socket = guest.accept(22);
    assert_eq!(guest.read(&mut socket, 5), b"hello");
    drop(program);
}
