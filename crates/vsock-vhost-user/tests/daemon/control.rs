// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! The program's control socket, the command that uses it, and the report to the log.

use std::io::{BufRead, BufReader, ErrorKind, Read, Write};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::{UnixListener, UnixStream};
use std::process::{Command, Output, Stdio};
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use rustix::process::Signal;
use serde_json::Value;
use vsock_compliance::poll::{Deadline, Stopwatch, wait_until};
use vsock_driver::lingering;
use vsock_proto::Op;
use vsock_tests::alone::alone;

use crate::guest::{GENEROUS, Guest, Socket};
use crate::passing::{LINGER, send_with};
use crate::program::{PROGRAM, Program};

/// Returns a client that has sent these bytes.
fn client(program: &Program, said: &str) -> UnixStream {
    let mut client = UnixStream::connect(program.control()).unwrap();
    client.set_read_timeout(Some(GENEROUS)).unwrap();
    client.write_all(said.as_bytes()).unwrap();
    client
}

/// Returns the status and the body of an answer.
fn answer(mut client: UnixStream) -> (u16, String) {
    let mut answer = String::new();
    client.read_to_string(&mut answer).unwrap();
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    let status = head.split(' ').nth(1).unwrap();
    (status.parse().unwrap(), body.to_owned())
}

fn ask(program: &Program, request: &str) -> (u16, String) {
    answer(client(
        program,
        &format!("{request} HTTP/1.1\r\nHost: x\r\n\r\n"),
    ))
}

/// Returns the value of a metric.
#[track_caller]
fn figure(page: &str, name: &str) -> u64 {
    let mut lines = page.lines().filter_map(|line| line.rsplit_once(' '));
    let found = lines.find(|(figure, _)| *figure == name);
    let (_, value) = found.unwrap_or_else(|| panic!("{name} is missing in\n{page}"));
    value.parse().unwrap()
}

fn connections(program: &Program) -> Vec<Value> {
    let (status, body) = ask(program, "GET /connections");
    assert_eq!(status, 200, "{body}");
    let listing: Value = serde_json::from_str(&body).unwrap();
    assert_eq!(listing["silent_guests"], Value::Array(Vec::new()));
    listing["connections"].as_array().unwrap().clone()
}

/// Connects the guest to a host process; returns both ends.
fn connect(guest: &mut Guest, listener: &UnixListener, guest_port: u32) -> (Socket, UnixStream) {
    let (socket, answer) = guest.connect(guest_port, 5);
    assert_eq!(answer.op, u16::from(Op::Response));
    let (stream, _) = listener.accept().unwrap();
    stream.set_read_timeout(Some(GENEROUS)).unwrap();
    (socket, stream)
}

fn ctl(program: &Program, args: &[&str]) -> Output {
    let mut command = Command::new(PROGRAM);
    let command = command.arg("ctl").arg(program.control()).args(args);
    command.output().unwrap()
}

fn text(bytes: Vec<u8>) -> String {
    String::from_utf8(bytes).unwrap()
}

/// Returns a program that has moved 1,000 bytes from its guest and 300 bytes to it, on a connection
/// that is still open, and has refused another connection.
fn after_traffic() -> (Program, Guest, UnixStream) {
    let program = Program::start_controlled(&["--log-level=debug"]);
    let mode = program.control().metadata().unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    let listener = program.listen(5);
    let mut guest = program.boot();
    let (mut socket, mut stream) = connect(&mut guest, &listener, 4000);
    guest.write(&socket, &[1; 1000]);
    stream.read_exact(&mut [0; 1000]).unwrap();
    stream.write_all(&[2; 300]).unwrap();
    guest.read(&mut socket, 300);
    guest.connect(4001, 6); // refused
    guest.settle();
    (program, guest, stream)
}

#[test]
fn metrics_match_the_traffic() {
    let (program, _guest, _stream) = after_traffic();
    let (status, page) = ask(&program, "GET /metrics");
    assert_eq!(status, 200);
    assert!(page.ends_with("# EOF\n"));
    for (name, value) in [
        ("vsock_guest_responding{guest=\"3\"}", 1),
        ("vsock_guest_driver_active{guest=\"3\"}", 1),
        ("vsock_connections", 1),
        ("vsock_guest_connections{guest=\"3\"}", 1),
        ("vsock_handshakes", 0),
        ("vsock_payload_bytes_total{direction=\"from_guest\"}", 1000),
        (
            "vsock_guest_payload_bytes_total{guest=\"3\",direction=\"to_guest\"}",
            300,
        ),
        ("vsock_packets_total{direction=\"from_guest\"}", 4),
        (
            "vsock_guest_packets_total{guest=\"3\",direction=\"to_guest\"}",
            3,
        ),
        ("vsock_connections_begun_total{initiator=\"guest\"}", 2),
        (
            "vsock_guest_refused_total{guest=\"3\",reason=\"backend\"}",
            1,
        ),
        ("vsock_refused_total{reason=\"guest_refused\"}", 0),
        ("vsock_guest_queue_depth{guest=\"3\",queue=\"tx\"}", 0),
        ("vsock_chains_used_total{queue=\"rx\"}", 3),
        ("vsock_credit_stalls_total", 0),
        ("vsock_watch_failures_total", 0),
    ] {
        assert_eq!(figure(&page, name), value, "{name}");
    }
    let said = program.said();
    let why =
        "refused guest port 4001 to host port 6: no host component accepts it (entity not found)";
    assert!(said.contains(why), "{said}");
}

#[test]
fn the_list_of_connections_matches_the_traffic() {
    let (program, _guest, _stream) = after_traffic();
    let [connection] = &connections(&program)[..] else {
        panic!("not one connection");
    };
    for (field, value) in [
        ("id", Value::from("3-1")),
        ("guest", serde_json::json!({ "cid": 3, "port": 4000 })),
        ("host", serde_json::json!({ "cid": 2, "port": 5 })),
        ("initiator", Value::from("guest")),
        ("type", Value::from("stream")),
        ("phase", Value::from("connected")),
        ("bytes_from_guest", Value::from(1000)),
        ("bytes_to_guest", Value::from(300)),
        ("waiting", Value::from(0)),
        ("in_flight", Value::from(0)),
    ] {
        assert_eq!(connection[field], value, "{field}");
    }
    assert!(connection["age_ms"].is_u64());
}

#[test]
fn a_connection_is_deleted_on_both_ends_with_data_in_flight() {
    let program = Program::start_controlled(&["--log-level=warn"]);
    let listener = program.listen(5);
    let mut guest = program.boot();
    let (socket, mut stream) = connect(&mut guest, &listener, 4000);
    let (other, mut remains) = connect(&mut guest, &listener, 4001);
    guest.write(&socket, &[1; 200_000]);
    stream.write_all(&[2; 100_000]).unwrap();
    guest.settle();
    assert_eq!(
        ask(&program, "DELETE /connections/3-1"),
        (204, String::new())
    );
    let rst = loop {
        let (packet, _) = guest.packet();
        if packet.op != u16::from(Op::ReadWrite) {
            break packet;
        }
    };
    assert_eq!((rst.op, rst.dst_port), (Op::Reset.into(), 4000));
    let end = loop {
        match stream.read(&mut [0; 4096]) {
            Ok(1..) => {}
            end => break end.map_err(|error| error.kind()),
        }
    };
    assert!(
        matches!(end, Ok(0) | Err(ErrorKind::ConnectionReset)),
        "{end:?}"
    );
    let (status, body) = ask(&program, "DELETE /connections/3-1");
    assert_eq!(
        (status, body.trim()),
        (404, r#"{"error":"there is no connection 3-1"}"#)
    );
    guest.write(&other, b"goes on");
    remains.read_exact(&mut [0; 7]).unwrap();
    assert_eq!(program.said(), "");
}

#[test]
fn an_unknown_request_is_answered_with_the_known_ones() {
    let program = Program::start_controlled(&["--log-level=warn"]);
    for (request, status, says) in [
        ("GET /", 404, "expected GET /metrics, GET /connections"),
        ("GET /metrics/", 404, "expected GET"),
        ("POST /metrics", 405, "GET, HEAD"),
        ("DELETE /connections", 405, "GET, HEAD"),
        ("GET /connections/3-1", 405, "DELETE"),
        ("GET /capture", 405, "POST, DELETE"),
        ("POST /capture/x", 404, "POST /capture or DELETE /capture"),
        ("POST /capture", 409, "--capture-dir DIR"),
        ("DELETE /capture", 404, "no capture to stop"),
        ("DELETE /connections/", 400, "expected CID-NUMBER"),
        ("DELETE /connections/3", 400, "expected CID-NUMBER"),
        ("DELETE /connections/3-1/2", 400, "expected CID-NUMBER"),
        ("DELETE /connections/4-1", 404, "no connection 4-1"),
    ] {
        let (code, body) = ask(&program, request);
        assert_eq!(code, status, "{request}: {body}");
        let failure: Value = serde_json::from_str(&body).unwrap();
        assert!(failure["error"].as_str().unwrap().contains(says), "{body}");
    }
    // Clients that send no HTTP, or a header without an end, are disconnected.
    let mut garbage = client(&program, "\0\x01 what\r\n\r\n");
    garbage.read_to_end(&mut Vec::new()).unwrap();
    let long = format!(
        "GET /metrics HTTP/1.1\r\nHost: {}\r\n\r\n",
        "x".repeat(7000)
    );
    assert_eq!(answer(client(&program, &long)).0, 200);
    let longer = "GET /metrics HTTP/1.1\r\nHost: x\r\nX: ".to_owned() + &"x".repeat(100_000);
    let mut endless = UnixStream::connect(program.control()).unwrap();
    endless.set_read_timeout(Some(GENEROUS)).unwrap();
    let _refused = endless.write_all(longer.as_bytes());
    let mut end = Vec::new();
    let _reset = endless.read_to_end(&mut end);
    assert!(end.starts_with(b"HTTP/1.1 431"), "{}", text(end));
    // A client that has shut down its writing side gets an answer.
    let old = client(&program, "GET /metrics HTTP/1.0\r\n\r\n");
    old.shutdown(std::net::Shutdown::Write).unwrap();
    assert_eq!(answer(old).0, 200);
    assert_eq!(program.said(), "");
}

#[test]
fn clients_that_hold_connections_delay_neither_other_clients_nor_guests() {
    let program = Program::start_controlled(&["--log-level=warn"]);
    let listener = program.listen(5);
    let mut guest = program.boot();
    // The answer is larger than a socket's buffers.
    let open: Vec<_> = (0..2000)
        .map(|port| connect(&mut guest, &listener, 10_000 + port))
        .collect();
    let descriptors = || std::fs::read_dir(program.proc("fd")).unwrap().count();
    let before = descriptors();
    let mut held = Vec::new();
    for (round, (socket, stream)) in open.iter().take(200).enumerate() {
        let said = match round % 4 {
            0 => "",
            1 => "GET",
            // This client never reads.
            _ => "GET /connections HTTP/1.1\r\nHost: x\r\n\r\n",
        };
        held.push(client(&program, said));
        let watch = Stopwatch::start();
        if round % 20 == 19 {
            assert_eq!(ask(&program, "GET /metrics").0, 200);
            assert!(
                watch.elapsed() < Duration::from_secs(5),
                "{:?}",
                watch.elapsed()
            );
            guest.write(socket, b"bytes");
            let mut stream = stream;
            stream.read_exact(&mut [0; 5]).unwrap();
        }
    }
    wait_until(Deadline::after(GENEROUS), || descriptors() <= before + 16).unwrap();
    // The remaining clients are disconnected after the timeout.
    wait_until(Deadline::after(GENEROUS), || descriptors() == before).unwrap();
    drop(held);
    assert_eq!(connections(&program).len(), 2000);
    let watch = Stopwatch::start();
    assert_eq!(program.said(), "");
    assert!(
        watch.elapsed() < Duration::from_secs(5),
        "{:?}",
        watch.elapsed()
    );
}

#[test]
fn a_client_that_waits_for_its_answer_does_not_delay_the_end() {
    let program = Program::start_controlled(&["--log-level=warn"]);
    let _silent = client(&program, "GET");
    let watch = Stopwatch::start();
    assert_eq!(program.said(), "");
    assert!(
        watch.elapsed() < Duration::from_secs(4),
        "{:?}",
        watch.elapsed()
    );
}

#[test]
fn t125_a_control_socket_that_is_a_port_of_a_guest_is_refused() {
    let args = [
        "--guest-cid=3",
        "--socket=/tmp/none/s",
        "--uds-path=/tmp/none/v",
    ];
    let mut command = Command::new(PROGRAM);
    let ended = command
        .args(args)
        .arg("--control=/tmp/none/v_7")
        .output()
        .unwrap();
    let said = text(ended.stderr);
    assert_eq!(ended.status.code(), Some(2), "{said}");
    assert!(
        said.contains("the program uses /tmp/none/v_7 (control)"),
        "{said}"
    );
}

#[test]
fn the_command_lists_connections_and_closes_one() {
    let program = Program::start_controlled(&["--log-level=warn"]);
    let listener = program.listen(5);
    let mut guest = program.boot();
    let (socket, mut stream) = connect(&mut guest, &listener, 4000);
    let (_, _other) = connect(&mut guest, &listener, 4001);
    guest.write(&socket, &[0; 2048]);
    stream.read_exact(&mut [0; 2048]).unwrap();
    let shown = ctl(&program, &["connections"]);
    assert_eq!(shown.status.code(), Some(0));
    let shown = text(shown.stdout);
    let lines: Vec<_> = shown.lines().collect();
    assert_eq!(lines.len(), 3, "{shown}");
    let cells: Vec<_> = lines[1].split_whitespace().collect();
    assert_eq!(
        cells[..6],
        ["3-1", "3:4000", "2:5", "guest", "stream", "connected"]
    );
    assert_eq!(cells[7..], ["2.0K", "0", "0", "0"]);
    let figures = text(ctl(&program, &["metrics"]).stdout);
    let line = figures
        .lines()
        .find(|line| line.starts_with("vsock_connections "));
    assert!(line.unwrap().ends_with(" 2"), "{figures}");
    for line in shown.lines().chain(figures.lines()) {
        assert!(line.len() <= 100, "{line}");
    }

    let closed = ctl(&program, &["close", "3-1"]);
    assert_eq!(
        (closed.status.code(), text(closed.stderr)),
        (Some(0), String::new())
    );
    assert_eq!(guest.expect(Op::Reset).0.dst_port, 4000);
    let again = ctl(&program, &["close", "3-1"]);
    assert_eq!(again.status.code(), Some(1));
    let said = text(again.stderr);
    assert!(said.contains("there is no connection 3-1"), "{said}");
    assert_eq!(ctl(&program, &["close", "x"]).status.code(), Some(2));
    assert_eq!(program.said(), "");
}

#[test]
fn the_command_reports_an_unsuitable_socket() {
    let program = Program::start_controlled(&["--log-level=warn"]);
    for (path, expected) in [
        (program.dir.path().join("none"), "cannot connect to"),
        (program.dir.path().to_owned(), "cannot connect to"),
        (program.socket(3), "invalid HTTP from"),
    ] {
        let mut command = Command::new(PROGRAM);
        let ended = command
            .arg("ctl")
            .arg(path)
            .arg("connections")
            .output()
            .unwrap();
        let said = text(ended.stderr);
        assert_eq!(ended.status.code(), Some(1), "{said}");
        assert!(
            said.contains(expected) && said.contains("--control"),
            "{said}"
        );
    }
}

#[test]
fn the_live_view_shows_rates_until_the_program_ends() {
    let program = Program::start_controlled(&["--log-level=warn"]);
    let listener = program.listen(5);
    let mut guest = program.boot();
    let (socket, mut stream) = connect(&mut guest, &listener, 4000);
    let mut command = Command::new(PROGRAM);
    let command = command.arg("ctl").arg(program.control()).arg("top");
    let mut top = command
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(top.stdout.take().unwrap()).lines();
    let mut frame = || {
        let lines = lines.by_ref().map(Result::unwrap);
        lines
            .take_while(|line| !line.is_empty())
            .collect::<Vec<_>>()
    };
    let first = frame();
    assert!(first[0].starts_with("1 connection, 0 bytes/s"), "{first:?}");
    // Until a frame shows some of the traffic.
    let seen = (0..20).find_map(|_| {
        guest.write(&socket, &[0; 8192]);
        stream.read_exact(&mut [0; 8192]).unwrap();
        let frame = frame();
        (!frame[0].contains(" 0 bytes/s to the host")).then_some(frame)
    });
    let seen = seen.unwrap();
    let cells: Vec<_> = seen[2].split_whitespace().collect();
    assert_eq!(
        cells[..4],
        ["3-1", "3:4000", "2:5", "connected"],
        "{seen:?}"
    );
    assert_ne!(cells[4], "0", "{seen:?}");
    assert_eq!(program.said(), "");
    let ended = top.wait().unwrap();
    assert_eq!(ended.code(), Some(1));
    let mut said = String::new();
    top.stderr
        .take()
        .unwrap()
        .read_to_string(&mut said)
        .unwrap();
    assert!(said.contains("cannot connect to"), "{said}");
}

#[test]
fn a_signal_writes_a_full_report_of_any_length_at_any_log_level() {
    let mut program = Program::start_controlled(&["--log-level=off"]);
    let listener = program.listen(5);
    let mut guest = program.boot();
    // More than the log's queue holds.
    let count = 2000;
    let _open: Vec<_> = (0..count)
        .map(|port| connect(&mut guest, &listener, 10_000 + port))
        .collect();
    let stderr = BufReader::new(program.child.stderr.take().unwrap());
    let (tells, told) = mpsc::channel();
    thread::spawn(move || {
        for line in stderr.lines().map_while(Result::ok) {
            if tells.send(line).is_err() {
                break;
            }
        }
    });
    for _ in 0..2 {
        program.signal(Signal::USR1);
        let first = told.recv_timeout(GENEROUS).unwrap();
        let expected = "vsock-vhost-user: report: vsock_guest_responding{guest=\"3\"} 1";
        assert_eq!(first, expected);
        let mut listed = 0;
        let mut figures = Vec::new();
        while listed < count {
            let line = told.recv_timeout(GENEROUS).unwrap();
            let line = line
                .strip_prefix("vsock-vhost-user: report: ")
                .unwrap()
                .to_owned();
            if line.starts_with("connection 3-") {
                listed += 1;
            } else {
                figures.push(line);
            }
        }
        let count = format!("vsock_connections {count}");
        assert!(figures.contains(&count), "{figures:?}");
    }
}

#[test]
fn t124_a_file_whose_close_blocks_does_not_delay_a_stop() {
    alone(|| {
        let program = Program::start_controlled(&[]);
        let (lingering, peer) = lingering(LINGER);
        let client = UnixStream::connect(program.control()).unwrap();
        let sent = send_with(&client, "GET", &lingering);
        // If the file was refused, dropping its peer first keeps this test from blocking.
        let _peer = sent.is_ok().then_some(peer);
        drop(lingering);
        let mut other = UnixStream::connect(program.control()).unwrap();
        // A kernel that cannot refuse the file lets it block the thread.
        let patience = sent.map_or(GENEROUS, |()| Duration::from_millis(500));
        other.set_read_timeout(Some(patience)).unwrap();
        other.write_all(b"GET /metrics HTTP/1.1\r\n\r\n").unwrap();
        let answered = other.read(&mut [0]).is_ok();
        assert!(answered || sent.is_ok());
        let watch = Stopwatch::start();
        program.said();
        assert!(watch.elapsed() < Duration::from_secs(10));
    });
}
