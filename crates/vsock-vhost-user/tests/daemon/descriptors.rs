// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Front-ends that change, keep, fill and empty the descriptors for kicks and calls.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{Read, Write};
use std::os::fd::{AsRawFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use rustix::event::{EventfdFlags, eventfd};
use rustix::fs::{OFlags, SealFlags, fcntl_setfl};
use rustix::pipe::{PipeFlags, pipe_with};
use vhost::vhost_user::{VhostUserFrontend, VhostUserProtocolFeatures};
use vhost::{VhostBackend, VhostUserDirtyLogRegion, VhostUserMemoryRegionInfo};
use vsock_compliance::fd::duplicate;
use vsock_compliance::poll::{Deadline, PollInterest, is_readable, pace, wait_ready};
use vsock_proto::Op;

use crate::closing::close;
use crate::guest::{GENEROUS, Guest};
use crate::host::Host;
use crate::program::Program;
use crate::vmm::{MEMORY, RX, TX, Vmm, shared_file};

/// Makes an eventfd block its writers: the counter is full, and the file is in blocking mode.
pub(crate) fn fill(eventfd: &File) {
    fcntl_setfl(eventfd, OFlags::NONBLOCK).unwrap();
    let _emptied = (&*eventfd).read(&mut [0; 8]);
    let _filled = (&*eventfd).write(&(u64::MAX - 1).to_ne_bytes());
    fcntl_setfl(eventfd, OFlags::empty()).unwrap();
}

/// Takes the front-end's call descriptors of a guest, which then gets no interrupts.
pub(crate) fn calls(guest: &mut Guest) -> Vec<File> {
    let ring = |ring: &mut crate::ring::Ring| {
        ring.is_polled = true;
        duplicate(ring.call.as_raw_fd()).unwrap()
    };
    guest.vmm.rings.iter_mut().map(ring).collect()
}

/// A thread of a front-end that keeps making its eventfds block and unblock.
pub(crate) struct Churn {
    ends: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Churn {
    pub(crate) fn start(eventfds: Vec<File>) -> Self {
        let ends = Arc::new(AtomicBool::new(false));
        let told = Arc::clone(&ends);
        let thread = thread::spawn(move || {
            // ORDER: Relaxed; partner: the store in the drop. It publishes no other data.
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

/// Returns the reading and the writing end of a pipe, which no program inherits.
pub(crate) fn file_pipe() -> (File, File) {
    let (reader, writer) = pipe_with(PipeFlags::CLOEXEC).unwrap();
    (reader.into(), writer.into())
}

/// Returns a pipe to which a write would block indefinitely.
pub(crate) fn full_pipe() -> (File, File) {
    let (reader, mut writer) = file_pipe();
    fcntl_setfl(&writer, OFlags::NONBLOCK).unwrap();
    while writer.write(&[0; 4096]).is_ok() {}
    fcntl_setfl(&writer, OFlags::empty()).unwrap();
    (reader, writer)
}

/// Sets the call descriptor of both queues.
fn set_calls(guest: &mut Guest, call: &impl AsRawFd) {
    for index in [RX, TX] {
        guest.vmm.rings[index].is_polled = true;
        assert!(guest.vmm.set_call(index, call));
    }
}

/// A device with a hostile front-end, another device in the process, and the stop of both.
#[test]
fn t119_full_invalid_or_changing_calls_stop_no_guest() {
    let (_reader, pipe) = full_pipe();
    let full = File::options().write(true).open("/dev/full").unwrap();
    for worst in 0..4 {
        let ((host, mut guest), (other, mut neighbour)) = (Host::booted(), Host::booted());
        host.assert_serves(&mut guest, 1);
        let mut churn = None;
        match worst {
            0 => calls(&mut guest).iter().for_each(fill),
            1 => churn = Some(Churn::start(calls(&mut guest))),
            2 => set_calls(&mut guest, &full),
            _ => set_calls(&mut guest, &pipe),
        }
        for port in 2..20 {
            host.assert_serves(&mut guest, port);
            other.assert_serves(&mut neighbour, port);
        }
        host.assert_stops();
        other.assert_stops();
        drop(churn);
    }
}

#[test]
fn t119_a_kick_is_never_read_so_reading_cannot_block() {
    let (host, mut guest) = Host::booted();
    let kick = duplicate(guest.vmm.rings[TX].kick.as_raw_fd()).unwrap();
    fcntl_setfl(&kick, OFlags::empty()).unwrap();
    for port in 1..20 {
        host.assert_serves(&mut guest, port);
    }
    let mut count = [0; 8];
    fcntl_setfl(&kick, OFlags::NONBLOCK).unwrap();
    (&kick).read_exact(&mut count).unwrap();
    let kicks = u64::from(guest.vmm.rings[TX].kicks);
    assert_eq!(u64::from_ne_bytes(count), kicks);
    host.device.stop().unwrap();
}

#[test]
fn t119_kicks_that_block_and_unblock_stop_no_guest() {
    let ((host, guest), (other, mut neighbour)) = (Host::booted(), Host::booted());
    let kick = |ring: &crate::ring::Ring| duplicate(ring.kick.as_raw_fd()).unwrap();
    let churn = Churn::start(guest.vmm.rings.iter().map(kick).collect());
    for port in 2..20 {
        other.assert_serves(&mut neighbour, port);
    }
    // The front-end takes kicks from its own guest, which may have to wait. Other guests do not.
    host.device.stop().unwrap();
    drop(churn);
}

fn blocking() -> OwnedFd {
    eventfd(0, EventfdFlags::CLOEXEC).unwrap()
}

#[test]
fn t118_a_new_kick_descriptor_works() {
    let (host, mut guest) = Host::booted();
    host.assert_serves(&mut guest, 1);
    let old = blocking();
    assert!(guest.vmm.set_kick(TX, &old));
    let new = duplicate(guest.vmm.rings[TX].kick.as_raw_fd()).unwrap();
    assert!(guest.vmm.set_kick(TX, &new));
    for port in 2..5 {
        host.assert_serves(&mut guest, port);
    }
}

#[test]
fn t118_only_the_new_call_descriptor_is_used() {
    let (host, mut guest) = Host::booted();
    let (old, new) = (
        blocking(),
        duplicate(guest.vmm.rings[RX].call.as_raw_fd()).unwrap(),
    );
    assert!(guest.vmm.set_call(RX, &old));
    guest.request(2000, 1);
    wait_ready(
        old.as_raw_fd(),
        PollInterest::Read,
        Deadline::after(GENEROUS),
    )
    .unwrap();
    assert!(guest.vmm.set_call(RX, &new));
    guest.expect(Op::Reset);
    File::from(old.try_clone().unwrap())
        .read_exact(&mut [0; 8])
        .unwrap();
    // The guest waits for the interrupt.
    host.assert_serves(&mut guest, 2);
    assert!(!is_readable(old.as_raw_fd()).unwrap());
}

#[test]
fn t118_a_kick_that_cannot_be_polled_leaves_the_queue_without_one() {
    let (host, mut guest) = Host::booted();
    let file = File::open("/proc/self/exe").unwrap();
    assert!(guest.vmm.set_kick(TX, &file));
    let kick = duplicate(guest.vmm.rings[TX].kick.as_raw_fd()).unwrap();
    assert!(guest.vmm.set_kick(TX, &kick));
    host.assert_serves(&mut guest, 1);
}

/// Returns the processor time of the threads of a process with this name, or of all its threads.
pub(crate) fn cpu(process: &str, name: Option<&str>) -> Duration {
    let tasks = fs::read_dir(format!("/proc/{process}/task")).unwrap();
    let of = |task: std::io::Result<fs::DirEntry>| {
        let task = task.ok()?.path();
        let comm = fs::read_to_string(task.join("comm")).ok()?;
        let stat = fs::read_to_string(task.join("schedstat")).ok()?;
        let nanos: u64 = stat.split(' ').next()?.parse().ok()?;
        let is_it = name.is_none_or(|name| comm.trim() == name);
        is_it.then(|| Duration::from_nanos(nanos))
    };
    tasks.filter_map(of).sum()
}

/// How long an idle thread is watched, and how long it can run during that time.
const WATCHED: Duration = Duration::from_millis(400);
const IDLE: Duration = Duration::from_millis(40);

/// Otherwise the device itself would keep the connection open.
#[test]
fn t119_the_end_of_a_front_end_that_passed_its_own_socket_is_noticed() {
    let (host, mut guest) = Host::booted();
    let own = duplicate(guest.vmm.frontend.as_raw_fd()).unwrap();
    assert!(guest.vmm.set_kick(RX, &own));
    assert!(guest.vmm.set_call(TX, &own));
    drop(own);
    drop(guest);
    host.assert_serves(&mut host.boot(), 1);
}

#[test]
fn t118_a_kick_descriptor_at_its_end_uses_no_processor_time() {
    let (host, mut guest) = Host::booted();
    host.assert_serves(&mut guest, 1);
    let (reader, writer) = file_pipe();
    for index in [RX, TX] {
        assert!(guest.vmm.set_kick(index, &reader));
    }
    close([writer]);
    let thread = format!("vsock-{}", host.cid);
    let before = cpu("self", Some(&thread));
    assert!(before > Duration::ZERO, "the thread has another name");
    pace(WATCHED).unwrap();
    let spent = cpu("self", Some(&thread)) - before;
    assert!(spent < IDLE, "{spent:?}");
    let kick = duplicate(guest.vmm.rings[TX].kick.as_raw_fd()).unwrap();
    assert!(guest.vmm.set_kick(TX, &kick));
    host.assert_serves(&mut guest, 2);
}

/// The numbers of a program's descriptors, and whether each is closed on `exec`.
fn close_on_exec(program: &Program) -> BTreeMap<String, bool> {
    const CLOSE_ON_EXEC: u32 = 0o2_000_000;
    let of = |info: fs::DirEntry| {
        let text = fs::read_to_string(info.path()).ok()?;
        let flags = text.lines().find_map(|line| line.strip_prefix("flags:"))?;
        let flags = u32::from_str_radix(flags.trim(), 8).unwrap();
        let number = info.file_name().into_string().unwrap();
        Some((number, flags & CLOSE_ON_EXEC != 0))
    };
    let infos = fs::read_dir(program.proc("fdinfo")).unwrap();
    infos.filter_map(|info| of(info.unwrap())).collect()
}

#[test]
fn every_descriptor_that_a_front_end_passes_is_close_on_exec() {
    let program = Program::start(&[]);
    let mut vmm = Vmm::connect(&program.socket(3));
    // The start is complete. The program may have inherited descriptors from this process.
    let before = close_on_exec(&program);
    vmm.agree_on_more(
        VhostUserProtocolFeatures::LOG_SHMFD | VhostUserProtocolFeatures::CONFIGURE_MEM_SLOTS,
    );
    let mut guest = Guest::boot_in(vmm, 3);
    let frontend = &mut guest.vmm.frontend;
    let file = shared_file(MEMORY, SealFlags::empty());
    let log = VhostUserDirtyLogRegion {
        mmap_size: MEMORY,
        mmap_offset: 0,
        mmap_handle: file.as_raw_fd(),
    };
    frontend.set_log_base(0, Some(log)).unwrap();
    let added = VhostUserMemoryRegionInfo {
        guest_phys_addr: 1 << 32,
        memory_size: MEMORY,
        userspace_addr: 1 << 46,
        mmap_offset: 0,
        mmap_handle: file.as_raw_fd(),
    };
    frontend.add_mem_region(&added).unwrap();
    guest.assert_refused();
    let mut passed = close_on_exec(&program);
    passed.retain(|number, _| !before.contains_key(number));
    // The memory, the kicks and calls of two queues, the log and the region.
    assert_eq!(passed.len(), 7, "{passed:?}");
    assert!(passed.values().all(|is| *is), "{passed:?}");
}
