// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! The program as a service: a simulated service manager, the permissions of sockets, and the
//! sandbox.

use std::fs;
use std::io::Read;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::os::unix::net::{UnixDatagram, UnixListener, UnixStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};

use rustix::net::{
    AddressFamily, SocketAddrUnix, SocketFlags, SocketType, bind, listen, socket_with,
};
use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;
use vsock_compliance::poll::{Deadline, wait_until};

use crate::guest::{GENEROUS, Guest};
use crate::program::{PROGRAM, Program};

/// The program under a service manager that passes sockets to it.
struct Service {
    child: Child,
    dir: TempDir,
    manager: UnixDatagram,
}

impl Service {
    fn start(dir: TempDir, sockets: &[&OwnedFd], names: &str, options: &[&str]) -> Self {
        let manager = UnixDatagram::bind(dir.path().join("notify")).unwrap();
        manager.set_read_timeout(Some(GENEROUS)).unwrap();
        // The shell moves the sockets to the numbers from 3 on, and knows its own process ID. The
        // tests can have been started with SIGHUP ignored.
        let moves = sockets.iter().enumerate().map(|(index, socket)| {
            let number = socket.as_raw_fd();
            format!("exec {}<&{number}; ", index + 3)
        });
        let script = format!(
            "{}export LISTEN_PID=$$ LISTEN_FDS={} LISTEN_FDNAMES={names}; \
             exec env --default-signal=HUP \"$@\"",
            moves.collect::<String>(),
            sockets.len()
        );
        let child = Command::new("bash")
            .args(["-c", &script, "bash", PROGRAM])
            .args(options)
            .env("NOTIFY_SOCKET", dir.path().join("notify"))
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        Self {
            child,
            dir,
            manager,
        }
    }

    fn told(&self) -> String {
        let mut message = [0; 1000];
        let len = self.manager.recv(&mut message).unwrap();
        String::from_utf8(message[..len].to_vec()).unwrap()
    }

    /// Waits until the manager is notified of this.
    #[track_caller]
    fn wait_for(&self, text: &str) {
        while self.told() != text {}
    }

    /// Waits for the end; returns the exit code and the error output.
    fn end(&mut self) -> (Option<i32>, String) {
        let mut said = String::new();
        let mut stderr = self.child.stderr.take().unwrap();
        stderr.read_to_string(&mut said).unwrap();
        (self.child.wait().unwrap().code(), said)
    }

    fn signal(&self, signal: Signal) {
        kill_process(Pid::from_child(&self.child), signal).unwrap();
    }
}

impl Drop for Service {
    fn drop(&mut self) {
        let _killed = self.child.kill();
        let _reaped = self.child.wait();
    }
}

/// Returns a listening socket of the manager that its children inherit.
fn listener(path: &Path, socket_type: SocketType) -> OwnedFd {
    let socket = socket_with(AddressFamily::UNIX, socket_type, SocketFlags::empty(), None).unwrap();
    bind(&socket, &SocketAddrUnix::new(path).unwrap()).unwrap();
    listen(&socket, 10).unwrap();
    // With a number above those to which the shell moves the sockets.
    rustix::io::fcntl_dupfd_cloexec(&socket, 50)
        .and_then(|socket| {
            rustix::io::fcntl_setfd(&socket, rustix::io::FdFlags::empty())?;
            Ok(socket)
        })
        .unwrap()
}

fn vm(dir: &Path, cid: u64) -> String {
    let dir = dir.display();
    format!("--vm=guest-cid={cid},socket={dir}/{cid}.sock,uds-path={dir}/{cid}.vsock")
}

#[test]
fn a_manager_is_notified_of_the_state_of_the_program() {
    let dir = TempDir::new().unwrap();
    let vms = [vm(dir.path(), 3), vm(dir.path(), 4)];
    let mut service = Service::start(dir, &[], "", &[&vms[0], &vms[1]]);
    let waits = "guest 3: waiting for a VMM; guest 4: waiting for a VMM";
    assert_eq!(service.told(), format!("READY=1\nSTATUS={waits}"));
    // After READY=1 there is no need to wait.
    let path = service.dir.path().join("3.sock");
    let mut guest = Guest::boot(&path, 3);
    let rest = "guest 4: waiting for a VMM";
    service.wait_for(&format!(
        "STATUS=guest 3: VMM connected, 0 connections; {rest}"
    ));
    let host = UnixListener::bind(service.dir.path().join("3.vsock_1024")).unwrap();
    let (_socket, _answer) = guest.connect(1024, 1024);
    service.wait_for(&format!(
        "STATUS=guest 3: VMM connected, 1 connection; {rest}"
    ));
    drop((guest, host));
    service.wait_for(&format!("STATUS={waits}"));
    service.signal(Signal::TERM);
    service.wait_for("STOPPING=1\nSTATUS=Stopping");
    assert_eq!(service.end().0, Some(0));
}

#[test]
fn sockets_passed_by_a_manager_are_served_and_stay() {
    let dir = TempDir::new().unwrap();
    let at = |name: &str| dir.path().join(name);
    let sockets = [
        listener(&at("3.sock"), SocketType::STREAM),
        listener(&at("elsewhere"), SocketType::STREAM),
        listener(&at("3.vsock_seqpacket"), SocketType::SEQPACKET),
    ];
    let path = dir.path().to_owned();
    let mut dir = Some(dir);
    // By two different names, and by the path.
    for names in ["frontend:uds:vm.socket", "vm.socket:uds-3:seqpacket"] {
        let handed_over = sockets.each_ref();
        let options = [vm(&path, 3)];
        let place = dir.take().unwrap();
        let mut service = Service::start(place, &handed_over, names, &[&options[0]]);
        assert!(service.told().starts_with("READY=1\n"));
        let mut guest = Guest::boot(&path.join("3.sock"), 3);
        guest.assert_refused();
        let _client = UnixStream::connect(path.join("elsewhere")).unwrap();
        drop(guest);
        service.signal(Signal::HUP);
        let (code, said) = service.end();
        assert_eq!(code, Some(0), "{said}");
        assert!(
            !path.join("3.vsock").exists(),
            "it is made in place of the one that is there"
        );
        for name in ["3.sock", "elsewhere", "3.vsock_seqpacket"] {
            assert!(path.join(name).exists(), "{name} is the manager's");
        }
        // The manager can use the sockets again.
        drop(UnixStream::connect(path.join("3.sock")).unwrap());
        let stub = TempDir::new().unwrap();
        fs::remove_file(path.join("notify")).unwrap();
        dir = Some(std::mem::replace(&mut service.dir, stub));
    }
}

#[test]
fn sockets_for_no_guest_are_refused_and_those_for_another_process_ignored() {
    let dir = TempDir::new().unwrap();
    let path = dir.path().to_owned();
    let socket = listener(&path.join("other"), SocketType::STREAM);
    let mut service = Service::start(dir, &[&socket], "mail", &[&vm(&path, 3)]);
    let (code, said) = service.end();
    assert_eq!(code, Some(1), "{said}");
    assert!(said.contains("named mail belongs to no guest"), "{said}");
    assert!(!path.join("3.sock").exists());

    let mut command = Command::new(PROGRAM);
    command.envs([("LISTEN_PID", "1"), ("LISTEN_FDS", "7")]);
    let program = Program::start_by(&mut command, &[3], &[], Stdio::piped());
    program.boot().assert_refused();
    program.said();
}

#[test]
fn every_socket_has_the_requested_mode_and_group() {
    let expose = TempDir::new().unwrap();
    let ssh = expose.path().join("ssh");
    let exposed = format!("--expose=unix:{}=22", ssh.display());
    let program = Program::start_one(&["--socket-mode=0620", "--socket-group=12345", &exposed]);
    let mut sockets = vec![ssh];
    sockets.extend(
        ["3.sock", "3.vsock", "3.vsock_seqpacket"].map(|name| program.dir.path().join(name)),
    );
    for path in sockets {
        let file = fs::metadata(&path).unwrap();
        let is = (file.permissions().mode() & 0o7777, file.gid());
        assert_eq!(is, (0o620, 12345), "{}", path.display());
    }
    program.said();
}

#[test]
fn all_threads_are_confined_by_default_and_none_with_sandbox_off() {
    let place = TempDir::new().unwrap();
    let capture = format!("--capture={}", place.path().join("packets").display());
    let control = place.path().join("control");
    let control_option = format!("--control={}", control.display());
    let all = ["--pass-fd", &capture, &control_option];
    let filters = |options: &[&str], are: &dyn Fn(&[bool]) -> bool| {
        let program = Program::start_one(&[&all, options].concat());
        program.boot().assert_refused();
        // The first guest can be served before the last thread is confined.
        wait_until(Deadline::after(GENEROUS), || {
            let tasks = fs::read_dir(program.proc("task")).unwrap();
            let modes = tasks.map(|task| {
                let status = fs::read_to_string(task.unwrap().path().join("status")).unwrap();
                status.contains("Seccomp:\t2")
            });
            are(&modes.collect::<Vec<_>>())
        })
        .unwrap();
        program.said();
        assert!(!control.exists());
    };
    // The main thread, and those for signals, the guest's end, its data and requests, the log and
    // the closer; and the threads for control, reports, captures and passed descriptors.
    filters(&[], &|modes| {
        modes.len() >= 11 && modes.iter().all(|is| *is)
    });
    filters(&["--sandbox=off"], &|modes| {
        modes.len() >= 10 && modes.iter().all(|is| !is)
    });
}
