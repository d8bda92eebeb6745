// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Host processes that connect to a guest through Unix sockets.

use std::io::{BufRead, BufReader, ErrorKind, Read, Write};
use std::net::Shutdown;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;

use vsock_proto::Op;
use vsock_vhost_user::{UnixBackend, UnixSeqpacketBackend, VhostUserError, VhostUserVsockBuilder};

use crate::closing::close;
use crate::guest::GENEROUS;
use crate::host::Host;

/// Creates a device with a backend for streams over Unix sockets.
fn host() -> Host {
    Host::with(|path, builder| builder.backend(Box::new(UnixBackend::bind(path).unwrap())))
}

/// Connects as a host process, and sends this command.
fn connect(host: &Host, command: &str) -> BufReader<UnixStream> {
    let mut stream = UnixStream::connect(host.path("vm.vsock")).unwrap();
    stream.set_read_timeout(Some(GENEROUS)).unwrap();
    stream.write_all(command.as_bytes()).unwrap();
    BufReader::new(stream)
}

fn line(stream: &mut BufReader<UnixStream>) -> String {
    let mut line = String::new();
    stream.read_line(&mut line).unwrap();
    line
}

#[test]
fn a_host_process_connects_with_a_text_command() {
    let host = host();
    let mut guest = host.boot();
    let mut stream = connect(&host, "CONNECT 1024\nhello");
    let mut socket = guest.accept(1024);
    assert_eq!(line(&mut stream), format!("OK {}\n", socket.host_port));
    assert_eq!(guest.read(&mut socket, 5), b"hello");
    guest.write(&socket, b"bye");
    let mut answer = [0; 3];
    stream.read_exact(&mut answer).unwrap();
    assert_eq!(&answer, b"bye");
}

#[test]
fn half_closes_pass_in_both_directions() {
    let host = host();
    let mut guest = host.boot();
    let mut stream = connect(&host, "CONNECT 1\nquestion");
    stream.get_ref().shutdown(Shutdown::Write).unwrap();
    let mut socket = guest.accept(1);
    assert_eq!(guest.read(&mut socket, 8), b"question");
    guest.expect(Op::Shutdown);
    guest.write(&socket, b"answer");
    guest.finish(&socket);
    line(&mut stream);
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    assert_eq!(answer, "answer");
}

#[test]
fn the_guest_connects_to_a_host_process() {
    let host = host();
    let listener = UnixListener::bind(host.path("vm.vsock_5000")).unwrap();
    let mut guest = host.boot();
    let (mut socket, answer) = guest.connect(1234, 5000);
    assert_eq!(answer.op, u16::from(Op::Response));
    guest.write(&socket, b"ping");
    let (mut stream, _) = listener.accept().unwrap();
    let mut got = [0; 4];
    stream.read_exact(&mut got).unwrap();
    stream.write_all(&got).unwrap();
    assert_eq!(guest.read(&mut socket, 4), b"ping");
    guest.finish(&socket);
    assert_eq!(stream.read(&mut got).unwrap(), 0);
}

#[test]
fn a_path_that_cannot_be_listened_on_is_named_with_the_reason() {
    let nowhere = Path::new("/nowhere/vm.vsock");
    for (refused, path) in [
        (UnixBackend::bind(nowhere).unwrap_err(), "/nowhere/vm.vsock"),
        (
            UnixSeqpacketBackend::bind(nowhere).unwrap_err(),
            "/nowhere/vm.vsock_seqpacket",
        ),
    ] {
        assert_eq!(refused.kind(), ErrorKind::NotFound);
        let text = refused.to_string();
        let named = text.strip_prefix(&format!("{path}: "));
        assert!(
            named.is_some_and(|why| why.contains("the directory does not exist; create it first")),
            "{text}"
        );
    }
}

#[test]
fn t125_no_guest_of_a_process_reaches_the_socket_of_another() {
    let host = host();
    let taken = ErrorKind::AddrInUse;
    let backend = UnixBackend::bind(host.path("vm.vsock_1024"));
    assert_eq!(backend.unwrap_err().kind(), taken);
    let device = VhostUserVsockBuilder::new(117, host.path("vm.vsock_4294967295")).spawn();
    let VhostUserError::Socket { source, .. } = device.unwrap_err() else {
        panic!("another error");
    };
    assert_eq!(source.kind(), taken);
    // Nor the other way around.
    let _vmm = UnixBackend::bind(host.path("other_0")).unwrap();
    let backend = UnixSeqpacketBackend::bind(host.path("other"));
    assert_eq!(backend.unwrap_err().kind(), taken);
    let _no_port = UnixBackend::bind(host.path("vm.vsock_01024")).unwrap();
}

#[test]
fn a_port_without_a_socket_is_refused_immediately() {
    let host = host();
    let mut guest = host.boot();
    let (_, answer) = guest.connect(1234, 5001);
    assert_eq!(answer.op, u16::from(Op::Reset));
}

#[test]
fn t36_a_client_that_connects_before_the_guest_is_served_later() {
    let host = host();
    let mut stream = connect(&host, "CONNECT 9\n");
    let mut guest = host.boot();
    let socket = guest.accept(9);
    assert_eq!(line(&mut stream), format!("OK {}\n", socket.host_port));
}

#[test]
fn t127_clients_that_have_left_before_the_guest_is_up_are_not_announced() {
    let host = host();
    let left = (0..300).map(|number| {
        let stream = connect(&host, if number % 3 == 0 { "" } else { "CONNECT 9\n" });
        if number % 3 == 1 {
            stream.get_ref().shutdown(Shutdown::Both).unwrap();
        }
        stream.into_inner()
    });
    close(left);
    // Clients that wait for an answer, or that have sent something, are served.
    let one_way = connect(&host, "CONNECT 10\n");
    one_way.get_ref().shutdown(Shutdown::Write).unwrap();
    close([connect(&host, "CONNECT 11\nleft").into_inner()]);
    let _alive = connect(&host, "CONNECT 12\n");
    let mut guest = host.boot();
    let requests = [10, 11, 12].map(|port| {
        let (request, _) = guest.expect(Op::Request);
        assert_eq!(request.dst_port, port);
        request
    });
    let mut socket = guest.respond(&requests[1]);
    guest.expect(Op::Shutdown);
    assert_eq!(guest.read(&mut socket, 4), b"left");
}

#[test]
fn t135_a_new_server_does_not_get_the_clients_of_its_predecessor() {
    let host = host();
    let path = host.path("vm.vsock_6");
    let busy = || {
        let listener = UnixListener::bind(&path).unwrap();
        // The smallest backlog holds one connection.
        rustix::net::listen(&listener, 0).unwrap();
        listener
    };
    let before = busy();
    let mut guest = host.boot();
    let (_, first) = guest.connect(1, 6);
    assert_eq!(first.op, u16::from(Op::Response));
    for port in 2..=6 {
        guest.request(port, 6);
    }
    guest.settle();
    // A new server has the path before any connection is answered.
    std::fs::rename(&path, host.path("before")).unwrap();
    let after = busy();
    for port in 2..=6 {
        let (answer, _) = guest.expect(Op::Reset);
        assert_eq!(answer.dst_port, port, "in their original order");
    }
    let (socket, answer) = guest.connect(7, 6);
    assert_eq!(answer.op, u16::from(Op::Response));
    guest.write(&socket, b"alive");
    let (mut stream, _) = after.accept().unwrap();
    let mut got = [0; 5];
    stream.read_exact(&mut got).unwrap();
    assert_eq!(&got, b"alive");
    drop(before);
}

#[test]
fn t35_a_full_backlog_delays_only_the_answer() {
    let host = host();
    let listener = UnixListener::bind(host.path("vm.vsock_6")).unwrap();
    // The smallest backlog holds one connection that is not accepted.
    rustix::net::listen(&listener, 0).unwrap();
    let mut guest = host.boot();
    let (_, first) = guest.connect(1, 6);
    assert_eq!(first.op, u16::from(Op::Response));
    let waiting = guest.request(2, 6);
    // Other connections are served meanwhile.
    let mut client = connect(&host, "CONNECT 9\n");
    guest.accept(9);
    assert!(line(&mut client).starts_with("OK "));
    let _first = listener.accept().unwrap();
    let (answer, _) = guest.expect(Op::Response);
    assert_eq!(answer.dst_port, waiting.guest_port);
}
