// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! What the program says before a forbidden system call kills it.
//!
//! The kernel does not carry out the call, but raises `SIGSYS` in the thread. The handler may use
//! nothing that another thread, or the interrupted one, may hold: no memory is allocated, no lock
//! is taken. Where the thread has blocked all signals, as the C library does to start a process,
//! the kernel kills the program without a word; its own log (audit, type=1326) has the call in any
//! case.

#![expect(unsafe_code, reason = "the kernel tells of the call behind a pointer")]

use std::cell::Cell;
use std::io::{self, Cursor, Write};
use std::ptr::NonNull;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::thread::gettid;
use signal_hook::consts::SIGSYS;
use signal_hook::low_level::emulate_default_handler;
use vmm_sys_util::signal::register_signal_handler;

use super::kind::ThreadKind;

/// The kind of signal that a filter raises.
const SYS_SECCOMP: libc::c_int = 1;

/// How long standard error may take to make room for the line.
const PATIENCE: Timespec = Timespec {
    tv_sec: 0,
    tv_nsec: 200_000_000,
};

thread_local! {
    /// Constant at first, and never dropped: reading it is a load.
    static KIND: Cell<Option<ThreadKind>> = const { Cell::new(None) };
}

/// Notes what kind of thread this is.
pub(super) fn note(kind: ThreadKind) {
    KIND.set(Some(kind));
}

/// From now on a forbidden call is told.
pub(super) fn handle() -> io::Result<()> {
    register_signal_handler(SIGSYS, die).map_err(io::Error::from)
}

/// The begin of what the kernel tells of a forbidden call (`siginfo_t`).
#[repr(C)]
struct Forbidden {
    _signal: libc::c_int,
    _errno: libc::c_int,
    code: libc::c_int,
    _address: *mut libc::c_void,
    number: libc::c_int,
}

const _: () = assert!(size_of::<Forbidden>() <= size_of::<libc::siginfo_t>());

/// Tells of the call, and dies as by the signal.
extern "C" fn die(signal: libc::c_int, info: *mut libc::siginfo_t, _: *mut libc::c_void) {
    if let Some(info) = NonNull::new(info.cast::<Forbidden>()) {
        // SAFETY: the kernel passes a whole `siginfo_t`, aligned for it, and nothing else writes to
        // it. For other codes than a filter's the number is some other plain value.
        let told = unsafe { info.as_ref() };
        if told.code == SYS_SECCOMP {
            tell(told.number);
        }
    }
    // It does not return.
    let _dead = emulate_default_handler(signal);
}

fn tell(call: libc::c_int) {
    // What has noted nothing was started by a confined thread, as those of passed descriptors are.
    let kind = KIND.try_with(Cell::get).ok().flatten();
    let kind = kind.unwrap_or(ThreadKind::Passed).name();
    let mut line = Cursor::new([0; 400]);
    let thread = gettid().as_raw_nonzero();
    let _fits = writeln!(
        line,
        "vsock-vhost-user: the sandbox forbids system call {call} of thread {thread} ({kind}), and the program \
         is killed. It was taken over, or has a defect that should be reported; --sandbox log lets it run and \
         has the kernel log such calls"
    );
    let len = usize::try_from(line.position()).unwrap_or(0);
    let stderr = io::stderr();
    let mut fds = [PollFd::new(&stderr, PollFlags::OUT)];
    // Standard error may be a pipe that no one reads.
    if poll(&mut fds, Some(&PATIENCE)).is_ok_and(|ready| ready > 0) {
        let _written = rustix::io::write(&stderr, &line.get_ref()[..len]);
    }
}
