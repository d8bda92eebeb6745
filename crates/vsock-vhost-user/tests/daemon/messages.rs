// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Host processes that exchange messages with a guest through `SOCK_SEQPACKET` sockets.

use std::io::{Read, Write};
use std::net::Shutdown;
use std::os::unix::net::{UnixListener, UnixStream};

use rustix::net::{
    AddressFamily, SocketAddrUnix, SocketFlags, SocketType, bind, connect, listen, socket_with,
};
use vsock_proto::{Op, SocketTypes};
use vsock_vhost_user::{UnixBackend, UnixSeqpacketBackend};

use crate::closing::close;
use crate::guest::{GENEROUS, Guest};
use crate::host::Host;

/// Creates a socket for `std`'s stream types: a write sends a message, a read receives one.
fn socket() -> rustix::fd::OwnedFd {
    let flags = SocketFlags::CLOEXEC;
    socket_with(AddressFamily::UNIX, SocketType::SEQPACKET, flags, None).unwrap()
}

/// Creates a device with both backends over Unix sockets.
fn host() -> Host {
    Host::with(|path, builder| {
        builder
            .backend(Box::new(UnixBackend::bind(path).unwrap()))
            .backend(Box::new(UnixSeqpacketBackend::bind(path).unwrap()))
    })
}

fn boot(host: &Host) -> Guest {
    Guest::boot_for_messages(&host.socket(), host.cid)
}

fn connected(host: &Host) -> UnixStream {
    let socket = socket();
    let path = host.path("vm.vsock_seqpacket");
    connect(&socket, &SocketAddrUnix::new(&path).unwrap()).unwrap();
    let stream = UnixStream::from(socket);
    stream.set_read_timeout(Some(GENEROUS)).unwrap();
    stream
}

/// Listens on port 5000.
fn listening(host: &Host) -> UnixListener {
    let socket = socket();
    let path = host.path("vm.vsock_5000");
    bind(&socket, &SocketAddrUnix::new(&path).unwrap()).unwrap();
    listen(&socket, 8).unwrap();
    socket.into()
}

fn receive(stream: &mut UnixStream) -> Vec<u8> {
    let mut buffer = vec![0; 1 << 20];
    let len = stream.read(&mut buffer).unwrap();
    buffer.truncate(len);
    buffer
}

/// Creates a message of `len` bytes.
fn message(len: usize) -> Vec<u8> {
    (0..len).map(|at| u8::try_from(at % 251).unwrap()).collect()
}

#[test]
fn t111_messages_pass_whole_both_ways() {
    let host = host();
    let listener = listening(&host);
    let mut guest = boot(&host);
    let mut socket = guest.request_as(2, 1234, 5000);
    assert_eq!(guest.expect(Op::Response).0.socket_type, 2);
    let (mut stream, _) = listener.accept().unwrap();
    let sizes = [1, 1000, 9000, 65_536, 3];
    for len in sizes {
        guest.send_message(&socket, &message(len), 2000);
    }
    for len in sizes {
        assert!(receive(&mut stream) == message(len), "{len}");
    }
    for len in sizes {
        assert_eq!(stream.write(&message(len)).unwrap(), len);
    }
    for len in sizes {
        assert!(guest.receive_message(&mut socket) == message(len), "{len}");
    }
    guest.finish(&socket);
    assert_eq!(receive(&mut stream), b"");
    stream.write_all(b"still").unwrap();
    stream.shutdown(Shutdown::Write).unwrap();
    assert_eq!(guest.receive_message(&mut socket), b"still");
    guest.expect(Op::Shutdown);
}

#[test]
fn a_host_process_connects_with_its_first_message() {
    let host = host();
    let mut guest = boot(&host);
    let mut stream = connected(&host);
    stream.write_all(b"CONNECT 1024\n").unwrap();
    stream.write_all(b"hello").unwrap();
    let mut socket = guest.accept(1024);
    let answer = String::from_utf8(receive(&mut stream)).unwrap();
    assert_eq!(answer, format!("OK {}\n", socket.host_port));
    assert_eq!(guest.receive_message(&mut socket), b"hello");
    guest.send_message(&socket, b"bye", 2);
    assert_eq!(receive(&mut stream), b"bye");
}

#[test]
fn t111_a_port_has_one_type_of_socket() {
    let host = host();
    let _messages = listening(&host);
    let _streams = UnixListener::bind(host.path("vm.vsock_5001")).unwrap();
    let mut guest = boot(&host);
    for (socket_type, port) in [(1, 5000), (2, 5001), (2, 5002)] {
        guest.request_as(socket_type, 1234, port);
        assert_eq!(guest.expect(Op::Reset).0.socket_type, socket_type);
    }
}

#[test]
fn t85_messages_before_a_close_arrive() {
    let host = host();
    let listener = listening(&host);
    let mut guest = boot(&host);
    let socket = guest.request_as(2, 1234, 5000);
    guest.expect(Op::Response);
    let (mut stream, _) = listener.accept().unwrap();
    guest.send_message(&socket, b"this is not read", 100);
    guest.settle();
    stream.write_all(&message(70_000)).unwrap();
    stream.write_all(b"last").unwrap();
    close([stream]);
    // The system reports the reset to the device before it delivers the messages.
    let mut ends = Vec::new();
    loop {
        let (header, _) = guest.packet();
        match Op::try_from(header.op) {
            Ok(Op::ReadWrite) => ends.push(header.flags),
            Ok(Op::Shutdown) => {}
            op => {
                assert_eq!(op, Ok(Op::Reset));
                break;
            }
        }
    }
    assert_eq!(ends.iter().sum::<u32>(), 2, "both messages are complete");
    assert_eq!(ends.last(), Some(&1));
}

#[test]
fn t109_a_driver_without_the_feature_gets_only_streams() {
    let host = host();
    let _messages = listening(&host);
    let mut guest = host.boot();
    guest.request_as(2, 1234, 5000);
    guest.expect(Op::Reset);
    let mut stream = connected(&host);
    stream.write_all(b"CONNECT 1024\n").unwrap();
    assert_eq!(receive(&mut stream), b"", "refused");
}

#[test]
fn t109_the_feature_is_offered_if_a_backend_has_messages() {
    let offered = |host: Host| host.vmm().features() & SocketTypes::F_SEQPACKET != 0;
    assert!(!offered(Host::new()));
    assert!(offered(host()));
}
