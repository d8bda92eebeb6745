// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! The program's log: that no one reads it, and that others try to fill it.

use std::fs::{File, OpenOptions};
use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::Stdio;
use std::time::{Duration, Instant};

use rustix::process::Signal;
use vhost::VhostBackend;
use vsock_compliance::poll::{Deadline, wait_until};
use vsock_proto::Op;

use crate::descriptors::full_pipe;
use crate::guest::{GENEROUS, Guest};
use crate::program::Program;
use crate::vmm::{FEATURES, RX, TX, Vmm};

/// How often a line goes out at most that is repeated for so long.
fn bound(elapsed: Duration) -> u64 {
    10 + elapsed.as_secs() / 10
}

/// Waits until the program has ended by the signal.
#[track_caller]
fn assert_ends(program: &mut Program) {
    program.signal(Signal::TERM);
    let mut code = None;
    wait_until(Deadline::after(GENEROUS), || {
        code = program.child.try_wait().unwrap();
        code.is_some()
    })
    .expect("the program does not end");
    assert_eq!(code.unwrap().code(), Some(0));
}

/// Bytes pass between a host process and the guest.
#[track_caller]
fn assert_bytes_pass(program: &Program, port: u32) {
    let (service, mut guest) = (program.listen(port), program.boot());
    let (mut socket, answer) = guest.connect(1000, port);
    assert_eq!(answer.op, u16::from(Op::Response));
    let (mut stream, _) = service.accept().unwrap();
    stream.write_all(b"bytes").unwrap();
    assert_eq!(guest.read(&mut socket, 5), b"bytes");
}

#[test]
fn t131_a_standard_error_that_takes_nothing_stops_nothing() {
    let (_reader, pipe) = full_pipe();
    let full = OpenOptions::new().write(true).open("/dev/full").unwrap();
    let unwritable = File::open("/dev/null").unwrap();
    for stderr in [pipe.into(), Stdio::from(full), Stdio::from(unwritable)] {
        let mut program = Program::start_with(&["--log-level=trace"], stderr);
        for port in 1..5 {
            assert_bytes_pass(&program, port);
        }
        assert_ends(&mut program);
    }
}

#[test]
fn t131_what_waited_for_a_reader_is_written_when_there_is_one() {
    let (mut reader, writer) = full_pipe();
    let mut program = Program::start_with(&[], writer);
    program.boot().connect(1, 1);
    let mut read = Vec::new();
    let mut buffer = [0; 4096];
    while !String::from_utf8_lossy(&read).contains("a VMM has connected") {
        let count = reader.read(&mut buffer).unwrap();
        read.extend_from_slice(&buffer[..count]);
    }
    assert_ends(&mut program);
}

/// How many lines of the device's that begin with this went out, and how many were left out.
fn counted(said: &str, text: &str) -> [u64; 2] {
    let [mut out, mut left_out] = [0, 0];
    for line in said.lines() {
        let Some((_, line)) = line.split_once("guest 3: ") else {
            continue;
        };
        let told = if line.starts_with(text) {
            out += 1;
            let told = line.strip_suffix(" more like this were left out)");
            told.and_then(|line| line.rsplit_once('('))
                .map(|(_, count)| count)
        } else {
            let told = line.split_once(" lines like \"");
            told.filter(|(_, like)| like.starts_with(text))
                .map(|(count, _)| count)
        };
        left_out += told.map_or(0, |count| count.parse().unwrap());
    }
    [out, left_out]
}

/// What a program has said whose guest has CID 3, after this was done to the socket of its
/// front-end; and how long it ran.
fn said_after(act: impl FnOnce(&Path)) -> (String, Duration) {
    let start = Instant::now();
    let program = Program::start(&[]);
    act(&program.socket(3));
    let said = program.said();
    (said, start.elapsed())
}

#[test]
fn t131_a_front_end_that_is_refused_again_and_again_is_counted() {
    let (said, elapsed) = said_after(|socket| {
        for _ in 0..60 {
            Vmm::connect(socket)
                .frontend
                .set_vring_num(0, 0)
                .unwrap_err();
        }
        // The last one is refused, and that is said, before this one is served.
        drop(Vmm::connect(socket));
    });
    assert!(
        said.contains("connection after its request (SET_VRING_NUM): 0 entries"),
        "{said}"
    );
    let [out, left_out] = counted(&said, "closing the VMM's connection after its request (");
    assert!(out <= bound(elapsed), "{said}");
    assert_eq!(out + left_out, 60, "{said}");
}

#[test]
fn t131_front_ends_that_come_go_and_misbehave_in_a_loop_do_not_fill_the_log() {
    let (said, elapsed) = said_after(|socket| {
        for _ in 0..100 {
            drop(UnixStream::connect(socket).unwrap());
            // No message of vhost-user. The device may hang up in the middle of it.
            let mut stream = UnixStream::connect(socket).unwrap();
            let _sent = stream.write_all(&[0xA5; 64]);
        }
        let mut vmm = Vmm::connect(socket);
        vmm.start(FEATURES).unwrap();
        let file = File::options().write(true).open("/dev/null").unwrap();
        for _ in 0..200 {
            assert!(vmm.set_kick(RX, &file));
        }
        for _ in 0..200 {
            assert!(vmm.set_call(TX, &file));
        }
        drop(vmm);
        // The next one is served when all before have gone.
        Guest::boot(socket, 3).connect(1, 1);
    });
    assert!(said.len() < 16 * 1024, "{} bytes: {said}", said.len());
    for (text, count) in [
        ("a VMM has connected", 202),
        ("closing the VMM's connection after its request (", 100),
        ("ignoring the kick of queue ", 200),
        ("ignoring the call of queue ", 200),
    ] {
        let [out, left_out] = counted(&said, text);
        assert!(out <= bound(elapsed), "{text}: {out} in {elapsed:?}");
        assert_eq!(out + left_out, count, "{text}: {said}");
    }
}
