// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! The program: its arguments, its signals, and the files it leaves.

use std::fs::File;
use std::io::{ErrorKind, Read, Write};
use std::os::fd::AsRawFd;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use rustix::fs::{FlockOperation, SealFlags, flock};
use rustix::process::{Pid, Resource, Rlimit, Signal, kill_process, prlimit};
use tempfile::TempDir;
use vhost::vhost_user::message::FrontendReq;
use vsock_compliance::poll::{Deadline, Stopwatch, pace, wait_until};
use vsock_proto::Op;
use vsock_tests::alone::alone;

use crate::closing::close;
use crate::descriptors::{Churn, calls, cpu, fill};
use crate::guest::{GENEROUS, Guest};
use crate::host::STOP;
use crate::stopping::block_requests;
use crate::vmm::{FEATURES, TX, Vmm, header, memory};

pub(crate) const PROGRAM: &str = env!("CARGO_BIN_EXE_vsock-vhost-user");

/// A running program, with a directory for the sockets of its guests.
pub(crate) struct Program {
    pub(crate) child: Child,
    pub(crate) dir: TempDir,
}

impl Program {
    /// Starts it for guest 3.
    pub(crate) fn start(options: &[&str]) -> Self {
        Self::start_for(&[3], options)
    }

    /// Starts it for guest 3, with options instead of `--vm`.
    pub(crate) fn start_one(options: &[&str]) -> Self {
        let dir = TempDir::new().unwrap();
        let (socket, uds) = (path(&dir, "3.sock"), path(&dir, "3.vsock"));
        let vm = ["--guest-cid=3", "--socket", &socket, "--uds-path", &uds];
        let mut command = Command::new(PROGRAM);
        let child = command
            .args(vm)
            .args(options)
            .stderr(Stdio::piped())
            .spawn();
        Self::wait_for(child.unwrap(), dir, &[3])
    }

    /// Starts it for guest 3, with a control socket.
    pub(crate) fn start_controlled(options: &[&str]) -> Self {
        let dir = TempDir::new().unwrap();
        let control = path(&dir, "control");
        let mut command = Command::new(PROGRAM);
        let child = command
            .arg(vm(&dir, 3))
            .args(["--control", &control])
            .args(options)
            .stderr(Stdio::piped())
            .spawn();
        let program = Self::wait_for(child.unwrap(), dir, &[3]);
        let path = program.control();
        wait_until(Deadline::after(GENEROUS), || path.exists()).unwrap();
        program
    }

    /// Returns the path of its control socket, if it has one.
    pub(crate) fn control(&self) -> PathBuf {
        self.dir.path().join("control")
    }

    /// Starts it for these guests, and waits until they can be served.
    fn start_for(cids: &[u64], options: &[&str]) -> Self {
        Self::start_by(&mut Command::new(PROGRAM), cids, options, Stdio::piped())
    }

    /// Starts it for guest 3, with this standard error.
    pub(crate) fn start_with(options: &[&str], stderr: impl Into<Stdio>) -> Self {
        Self::start_by(&mut Command::new(PROGRAM), &[3], options, stderr)
    }

    /// Starts it with another limit on descriptors: `-n`, or `-Sn` for the soft limit only.
    fn start_limited(limit: &str, cids: &[u64], options: &[&str]) -> Self {
        let script = format!("ulimit {limit}; exec \"$@\"");
        let mut shell = Command::new("sh");
        shell.args(["-c", &script, "sh", PROGRAM]);
        Self::start_by(&mut shell, cids, options, Stdio::piped())
    }

    pub(crate) fn start_by(
        command: &mut Command,
        cids: &[u64],
        options: &[&str],
        stderr: impl Into<Stdio>,
    ) -> Self {
        let dir = TempDir::new().unwrap();
        let vms = cids.iter().map(|cid| vm(&dir, *cid));
        let child = command.args(vms).args(options).stderr(stderr).spawn();
        Self::wait_for(child.unwrap(), dir, cids)
    }

    /// Waits until a started program can serve these guests.
    fn wait_for(child: Child, dir: TempDir, cids: &[u64]) -> Self {
        let program = Self { child, dir };
        for cid in cids {
            let path = program.socket(*cid);
            wait_until(Deadline::after(GENEROUS), || path.exists()).unwrap();
        }
        program
    }

    /// Returns the path to which the VMM of a guest connects.
    pub(crate) fn socket(&self, cid: u64) -> PathBuf {
        self.dir.path().join(format!("{cid}.sock"))
    }

    fn vmm(&self) -> Vmm {
        Vmm::connect(&self.socket(3))
    }

    pub(crate) fn boot(&self) -> Guest {
        Guest::boot(&self.socket(3), 3)
    }

    /// Returns a listener for a port of guest 3.
    pub(crate) fn listen(&self, port: u32) -> UnixListener {
        UnixListener::bind(self.dir.path().join(format!("3.vsock_{port}"))).unwrap()
    }

    pub(crate) fn proc(&self, name: &str) -> PathBuf {
        PathBuf::from(format!("/proc/{}/{name}", self.child.id()))
    }

    pub(crate) fn signal(&self, signal: Signal) {
        kill_process(Pid::from_child(&self.child), signal).unwrap();
    }

    /// Waits for the end; returns the exit code and the error output.
    fn end(&mut self) -> (Option<i32>, String) {
        let mut said = String::new();
        let mut stderr = self.child.stderr.take().unwrap();
        stderr.read_to_string(&mut said).unwrap();
        (self.child.wait().unwrap().code(), said)
    }

    /// Ends it, checks that its sockets are removed, and returns its error output.
    #[track_caller]
    pub(crate) fn said(mut self) -> String {
        self.signal(Signal::TERM);
        let (code, said) = self.end();
        assert_eq!(code, Some(0), "{said}");
        assert!(names(&self.dir).iter().all(|name| name.contains(".vsock_")));
        said
    }

    /// Ends it, without looking at its error output.
    #[track_caller]
    pub(crate) fn stop(mut self) {
        self.signal(Signal::TERM);
        assert_eq!(self.child.wait().unwrap().code(), Some(0));
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        let _killed = self.child.kill();
        let _reaped = self.child.wait();
    }
}

fn path(dir: &TempDir, name: &str) -> String {
    dir.path().join(name).display().to_string()
}

fn vm(dir: &TempDir, cid: u64) -> String {
    let socket = path(dir, &format!("{cid}.sock"));
    let uds = path(dir, &format!("{cid}.vsock"));
    format!("--vm=guest-cid={cid},socket={socket},uds-path={uds}")
}

/// Runs the program with arguments with which it ends by itself; returns the exit code and the
/// error output.
pub(crate) fn run(args: &[&str]) -> (Option<i32>, String) {
    let output = Command::new(PROGRAM).args(args).output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    (output.status.code(), said)
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
fn one_program_serves_two_guests_and_a_signal_removes_their_sockets() {
    for signal in [Signal::TERM, Signal::INT] {
        let mut program = Program::start_for(&[3, 4], &[]);
        let guests = [3, 4].map(|cid| {
            let mut guest = Guest::boot(&program.socket(cid), cid);
            guest.assert_refused();
            guest
        });
        let all = [3, 4].map(|cid| {
            ["sock", "vsock", "vsock_seqpacket"].map(|suffix| format!("{cid}.{suffix}"))
        });
        assert_eq!(names(&program.dir), all.concat());
        // Both VMMs are connected when the signal arrives.
        program.signal(signal);
        let (code, said) = program.end();
        assert_eq!(code, Some(0));
        assert_eq!(names(&program.dir), [""; 0]);
        for name in ["3.sock", "3.vsock", "4.sock", "4.vsock"] {
            let path = path(&program.dir, name);
            assert!(said.contains(&path), "it says where it waits: {said}");
        }
        drop(guests);
    }
}

#[test]
fn a_path_without_room_for_the_seqpacket_suffix_is_for_streams_only() {
    let dir = TempDir::new().unwrap();
    let long = "u".repeat(107 - path(&dir, "").len());
    let options = [
        "--guest-cid=3".to_owned(),
        format!("--socket={}", path(&dir, "3.sock")),
        format!("--uds-path={}", path(&dir, &long)),
    ];
    let mut command = Command::new(PROGRAM);
    let child = command.args(options).stderr(Stdio::piped()).spawn();
    let program = Program::wait_for(child.unwrap(), dir, &[3]);
    assert_eq!(program.vmm().features() & 2, 0);
    let said = program.said();
    assert!(said.contains("no seqpacket sockets"), "{said}");
}

#[test]
fn t102_a_closed_standard_error_does_not_end_the_program() {
    let mut program = Program::start(&["--log-level=trace"]);
    close(program.child.stderr.take());
    for _ in 0..2 {
        program.boot().assert_refused();
    }
    program.signal(Signal::TERM);
    assert_eq!(program.child.wait().unwrap().code(), Some(0));
}

#[test]
fn t125_an_error_has_a_code_and_a_cause_and_leaves_no_file() {
    let dir = TempDir::new().unwrap();
    let (reserved, good) = (vm(&dir, 2), vm(&dir, 3));
    let odd = format!("{good},queue-size=100");
    let long = format!("{good}{}", "x".repeat(107));
    let (socket, uds) = (path(&dir, "3.vsock_7"), path(&dir, "4"));
    let port = format!("--vm=guest-cid=4,socket={socket},uds-path={uds}");
    let nowhere = "--vm=guest-cid=4,socket=/nowhere/s,uds-path=/nowhere/u";
    let port_of = format!("guest 4 uses {socket} (socket)");
    for (args, code, why) in [
        (&[][..], 2, "no virtual machine"),
        (&["--guest-cid=3"], 2, "guest 3: socket is missing"),
        (&[&good, &good], 2, "two virtual machines"),
        (&["--vm=guest-cid=3"], 2, "guest 3: socket is missing"),
        (&[&*reserved], 2, "a number from 3"),
        (&[&good, "--queue-size=100"], 2, "a power of two"),
        (&[&odd], 2, "a power of two"),
        (&[&good, "--buf-alloc=0"], 2, "1 to 1073741824 bytes"),
        (&[&good, "--max-connections=0"], 2, "a number from 1 to"),
        (&[&good, &port], 2, &port_of),
        (&[&long], 2, "at most 107"),
        (
            &[&good, nowhere],
            1,
            "/nowhere/u: the directory does not exist; create it first",
        ),
    ] {
        let (ended, said) = run(args);
        assert_eq!(ended, Some(code), "{args:?}: {said}");
        assert!(said.contains(why), "{args:?}: {said}");
        assert_eq!(names(&dir), [""; 0]);
    }
}

#[test]
fn a_path_without_room_for_every_port_causes_a_warning() {
    for (more, warned) in [("", false), ("u", true)] {
        let dir = TempDir::new().unwrap();
        let room = 107 - path(&dir, "").len() - "_4294967295".len();
        let uds = path(&dir, &("u".repeat(room) + more));
        let vm = format!("--vm=guest-cid=4,socket={},uds-path={uds}", path(&dir, "s"));
        let said = Program::start(&[&vm]).said();
        assert_eq!(said.contains("at most 107 bytes"), warned, "{said}");
    }
}

#[test]
fn t100_front_ends_that_come_and_go_leak_no_descriptor() {
    let program = Program::start(&["--log-level=off"]);
    let descriptors = || {
        // Once a front-end is served, the previous one has gone.
        program.boot().connect(1, 1);
        let _guest = program.boot();
        std::fs::read_dir(program.proc("fd")).unwrap().count()
    };
    let before = descriptors();
    for _ in 0..10 {
        drop(program.boot());
    }
    assert_eq!(descriptors(), before);
}

#[test]
fn t130_the_soft_limit_on_descriptors_is_raised_to_the_hard_limit() {
    let program = Program::start_limited("-Sn 64", &[3], &[]);
    let limits = std::fs::read_to_string(program.proc("limits")).unwrap();
    let files = limits
        .lines()
        .find(|line| line.starts_with("Max open files"));
    let files: Vec<_> = files.unwrap().split_whitespace().collect();
    assert_ne!(files[3], "64");
    assert_eq!(files[3], files[4], "soft and hard");
}

#[test]
fn t130_a_hard_limit_that_is_too_low_causes_a_warning() {
    for (connections, warned) in [
        ("--max-connections=1000", true),
        ("--max-connections=1", false),
    ] {
        // Two times 1,024 clients without a command, and at most 1,200 descriptors for the rest.
        let program = Program::start_limited("-n 3320", &[3, 4], &[connections]);
        let said = program.said();
        assert_eq!(said.contains("descriptors is 3320"), warned, "{said}");
    }
}

/// Connects host processes to guest 3, until one is refused for lack of descriptors. Returns the
/// others, which wait for the guest.
fn use_up_descriptors(program: &Program, guest: &mut Guest) -> Vec<UnixStream> {
    let client = || {
        let mut client = UnixStream::connect(program.dir.path().join("3.vsock")).unwrap();
        client.set_read_timeout(Some(GENEROUS)).unwrap();
        client.write_all(b"CONNECT 9\n").map(|()| client)
    };
    // Each client that is accepted waits for the guest. The first one that is refused reads the
    // end, or cannot even write.
    let mut open = Vec::new();
    let refused = loop {
        assert!(open.len() < 100, "the limit is not reached");
        let mut next = match client() {
            Err(error) => break Err(error.kind()),
            Ok(client) => client,
        };
        match guest.packet_within(Duration::from_millis(200)) {
            Some(_request) => open.push(next),
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
    open
}

#[test]
fn without_descriptors_it_refuses_clients_and_continues() {
    let program = Program::start_limited("-n 32", &[3], &["--log-level=off"]);
    let mut guest = program.boot();
    let open = use_up_descriptors(&program, &mut guest);
    let _listener = program.listen(5);
    let (_, answer) = guest.connect(1, 5);
    assert_eq!(answer.op, u16::from(Op::Reset));
    // Released descriptors can be used again.
    drop(open);
    wait_until(Deadline::after(GENEROUS), || {
        guest.connect_to(2, 5) == Some(Op::Response)
    })
    .unwrap();
}

#[test]
fn a_guest_cannot_use_up_the_descriptors_for_the_start_of_others() {
    let dir = TempDir::new().unwrap();
    let others: Vec<_> = (4..8).map(|cid| vm(&dir, cid)).collect();
    let options: Vec<_> = others.iter().map(String::as_str).collect();
    // Guest 3 is served as soon as possible.
    let program = Program::start_limited("-n 100", &[3], &options);
    let mut guest = program.boot();
    let _open = use_up_descriptors(&program, &mut guest);
    for cid in 4..8 {
        assert!(dir.path().join(format!("{cid}.sock")).exists(), "{cid}");
    }
    assert!(program.said().contains("stopping on signal"));
}

#[test]
fn no_vmm_is_served_before_all_threads_are_confined() {
    let dir = TempDir::new().unwrap();
    let others: Vec<_> = (4..24).map(|cid| vm(&dir, cid)).collect();
    let options: Vec<_> = others.iter().map(String::as_str).collect();
    // Guest 3 is served as soon as possible.
    let program = Program::start(&options);
    let _vmm = program.vmm();
    let mut threads = 0;
    for thread in std::fs::read_dir(program.proc("task")).unwrap() {
        let status = std::fs::read_to_string(thread.unwrap().path().join("status")).unwrap();
        assert!(status.contains("Seccomp:\t2"), "{status}");
        threads += 1;
    }
    // Each device has two threads, and one that waits for its end.
    assert!(threads > 3 * (1 + others.len()), "only {threads}");
}

#[test]
fn t119_a_signal_ends_the_program_despite_a_hostile_front_end() {
    for churns in [false, true] {
        let program = Program::start_for(&[3, 4], &[]);
        let _listener = program.listen(5);
        let mut guest = program.boot();
        let calls = calls(&mut guest);
        calls.iter().for_each(fill);
        let churn = churns.then(|| Churn::start(calls));
        for port in 1..50 {
            assert_eq!(guest.connect_to(port, 5), Some(Op::Response));
        }
        Guest::boot(&program.socket(4), 4).assert_refused();
        let watch = Stopwatch::start();
        program.said();
        assert!(watch.elapsed() < STOP, "{:?}", watch.elapsed());
        drop(churn);
    }
}

#[test]
fn t126_directory_locks_that_are_never_released_do_not_add_up_at_a_stop() {
    // At its end, each device waits 200 ms for the lock of its only socket's directory.
    let dirs: Vec<_> = (0..15).map(|_| TempDir::new().unwrap()).collect();
    let vms = dirs.iter().zip(100..);
    let vms: Vec<_> = vms
        .map(|(dir, cid)| vm(dir, cid) + ",no-connect=true")
        .collect();
    let program = Program::start(&vms.iter().map(String::as_str).collect::<Vec<_>>());
    for (dir, cid) in dirs.iter().zip(100..) {
        let path = dir.path().join(format!("{cid}.sock"));
        wait_until(Deadline::after(GENEROUS), || path.exists()).unwrap();
    }
    // It is ready to end.
    program.boot().assert_refused();
    let locks = dirs.iter().map(|dir| {
        let directory = File::open(dir.path()).unwrap();
        flock(&directory, FlockOperation::LockExclusive).unwrap();
        directory
    });
    let _locks: Vec<_> = locks.collect();
    let watch = Stopwatch::start();
    program.stop();
    assert!(watch.elapsed() < STOP, "{:?}", watch.elapsed());
}

#[test]
fn t119_a_signal_ends_the_program_even_with_a_blocked_thread() {
    alone(|| {
        let mut program = Program::start_for(&[3, 4], &[]);
        let mut guest = program.boot();
        let far = block_requests(&guest.vmm);
        guest.assert_refused();
        let watch = Stopwatch::start();
        program.signal(Signal::TERM);
        let (code, said) = program.end();
        assert_eq!(code, Some(1), "{said}");
        assert!(watch.elapsed() < 2 * STOP, "{:?}", watch.elapsed());
        let expected = "the device of guest 3 failed: the device has not ended within two seconds: \
                        the thread for the VMM's requests";
        assert!(said.contains(expected), "{said}");
        assert_eq!(names(&program.dir), [""; 0]);
        drop(far);
    });
}

#[test]
fn t120_t122_the_log_names_a_refused_request_and_a_region_that_is_too_long() {
    let short = rustix::fs::memfd_create("short", rustix::fs::MemfdFlags::CLOEXEC).unwrap();
    let fields = [1, 0x4000, 1 << 30, 0x1000_0000, 0];
    let table: Vec<u8> = fields.into_iter().flat_map(u64::to_ne_bytes).collect();
    for (request, body, files, expected) in [
        (
            FrontendReq::SET_MEM_TABLE,
            &table[..],
            &[short.as_raw_fd()][..],
            "request (SET_MEM_TABLE): memory region 0 at guest address 0x4000",
        ),
        (
            FrontendReq::GET_INFLIGHT_FD,
            &[0; 16],
            &[],
            "request (GET_INFLIGHT_FD): ",
        ),
    ] {
        let program = Program::start(&["--log-level=warn"]);
        assert!(!program.vmm().request(request, body, files));
        drop(program.vmm());
        let said = program.said();
        assert!(said.contains(expected), "{said}");
    }
}

#[test]
fn t120_an_option_requires_sealed_memory_and_the_log_says_so() {
    let program = Program::start(&["--sealed-memory"]);
    assert!(program.vmm().start(FEATURES).is_err());
    let sealed = Vmm::connect_with(&program.socket(3), memory(SealFlags::SHRINK));
    Guest::boot_in(sealed, 3).assert_refused();
    let said = program.said();
    assert!(said.contains("memory-backend-memfd,seal=on"), "{said}");
}

/// Counts the files that a program watches with all its epoll descriptors.
fn watched(program: &Program) -> usize {
    let infos = std::fs::read_dir(program.proc("fdinfo")).unwrap();
    let texts = infos.filter_map(|info| std::fs::read_to_string(info.unwrap().path()).ok());
    texts.map(|text| text.matches("tfd:").count()).sum()
}

#[test]
fn t118_replaced_kicks_are_not_watched_even_if_the_front_end_keeps_them() {
    let program = Program::start(&["--log-level=warn"]);
    let vmm = program.vmm();
    let idle = watched(&program);
    let mut guest = Guest::boot_in(vmm, 3);
    guest.assert_refused();
    // After a further answer, the step that sent the first answer is complete.
    guest.vmm.config(0, 8);
    let before = watched(&program);
    let flags = rustix::event::EventfdFlags::CLOEXEC;
    let kicks = [(); 10].map(|()| rustix::event::eventfd(0, flags).unwrap());
    for kick in &kicks {
        assert!(guest.vmm.set_kick(TX, kick));
    }
    // A new kick causes a pause, in which the backends are not watched. The next step ends it.
    wait_until(Deadline::after(GENEROUS), || watched(&program) == before).unwrap();
    guest.vmm.stop();
    assert_eq!(watched(&program), idle);
    assert_eq!(program.said(), "");
}

/// Without a descriptor for the next front-end, the program retries, neither constantly nor with
/// long pauses.
#[test]
fn a_front_end_is_served_once_a_descriptor_is_available() {
    let program = Program::start(&["--log-level=error"]);
    // Once it is served, the start is complete. The start needs descriptors.
    let vmm = program.vmm();
    let pid = Pid::from_child(&program.child);
    let limit = |limit| {
        let limits = Rlimit {
            current: Some(limit),
            maximum: Some(1024),
        };
        prlimit(Some(pid), Resource::Nofile, limits).unwrap();
    };
    limit(3);
    // Also the end of a session takes no descriptor.
    drop(vmm);
    let mut waiting = UnixStream::connect(program.socket(3)).unwrap();
    waiting.set_read_timeout(Some(GENEROUS)).unwrap();
    waiting
        .write_all(&header(FrontendReq::GET_FEATURES, 0, 0))
        .unwrap();
    let process = program.child.id().to_string();
    let before = cpu(&process, None);
    pace(Duration::from_millis(500)).unwrap();
    // A thread that has ended meanwhile takes its time with it.
    let spent = cpu(&process, None).saturating_sub(before);
    assert!(spent < Duration::from_millis(50), "{spent:?}");
    limit(1024);
    let watch = Stopwatch::start();
    waiting.read_exact(&mut [0; 20]).unwrap();
    assert!(watch.elapsed() < Duration::from_secs(5));
    drop(waiting);
    let said = program.said();
    assert!(said.contains("cannot serve a VMM, retrying"), "{said}");
}
