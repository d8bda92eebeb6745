// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Connections of every kind, each ended in every way, in the program with its sandbox.
//!
//! Most other tests run a device in their own process, which is not confined. Here, a system call
//! that a thread makes only at some rare end, and that the sandbox forbids, kills the program.

use std::any::Any;
use std::fs;
use std::io::Write;
use std::net::{TcpListener, TcpStream};
use std::os::fd::OwnedFd;
use std::os::unix::net::{UnixListener, UnixStream};

use rustix::pipe::fcntl_setpipe_size;
use tempfile::{TempDir, tempfile};
use vsock_compliance::poll::{Deadline, wait_until};
use vsock_proto::Op;

use crate::descriptors::file_pipe;
use crate::guest::{GENEROUS, Guest, Socket};
use crate::passing::{accept, pass};
use crate::program::Program;

/// The side of a connection that ends it first.
#[derive(Clone, Copy, Debug)]
enum First {
    Guest,
    Host,
}

/// How the guest's side of a connection ends.
#[derive(Clone, Copy, Debug)]
enum Way {
    Close,
    Reset,
    Reboot,
}

/// The host's side of a connection. Dropping it ends the connection.
type Peer = Box<dyn Any>;

/// Ends a connection in every way: after no bytes of the guest, and after some that the host does
/// not read.
fn end_in_every_way(program: &Program, open: &dyn Fn(&mut Guest) -> (Socket, Peer)) {
    for first in [First::Guest, First::Host] {
        for way in [Way::Close, Way::Reset, Way::Reboot] {
            for len in [0, 16_384] {
                let mut guest = program.boot();
                let (socket, peer) = open(&mut guest);
                guest.write(&socket, &vec![7; len]);
                let mut end = || {
                    match way {
                        Way::Close => guest.say(&socket, Op::Shutdown, 3, b""),
                        Way::Reset => guest.say(&socket, Op::Reset, 0, b""),
                        Way::Reboot => guest.reboot(),
                    }
                    guest.settle();
                };
                match first {
                    First::Guest => {
                        end();
                        drop(peer);
                    }
                    First::Host => {
                        drop(peer);
                        end();
                    }
                }
                let ended = wait_until(Deadline::after(GENEROUS), || pumps(program) == 0);
                ended.unwrap_or_else(|_| panic!("no end: {first:?}, {way:?}, {len} bytes"));
            }
        }
    }
}

/// Returns the number of threads of passed descriptors.
fn pumps(program: &Program) -> usize {
    let tasks = fs::read_dir(program.proc("task")).unwrap();
    let names = tasks.filter_map(|task| fs::read_to_string(task.ok()?.path().join("comm")).ok());
    names.filter(|name| name.trim() == "vsock-passed").count()
}

/// Returns a connected TCP socket, and its peer.
fn tcp() -> (TcpStream, TcpStream) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let near = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
    (near, listener.accept().unwrap().0)
}

/// Returns descriptors of every kind that can be passed, each with its command and its peer.
fn passable() -> Vec<(&'static str, OwnedFd, Peer)> {
    let (reader, input) = file_pipe();
    let (output, writer) = file_pipe();
    fcntl_setpipe_size(&writer, 4096).unwrap();
    // This one holds all bytes of the guest. Others would wait for the next reader.
    let (kept, keeper) = file_pipe();
    let (near, far) = UnixStream::pair().unwrap();
    let (tcp_near, tcp_far) = tcp();
    let file = tempfile().unwrap();
    vec![
        ("7\n", reader.into(), Box::new(input)),
        ("7\n", writer.into(), Box::new(output)),
        ("7 keep\n", keeper.into(), Box::new(kept)),
        ("7\n", file.into(), Box::new(())),
        ("7\n", near.into(), Box::new(far)),
        ("7\n", tcp_near.into(), Box::new(tcp_far)),
    ]
}

#[test]
fn no_end_of_a_passed_descriptor_ends_the_program() {
    let program = Program::start_one(&["--pass-fd"]);
    let path = program.dir.path().join("3.vsock");
    for kind in 0..passable().len() {
        end_in_every_way(&program, &|guest| {
            let (command, passed, peer) = passable().swap_remove(kind);
            let client = pass(&path, command, &passed);
            drop(passed);
            (accept(guest, 7, client), peer)
        });
    }
    program.said();
}

#[test]
fn no_end_of_a_service_or_client_ends_the_program() {
    let dir = TempDir::new().unwrap();
    let at = |name: &str| dir.path().join(name);
    let by_tcp = TcpListener::bind("127.0.0.1:0").unwrap();
    let by_path = UnixListener::bind(at("service")).unwrap();
    let program = Program::start_one(&[
        &format!("--forward=7=tcp:{}", by_tcp.local_addr().unwrap()),
        &format!("--forward=8=unix:{}", at("service").display()),
        &format!("--expose=unix:{}=22", at("ssh").display()),
    ]);
    let by_port = program.listen(9);
    let connected = |guest: &mut Guest, port| {
        let (socket, answer) = guest.connect(1234, port);
        assert_eq!(answer.op, u16::from(Op::Response));
        socket
    };
    end_in_every_way(&program, &|guest| {
        (connected(guest, 7), Box::new(by_tcp.accept().unwrap()))
    });
    for (listener, port) in [(&by_path, 8), (&by_port, 9)] {
        end_in_every_way(&program, &|guest| {
            let socket = connected(guest, port);
            (socket, Box::new(listener.accept().unwrap()))
        });
    }
    end_in_every_way(&program, &|guest| {
        let client = UnixStream::connect(at("ssh")).unwrap();
        (guest.accept(22), Box::new(client))
    });
    end_in_every_way(&program, &|guest| {
        let mut client = UnixStream::connect(program.dir.path().join("3.vsock")).unwrap();
        client.write_all(b"CONNECT 5\n").unwrap();
        (guest.accept(5), Box::new(client))
    });
    program.said();
}
