// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Held devices: their release, and every end that one can have without it.

use std::fs;
use std::io::{ErrorKind, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use vsock_compliance::poll::{Deadline, Stopwatch, wait_until};
use vsock_vhost_user::{UnixBackend, VhostUserVsockBuilder};

use crate::guest::GENEROUS;
use crate::host::{Host, STOP};

/// `GET_FEATURES`, version 1, without a payload. The reply has the same number and 8 more bytes.
const GET_FEATURES: [u32; 3] = [1, 1, 0];

/// Connects a VMM that requests the features, and checks that it gets no reply.
fn waiting_vmm(host: &Host) -> UnixStream {
    let mut vmm = UnixStream::connect(host.socket()).unwrap();
    let request = GET_FEATURES.map(u32::to_ne_bytes).concat();
    vmm.write_all(&request).unwrap();
    vmm.set_read_timeout(Some(Duration::from_millis(100)))
        .unwrap();
    let error = vmm.read(&mut [0]).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::WouldBlock, "it is held");
    vmm.set_read_timeout(Some(GENEROUS)).unwrap();
    vmm
}

#[test]
fn a_held_device_serves_vmms_after_its_release() {
    let host = Host::with(|_, builder| builder.held());
    let mut vmm = waiting_vmm(&host);
    host.device.release();
    let mut reply = [0; 20];
    vmm.read_exact(&mut reply).unwrap();
    assert_eq!(reply[..4], GET_FEATURES[0].to_ne_bytes());
    drop(vmm);
    host.assert_serves(&mut host.boot(), 1);
}

#[test]
fn a_held_device_stops_in_time() {
    let host = Host::with(|_, builder| builder.held());
    let _vmm = UnixStream::connect(host.socket()).unwrap();
    host.assert_stops();
}

#[test]
fn joining_a_held_device_releases_it() {
    let (vmm, other) = UnixStream::pair().unwrap();
    let host = Host::with(|_, builder| builder.vmm(other).held());
    // The device ends with its only VMM, which it does not notice before its release.
    drop(vmm);
    let (joins, joined) = mpsc::channel();
    thread::spawn(move || joins.send(host.device.join()));
    joined.recv_timeout(GENEROUS).unwrap().unwrap();
}

#[test]
fn dropping_a_held_device_leaves_no_thread_and_no_file() {
    let unix = |path: &Path| Box::new(UnixBackend::bind(path).unwrap());
    let host = Host::with(|path, builder| builder.backend(unix(path)).held());
    let socket = host.socket();
    let mut vmm = waiting_vmm(&host);
    assert_eq!(threads(host.cid), 2);
    let files = || fs::read_dir(host.dir.path()).unwrap().count();
    assert_eq!(files(), 2);
    let watch = Stopwatch::start();
    drop(host.device);
    assert!(watch.elapsed() < STOP, "{:?}", watch.elapsed());
    assert_eq!(files(), 0);
    // A thread that has been joined may still be in `/proc`.
    let ended = || threads(host.cid) == 0;
    wait_until(Deadline::after(GENEROUS), ended).unwrap();
    let end = vmm.read(&mut [0]).map_err(|error| error.kind());
    assert!(
        matches!(end, Ok(0) | Err(ErrorKind::ConnectionReset)),
        "{end:?}"
    );
    // The CID is free again.
    let again = VhostUserVsockBuilder::new(host.cid, socket).spawn();
    again.unwrap().stop().unwrap();
}

/// Returns how many threads of this process belong to the device of this guest.
fn threads(cid: u64) -> usize {
    let names = [format!("vsock-{cid}"), format!("vmm-{cid}")];
    // The kernel stores 15 bytes of a name.
    assert!(names.iter().all(|name| name.len() <= 15));
    let tasks = fs::read_dir("/proc/self/task").unwrap();
    let is_of_device = |task: &fs::DirEntry| {
        // The thread of another test may have ended in the meantime.
        let name = fs::read_to_string(task.path().join("comm")).unwrap_or_default();
        names.iter().any(|of_device| of_device == name.trim_end())
    };
    tasks
        .filter(|task| is_of_device(task.as_ref().unwrap()))
        .count()
}
