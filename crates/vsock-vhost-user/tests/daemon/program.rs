// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! The program: its arguments, its signals, what it leaves behind.

use std::io::{ErrorKind, Read, Write};
use std::os::fd::AsRawFd;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::Duration;

use rustix::fs::SealFlags;
use rustix::process::{Pid, Resource, Rlimit, Signal, kill_process, prlimit};
use tempfile::TempDir;
use vhost::vhost_user::message::FrontendReq;
use vsock_compliance::poll::{Deadline, Stopwatch, pace, wait_until};
use vsock_proto::Op;

use crate::descriptors::{Churn, STOP, calls, fill};
use crate::guest::{Guest, PATIENCE};
use crate::stopping::hold_up;
use crate::vmm::{FEATURES, TX, Vmm, header, memory};

pub(crate) struct Program(pub(crate) Child);

impl Program {
    pub(crate) fn start(args: &[String]) -> Self {
        Self::start_with(args, Stdio::piped())
    }

    /// A program whose standard error is this.
    pub(crate) fn start_with(args: &[String], stderr: impl Into<Stdio>) -> Self {
        let child = Command::new(env!("CARGO_BIN_EXE_vsock-vhost-user"))
            .args(args)
            .stderr(stderr)
            .spawn()
            .unwrap();
        Self(child)
    }

    pub(crate) fn signal(&self, signal: Signal) {
        kill_process(Pid::from_child(&self.0), signal).unwrap();
    }

    /// Its exit code and what it said.
    pub(crate) fn end(&mut self) -> (Option<i32>, String) {
        let mut said = String::new();
        let mut stderr = self.0.stderr.take().unwrap();
        stderr.read_to_string(&mut said).unwrap();
        (self.0.wait().unwrap().code(), said)
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        let _killed = self.0.kill();
        let _reaped = self.0.wait();
    }
}

fn path(dir: &TempDir, name: &str) -> String {
    dir.path().join(name).display().to_string()
}

pub(crate) fn vm(dir: &TempDir, cid: u64) -> String {
    let (socket, uds) = (
        path(dir, &format!("{cid}.sock")),
        path(dir, &format!("{cid}.vsock")),
    );
    format!("--vm=guest-cid={cid},socket={socket},uds-path={uds}")
}

fn run(args: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_vsock-vhost-user"))
        .args(args)
        .output()
        .unwrap()
}

pub(crate) fn wait_for(path: &Path) {
    wait_until(Deadline::after(PATIENCE), || path.exists()).unwrap();
}

fn names(dir: &TempDir) -> Vec<String> {
    let entries = std::fs::read_dir(dir.path()).unwrap();
    let name = |entry: std::io::Result<std::fs::DirEntry>| entry.unwrap().file_name();
    let mut names: Vec<_> = entries
        .map(|entry| name(entry).to_string_lossy().into_owned())
        .collect();
    names.sort_unstable();
    names
}

#[test]
fn two_machines_are_served_by_one_program_and_a_signal_removes_their_sockets() {
    for signal in [Signal::TERM, Signal::INT] {
        let dir = TempDir::new().unwrap();
        let mut program = Program::start(&[vm(&dir, 3), vm(&dir, 4)]);
        for cid in [3, 4] {
            let socket = dir.path().join(format!("{cid}.sock"));
            wait_for(&socket);
            let mut guest = Guest::boot(&socket, cid);
            let (_, answer) = guest.connect(1, 1);
            assert_eq!(answer.op, u16::from(Op::Reset));
        }
        let all = [3, 4].map(|cid| {
            [
                format!("{cid}.sock"),
                format!("{cid}.vsock"),
                format!("{cid}.vsock_seqpacket"),
            ]
        });
        assert_eq!(names(&dir), all.concat());
        program.signal(signal);
        assert_eq!(program.end().0, Some(0));
        assert_eq!(names(&dir), [""; 0]);
    }
}

#[test]
fn a_path_without_room_for_a_suffix_is_for_streams_alone() {
    let dir = TempDir::new().unwrap();
    let long = 107 - dir.path().as_os_str().len() - 1;
    let args = [
        "--guest-cid=6".to_owned(),
        format!("--socket={}", path(&dir, "s")),
        format!("--uds-path={}", path(&dir, &"u".repeat(long))),
    ];
    let mut program = Program::start(&args);
    wait_for(&dir.path().join("s"));
    assert_eq!(Vmm::connect(&dir.path().join("s")).features() & 2, 0);
    program.signal(Signal::TERM);
    let (code, said) = program.end();
    assert_eq!(code, Some(0));
    assert!(said.contains("no seqpacket sockets"), "{said}");
}

#[test]
fn a_guest_is_connected_when_the_signal_comes() {
    let dir = TempDir::new().unwrap();
    let args = [
        "--guest-cid=5".to_owned(),
        format!("--socket={}", path(&dir, "vhost.sock")),
        format!("--uds-path={}", path(&dir, "vm.vsock")),
    ];
    let mut program = Program::start(&args);
    wait_for(&dir.path().join("vhost.sock"));
    let _guest = Guest::boot(&dir.path().join("vhost.sock"), 5);
    program.signal(Signal::TERM);
    assert_eq!(program.end().0, Some(0));
    assert_eq!(names(&dir), [""; 0]);
}

#[test]
fn t102_a_closed_standard_error_ends_nothing() {
    let dir = TempDir::new().unwrap();
    let mut program = Program::start(&[vm(&dir, 3), "--log-level=trace".to_owned()]);
    drop(program.0.stderr.take());
    let socket = dir.path().join("3.sock");
    wait_for(&socket);
    for _ in 0..2 {
        let (_, answer) = Guest::boot(&socket, 3).connect(1, 1);
        assert_eq!(answer.op, u16::from(Op::Reset));
    }
    program.signal(Signal::TERM);
    assert_eq!(program.0.wait().unwrap().code(), Some(0));
}

#[test]
fn an_error_names_its_cause_and_leaves_nothing_behind() {
    let dir = TempDir::new().unwrap();
    let args = [
        vm(&dir, 3),
        "--vm=guest-cid=4,socket=/nowhere/s,uds-path=/nowhere/u".to_owned(),
    ];
    let mut program = Program::start(&args);
    let (code, said) = program.end();
    assert_eq!(code, Some(1));
    assert!(
        said.contains("/nowhere/u: No such file or directory"),
        "{said}"
    );
    assert_eq!(names(&dir), [""; 0]);
}

#[test]
fn wrong_arguments_are_code_2() {
    for args in [
        &[][..],
        &["--guest-cid=3"],
        &[
            "--vm=guest-cid=3,socket=/a,uds-path=/b",
            "--vm=guest-cid=3,socket=/c,uds-path=/d",
        ],
        &["--vm=guest-cid=3"],
    ] {
        let output = run(args);
        assert_eq!(output.status.code(), Some(2), "{args:?}");
        assert!(!output.stderr.is_empty());
    }
}

#[test]
fn a_wrong_value_is_code_2_and_explained() {
    let dir = TempDir::new().unwrap();
    let (reserved, good) = (vm(&dir, 2), vm(&dir, 3));
    let odd = format!("{good},queue-size=100");
    let long = format!("{good}{}", "x".repeat(107));
    for (args, code, why) in [
        (&[&*reserved][..], 2, "choose one from 3"),
        (&[&good, "--queue-size=100"], 2, "a power of two"),
        (&[&odd], 2, "a power of two"),
        (&[&good, "--buf-alloc=0"], 2, "within 1 byte to 1 GiB"),
        (&[&good, "--max-connections=0"], 2, "within 1 to"),
        (&[&long], 1, "1 to 107 bytes"),
    ] {
        let output = run(args);
        let said = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(code), "{args:?}: {said}");
        assert!(said.contains(why), "{args:?}: {said}");
        assert_eq!(names(&dir), [""; 0]);
    }
}

#[test]
fn a_path_without_room_for_a_port_is_warned_about() {
    let dir = TempDir::new().unwrap();
    let room = 107 - path(&dir, "").len() - "_4294967295".len();
    for (len, warned) in [(room, false), (room + 1, true)] {
        let uds = path(&dir, &"u".repeat(len));
        let socket = path(&dir, "s");
        let vm = format!("--vm=guest-cid=3,socket={socket},uds-path={uds}");
        let mut program = Program::start(&[vm]);
        wait_for(Path::new(&socket));
        program.signal(Signal::TERM);
        let (code, said) = program.end();
        assert_eq!(code, Some(0));
        assert_eq!(said.contains("at most 107 bytes"), warned, "{said}");
    }
}

#[test]
fn the_program_says_where_it_waits() {
    let dir = TempDir::new().unwrap();
    let mut program = Program::start(&[vm(&dir, 3)]);
    wait_for(&dir.path().join("3.sock"));
    program.signal(Signal::TERM);
    let (code, said) = program.end();
    assert_eq!(code, Some(0));
    for name in ["3.sock", "3.vsock"] {
        assert!(said.contains(&path(&dir, name)), "{said}");
    }
}

#[test]
fn t100_front_ends_that_come_and_go_leave_no_descriptor_behind() {
    let dir = TempDir::new().unwrap();
    let program = Program::start(&[vm(&dir, 3), "--log-level=off".to_owned()]);
    let socket = dir.path().join("3.sock");
    wait_for(&socket);
    let descriptors = || {
        // Once the next one is served, the last one is gone.
        Guest::boot(&socket, 3).connect(1, 1);
        let fds = format!("/proc/{}/fd", program.0.id());
        let guest = Guest::boot(&socket, 3);
        let count = std::fs::read_dir(fds).unwrap().count();
        drop(guest);
        count
    };
    let before = descriptors();
    for _ in 0..10 {
        drop(Guest::boot(&socket, 3));
    }
    assert_eq!(descriptors(), before);
}

/// The program with other limits of descriptors: `-n`, or `-Sn` for the soft one alone.
fn with_limit(limit: &str, args: &[&str]) -> Program {
    let script = format!("ulimit {limit}; exec \"$@\"");
    let command = Command::new("sh")
        .args(["-c", &script, "sh", env!("CARGO_BIN_EXE_vsock-vhost-user")])
        .args(args)
        .stderr(Stdio::piped())
        .spawn();
    Program(command.unwrap())
}

#[test]
fn t130_the_soft_limit_of_descriptors_is_raised_to_the_hard_one() {
    let dir = TempDir::new().unwrap();
    let program = with_limit("-Sn 64", &[&vm(&dir, 3)]);
    wait_for(&dir.path().join("3.sock"));
    let limits = std::fs::read_to_string(format!("/proc/{}/limits", program.0.id())).unwrap();
    let files = limits
        .lines()
        .find(|line| line.starts_with("Max open files"));
    let files: Vec<_> = files.unwrap().split_whitespace().collect();
    assert_ne!(files[3], "64");
    assert_eq!(files[3], files[4], "soft and hard");
}

#[test]
fn t130_a_hard_limit_that_is_too_low_is_warned_about() {
    let dir = TempDir::new().unwrap();
    for (connections, warned) in [
        ("--max-connections=1000", true),
        ("--max-connections=1", false),
    ] {
        // Two times 1,024 clients without a command, and at most 200 descriptors for the rest.
        let (one, other) = (vm(&dir, 3), vm(&dir, 4));
        let mut program = with_limit("-n 2300", &[&one, &other, connections]);
        wait_for(&dir.path().join("4.sock"));
        program.signal(Signal::TERM);
        let (code, said) = program.end();
        assert_eq!(code, Some(0));
        assert_eq!(said.contains("descriptors is 2300"), warned, "{said}");
    }
}

#[test]
fn t125_names_that_overlap_are_code_2() {
    let dir = TempDir::new().unwrap();
    let (one, socket) = (vm(&dir, 3), path(&dir, "3.vsock_7"));
    let other = format!(
        "--vm=guest-cid=4,socket={socket},uds-path={}",
        path(&dir, "4")
    );
    let output = run(&[&one, &other]);
    assert_eq!(output.status.code(), Some(2));
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(
        said.contains(&format!("guest 4 has {socket} (socket)")),
        "{said}"
    );
}

#[test]
fn without_descriptors_it_refuses_and_goes_on() {
    let dir = TempDir::new().unwrap();
    let _program = with_limit("-n 32", &[&vm(&dir, 3), "--log-level=off"]);
    let socket = dir.path().join("3.sock");
    wait_for(&socket);
    let mut guest = Guest::boot(&socket, 3);
    let client = || {
        let mut client = UnixStream::connect(dir.path().join("3.vsock")).unwrap();
        client.set_read_timeout(Some(PATIENCE)).unwrap();
        client.write_all(b"CONNECT 9\n").map(|()| client)
    };
    // Each client that is let in waits for the guest; the first one that is not reads an end, or
    // cannot even write.
    let mut held = Vec::new();
    let refused = loop {
        assert!(held.len() < 32, "the limit is not reached");
        let mut next = match client() {
            Err(error) => break Err(error.kind()),
            Ok(client) => client,
        };
        match guest.packet_within(Duration::from_millis(200)) {
            Some(_request) => held.push(next),
            None => break next.read(&mut [0]).map_err(|error| error.kind()),
        }
    };
    assert!(
        matches!(
            refused,
            Ok(0) | Err(ErrorKind::BrokenPipe | ErrorKind::ConnectionReset)
        ),
        "{refused:?}"
    );
    let _listener = UnixListener::bind(dir.path().join("3.vsock_5")).unwrap();
    let (_, answer) = guest.connect(1, 5);
    assert_eq!(answer.op, u16::from(Op::Reset));
    // What is given back can be used again.
    drop(held);
    wait_until(Deadline::after(PATIENCE), || {
        guest.connect_to(2, 5) == Some(Op::Response)
    })
    .unwrap();
}

#[test]
fn t119_a_signal_ends_it_whatever_a_front_end_does_to_its_calls() {
    for churns in [false, true] {
        let dir = TempDir::new().unwrap();
        let mut program = Program::start(&[vm(&dir, 3), vm(&dir, 4)]);
        for cid in [3, 4] {
            wait_for(&dir.path().join(format!("{cid}.sock")));
        }
        let _listener = UnixListener::bind(dir.path().join("3.vsock_5")).unwrap();
        let mut guest = Guest::boot(&dir.path().join("3.sock"), 3);
        let calls = calls(&mut guest);
        calls.iter().for_each(fill);
        let churn = churns.then(|| Churn::start(calls));
        for port in 1..50 {
            assert_eq!(guest.connect_to(port, 5), Some(Op::Response));
        }
        let mut other = Guest::boot(&dir.path().join("4.sock"), 4);
        assert_eq!(other.connect_to(1, 1), Some(Op::Reset));
        let watch = Stopwatch::start();
        program.signal(Signal::TERM);
        assert_eq!(program.end().0, Some(0));
        assert!(watch.elapsed() < STOP, "{:?}", watch.elapsed());
        drop(churn);
        assert_eq!(names(&dir), ["3.vsock_5"]);
    }
}

#[test]
fn t119_a_signal_ends_it_also_if_it_must_say_what_was_held_up() {
    let dir = TempDir::new().unwrap();
    let mut program = Program::start(&[vm(&dir, 3), vm(&dir, 4)]);
    let socket = dir.path().join("3.sock");
    wait_for(&socket);
    let mut guest = Guest::boot(&socket, 3);
    let far = hold_up(&guest.vmm);
    assert_eq!(guest.connect_to(1, 1), Some(Op::Reset));
    let watch = Stopwatch::start();
    program.signal(Signal::TERM);
    let (code, said) = program.end();
    assert_eq!(code, Some(1), "{said}");
    assert!(watch.elapsed() < 2 * STOP, "{:?}", watch.elapsed());
    let expected = "the device of guest 3 failed: the device has not ended within two seconds: the thread \
                    for the VMM's requests";
    assert!(said.contains(expected), "{said}");
    assert_eq!(names(&dir), [""; 0]);
    drop(far);
}

/// Starts a program for one guest, and waits for its socket.
fn start(dir: &TempDir, option: &str) -> (Program, PathBuf) {
    let program = Program::start(&[vm(dir, 3), option.to_owned()]);
    let socket = dir.path().join("3.sock");
    wait_for(&socket);
    (program, socket)
}

/// Ends a program and returns what it said.
#[track_caller]
fn said(mut program: Program) -> String {
    program.signal(Signal::TERM);
    let (code, said) = program.end();
    assert_eq!(code, Some(0), "{said}");
    said
}

#[test]
fn t120_the_region_that_is_too_long_and_the_request_are_named() {
    let dir = TempDir::new().unwrap();
    let (program, socket) = start(&dir, "--log-level=warn");
    let mut vmm = Vmm::connect(&socket);
    let short = rustix::fs::memfd_create("short", rustix::fs::MemfdFlags::CLOEXEC).unwrap();
    let fields = [1, 0x4000, 1 << 30, 0x1000_0000, 0];
    let table: Vec<u8> = fields.into_iter().flat_map(u64::to_ne_bytes).collect();
    assert!(!vmm.request(FrontendReq::SET_MEM_TABLE, &table, &[short.as_raw_fd()]));
    drop(vmm);
    drop(Vmm::connect(&socket));
    let said = said(program);
    let expected = "SET_MEM_TABLE) ends its connection: memory region 0 at guest address 0x4000";
    assert!(said.contains(expected), "{said}");
}

#[test]
fn t122_a_request_that_was_not_offered_is_named() {
    let dir = TempDir::new().unwrap();
    let (program, socket) = start(&dir, "--log-level=warn");
    let mut vmm = Vmm::connect(&socket);
    assert!(!vmm.request(FrontendReq::GET_INFLIGHT_FD, &[0; 16], &[]));
    drop(vmm);
    drop(Vmm::connect(&socket));
    let said = said(program);
    assert!(said.contains("(GET_INFLIGHT_FD) ends"), "{said}");
}

#[test]
fn t120_sealed_memory_is_demanded_by_an_option_and_what_is_missing_is_said() {
    let dir = TempDir::new().unwrap();
    let (program, socket) = start(&dir, "--sealed-memory");
    let mut vmm = Vmm::connect(&socket);
    assert!(vmm.start(FEATURES).is_err());
    drop(vmm);
    let sealed = Vmm::connect_with(&socket, memory(SealFlags::SHRINK));
    let (_, answer) = Guest::boot_in(sealed, 3).connect(1, 1);
    assert_eq!(answer.op, u16::from(Op::Reset));
    let said = said(program);
    assert!(said.contains("memory-backend-memfd,seal=on"), "{said}");
}

/// What of the kernel's descriptions a program watches, in all its epolls.
fn watched(program: &Program) -> usize {
    let infos = std::fs::read_dir(format!("/proc/{}/fdinfo", program.0.id())).unwrap();
    let texts = infos.filter_map(|info| std::fs::read_to_string(info.unwrap().path()).ok());
    texts.map(|text| text.matches("tfd:").count()).sum()
}

#[test]
fn t118_kicks_that_were_replaced_are_not_watched_though_the_front_end_keeps_them() {
    let dir = TempDir::new().unwrap();
    let (program, socket) = start(&dir, "--log-level=warn");
    let vmm = Vmm::connect(&socket);
    let idle = watched(&program);
    let mut guest = Guest::boot_in(vmm, 3);
    let (_, answer) = guest.connect(1, 1);
    assert_eq!(answer.op, u16::from(Op::Reset));
    // The step that has answered is over when there is another answer.
    guest.vmm.config(0, 8);
    let before = watched(&program);
    let flags = rustix::event::EventfdFlags::CLOEXEC;
    let kicks: Vec<_> = (0..10)
        .map(|_| rustix::event::eventfd(0, flags).unwrap())
        .collect();
    for kick in &kicks {
        assert!(guest.vmm.set_kick(TX, kick));
    }
    assert_eq!(watched(&program), before);
    guest.vmm.stop();
    assert_eq!(watched(&program), idle);
    assert_eq!(said(program), "");
}

/// Processor time of a program.
fn cpu(program: &Program) -> Duration {
    let tasks = std::fs::read_dir(format!("/proc/{}/task", program.0.id())).unwrap();
    let stats = tasks.map(|task| std::fs::read_to_string(task.unwrap().path().join("schedstat")));
    let nanos = |stat: String| stat.split(' ').next().unwrap().parse::<u64>().unwrap();
    Duration::from_nanos(stats.map(|stat| nanos(stat.unwrap())).sum())
}

/// A program without a descriptor for the next front-end tries again: not all the time, and not only
/// after long.
#[test]
fn a_front_end_for_which_no_descriptor_is_left_is_served_when_there_is_one() {
    let dir = TempDir::new().unwrap();
    let (program, socket) = start(&dir, "--log-level=error");
    // It is up when it answers.
    drop(Vmm::connect(&socket));
    let pid = Pid::from_child(&program.0);
    let limit = |limit| {
        let current = Some(limit);
        let limits = Rlimit {
            current,
            maximum: Some(1024),
        };
        prlimit(Some(pid), Resource::Nofile, limits).unwrap();
    };
    limit(3);
    let mut waiting = UnixStream::connect(&socket).unwrap();
    waiting.set_read_timeout(Some(PATIENCE)).unwrap();
    waiting
        .write_all(&header(FrontendReq::GET_FEATURES, 0, 0))
        .unwrap();
    let before = cpu(&program);
    pace(Duration::from_millis(500)).unwrap();
    let spent = cpu(&program) - before;
    assert!(spent < Duration::from_millis(50), "{spent:?}");
    limit(1024);
    let watch = Stopwatch::start();
    waiting.read_exact(&mut [0; 20]).unwrap();
    assert!(watch.elapsed() < Duration::from_secs(5));
    drop(waiting);
    let said = said(program);
    assert!(said.contains("cannot serve a VMM, trying again"), "{said}");
}
