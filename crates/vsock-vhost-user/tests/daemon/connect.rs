// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! The command `connect`, which connects standard input and output to a guest.

use std::io::{Read, Write};
use std::net::Shutdown;
use std::os::unix::net::UnixListener;
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::thread;

use rustix::fs::{OFlags, fcntl_getfl, fcntl_setfl};
use tempfile::TempDir;
use vsock_compliance::poll::{Deadline, wait_until};
use vsock_proto::{Header, Op};

use crate::closing::close;
use crate::descriptors::{cpu, file_pipe};
use crate::guest::{GENEROUS, Guest, Socket};
use crate::program::{PROGRAM, Program};

/// The running command.
struct Connect {
    child: Child,
    input: Option<ChildStdin>,
    output: ChildStdout,
}

impl Connect {
    fn start(uds: &Path, options: &[&str]) -> Self {
        Self::start_with(uds, options, Stdio::piped())
    }

    fn start_with(uds: &Path, options: &[&str], input: impl Into<Stdio>) -> Self {
        let mut command = Command::new(PROGRAM);
        let mut child = command
            .arg("connect")
            .arg(uds)
            .args(options)
            .stdin(input)
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        Self {
            input: child.stdin.take(),
            output: child.stdout.take().unwrap(),
            child,
        }
    }

    fn write(&mut self, bytes: &[u8]) {
        self.input.as_mut().unwrap().write_all(bytes).unwrap();
    }

    #[track_caller]
    fn read(&mut self, expected: &[u8]) {
        let mut bytes = vec![0; expected.len()];
        self.output.read_exact(&mut bytes).unwrap();
        assert_eq!(bytes, expected);
    }

    #[track_caller]
    fn ended_output(&mut self) {
        assert_eq!(self.output.read(&mut [0]).unwrap(), 0);
    }

    /// Waits for the end; returns the exit code and the error output.
    fn end(mut self) -> (Option<i32>, String) {
        let mut child = self.child;
        // Its standard input stays open.
        let status = wait_until(Deadline::after(GENEROUS), || {
            child.try_wait().unwrap().is_some()
        });
        if status.is_err() {
            child.kill().unwrap();
            panic!("it does not end");
        }
        let mut text = String::new();
        child
            .stderr
            .take()
            .unwrap()
            .read_to_string(&mut text)
            .unwrap();
        drop(self.input.take());
        (child.wait().unwrap().code(), text)
    }
}

/// Returns a program, its guest, and a command that is connected to port 52 of the guest.
fn connected() -> (Program, Guest, Connect, Socket) {
    let program = Program::start(&[]);
    let mut guest = program.boot();
    let connect = Connect::start(&uds(&program), &["52"]);
    let socket = guest.accept(52);
    (program, guest, connect, socket)
}

fn uds(program: &Program) -> std::path::PathBuf {
    program.dir.path().join("3.vsock")
}

#[test]
fn bytes_pass_both_ways_and_input_ends_first() {
    let (_program, mut guest, mut connect, mut socket) = connected();
    guest.write(&socket, b"hello");
    connect.read(b"hello");
    connect.write(b"good day");
    assert_eq!(guest.read(&mut socket, 8), b"good day");
    drop(connect.input.take());
    let (end, _) = guest.expect(Op::Shutdown);
    assert_eq!(end.flags, 2, "the host has stopped sending");
    // The guest still sends.
    guest.write(&socket, b"so long");
    connect.read(b"so long");
    guest.say(&socket, Op::Shutdown, 3, &[]);
    connect.ended_output();
    assert_eq!(connect.end(), (Some(0), String::new()));
}

#[test]
fn the_guest_ends_first_and_input_is_still_sent() {
    let (_program, mut guest, mut connect, mut socket) = connected();
    guest.write(&socket, b"all");
    guest.finish(&socket);
    connect.read(b"all");
    connect.ended_output();
    connect.write(b"and more");
    assert_eq!(guest.read(&mut socket, 8), b"and more");
    drop(connect.input.take());
    guest.expect(Op::Shutdown);
    assert_eq!(connect.end(), (Some(0), String::new()));
}

#[test]
fn the_command_ends_if_the_guest_closes_while_input_is_open() {
    let (_program, mut guest, mut connect, socket) = connected();
    guest.write(&socket, b"bye");
    guest.say(&socket, Op::Shutdown, 3, &[]);
    connect.read(b"bye");
    connect.ended_output();
    assert_eq!(connect.end(), (Some(0), String::new()));
}

#[test]
fn bytes_that_the_guest_sends_immediately_are_not_lost() {
    let dir = TempDir::new().unwrap();
    let path = dir.path().join("uds");
    let listener = UnixListener::bind(&path).unwrap();
    let connect = Connect::start(&path, &["52"]);
    let (mut device, _) = listener.accept().unwrap();
    let mut command = [0; 11];
    device.read_exact(&mut command).unwrap();
    assert_eq!(&command, b"CONNECT 52\n");
    let long = vec![b'x'; 100_000];
    device.write_all(b"OK 1073741824\nfirst\n").unwrap();
    let sender = thread::spawn(move || device.write_all(&long).map(|()| device));
    let mut all = Vec::new();
    let mut connect = connect;
    connect.read(b"first\n");
    drop(connect.input.take());
    drop(sender.join().unwrap().unwrap());
    connect.output.read_to_end(&mut all).unwrap();
    assert_eq!(all, vec![b'x'; 100_000]);
    assert_eq!(connect.end(), (Some(0), String::new()));
}

#[test]
fn a_port_without_a_listener_gives_code_3() {
    let program = Program::start(&[]);
    let mut guest = program.boot();
    let connect = Connect::start(&uds(&program), &["52"]);
    let (request, _) = guest.expect(Op::Request);
    let reset = Header {
        src_cid: 3,
        dst_cid: 2,
        src_port: request.dst_port,
        dst_port: request.src_port,
        socket_type: request.socket_type,
        op: Op::Reset.into(),
        ..Header::default()
    };
    guest.send(&reset, &[]);
    let (code, text) = connect.end();
    assert_eq!(code, Some(3), "{text}");
    assert!(
        text.contains("port 52") && text.contains("no listener"),
        "{text}"
    );
}

#[test]
fn a_missing_device_gives_code_1_and_invalid_arguments_give_code_2() {
    let dir = TempDir::new().unwrap();
    let path = dir.path().join("uds");
    let (code, text) = Connect::start(&path, &["52"]).end();
    assert_eq!(code, Some(1), "{text}");
    assert!(text.contains("no device is listening"), "{text}");
    std::fs::write(&path, "no socket").unwrap();
    assert_eq!(Connect::start(&path, &["52"]).end().0, Some(1));
    let long = dir.path().join("x".repeat(120));
    let (code, text) = Connect::start(&long, &["52"]).end();
    assert!(code == Some(1) && text.contains("too long"), "{text}");
    for port in ["x", "-1", "4294967295", ""] {
        assert_eq!(Connect::start(&path, &[port]).end().0, Some(2), "{port}");
    }
    for wait in ["5", "-1s", "0s", "x"] {
        let wait = format!("--wait={wait}");
        assert_eq!(
            Connect::start(&path, &["52", &wait]).end().0,
            Some(2),
            "{wait}"
        );
    }
}

#[test]
fn a_service_that_is_not_a_device_is_reported() {
    let dir = TempDir::new().unwrap();
    let path = dir.path().join("uds");
    let listener = UnixListener::bind(&path).unwrap();
    for answer in ["HTTP/1.1 400\n", "OK\n", "OK x\n", "OK 99999999999\n"] {
        let connect = Connect::start(&path, &["52", "--wait=20s"]);
        let (mut service, _) = listener.accept().unwrap();
        service.write_all(answer.as_bytes()).unwrap();
        let (code, text) = connect.end();
        assert!(code == Some(1) && text.contains("expected OK"), "{text}");
    }
}

#[test]
fn with_wait_it_waits_for_the_device_and_for_the_guest_to_listen() {
    let dir = TempDir::new().unwrap();
    let path = dir.path().join("uds");
    let mut connect = Connect::start(&path, &["52", "--wait=60s"]);
    // It has found no device, and slept, more than once.
    let status = format!("/proc/{}/status", connect.child.id());
    let sleeps = || {
        let text = std::fs::read_to_string(&status).unwrap();
        let mut lines = text.lines();
        let count = lines.find_map(|line| line.strip_prefix("voluntary_ctxt_switches:"));
        count.unwrap().trim().parse::<u32>().unwrap()
    };
    wait_until(Deadline::after(GENEROUS), || sleeps() >= 2).unwrap();
    let listener = UnixListener::bind(&path).unwrap();
    for _ in 0..3 {
        // The guest refuses.
        drop(listener.accept().unwrap());
    }
    let (mut device, _) = listener.accept().unwrap();
    device.read_exact(&mut [0; 11]).unwrap();
    device.write_all(b"OK 7\nup").unwrap();
    connect.read(b"up");
    drop(device);
    assert_eq!(connect.end().0, Some(0));
}

#[test]
fn a_wait_ends() {
    let dir = TempDir::new().unwrap();
    let path = dir.path().join("uds");
    let (code, text) = Connect::start(&path, &["52", "--wait=300ms"]).end();
    assert!(
        code == Some(1) && text.contains("no device is listening"),
        "{text}"
    );
    // A service that accepts and never answers.
    let _listener = UnixListener::bind(&path).unwrap();
    let (code, text) = Connect::start(&path, &["52", "--wait=300ms"]).end();
    assert!(
        code == Some(1) && text.contains("no answer from the device within 300ms"),
        "{text}"
    );
}

#[test]
fn it_dies_of_sigpipe_if_its_reader_leaves() {
    let (_program, mut guest, connect, socket) = connected();
    let Connect {
        mut child,
        output,
        input,
    } = connect;
    close([output]);
    guest.write(&socket, b"unread");
    wait_until(Deadline::after(GENEROUS), || {
        child.try_wait().unwrap().is_some()
    })
    .unwrap();
    assert_eq!(child.wait().unwrap().signal(), Some(13), "SIGPIPE");
    drop(input);
}

#[test]
fn a_guest_that_stops_receiving_can_still_send() {
    let (_program, mut guest, mut connect, socket) = connected();
    let sends = || threads(&connect.child) == 2;
    wait_until(Deadline::after(GENEROUS), sends).unwrap();
    // The guest stops receiving.
    guest.say(&socket, Op::Shutdown, 1, &[]);
    guest.settle();
    // The thread that sends ends with a write that fails. Until then the pipe may be full, so a
    // write that blocks could wait for a thread that has just ended.
    let mut input = connect.input.as_ref().unwrap();
    rustix::io::ioctl_fionbio(input, true).unwrap();
    let has_ended = || {
        let _full = input.write(&[0; 4096]);
        threads(&connect.child) == 1
    };
    wait_until(Deadline::after(GENEROUS), has_ended).unwrap();
    guest.write(&socket, b"last words");
    connect.read(b"last words");
    guest.say(&socket, Op::Shutdown, 3, &[]);
    let (code, text) = connect.end();
    assert!(
        code == Some(1) && text.contains("stopped receiving"),
        "{code:?} {text}"
    );
}

fn threads(child: &Child) -> usize {
    let tasks = std::fs::read_dir(format!("/proc/{}/task", child.id()));
    tasks.unwrap().count()
}

#[test]
fn non_blocking_descriptors_stay_non_blocking() {
    let program = Program::start(&[]);
    let mut guest = program.boot();
    let (reader, mut writer) = file_pipe();
    fcntl_setfl(&reader, OFlags::NONBLOCK).unwrap();
    let shared = reader.try_clone().unwrap();
    let mut connect = Connect::start_with(&uds(&program), &["52"], reader);
    let mut socket = guest.accept(52);
    for piece in [b"one", b"two"] {
        writer.write_all(piece).unwrap();
        assert_eq!(guest.read(&mut socket, 3), piece);
    }
    let cpu = cpu(&connect.child.id().to_string(), None);
    assert!(cpu.as_millis() < 500, "{cpu:?}");
    assert!(fcntl_getfl(&shared).unwrap().contains(OFlags::NONBLOCK));
    drop(writer);
    guest.expect(Op::Shutdown);
    guest.say(&socket, Op::Shutdown, 3, &[]);
    connect.ended_output();
    assert_eq!(connect.end(), (Some(0), String::new()));
}

#[test]
fn if_the_wait_ends_during_an_attempt_an_earlier_refusal_is_reported() {
    let dir = TempDir::new().unwrap();
    let path = dir.path().join("vsock");
    let listener = UnixListener::bind(&path).unwrap();
    let mut command = Command::new(PROGRAM);
    let command = command.arg("connect").arg(&path).args(["5", "--wait=1s"]);
    let child = command.stderr(Stdio::piped()).spawn().unwrap();
    // The first attempt is refused. The later ones wait in the backlog of the listener.
    let (refused, _) = listener.accept().unwrap();
    refused.shutdown(Shutdown::Both).unwrap();
    let ended = child.wait_with_output().unwrap();
    let said = String::from_utf8(ended.stderr).unwrap();
    assert_eq!(ended.status.code(), Some(3), "{said}");
    assert!(
        said.contains("refused: the guest has no listener"),
        "{said}"
    );
}
