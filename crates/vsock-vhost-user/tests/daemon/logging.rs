// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! The program's log, if it has no reader or others try to fill it.

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

use crate::captures::ctl;
use crate::descriptors::full_pipe;
use crate::guest::{GENEROUS, Guest};
use crate::program::Program;
use crate::vmm::{FEATURES, RX, TX, Vmm};

/// Returns how often a line that is repeated for this long can be logged.
fn bound(elapsed: Duration) -> u64 {
    10 + elapsed.as_secs() / 10
}

/// Waits until the signal has ended the program.
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

/// Checks that bytes pass between a host process and the guest.
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
fn t131_a_full_standard_error_does_not_block_the_program() {
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
fn t131_waiting_lines_are_written_once_there_is_a_reader() {
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

/// Counts the log lines that begin with this, and those that were left out.
fn counted(said: &str, text: &str) -> [u64; 2] {
    let [mut out, mut left_out] = [0, 0];
    for line in said.lines() {
        let Some((_, line)) = line.split_once("] ") else {
            continue;
        };
        let line = line.strip_prefix("guest 3: ").unwrap_or(line);
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

/// Runs a program for guest 3, and `act` with the socket for its front-end; returns the program's
/// output and how long it ran.
fn said_after(act: impl FnOnce(&Path)) -> (String, Duration) {
    let start = Instant::now();
    let program = Program::start(&[]);
    act(&program.socket(3));
    let said = program.said();
    (said, start.elapsed())
}

#[test]
fn t131_repeated_refusals_of_a_front_end_are_counted() {
    let (said, elapsed) = said_after(|socket| {
        for _ in 0..60 {
            Vmm::connect(socket)
                .frontend
                .set_vring_num(0, 0)
                .unwrap_err();
        }
        // The previous front-end is refused, and this is logged, before the next one is served.
        drop(Vmm::connect(socket));
    });
    assert!(
        said.contains("connection after its request (SET_VRING_NUM): invalid queue size 0"),
        "{said}"
    );
    let [out, left_out] = counted(&said, "closing the VMM's connection after its request (");
    assert!(out <= bound(elapsed), "{said}");
    assert_eq!(out + left_out, 60, "{said}");
}

#[test]
fn t131_misbehaving_front_ends_do_not_fill_the_log() {
    let (said, elapsed) = said_after(|socket| {
        for _ in 0..100 {
            drop(UnixStream::connect(socket).unwrap());
            // Not a vhost-user message. The device may disconnect while it is being sent.
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
        // A front-end is served after all earlier ones have gone.
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

#[test]
fn t131_a_client_that_starts_and_stops_captures_does_not_fill_the_log() {
    let start = Instant::now();
    let directory = tempfile::tempdir().unwrap();
    let option = format!("--capture-dir={}", directory.path().display());
    let program = Program::start_controlled(&[&option]);
    for _ in 0..40 {
        for order in ["start", "stop"] {
            let (code, said) = ctl(&program, &["capture", order]);
            assert_eq!(code, Some(0), "{said}");
        }
    }
    let said = program.said();
    for text in ["capturing packets to ", "stopped the capture to "] {
        let [out, left_out] = counted(&said, text);
        assert!(out <= bound(start.elapsed()), "{said}");
        assert_eq!(out + left_out, 40, "{said}");
    }
}
