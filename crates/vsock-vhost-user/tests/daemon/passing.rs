// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Host processes that pass a descriptor to use as the stream.

use std::fs::File;
use std::io::{BufRead, BufReader, ErrorKind, IoSlice, Read, Write};
use std::mem::MaybeUninit;
use std::net::{TcpListener, TcpStream};
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use rustix::io::Errno;
use rustix::net::{SendAncillaryBuffer, SendAncillaryMessage, SendFlags, sendmsg};
use rustix::pipe::fcntl_setpipe_size;
use tempfile::TempDir;
use vsock_compliance::poll::{Deadline, wait_until};
use vsock_driver::lingering;
use vsock_proto::{Header, Op};
use vsock_tests::alone::alone;
use vsock_vhost_user::{PassFdBackend, PassFdConfig};

use crate::closing::close;
use crate::descriptors::file_pipe;
use crate::guest::{GENEROUS, Guest, Socket};
use crate::host::Host;
use crate::program::Program;

/// How long the close of a socket blocks.
pub(crate) const LINGER: Duration = Duration::from_secs(30);

fn host() -> Host {
    Host::with(|path, builder| {
        let backend = PassFdBackend::bind(path, PassFdConfig::default()).unwrap();
        builder.backend_for(Box::new(backend), &[])
    })
}

/// Sends text together with a descriptor.
pub(crate) fn send_with(client: &UnixStream, text: &str, file: &dyn AsFd) -> Result<(), Errno> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut extras = SendAncillaryBuffer::new(&mut space);
    let files = [file.as_fd()];
    assert!(extras.push(SendAncillaryMessage::ScmRights(&files)));
    let text = [IoSlice::new(text.as_bytes())];
    sendmsg(client, &text, &mut extras, SendFlags::empty()).map(drop)
}

/// Connects a host process and passes a descriptor.
pub(crate) fn pass(path: &Path, command: &str, file: &dyn AsFd) -> BufReader<UnixStream> {
    let mut client = UnixStream::connect(path).unwrap();
    client.set_read_timeout(Some(GENEROUS)).unwrap();
    client.write_all(b"passfd\n").unwrap();
    send_with(&client, command, file).unwrap();
    BufReader::new(client)
}

/// Makes the guest accept, and checks that the client is told.
pub(crate) fn accept(guest: &mut Guest, port: u32, mut client: BufReader<UnixStream>) -> Socket {
    let socket = guest.accept(port);
    let mut line = String::new();
    client.read_line(&mut line).unwrap();
    assert_eq!(line, format!("OK {}\n", socket.host_port));
    assert_eq!(
        client.read(&mut [0]).unwrap(),
        0,
        "nothing else is said there"
    );
    socket
}

#[test]
fn a_guests_output_goes_into_a_pipe_and_its_input_comes_from_one() {
    let host = host();
    let mut guest = host.boot();
    let path = host.path("vm.vsock");
    let (mut output, writer) = file_pipe();
    let client = pass(&path, "1024\n", &writer);
    drop(writer);
    let socket = accept(&mut guest, 1024, client);
    // The guest cannot read from this pipe.
    let (end, _) = guest.expect(Op::Shutdown);
    assert_eq!(end.flags, 2, "the pipe has no bytes for the guest");
    guest.write(&socket, b"output");
    guest.say(&socket, Op::Shutdown, 3, b"");
    let mut text = String::new();
    output.read_to_string(&mut text).unwrap();
    assert_eq!(text, "output");
    guest.expect(Op::Reset);

    let (reader, mut input) = file_pipe();
    let client = pass(&path, "1025", &reader);
    input.write_all(b"input").unwrap();
    let mut socket = accept(&mut guest, 1025, client);
    assert_eq!(guest.read(&mut socket, 5), b"input");
    drop(input);
    guest.expect(Op::Shutdown);
}

#[test]
fn if_the_guest_refuses_the_client_reads_the_end_and_the_descriptor_is_closed() {
    let host = host();
    let mut guest = host.boot();
    let (mut output, writer) = file_pipe();
    let mut client = pass(&host.path("vm.vsock"), "7\n", &writer);
    drop(writer);
    let (request, _) = guest.expect(Op::Request);
    let refusal = Header {
        src_cid: request.dst_cid,
        dst_cid: request.src_cid,
        src_port: request.dst_port,
        dst_port: request.src_port,
        op: Op::Reset.into(),
        ..request
    };
    guest.send(&refusal, &[]);
    assert_eq!(client.read(&mut [0]).unwrap(), 0);
    assert_eq!(output.read(&mut [0]).unwrap(), 0);
}

#[test]
fn a_full_pipe_stops_only_its_own_connection() {
    let host = host();
    let mut guest = host.boot();
    let (_unread, writer) = file_pipe();
    let client = pass(&host.path("vm.vsock"), "7\n", &writer);
    let socket = accept(&mut guest, 7, client);
    guest.expect(Op::Shutdown);
    // As much as the guest has credit for.
    guest.write(&socket, &[7; 256 * 1024]);
    host.assert_serves(&mut guest, 9);
    host.assert_stops();
}

#[test]
fn t124_a_socket_whose_close_blocks_delays_neither_guest_nor_stop() {
    alone(|| {
        let host = host();
        let mut guest = host.boot();
        let (lingering, _peer) = lingering(LINGER);
        let client = pass(&host.path("vm.vsock"), "7\n", &lingering);
        drop(lingering);
        let socket = accept(&mut guest, 7, client);
        guest.say(&socket, Op::Shutdown, 3, b"");
        guest.expect(Op::Reset);
        host.assert_serves(&mut guest, 9);
        host.assert_stops();
    });
}

#[test]
fn the_program_accepts_descriptors_only_with_the_option() {
    let (_reader, writer) = file_pipe();
    let program = Program::start_one(&["--pass-fd"]);
    let mut guest = program.boot();
    let path = program.dir.path().join("3.vsock");
    let client = pass(&path, "7\n", &writer);
    accept(&mut guest, 7, client);
    guest.expect(Op::Shutdown);
    // CONNECT works as usual.
    let mut client = UnixStream::connect(&path).unwrap();
    client.write_all(b"CONNECT 8\n").unwrap();
    guest.accept(8);
    program.said();

    let program = Program::start_one(&[]);
    let _guest = program.boot();
    let mut client = UnixStream::connect(program.dir.path().join("3.vsock")).unwrap();
    client.set_read_timeout(Some(GENEROUS)).unwrap();
    client.write_all(b"passfd\n").unwrap();
    let mut ended = || match client.read(&mut [0]) {
        Ok(len) => len == 0,
        Err(error) => error.kind() == ErrorKind::ConnectionReset,
    };
    wait_until(Deadline::after(GENEROUS), &mut ended).unwrap();
    program.said();
}

#[test]
fn passed_descriptors_work_in_the_sandbox() {
    let program = Program::start_one(&["--pass-fd"]);
    let mut guest = program.boot();
    let path = program.dir.path().join("3.vsock");
    // A socket uses a second thread.
    let (near, far) = UnixStream::pair().unwrap();
    let client = pass(&path, "7\n", &far);
    drop(far);
    let mut socket = accept(&mut guest, 7, client);
    (&near).write_all(b"in").unwrap();
    assert_eq!(guest.read(&mut socket, 2), b"in");
    guest.write(&socket, b"out");
    let mut got = [0; 3];
    (&near).read_exact(&mut got).unwrap();
    assert_eq!(&got, b"out");
    guest.say(&socket, Op::Shutdown, 3, b"");
    guest.expect(Op::Reset);

    // Outside the directory of the program's sockets.
    let place = TempDir::new().unwrap();
    let fifo = place.path().join("fifo");
    let made = Command::new("mkfifo").arg(&fifo).status().unwrap();
    assert!(made.success());
    let both = || File::options().read(true).write(true).open(&fifo).unwrap();
    let first = both();
    let passed = File::options().write(true).open(&fifo).unwrap();
    let client = pass(&path, "8 keep\n", &passed);
    drop(passed);
    let socket = accept(&mut guest, 8, client);
    guest.expect(Op::Shutdown);
    close([first]);
    guest.write(&socket, b"kept");
    let mut got = [0; 4];
    both().read_exact(&mut got).unwrap();
    assert_eq!(&got, b"kept");
    program.said();
}

#[test]
fn a_guest_that_closes_before_a_full_pipe_is_read_does_not_end_the_program() {
    let program = Program::start_one(&["--pass-fd"]);
    let mut guest = program.boot();
    let (mut output, writer) = file_pipe();
    fcntl_setpipe_size(&writer, 4096).unwrap();
    let client = pass(&program.dir.path().join("3.vsock"), "7\n", &writer);
    drop(writer);
    let socket = accept(&mut guest, 7, client);
    guest.expect(Op::Shutdown);
    guest.write(&socket, &[7; 65_536]);
    guest.say(&socket, Op::Shutdown, 3, b"");
    guest.expect(Op::Reset);
    let mut got = Vec::new();
    output.read_to_end(&mut got).unwrap();
    assert!(got == [7; 65_536], "{} of 65536 bytes arrived", got.len());
    program.said();
}

#[test]
fn a_guest_that_resets_a_connection_to_a_tcp_socket_does_not_end_the_program() {
    let program = Program::start_one(&["--pass-fd"]);
    let mut guest = program.boot();
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let passed = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
    let (mut peer, _) = listener.accept().unwrap();
    peer.set_read_timeout(Some(GENEROUS)).unwrap();
    let client = pass(&program.dir.path().join("3.vsock"), "7\n", &passed);
    let socket = accept(&mut guest, 7, client);
    guest.say(&socket, Op::Reset, 0, b"");
    let reset = peer.read(&mut [0]).unwrap_err();
    assert_eq!(reset.kind(), ErrorKind::ConnectionReset);
    program.said();
}
