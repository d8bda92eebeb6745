// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Tests of confined threads. Each case runs in a separate process, for which the test program
//! starts itself again.

use std::backtrace::Backtrace;
use std::env;
use std::fs::{self, File, Permissions};
use std::io::IoSlice;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::unix::fs::{PermissionsExt, symlink};
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::{Command, Output};
use std::sync::Arc;
use std::thread::{self, JoinHandle};

use rustix::io::{FdFlags, fcntl_setfd};
use rustix::net::{
    AddressFamily, SendAncillaryBuffer, SendFlags, SocketType, ipproto, sendmsg_addr, sendto,
    socket,
};
use tempfile::TempDir;

use super::*;

/// Environment variables that give the restarted program its case and its directory.
const CASE: &str = "VSOCK_SANDBOX_CASE";
const PLACE: &str = "VSOCK_SANDBOX_PLACE";

/// Runs one case of a test in another process.
fn again(test: &str, case: &str, place: &Path) -> Output {
    Command::new(env::current_exe().unwrap())
        .args(["--exact", "--nocapture", "--test-threads=1"])
        .arg(format!("program::sandbox::tests::{test}"))
        .env(CASE, case)
        .env(PLACE, place)
        .env("RUST_BACKTRACE", "1")
        .output()
        .unwrap()
}

fn case() -> Option<String> {
    env::var(CASE).ok()
}

/// Runs `body` on a confined thread.
fn confined<T: Send + 'static>(
    mode: SandboxMode,
    needs: &Needs,
    kind: ThreadKind,
    body: impl FnOnce() -> T + Send + 'static,
) -> JoinHandle<T> {
    let sandbox = Arc::new(Sandbox::prepare(mode, needs).unwrap());
    assert!(
        sandbox.notices.is_empty() || mode == SandboxMode::Log,
        "{:?}",
        sandbox.notices
    );
    thread::spawn(move || {
        sandbox.confine(kind).unwrap();
        body()
    })
}

/// Makes a call that no kind of thread is allowed to make.
fn attack(call: &str) {
    match call {
        "socket" => drop(socket(AddressFamily::NETLINK, SocketType::RAW, None)),
        "process" => drop(Command::new("/bin/true").spawn()),
        "thread" => drop(thread::Builder::new().spawn(|| ())),
        "link" => drop(symlink("/nowhere", "/nowhere/link")),
        "mode" => drop(fs::set_permissions(
            "/nowhere",
            Permissions::from_mode(0o600),
        )),
        // A coverage build is allowed to write files.
        "create" if cfg!(coverage) => attack("link"),
        "create" => drop(File::create("/dev/null")),
        other => panic!("{other}"),
    }
}

const ATTACKS: [&str; 6] = ["socket", "process", "thread", "link", "mode", "create"];

#[test]
fn a_forbidden_call_is_reported_and_kills_the_program() {
    if let Some(case) = case() {
        let (kind, call) = case.split_once(' ').unwrap();
        let kind = ThreadKind::ALL
            .into_iter()
            .find(|known| known.name() == kind);
        let call = call.to_owned();
        let attacker = confined(
            SandboxMode::Enforce,
            &Needs::default(),
            kind.unwrap(),
            move || {
                attack(&call);
            },
        );
        attacker.join().unwrap();
        return;
    }
    for kind in ThreadKind::ALL {
        for call in ATTACKS {
            if (kind, call) == (ThreadKind::Passed, "thread") {
                // This kind is allowed to; the threads that it starts are confined too.
                continue;
            }
            let case = format!("{} {call}", kind.name());
            let ended = again(
                "a_forbidden_call_is_reported_and_kills_the_program",
                &case,
                Path::new(""),
            );
            let said = String::from_utf8_lossy(&ended.stderr);
            assert_eq!(ended.status.signal(), Some(libc::SIGSYS), "{case}: {said}");
            // The C library blocks all signals while it starts a thread or a process, so the
            // handler cannot run.
            if matches!(call, "process" | "thread") {
                continue;
            }
            let told = format!("({})", kind.name());
            assert!(
                said.contains("the sandbox forbids system call"),
                "{case}: {said}"
            );
            assert!(said.contains(&told), "{case}: {said}");
        }
    }
}

#[test]
fn in_log_mode_forbidden_calls_are_carried_out() {
    if case().is_some() {
        let attacker = confined(SandboxMode::Log, &Needs::default(), ThreadKind::Log, || {
            ATTACKS.into_iter().for_each(attack);
        });
        attacker.join().unwrap();
        return;
    }
    let ended = again(
        "in_log_mode_forbidden_calls_are_carried_out",
        "log",
        Path::new(""),
    );
    let said = String::from_utf8_lossy(&ended.stderr);
    assert!(ended.status.success(), "{said}");
}

#[test]
fn only_the_needed_files_and_ports_can_be_used() {
    if case().is_some() {
        let place = env::var_os(PLACE).unwrap();
        let place = Path::new(&place).to_owned();
        let [near, far] = [(); 2].map(|()| TcpListener::bind("127.0.0.1:0").unwrap());
        let [near, far] = [near, far].map(|listener| listener.local_addr().unwrap());
        let needs = Needs {
            directories: [place.join("sockets")].into(),
            read: vec![place.join("read")],
            connect_tcp: [near.port()].into(),
            #[cfg(coverage)]
            profile: None,
        };
        let body = move || {
            let refused = |result: io::Result<()>| {
                let error = result.unwrap_err();
                assert_eq!(error.kind(), io::ErrorKind::PermissionDenied, "{error}");
            };
            fs::read(place.join("read")).unwrap();
            fs::remove_file(place.join("sockets/s")).unwrap();
            refused(fs::read(place.join("other")).map(drop));
            refused(fs::remove_file(place.join("other")));
            refused(fs::read("/etc/passwd").map(drop));
            // The port is allowed, although its listener has gone.
            let refusal = TcpStream::connect(near).unwrap_err().kind();
            assert_eq!(refusal, io::ErrorKind::ConnectionRefused);
            refused(TcpStream::connect(far).map(drop));
        };
        confined(SandboxMode::Enforce, &needs, ThreadKind::Device, body)
            .join()
            .unwrap();
        return;
    }
    let dir = TempDir::new().unwrap();
    fs::create_dir(dir.path().join("sockets")).unwrap();
    for name in ["sockets/s", "read", "other"] {
        fs::write(dir.path().join(name), "").unwrap();
    }
    let ended = again(
        "only_the_needed_files_and_ports_can_be_used",
        "files",
        dir.path(),
    );
    let said = String::from_utf8_lossy(&ended.stderr);
    assert!(ended.status.success(), "{said}");
}

/// Tries to reach a port in a way that Landlock does not restrict.
fn evade(way: &str, to: SocketAddr) {
    const MSG_FASTOPEN: SendFlags = SendFlags::from_bits_retain(0x2000_0000);
    let of = |kind, protocol| drop(socket(AddressFamily::INET, kind, protocol));
    let tcp = || socket(AddressFamily::INET, SocketType::STREAM, None).unwrap();
    match way {
        "udp" => of(SocketType::DGRAM, None),
        "mptcp" => of(SocketType::STREAM, Some(ipproto::MPTCP)),
        "sctp" => of(SocketType::STREAM, Some(ipproto::SCTP)),
        "fast open" => {
            sendto(tcp(), b"x", MSG_FASTOPEN, &to).unwrap();
        }
        "fast open with a message" => {
            let (bytes, mut none) = ([IoSlice::new(b"x")], SendAncillaryBuffer::default());
            sendmsg_addr(tcp(), &to, &bytes, &mut none, MSG_FASTOPEN).unwrap();
        }
        other => panic!("{other}"),
    }
}

#[test]
fn a_right_to_connect_by_tcp_gives_no_other_way_to_a_port() {
    if let Some(way) = case() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let to = listener.local_addr().unwrap();
        let needs = Needs {
            connect_tcp: [1].into(),
            ..Needs::default()
        };
        confined(
            SandboxMode::Enforce,
            &needs,
            ThreadKind::Device,
            move || {
                evade(&way, to);
            },
        )
        .join()
        .unwrap();
        return;
    }
    let ways = [
        "udp",
        "mptcp",
        "sctp",
        "fast open",
        "fast open with a message",
    ];
    for way in ways {
        let ended = again(
            "a_right_to_connect_by_tcp_gives_no_other_way_to_a_port",
            way,
            Path::new(""),
        );
        let said = String::from_utf8_lossy(&ended.stderr);
        assert_eq!(ended.status.signal(), Some(libc::SIGSYS), "{way}: {said}");
    }
}

#[test]
fn a_panic_of_a_confined_thread_has_its_backtrace() {
    if case().is_some() {
        let needs = Needs::of(&[], None);
        // Every thread has the calls of this one.
        let trace = confined(SandboxMode::Enforce, &needs, ThreadKind::Log, || {
            Backtrace::force_capture().to_string()
        });
        let trace = trace.join().unwrap();
        assert!(trace.contains("a_panic_of_a_confined_thread"), "{trace}");
        // An abort, such as after a panic in a destructor, is not a forbidden call.
        let abort = || std::process::abort();
        confined(SandboxMode::Enforce, &needs, ThreadKind::Log, abort)
            .join()
            .unwrap();
        return;
    }
    let ended = again(
        "a_panic_of_a_confined_thread_has_its_backtrace",
        "panic",
        Path::new(""),
    );
    let said = String::from_utf8_lossy(&ended.stderr);
    assert_eq!(ended.status.signal(), Some(libc::SIGABRT), "{said}");
}

#[test]
fn a_backtrace_can_mark_its_files_close_on_exec_as_musl_does() {
    if let Some(case) = case() {
        let kind = ThreadKind::ALL.into_iter().find(|kind| kind.name() == case);
        let file = File::open("/dev/null").unwrap();
        let mark = move || fcntl_setfd(file, FdFlags::CLOEXEC).unwrap();
        confined(SandboxMode::Enforce, &Needs::default(), kind.unwrap(), mark)
            .join()
            .unwrap();
        return;
    }
    for kind in ThreadKind::ALL {
        let ended = again(
            "a_backtrace_can_mark_its_files_close_on_exec_as_musl_does",
            kind.name(),
            Path::new(""),
        );
        let said = String::from_utf8_lossy(&ended.stderr);
        assert!(ended.status.success(), "{}: {said}", kind.name());
    }
}
