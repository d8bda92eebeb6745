// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Sockets for the VMM that the program inherits: `--fd`.

use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::OwnedFd;
use std::os::unix::net::{UnixDatagram, UnixListener, UnixStream};
use std::process::{Child, Command, Stdio};

use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;
use vsock_compliance::poll::{Deadline, wait_until};

use crate::drop_in::guest_cid;
use crate::guest::{GENEROUS, Guest};
use crate::program::{PROGRAM, run};

/// Starts the program, which inherits this socket with the number 7.
fn start(socket: OwnedFd, args: &[String]) -> Child {
    let args = args.iter().map(String::as_str);
    shell("exec 7<&0 </dev/null", socket, args)
}

/// Starts the program after redirections by a shell.
fn shell<'a>(
    redirections: &str,
    stdin: impl Into<Stdio>,
    args: impl IntoIterator<Item = &'a str>,
) -> Child {
    let script = format!("{redirections}; exec \"$@\"");
    let mut shell = Command::new("sh");
    shell.args(["-c", &script, "sh", PROGRAM]).args(args);
    let shell = shell.stdin(stdin).stderr(Stdio::piped());
    shell.spawn().unwrap()
}

/// Waits for the end; returns the exit code and the error output.
fn end(mut child: Child) -> (Option<i32>, String) {
    let mut said = String::new();
    child
        .stderr
        .take()
        .unwrap()
        .read_to_string(&mut said)
        .unwrap();
    (child.wait().unwrap().code(), said)
}

fn uds_path(dir: &TempDir, name: &str) -> String {
    format!("--uds-path={}", dir.path().join(name).display())
}

#[test]
fn a_listening_socket_serves_one_vmm_after_another() {
    let dir = TempDir::new().unwrap();
    let path = dir.path().join("vmm");
    let listener = UnixListener::bind(&path).unwrap();
    let args = ["--fd=7".to_owned(), uds_path(&dir, "3")];
    let child = start(listener.into(), &args);
    for _vmm in 0..2 {
        Guest::boot(&path, 3).assert_refused();
    }
    kill_process(Pid::from_child(&child), Signal::TERM).unwrap();
    let (code, said) = end(child);
    assert_eq!(code, Some(0), "{said}");
    assert!(said.contains("waiting for a VMM on descriptor 7"), "{said}");
    assert!(path.exists());
}

#[test]
fn a_connected_socket_serves_its_vmm_and_ends_with_it() {
    let dir = TempDir::new().unwrap();
    let (vmm, device) = UnixStream::pair().unwrap();
    // The program itself makes the socket blocking.
    device.set_nonblocking(true).unwrap();
    let args = ["--fd=7".to_owned(), uds_path(&dir, "3")];
    let child = start(device.into(), &args);
    assert_eq!(guest_cid(vmm), 3);
    let (code, said) = end(child);
    assert_eq!(code, Some(0), "{said}");
    assert!(said.contains("the VMM has disconnected"), "{said}");
    assert_eq!(dir.path().read_dir().unwrap().count(), 0);
}

#[test]
fn a_signal_ends_the_program_while_its_only_vmm_is_connected() {
    let dir = TempDir::new().unwrap();
    let (mut vmm, device) = UnixStream::pair().unwrap();
    let args = ["--fd=7".to_owned(), uds_path(&dir, "3")];
    let child = start(device.into(), &args);
    let uds = dir.path().join("3");
    wait_until(Deadline::after(GENEROUS), || uds.exists()).unwrap();
    kill_process(Pid::from_child(&child), Signal::TERM).unwrap();
    let (code, said) = end(child);
    assert_eq!(code, Some(0), "{said}");
    assert_eq!(vmm.read(&mut [0]).unwrap(), 0);
}

#[test]
fn the_end_of_an_only_vmm_does_not_affect_other_guests() {
    let dir = TempDir::new().unwrap();
    let (mut vmm, device) = UnixStream::pair().unwrap();
    let in_dir = |keys: &str| keys.replace("{d}", &dir.path().display().to_string());
    let args = [
        in_dir("--vm=fd=7,uds-path={d}/3"),
        in_dir("--vm=guest-cid=4,socket={d}/vmm,uds-path={d}/4"),
    ];
    let child = start(device.into(), &args);
    let other = dir.path().join("vmm");
    wait_until(Deadline::after(GENEROUS), || other.exists()).unwrap();
    // The device disconnects a VMM that breaks the rules. The program has no other descriptor of
    // the connection.
    vmm.write_all(&[0xff; 12]).unwrap();
    vmm.set_read_timeout(Some(GENEROUS)).unwrap();
    assert_eq!(vmm.read(&mut [0]).unwrap(), 0);
    let uds = dir.path().join("3");
    // This socket was created before the device, and is removed with it.
    wait_until(Deadline::after(GENEROUS), || !uds.exists()).unwrap();
    Guest::boot(&other, 4).assert_refused();
    kill_process(Pid::from_child(&child), Signal::TERM).unwrap();
    let (code, said) = end(child);
    assert_eq!(code, Some(0), "{said}");
}

#[test]
fn an_unsuitable_descriptor_is_refused() {
    let dir = TempDir::new().unwrap();
    let uds = uds_path(&dir, "3");
    let null = File::open("/dev/null").unwrap();
    let (datagrams, _peer) = UnixDatagram::pair().unwrap();
    let tcp = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    for socket in [null.into(), datagrams.into(), OwnedFd::from(tcp)] {
        let (code, said) = end(start(socket, &["--fd=7".to_owned(), uds.clone()]));
        assert_eq!(code, Some(2), "{said}");
        assert!(
            said.contains("--fd 7: expected a Unix stream socket"),
            "{said}"
        );
    }
    // Including the numbers that the program would get for its own files. The process that runs
    // this test might have passed on descriptors with these numbers.
    for number in ["3", "4", "5", "2000000000"] {
        let (code, said) = end(shell(
            "exec 3>&- 4>&- 5>&-",
            Stdio::null(),
            ["--fd", number, &uds],
        ));
        assert_eq!(code, Some(2), "{said}");
        assert!(said.contains("the descriptor is not open"), "{said}");
    }
    for (number, why) in [
        ("2", "from 3 to"),
        ("x", "from 3 to"),
        ("-7", "unexpected argument"),
    ] {
        let (code, said) = run(&["--fd", number, &uds]);
        assert_eq!(code, Some(2), "{said}");
        assert!(said.contains(why), "{said}");
    }
    let (code, said) = run(&["--fd=7", "--socket=/s", &uds]);
    assert!(
        code == Some(2) && said.contains("cannot be used with"),
        "{said}"
    );
    assert_eq!(dir.path().read_dir().unwrap().count(), 0);
}
