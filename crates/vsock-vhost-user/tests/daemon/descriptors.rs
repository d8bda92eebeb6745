// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Kicks and calls that a front-end changes, keeps, fills and empties as it likes.

use std::fs::File;
use std::io::{ErrorKind, PipeReader, PipeWriter, Read, Write};
use std::os::fd::{AsRawFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use rustix::event::{EventfdFlags, eventfd};
use rustix::fs::{OFlags, fcntl_setfl};
use tempfile::TempDir;
use vsock_compliance::fd::duplicate;
use vsock_compliance::poll::{Deadline, PollInterest, Stopwatch, is_readable, pace, wait_ready};
use vsock_inner::VsockInnerConnector;
use vsock_proto::Op;
use vsock_vhost_user::{DeviceBuilder, VsockDevice};

use crate::guest::{Guest, PATIENCE};
use crate::vmm::{RX, TX};

/// What a device is granted to end, and some time for a machine under load.
pub(crate) const STOP: Duration = Duration::from_secs(2);

struct Host {
    dir: TempDir,
    device: VsockDevice,
    connector: VsockInnerConnector,
    cid: u64,
}

impl Host {
    fn new(cid: u64) -> Self {
        let dir = TempDir::new().unwrap();
        let builder = DeviceBuilder::new(cid, dir.path().join("vhost.sock"));
        let (builder, connector) = builder.in_process().unwrap();
        Self {
            device: builder.spawn().unwrap(),
            dir,
            connector,
            cid,
        }
    }

    fn boot(&self) -> Guest {
        Guest::boot(&self.dir.path().join("vhost.sock"), self.cid)
    }
}

/// Bytes go from the guest to the host and back, on a connection of their own.
#[track_caller]
pub(crate) fn assert_served(guest: &mut Guest, connector: &VsockInnerConnector, port: u32) {
    let listener = connector.listen(port).unwrap();
    let (mut socket, answer) = guest.connect(port, port);
    assert_eq!(answer.op, u16::from(Op::Response));
    let mut stream = listener.accept().unwrap();
    guest.write(&socket, b"question");
    let mut question = [0; 8];
    stream.read_exact(&mut question).unwrap();
    stream.write_all(&question).unwrap();
    assert_eq!(guest.read(&mut socket, 8), b"question");
    // Nothing is left to say of it.
    guest.say(&socket, Op::Reset, 0, &[]);
    let end = stream.read(&mut [0]).unwrap_err().kind();
    assert_eq!(end, ErrorKind::ConnectionReset);
}

/// Makes an eventfd block its writers: the counter is full, and the description waits.
pub(crate) fn fill(eventfd: &File) {
    fcntl_setfl(eventfd, OFlags::NONBLOCK).unwrap();
    let _emptied = (&*eventfd).read(&mut [0; 8]);
    let _filled = (&*eventfd).write(&(u64::MAX - 1).to_ne_bytes());
    fcntl_setfl(eventfd, OFlags::empty()).unwrap();
}

/// The calls of a guest, as the front-end has them. The guest learns nothing from them any more.
pub(crate) fn calls(guest: &mut Guest) -> Vec<File> {
    let ring = |ring: &mut crate::ring::Ring| {
        ring.is_polled = true;
        duplicate(ring.call.as_raw_fd()).unwrap()
    };
    guest.vmm.rings.iter_mut().map(ring).collect()
}

/// A thread of a front-end that makes its eventfds block, let go, and block again, all the time.
pub(crate) struct Churn {
    ends: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Churn {
    pub(crate) fn start(eventfds: Vec<File>) -> Self {
        let ends = Arc::new(AtomicBool::new(false));
        let told = Arc::clone(&ends);
        let thread = thread::spawn(move || {
            // ORDER: Relaxed; partner: the store in the drop. Nothing else is told by it.
            while !told.load(Ordering::Relaxed) {
                eventfds.iter().for_each(fill);
            }
        });
        Self {
            ends,
            thread: Some(thread),
        }
    }
}

impl Drop for Churn {
    fn drop(&mut self) {
        // ORDER: Relaxed; partner: the load in the thread.
        self.ends.store(true, Ordering::Relaxed);
        self.thread.take().unwrap().join().unwrap();
    }
}

/// A device whose front-end does its worst, another one in the process, and a stop of both.
fn assert_unmoved(cid: u64, worst: impl FnOnce(&mut Guest) -> Option<Churn>) {
    let (host, other) = (Host::new(cid), Host::new(cid + 1000));
    let (mut guest, mut neighbour) = (host.boot(), other.boot());
    assert_served(&mut guest, &host.connector, 1);
    let churn = worst(&mut guest);
    for port in 2..20 {
        assert_served(&mut guest, &host.connector, port);
        assert_served(&mut neighbour, &other.connector, port);
    }
    for device in [host.device, other.device] {
        let watch = Stopwatch::start();
        device.stop().unwrap();
        assert!(watch.elapsed() < STOP, "{:?}", watch.elapsed());
    }
    drop(churn);
}

#[test]
fn t119_calls_that_are_full_and_block_stop_nobody() {
    assert_unmoved(201, |guest| {
        calls(guest).iter().for_each(fill);
        None
    });
}

#[test]
fn t119_calls_that_are_filled_and_emptied_all_the_time_stop_nobody() {
    assert_unmoved(202, |guest| Some(Churn::start(calls(guest))));
}

#[test]
fn t119_a_call_that_is_no_eventfd_stops_nobody() {
    assert_unmoved(203, |guest| {
        let zero = File::options().write(true).open("/dev/full").unwrap();
        for index in [RX, TX] {
            guest.vmm.rings[index].is_polled = true;
            assert!(guest.vmm.set_call(index, &zero));
        }
        None
    });
}

#[test]
fn t119_a_call_that_is_a_full_pipe_stops_nobody() {
    let (reader, writer) = full_pipe();
    assert_unmoved(204, move |guest| {
        for index in [RX, TX] {
            guest.vmm.rings[index].is_polled = true;
            assert!(guest.vmm.set_call(index, &writer));
        }
        None
    });
    drop(reader);
}

/// A pipe to which a write would wait for ever.
fn full_pipe() -> (PipeReader, PipeWriter) {
    let (reader, mut writer) = std::io::pipe().unwrap();
    fcntl_setfl(&writer, OFlags::NONBLOCK).unwrap();
    while writer.write(&[0; 4096]).is_ok() {}
    fcntl_setfl(&writer, OFlags::empty()).unwrap();
    (reader, writer)
}

#[test]
fn t119_a_kick_is_never_read_so_none_can_be_waited_for() {
    let host = Host::new(205);
    let mut guest = host.boot();
    let kick = duplicate(guest.vmm.rings[TX].kick.as_raw_fd()).unwrap();
    fcntl_setfl(&kick, OFlags::empty()).unwrap();
    for port in 1..20 {
        assert_served(&mut guest, &host.connector, port);
    }
    let mut count = [0; 8];
    fcntl_setfl(&kick, OFlags::NONBLOCK).unwrap();
    (&kick).read_exact(&mut count).unwrap();
    let kicks = u64::from(guest.vmm.rings[TX].kicks);
    assert_eq!(u64::from_ne_bytes(count), kicks);
    host.device.stop().unwrap();
}

#[test]
fn t119_kicks_that_are_filled_and_emptied_all_the_time_stop_nobody() {
    let (host, other) = (Host::new(206), Host::new(1206));
    let (guest, mut neighbour) = (host.boot(), other.boot());
    let kick = |ring: &crate::ring::Ring| duplicate(ring.kick.as_raw_fd()).unwrap();
    let churn = Churn::start(guest.vmm.rings.iter().map(kick).collect());
    for port in 2..20 {
        assert_served(&mut neighbour, &other.connector, port);
    }
    // The front-end takes kicks from its own guest, which may wait. Others do not.
    host.device.stop().unwrap();
    drop(churn);
}

fn blocking() -> OwnedFd {
    eventfd(0, EventfdFlags::CLOEXEC).unwrap()
}

#[test]
fn t118_a_kick_that_replaces_another_is_heard() {
    let host = Host::new(207);
    let mut guest = host.boot();
    assert_served(&mut guest, &host.connector, 1);
    let old = blocking();
    assert!(guest.vmm.set_kick(TX, &old));
    let new = duplicate(guest.vmm.rings[TX].kick.as_raw_fd()).unwrap();
    assert!(guest.vmm.set_kick(TX, &new));
    for port in 2..5 {
        assert_served(&mut guest, &host.connector, port);
    }
}

#[test]
fn t118_a_call_that_replaces_another_is_called_alone() {
    let host = Host::new(208);
    let mut guest = host.boot();
    let (old, new) = (
        blocking(),
        duplicate(guest.vmm.rings[RX].call.as_raw_fd()).unwrap(),
    );
    assert!(guest.vmm.set_call(RX, &old));
    guest.request(2000, 1);
    wait_ready(
        old.as_raw_fd(),
        PollInterest::Read,
        Deadline::after(PATIENCE),
    )
    .unwrap();
    assert!(guest.vmm.set_call(RX, &new));
    guest.expect(Op::Reset);
    File::from(old.try_clone().unwrap())
        .read_exact(&mut [0; 8])
        .unwrap();
    // It waits for the call.
    assert_served(&mut guest, &host.connector, 2);
    assert!(!is_readable(old.as_raw_fd()).unwrap());
}

#[test]
fn t118_a_kick_that_cannot_be_polled_leaves_the_queue_without_one() {
    let host = Host::new(209);
    let mut guest = host.boot();
    let file = File::open("/proc/self/exe").unwrap();
    assert!(guest.vmm.set_kick(TX, &file));
    let kick = duplicate(guest.vmm.rings[TX].kick.as_raw_fd()).unwrap();
    assert!(guest.vmm.set_kick(TX, &kick));
    assert_served(&mut guest, &host.connector, 1);
}

/// Processor time of this process's threads with this name.
fn cpu(name: &str) -> Duration {
    let tasks = std::fs::read_dir("/proc/self/task").unwrap();
    let of = |task: std::io::Result<std::fs::DirEntry>| {
        let task = task.ok()?.path();
        let is_it = std::fs::read_to_string(task.join("comm")).ok()?.trim() == name;
        let stat = std::fs::read_to_string(task.join("schedstat")).ok()?;
        let nanos: u64 = stat.split(' ').next()?.parse().ok()?;
        is_it.then(|| Duration::from_nanos(nanos))
    };
    tasks.filter_map(of).sum()
}

/// Over how long an idle thread is watched, and how much it may run meanwhile.
const WATCHED: Duration = Duration::from_millis(400);
const IDLE: Duration = Duration::from_millis(40);

/// The device would be the one that keeps the connection open.
#[test]
fn t119_a_front_end_that_gives_away_its_own_socket_has_gone_when_it_goes() {
    let host = Host::new(240);
    let mut guest = host.boot();
    let own = duplicate(guest.vmm.frontend.as_raw_fd()).unwrap();
    assert!(guest.vmm.set_kick(RX, &own));
    assert!(guest.vmm.set_call(TX, &own));
    drop(own);
    drop(guest);
    assert_served(&mut host.boot(), &host.connector, 1);
}

#[test]
fn t118_a_kick_at_its_end_costs_no_processor_time() {
    let host = Host::new(210);
    let mut guest = host.boot();
    assert_served(&mut guest, &host.connector, 1);
    let (reader, writer) = std::io::pipe().unwrap();
    for index in [RX, TX] {
        assert!(guest.vmm.set_kick(index, &reader));
    }
    drop(writer);
    let before = cpu("vsock-210");
    assert!(before > Duration::ZERO, "the thread has another name");
    pace(WATCHED).unwrap();
    let spent = cpu("vsock-210") - before;
    assert!(spent < IDLE, "{spent:?}");
    let kick = duplicate(guest.vmm.rings[TX].kick.as_raw_fd()).unwrap();
    assert!(guest.vmm.set_kick(TX, &kick));
    assert_served(&mut guest, &host.connector, 2);
}
