// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! In-process streams between a host component and a guest.

use std::io::{ErrorKind, Read, Write};
use std::net::Shutdown;
use std::thread;

use tempfile::TempDir;
use vsock_compliance::pattern::Pattern;
use vsock_proto::{Op, ShutdownFlags};
use vsock_vhost_user::VhostUserVsockBuilder;

use crate::guest::{Guest, WINDOW};
use crate::host::Host;

#[test]
fn a_host_component_connects_to_a_port_of_the_guest() {
    let (host, mut guest) = Host::booted();
    let talk = host.connecting(1024, |mut stream| {
        stream.write_all(b"how are you?").unwrap();
        let mut answer = [0; 4];
        stream.read_exact(&mut answer).unwrap();
        answer
    });
    let mut socket = guest.accept(1024);
    assert_eq!(guest.read(&mut socket, 12), b"how are you?");
    guest.write(&socket, b"fine");
    assert_eq!(&talk.join().unwrap(), b"fine");
    assert!(host.device.counters().packets_from_guest > 0);
    host.device.stop().unwrap();
}

#[test]
fn the_guest_connects_to_a_listener_of_a_host_component() {
    let (host, mut guest) = Host::booted();
    let listener = host.connector.listen(52).unwrap();
    let talk = thread::spawn(move || {
        let mut stream = listener.accept().unwrap();
        let mut question = [0; 5];
        stream.read_exact(&mut question).unwrap();
        stream.write_all(&question).unwrap();
        // Reads until the guest's half-close.
        stream.read(&mut question).unwrap()
    });
    let (mut socket, answer) = guest.connect(4000, 52);
    assert_eq!(answer.op, u16::from(Op::Response));
    guest.write(&socket, b"hello");
    assert_eq!(guest.read(&mut socket, 5), b"hello");
    guest.finish(&socket);
    assert_eq!(talk.join().unwrap(), 0);
}

#[test]
fn other_ports_belong_to_the_first_backend_added_without_ports() {
    let mut some = None;
    let host = Host::with(|_, builder| {
        let (builder, connector) = builder.in_process_for(&[52]).unwrap();
        some = Some(connector);
        builder
    });
    let (some, rest) = (some.unwrap(), &host.connector);
    let mut guest = host.boot();
    let (served, unserved) = (some.listen(52).unwrap(), some.listen(53).unwrap());
    let listener = rest.listen(53).unwrap();
    for listener in [&served, &unserved, &listener] {
        listener.set_nonblocking(true).unwrap();
    }
    for port in [52, 53] {
        let (_, answer) = guest.connect(4000, port);
        assert_eq!(answer.op, u16::from(Op::Response), "{port}");
    }
    served.accept().unwrap();
    listener.accept().unwrap();
    let error = unserved.accept().unwrap_err().kind();
    assert_eq!(error, ErrorKind::WouldBlock);
}

#[test]
fn without_a_backend_for_the_rest_other_ports_are_refused() {
    let dir = TempDir::new().unwrap();
    let socket = dir.path().join("vhost.sock");
    let builder = VhostUserVsockBuilder::new(153, &socket);
    let (builder, connector) = builder.in_process_for(&[52]).unwrap();
    let device = builder.spawn().unwrap();
    let mut guest = Guest::boot(&socket, 153);
    let _listener = connector.listen(53).unwrap();
    let (_, answer) = guest.connect(4000, 53);
    assert_eq!(answer.op, u16::from(Op::Reset));
    assert_eq!(device.counters().refused_by_backend, 1);
    // The host's own connections are not affected.
    let connect = thread::spawn(move || connector.connect_to(1024).map(drop));
    guest.accept(1024);
    connect.join().unwrap().unwrap();
}

#[test]
fn a_port_without_a_server_is_refused_immediately() {
    let (_host, mut guest) = Host::booted();
    let (_, answer) = guest.connect(4000, 53);
    assert_eq!(answer.op, u16::from(Op::Reset));
}

#[test]
fn a_reply_comes_after_the_hosts_half_close() {
    let (host, mut guest) = Host::booted();
    let talk = host.connecting(7, |mut stream| {
        stream.write_all(b"request").unwrap();
        stream.shutdown(Shutdown::Write).unwrap();
        let mut reply = String::new();
        stream.read_to_string(&mut reply).unwrap();
        reply
    });
    let mut socket = guest.accept(7);
    assert_eq!(guest.read(&mut socket, 7), b"request");
    let (end, _) = guest.expect(Op::Shutdown);
    assert_eq!(end.flags, ShutdownFlags::SEND.bits());
    guest.write(&socket, b"reply");
    guest.finish(&socket);
    assert_eq!(talk.join().unwrap(), "reply");
}

#[test]
fn many_bytes_arrive_in_both_directions() {
    const LEN: usize = WINDOW as usize * 5 + 4321;
    let (host, mut guest) = Host::booted();
    let mut bytes = vec![0; LEN];
    Pattern::default().fill(&mut bytes);
    let sent = bytes.clone();
    let talk = host.connecting(7, move |mut stream| {
        stream.write_all(&sent).unwrap();
        let mut back = vec![0; LEN];
        stream.read_exact(&mut back).unwrap();
        (back, stream)
    });
    let mut socket = guest.accept(7);
    let got = guest.read(&mut socket, LEN);
    assert!(got == bytes);
    // In steps of half a window; the host has to read each step before the next one.
    for part in got.chunks(WINDOW as usize / 2) {
        guest.write(&socket, part);
        guest.wait_until_taken(&mut socket, part.len());
    }
    let (back, _open) = talk.join().unwrap();
    assert!(back == bytes);
}

#[test]
fn a_dropped_stream_closes_the_guests_socket_gracefully() {
    let (host, mut guest) = Host::booted();
    let stream = host.connecting(7, |stream| stream);
    guest.accept(7);
    drop(stream.join().unwrap());
    // A half-close may come first.
    let both = loop {
        let (header, _) = guest.packet();
        assert_eq!(header.op, u16::from(Op::Shutdown));
        if ShutdownFlags::from_bits(header.flags).is_complete() {
            break header;
        }
    };
    assert_eq!(both.src_cid, 2);
}

#[test]
fn an_aborted_stream_resets_the_guests_socket() {
    let (host, mut guest) = Host::booted();
    let stream = host.connecting(7, |stream| stream);
    guest.accept(7);
    stream.join().unwrap().abort();
    assert_eq!(guest.packet().0.op, u16::from(Op::Reset));
}

#[test]
fn a_guest_that_closes_ends_the_host_components_stream_gracefully() {
    let (host, mut guest) = Host::booted();
    let talk = host.connecting(7, |mut stream| {
        let mut text = String::new();
        stream.read_to_string(&mut text).map(|_| text)
    });
    let socket = guest.accept(7);
    guest.write(&socket, b"last words");
    guest.say(&socket, Op::Shutdown, 3, &[]);
    assert_eq!(talk.join().unwrap().unwrap(), "last words");
}

#[test]
fn a_reset_by_the_guest_reaches_the_host_component() {
    let (host, mut guest) = Host::booted();
    let talk = host.connecting(7, |mut stream| stream.read(&mut [0]).unwrap_err().kind());
    let socket = guest.accept(7);
    guest.say(&socket, Op::Reset, 0, &[]);
    assert_eq!(talk.join().unwrap(), ErrorKind::ConnectionReset);
}
