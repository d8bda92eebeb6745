// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Streams of a host program that is the device, to and from a guest.

use std::io::{ErrorKind, Read, Write};
use std::net::Shutdown;
use std::thread;

use tempfile::TempDir;
use vsock_compliance::pattern::Pattern;
use vsock_inner::VsockInnerConnector;
use vsock_proto::{Op, ShutdownFlags};
use vsock_vhost_user::{DeviceBuilder, VsockDevice};

use crate::guest::{Guest, WINDOW};

/// A device with in-process streams, and a guest that runs.
fn device_and_guest(cid: u64) -> (TempDir, VsockDevice, VsockInnerConnector, Guest) {
    let dir = TempDir::new().unwrap();
    let socket = dir.path().join("vhost.sock");
    let builder = DeviceBuilder::new(cid, &socket);
    let (builder, connector) = builder.in_process().unwrap();
    let device = builder.spawn().unwrap();
    let guest = Guest::boot(&socket, cid);
    (dir, device, connector, guest)
}

#[test]
fn a_host_program_talks_to_a_port_of_the_guest() {
    let (_dir, device, connector, mut guest) = device_and_guest(100);
    let host = thread::spawn(move || {
        let mut stream = connector.connect_to(1024).unwrap();
        stream.write_all(b"how are you?").unwrap();
        let mut answer = [0; 4];
        stream.read_exact(&mut answer).unwrap();
        answer
    });
    let mut socket = guest.accept(1024);
    assert_eq!(guest.read(&mut socket, 12), b"how are you?");
    guest.write(&socket, b"fine");
    assert_eq!(&host.join().unwrap(), b"fine");
    assert!(device.counters().packets_from_guest > 0);
    device.stop().unwrap();
}

#[test]
fn the_guest_talks_to_a_listener_of_the_host_program() {
    let (_dir, _device, connector, mut guest) = device_and_guest(101);
    let listener = connector.listen(52).unwrap();
    let host = thread::spawn(move || {
        let mut stream = listener.accept().unwrap();
        let mut question = [0; 5];
        stream.read_exact(&mut question).unwrap();
        stream.write_all(&question).unwrap();
        // Reads to the end that the guest has announced.
        stream.read(&mut question).unwrap()
    });
    let (mut socket, answer) = guest.connect(4000, 52);
    assert_eq!(answer.op, u16::from(Op::Response));
    guest.write(&socket, b"hello");
    assert_eq!(guest.read(&mut socket, 5), b"hello");
    guest.finish(&socket);
    assert_eq!(host.join().unwrap(), 0);
}

#[test]
fn ports_that_no_backend_has_go_to_the_first_that_was_added_without_ports() {
    let dir = TempDir::new().unwrap();
    let socket = dir.path().join("vhost.sock");
    let (builder, some) = DeviceBuilder::new(152, &socket)
        .in_process_for(&[52])
        .unwrap();
    let (builder, rest) = builder.in_process().unwrap();
    let _device = builder.spawn().unwrap();
    let mut guest = Guest::boot(&socket, 152);
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
    let nobody = unserved.accept().unwrap_err().kind();
    assert_eq!(nobody, ErrorKind::WouldBlock);
}

#[test]
fn without_a_backend_for_the_rest_other_ports_are_refused() {
    let dir = TempDir::new().unwrap();
    let socket = dir.path().join("vhost.sock");
    let builder = DeviceBuilder::new(153, &socket);
    let (builder, connector) = builder.in_process_for(&[52]).unwrap();
    let device = builder.spawn().unwrap();
    let mut guest = Guest::boot(&socket, 153);
    let _listener = connector.listen(53).unwrap();
    let (_, answer) = guest.connect(4000, 53);
    assert_eq!(answer.op, u16::from(Op::Reset));
    assert_eq!(device.counters().refused_by_backend, 1);
    // The host's own connections have nothing to do with it.
    let host = thread::spawn(move || connector.connect_to(1024).map(drop));
    guest.accept(1024);
    host.join().unwrap().unwrap();
}

#[test]
fn a_port_that_nobody_serves_is_refused_at_once() {
    let (_dir, _device, _connector, mut guest) = device_and_guest(102);
    let (_, answer) = guest.connect(4000, 53);
    assert_eq!(answer.op, u16::from(Op::Reset));
}

#[test]
fn a_reply_comes_after_the_hosts_half_close() {
    let (_dir, _device, connector, mut guest) = device_and_guest(103);
    let host = thread::spawn(move || {
        let mut stream = connector.connect_to(7).unwrap();
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
    assert_eq!(host.join().unwrap(), "reply");
}

#[test]
fn many_bytes_arrive_whole_both_ways() {
    const LEN: usize = WINDOW as usize * 5 + 4321;
    let (_dir, _device, connector, mut guest) = device_and_guest(104);
    let mut bytes = vec![0; LEN];
    Pattern::default().fill(&mut bytes);
    let host = thread::spawn({
        let bytes = bytes.clone();
        move || {
            let mut stream = connector.connect_to(7).unwrap();
            stream.write_all(&bytes).unwrap();
            let mut back = vec![0; LEN];
            stream.read_exact(&mut back).unwrap();
            (back, stream)
        }
    });
    let mut socket = guest.accept(7);
    let got = guest.read(&mut socket, LEN);
    assert!(got == bytes);
    // In steps of half a window, each of which the host has to take before the next.
    for part in got.chunks(WINDOW as usize / 2) {
        guest.write(&socket, part);
        guest.wait_until_taken(&mut socket, part.len());
    }
    let (back, _open) = host.join().unwrap();
    assert!(back == bytes);
}

#[test]
fn a_dropped_stream_ends_the_guests_socket_in_order() {
    let (_dir, _device, connector, mut guest) = device_and_guest(105);
    let host = thread::spawn(move || connector.connect_to(7).unwrap());
    guest.accept(7);
    drop(host.join().unwrap());
    // A half may be announced first.
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
    let (_dir, _device, connector, mut guest) = device_and_guest(108);
    let host = thread::spawn(move || connector.connect_to(7).unwrap());
    guest.accept(7);
    host.join().unwrap().abort();
    assert_eq!(guest.packet().0.op, u16::from(Op::Reset));
}

#[test]
fn a_guest_that_closes_ends_the_host_programs_stream_in_order() {
    let (_dir, _device, connector, mut guest) = device_and_guest(109);
    let host = thread::spawn(move || {
        let mut stream = connector.connect_to(7).unwrap();
        let mut text = String::new();
        stream.read_to_string(&mut text).map(|_| text)
    });
    let socket = guest.accept(7);
    guest.write(&socket, b"last words");
    guest.say(&socket, Op::Shutdown, 3, &[]);
    assert_eq!(host.join().unwrap().unwrap(), "last words");
}

#[test]
fn a_reset_of_the_guest_reaches_the_host_program() {
    let (_dir, _device, connector, mut guest) = device_and_guest(106);
    let host = thread::spawn(move || {
        let mut stream = connector.connect_to(7).unwrap();
        stream.read(&mut [0]).unwrap_err().kind()
    });
    let socket = guest.accept(7);
    guest.say(&socket, Op::Reset, 0, &[]);
    assert_eq!(host.join().unwrap(), ErrorKind::ConnectionReset);
}
