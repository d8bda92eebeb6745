// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Reports a forbidden system call before it kills the program.
//!
//! The kernel does not carry out the call, and raises `SIGSYS` in the thread. The handler can use
//! nothing that the interrupted thread or another one may hold, so it allocates no memory and takes
//! no lock. If the thread has blocked all signals, as the C library does to start a process, the
//! kernel kills the program without running the handler. In either case the kernel's audit log
//! records the call (type=1326).

#![expect(
    unsafe_code,
    reason = "the kernel passes the call's details by pointer"
)]

use std::cell::Cell;
use std::io::{self, Cursor, Write};
use std::ptr::NonNull;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::thread::gettid;
use signal_hook::consts::SIGSYS;
use signal_hook::low_level::emulate_default_handler;
use vmm_sys_util::signal::register_signal_handler;

use super::kind::ThreadKind;

/// The `si_code` of a signal that a filter raises.
const SYS_SECCOMP: libc::c_int = 1;

/// How long to wait until standard error has room for the message.
const PATIENCE: Timespec = Timespec {
    tv_sec: 0,
    tv_nsec: 200_000_000,
};

thread_local! {
    /// With a constant initial value and no destructor, so reading it in a signal handler is safe:
    /// it is a plain load.
    static KIND: Cell<Option<ThreadKind>> = const { Cell::new(None) };
}

/// Records the kind of the calling thread for the report.
pub(super) fn note(kind: ThreadKind) {
    KIND.set(Some(kind));
}

/// Installs the signal handler.
pub(super) fn handle() -> io::Result<()> {
    register_signal_handler(SIGSYS, die).map_err(io::Error::from)
}

/// The beginning of `siginfo_t` as the kernel fills it in for a forbidden call.
#[repr(C)]
struct Forbidden {
    _signal: libc::c_int,
    _errno: libc::c_int,
    code: libc::c_int,
    _address: *mut libc::c_void,
    number: libc::c_int,
}

const _: () = assert!(size_of::<Forbidden>() <= size_of::<libc::siginfo_t>());

/// The signal handler: reports the call, then dies of the signal.
extern "C" fn die(signal: libc::c_int, info: *mut libc::siginfo_t, _: *mut libc::c_void) {
    if let Some(info) = NonNull::new(info.cast::<Forbidden>()) {
        // SAFETY: the kernel passes a complete and aligned `siginfo_t`, to which nothing else
        // writes. If the code is not a filter's, `number` is some other plain integer.
        let forbidden = unsafe { info.as_ref() };
        if forbidden.code == SYS_SECCOMP {
            report(forbidden.number);
        }
    }
    // This does not return.
    let _dead = emulate_default_handler(signal);
}

fn report(call: libc::c_int) {
    // A thread without a recorded kind was started by a confined thread, and only threads of passed
    // descriptors are.
    let kind = KIND.try_with(Cell::get).ok().flatten();
    let kind = kind.unwrap_or(ThreadKind::Passed).name();
    let mut line = Cursor::new([0; 400]);
    let thread = gettid().as_raw_nonzero();
    let _fits = writeln!(
        line,
        "vsock-vhost-user: killed because the sandbox forbids system call {call} in thread \
         {thread} ({kind}). Either the program was taken over, or it has a defect: please report \
         this line. With --sandbox log the program runs and the kernel logs such calls"
    );
    let len = usize::try_from(line.position()).unwrap_or(0);
    let stderr = io::stderr();
    let mut fds = [PollFd::new(&stderr, PollFlags::OUT)];
    // Standard error may be a full pipe without a reader.
    if poll(&mut fds, Some(&PATIENCE)).is_ok_and(|ready| ready > 0) {
        let _written = rustix::io::write(&stderr, &line.get_ref()[..len]);
    }
}
