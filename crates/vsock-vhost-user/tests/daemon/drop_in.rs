// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! The command lines and configuration files of `vhost-device-vsock` 0.3.0 that its README, man
//! page, `--help` and tests document. Our program accepts them. So does `vhost-device-vsock`, if it
//! is installed (`cargo xtask drop-in` installs it).

use std::fs;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use tempfile::TempDir;
use vhost::VhostBackend;
use vhost::vhost_user::message::VhostUserConfigFlags;
use vhost::vhost_user::{Frontend, VhostUserFrontend, VhostUserProtocolFeatures};
use vsock_compliance::poll::{Deadline, wait_until};

use crate::guest::GENEROUS;
use crate::program::{PROGRAM, run};

/// The path of `vhost-device-vsock`.
const PEER: &str = "VSOCK_PEER";

/// Command lines, for a directory `{d}` with the files below, and the guests for which they start
/// devices. The sockets of guest N are `{d}/vhostN.socket` and `{d}/vmN.vsock`.
const LINES: &[(&str, &[u64])] = &[
    (
        "--guest-cid=4 --socket={d}/vhost4.socket --uds-path={d}/vm4.vsock --tx-buffer-size=65536 \
         --queue-size=1024 --groups=group1+groupA",
        &[4],
    ),
    (
        "--guest-cid=4 --socket={d}/vhost4.socket --uds-path={d}/vm4.vsock",
        &[4],
    ),
    ("--socket {d}/vhost3.socket --uds-path {d}/vm3.vsock", &[3]),
    (
        "--vm guest_cid=4,socket={d}/vhost4.socket,uds-path={d}/vm4.vsock,tx-buffer-size=65536,\
         queue-size=1024,groups=group1+groupA",
        &[4],
    ),
    (
        "--vm guest-cid=3,socket={d}/vhost3.socket,uds-path={d}/vm3.vsock,groups=group1+groupA \
         --vm guest-cid=4,socket={d}/vhost4.socket,uds-path={d}/vm4.vsock,tx-buffer-size=32768,\
         queue-size=256",
        &[3, 4],
    ),
    ("--config={d}/two.yaml", &[3, 4]),
    ("--config {d}/defaults.yaml", &[3]),
    (
        "--vm guest-cid=4,uds-path={d}/vm4.vsock,socket={d}/vhost4.socket",
        &[4],
    ),
    (
        "--vm guest-cid=4,uds-path={d}/vm4.vsock,socket={d}/vhost4.socket,tx-buffer-size=65536,\
         queue-size=1024",
        &[4],
    ),
    (
        "--vm guest-cid=3,uds-path={d}/vm3.vsock,socket={d}/vhost3.socket,groups=group1+group2 \
         --vm guest-cid=4,uds-path={d}/vm4.vsock,socket={d}/vhost4.socket,groups=group1",
        &[3, 4],
    ),
    (
        "--vm socket={d}/vhost3.socket,uds_path={d}/vm3.vsock \
         --vm socket={d}/vhost4.socket,uds-path={d}/vm4.vsock,guest-cid=4,tx_buffer_size=65536,\
         queue_size=1024,groups=group1 \
         --vm groups=group2+group3,guest-cid=5,socket={d}/vhost5.socket,uds_path={d}/vm5.vsock,\
         tx-buffer-size=32768,queue_size=256",
        &[3, 4, 5],
    ),
];

const FILES: &[(&str, &str)] = &[
    (
        "two.yaml",
        "\
vms:
    - guest_cid: 3
      socket: {d}/vhost3.socket
      uds_path: {d}/vm3.vsock
      tx_buffer_size: 65536
      queue_size: 1024
      groups: group1+groupA
    - guest_cid: 4
      socket: {d}/vhost4.socket
      uds_path: {d}/vm4.vsock
      tx_buffer_size: 32768
      queue_size: 256
      groups: group2+groupB
",
    ),
    (
        "defaults.yaml",
        "vms:\n    - socket: {d}/vhost3.socket\n      uds_path: {d}/vm3.vsock",
    ),
    (
        "forward.yaml",
        "vms:\n    - guest_cid: 5\n      socket: {d}/vhost5.socket\n      forward-cid: 1\n      \
         forward-listen: 9001+9002\n      tx_buffer_size: 32768\n      queue_size: 1024\n",
    ),
    (
        "listen.yaml",
        "vms:\n    - socket: {d}/vhost3.socket\n      uds_path: {d}/vm3.vsock\n      \
         forward_listen: 1\n",
    ),
];

/// Command lines that use the host's `AF_VSOCK` sockets, which our program does not.
/// `vhost-device-vsock` is not tested with them, because it would open such sockets.
const FORWARDED: &[&str] = &[
    "--guest-cid=4 --socket={d}/vhost4.socket --forward-cid=1 --forward-listen=9001+9002",
    "--vm guest-cid=4,forward-cid=1,forward-listen=9001+9002,socket={d}/vhost4.socket",
    "--vm guest_cid=4,socket={d}/vhost4.socket,forward_cid=1",
    "--config={d}/forward.yaml",
    "--config={d}/listen.yaml",
];

/// Returns a directory with the files.
fn directory() -> TempDir {
    let dir = TempDir::new().unwrap();
    for (name, text) in FILES {
        fs::write(dir.path().join(name), in_directory(text, &dir)).unwrap();
    }
    dir
}

fn in_directory(text: &str, dir: &TempDir) -> String {
    text.replace("{d}", &dir.path().display().to_string())
}

/// Returns the guest's CID, as the device reports it to its front-end.
pub(crate) fn guest_cid(vmm: UnixStream) -> u64 {
    let mut frontend = Frontend::from_stream(vmm, 3);
    frontend.set_owner().unwrap();
    frontend.get_features().unwrap();
    let offered = frontend.get_protocol_features().unwrap();
    let wanted = VhostUserProtocolFeatures::CONFIG;
    assert!(offered.contains(wanted));
    frontend.set_protocol_features(wanted).unwrap();
    let flags = VhostUserConfigFlags::empty();
    let (_, config) = frontend.get_config(0, 8, flags, &[0; 8]).unwrap();
    u64::from_le_bytes(config.try_into().unwrap())
}

/// The running program. Dropping it ends the program.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        let _killed = self.0.kill();
        let _reaped = self.0.wait();
    }
}

fn assert_takes_all(program: &Path) {
    for (line, guests) in LINES {
        let dir = directory();
        let words = in_directory(line, &dir);
        let mut command = Command::new(program);
        command.args(words.split_whitespace()).stderr(Stdio::null());
        let _running = Running(command.spawn().unwrap());
        for cid in *guests {
            let socket = dir.path().join(format!("vhost{cid}.socket"));
            let host = dir.path().join(format!("vm{cid}.vsock"));
            let mut vmm = None;
            wait_until(Deadline::after(GENEROUS), || {
                vmm = vmm.take().or_else(|| UnixStream::connect(&socket).ok());
                vmm.is_some() && UnixStream::connect(&host).is_ok()
            })
            .unwrap_or_else(|error| panic!("{program:?} {line}: {error:?}"));
            assert_eq!(guest_cid(vmm.unwrap()), *cid, "{program:?} {line}");
        }
    }
    for option in ["--help", "-h", "--version", "-V"] {
        let output = Command::new(program).arg(option).output().unwrap();
        assert!(output.status.success(), "{program:?} {option}");
        assert!(!output.stdout.is_empty(), "{program:?} {option}");
    }
}

#[test]
fn the_documented_command_lines_of_vhost_device_vsock_work() {
    assert_takes_all(Path::new(PROGRAM));
}

#[test]
fn vhost_device_vsock_accepts_the_same_lines_if_it_is_installed() {
    if let Some(peer) = std::env::var_os(PEER) {
        assert_takes_all(&PathBuf::from(peer));
    } else {
        println!("left out: {PEER} does not name the program; `cargo xtask drop-in` does");
    }
}

#[test]
fn forwarding_to_af_vsock_is_refused_with_an_alternative() {
    for line in FORWARDED {
        let dir = directory();
        let words = in_directory(line, &dir);
        for check in [&[][..], &["--check"]] {
            let words: Vec<_> = words
                .split_whitespace()
                .chain(check.iter().copied())
                .collect();
            let (code, said) = run(&words);
            assert_eq!(code, Some(2), "{line}: {said}");
            let said = said.split_whitespace().collect::<Vec<_>>().join(" ");
            for expected in ["AF_VSOCK sockets", "uds-path", "socat"] {
                assert!(said.contains(expected), "{line}: {said}");
            }
        }
        let sockets = fs::read_dir(dir.path()).unwrap().count();
        assert_eq!(sockets, FILES.len(), "{line}");
    }
}
