// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Programs that know nothing of vsock: plain sockets, TCP and datagrams.

use std::io::{Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::os::unix::net::{UnixDatagram, UnixListener, UnixStream};

use vsock_proto::Op;
use vsock_vhost_user::{ExposeBackend, ExposedAt, ForwardBackend, ForwardTarget};

use crate::guest::{GENEROUS, Guest};
use crate::host::Host;
use crate::program::Program;

/// A device that forwards port 7.
fn forwarding(target: impl FnOnce(&std::path::Path) -> ForwardTarget) -> Host {
    Host::with(|path, builder| {
        let target = target(path.parent().unwrap());
        let backend = ForwardBackend::new([(7, target)]).unwrap();
        builder.backend_for(Box::new(backend), &[7])
    })
}

#[test]
fn the_guest_reaches_an_address_of_tcp_with_half_closes() {
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
    drop(service);
    let host = forwarding(|_| ForwardTarget::Tcp(address));
    let mut guest = host.boot();
    let (_, answer) = guest.connect(1234, 7);
    assert_eq!(answer.op, u16::from(Op::Reset));
}

#[test]
fn a_client_of_an_exposed_address_speaks_to_the_port_without_a_word_before() {
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

/// As systemd does it: a message, the end of sending, and the wait for the end.
#[test]
fn a_notification_of_systemd_is_a_datagram_and_its_sender_reads_the_end() {
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
fn a_receiver_that_has_gone_refuses_the_guest_and_harms_no_other() {
    let mut receiver = None;
    let host = forwarding(|directory| {
        let path = directory.join("notify");
        receiver = Some(UnixDatagram::bind(&path).unwrap());
        ForwardTarget::Datagrams(path)
    });
    let mut guest = Guest::boot_for_messages(&host.socket(), host.cid);
    drop(receiver);
    let _socket = guest.request_as(2, 1234, 7);
    guest.expect(Op::Reset);
    host.assert_serves(&mut guest, 9);
}

#[test]
fn the_program_forwards_and_exposes_and_has_no_connect() {
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
