// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! The system calls that a thread of each kind may make.
//!
//! The lists are what the threads were seen to call, under glibc; what musl calls in place of it;
//! and what a panic and its backtrace call. No thread may start a program or a process, or make
//! memory executable; only those of passed descriptors may start threads.

use std::collections::BTreeMap;
use std::process;

use libc::{
    SYS_accept4, SYS_brk, SYS_clock_getres, SYS_clock_gettime, SYS_clock_nanosleep, SYS_clone,
    SYS_clone3, SYS_close, SYS_connect, SYS_epoll_ctl, SYS_epoll_pwait, SYS_epoll_pwait2,
    SYS_eventfd2, SYS_exit, SYS_exit_group, SYS_fcntl, SYS_flock, SYS_fstat, SYS_fstatfs,
    SYS_ftruncate, SYS_futex, SYS_getcpu, SYS_getcwd, SYS_getpeername, SYS_getpid, SYS_getrandom,
    SYS_getsockname, SYS_getsockopt, SYS_gettid, SYS_gettimeofday, SYS_io_destroy,
    SYS_io_getevents, SYS_io_submit, SYS_ioctl, SYS_lseek, SYS_madvise, SYS_membarrier, SYS_mmap,
    SYS_mprotect, SYS_mremap, SYS_munmap, SYS_nanosleep, SYS_newfstatat, SYS_openat, SYS_ppoll,
    SYS_prctl, SYS_pread64, SYS_read, SYS_readlinkat, SYS_readv, SYS_recvfrom, SYS_recvmsg,
    SYS_restart_syscall, SYS_rseq, SYS_rt_sigaction, SYS_rt_sigprocmask, SYS_rt_sigreturn,
    SYS_sched_getaffinity, SYS_sched_yield, SYS_sendmsg, SYS_sendto, SYS_set_robust_list,
    SYS_set_tid_address, SYS_setsockopt, SYS_shutdown, SYS_sigaltstack, SYS_socket, SYS_socketpair,
    SYS_statx, SYS_tgkill, SYS_timerfd_settime, SYS_unlinkat, SYS_write, SYS_writev,
};
use seccompiler::SeccompCmpArgLen::Dword;
use seccompiler::SeccompCmpOp::MaskedEq;
use seccompiler::{BackendError, SeccompCondition, SeccompRule};

use super::kind::ThreadKind;
use super::needs::Needs;

/// Calls by number, each with the rules of which one must hold, if there are any.
pub(super) type Rules = BTreeMap<i64, Vec<SeccompRule>>;

#[derive(Default)]
struct Calls(Rules);

impl Calls {
    fn any(&mut self, numbers: &[i64]) {
        self.0
            .extend(numbers.iter().map(|number| (*number, Vec::new())));
    }

    /// With an argument, counted from 0, that is one of these in the bits of the mask.
    fn with(
        &mut self,
        number: i64,
        argument: u8,
        mask: u64,
        values: &[u64],
    ) -> Result<(), BackendError> {
        for value in values {
            let condition = SeccompCondition::new(argument, Dword, MaskedEq(mask), *value)?;
            let rules = self.0.entry(number).or_default();
            rules.push(SeccompRule::new(vec![condition])?);
        }
        Ok(())
    }
}

impl Calls {
    /// What the threads of a device do, and any that may drop one.
    fn device(&mut self) -> Result<(), BackendError> {
        self.any(REMOVE);
        self.any(END);
        self.any(DEVICE);
        let fcntls = [
            libc::F_DUPFD_CLOEXEC,
            libc::F_GETFL,
            libc::F_GET_SEALS,
            libc::F_SETFD,
            libc::F_SETFL,
        ];
        self.with(SYS_fcntl, 1, ALL, &fcntls.map(number))?;
        let ioctls = [libc::FIONBIO, libc::FIONREAD].map(u64::from);
        self.with(SYS_ioctl, 1, ALL, &ioctls)
    }

    /// What the threads of passed descriptors do.
    fn passed(&mut self) -> Result<(), BackendError> {
        self.any(PASSED);
        self.with(SYS_fcntl, 1, ALL, &[number(libc::F_GETFL)])?;
        self.with(SYS_clone, 0, number(THREAD | NAMESPACES), &[number(THREAD)])?;
        self.with(SYS_prctl, 0, ALL, &[number(libc::PR_SET_NAME)])?;
        // Both ends of a pipe or FIFO, for `keep`.
        let both_ends = libc::O_RDWR | libc::O_NONBLOCK;
        let (mask, values) = (
            // `O_TMPFILE`, which makes a file, has the bit of `O_DIRECTORY`.
            number(CHANGES | both_ends | libc::O_DIRECTORY),
            [number(both_ends)],
        );
        self.with(SYS_openat, 2, mask, &values)?;
        #[cfg(target_arch = "x86_64")]
        self.with(libc::SYS_open, 1, mask, &values)?;
        Ok(())
    }
}

/// The flags of an open that changes something.
const CHANGES: libc::c_int = libc::O_ACCMODE | libc::O_CREAT | libc::O_TRUNC;

/// All bits of an argument.
const ALL: u64 = u32::MAX as u64;

/// Memory, locks, time, the log, the end of a thread or of the program, and signals.
const EVERY: &[i64] = &[
    SYS_brk,
    SYS_clock_getres,
    SYS_clock_gettime,
    SYS_clock_nanosleep,
    SYS_close,
    SYS_exit,
    SYS_exit_group,
    SYS_futex,
    SYS_getcpu,
    SYS_getpid,
    SYS_getrandom,
    SYS_gettid,
    SYS_gettimeofday,
    SYS_madvise,
    SYS_membarrier,
    SYS_mremap,
    SYS_munmap,
    SYS_nanosleep,
    SYS_ppoll,
    SYS_read,
    SYS_restart_syscall,
    SYS_rt_sigaction,
    SYS_rt_sigprocmask,
    SYS_rt_sigreturn,
    SYS_sched_getaffinity,
    SYS_sched_yield,
    // A signal is told to the thread that waits for it over a socket, by the thread that it comes
    // to.
    SYS_sendto,
    SYS_sigaltstack,
    SYS_write,
    SYS_writev,
];

/// As [`EVERY`], on architectures that have older forms of these calls: musl uses them.
#[cfg(target_arch = "x86_64")]
const EVERY_OLD: &[i64] = &[libc::SYS_poll, libc::SYS_time];
#[cfg(not(target_arch = "x86_64"))]
const EVERY_OLD: &[i64] = &[];

/// What a backtrace reads, as far as Landlock lets it.
const FILES: &[i64] = &[
    SYS_fstat,
    SYS_getcwd,
    SYS_lseek,
    SYS_newfstatat,
    SYS_pread64,
    SYS_readlinkat,
    SYS_statx,
];

#[cfg(target_arch = "x86_64")]
const FILES_OLD: &[i64] = &[libc::SYS_lstat, libc::SYS_readlink, libc::SYS_stat];
#[cfg(not(target_arch = "x86_64"))]
const FILES_OLD: &[i64] = &[];

/// Removing a socket.
const REMOVE: &[i64] = &[
    SYS_flock,
    SYS_unlinkat,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_unlink,
];

/// Ending a device, wherever its last part is dropped.
const END: &[i64] = &[SYS_accept4, SYS_epoll_ctl, SYS_io_destroy, SYS_shutdown];

/// What both threads of a device do: sockets and their peers, a guest's bytes and notifications.
const DEVICE: &[i64] = &[
    SYS_eventfd2,
    SYS_getpeername,
    SYS_getsockname,
    SYS_getsockopt,
    SYS_io_getevents,
    SYS_io_submit,
    SYS_readv,
    SYS_recvfrom,
    SYS_recvmsg,
    SYS_sendmsg,
    SYS_setsockopt,
    SYS_timerfd_settime,
];

/// Waiting for both, and going to services.
const DATA: &[i64] = &[SYS_connect, SYS_epoll_pwait, SYS_epoll_pwait2];

#[cfg(target_arch = "x86_64")]
const DATA_OLD: &[i64] = &[libc::SYS_epoll_wait];
#[cfg(not(target_arch = "x86_64"))]
const DATA_OLD: &[i64] = &[];

/// What a VMM shares.
const REQUESTS: &[i64] = &[SYS_fstatfs];

/// Clients of the control socket, and waiting for them.
const CONTROL: &[i64] = &[
    SYS_accept4,
    SYS_epoll_ctl,
    SYS_epoll_pwait,
    SYS_epoll_pwait2,
    SYS_getpeername,
    SYS_getsockname,
    SYS_getsockopt,
    SYS_recvfrom,
    SYS_sendmsg,
    SYS_shutdown,
];

/// Shortening a file to whole blocks.
const CAPTURE: &[i64] = &[SYS_ftruncate];

/// Reading and writing what was passed, and starting threads that do, under either C library.
const PASSED: &[i64] = &[
    // A filter of its own answers that there is no such call.
    SYS_clone3,
    SYS_getpeername,
    SYS_getsockopt,
    SYS_recvfrom,
    SYS_rseq,
    SYS_set_robust_list,
    SYS_set_tid_address,
    SYS_setsockopt,
    SYS_shutdown,
];

/// What a thread has in common with those that it starts, and what it does not get new.
const THREAD: libc::c_int = libc::CLONE_VM | libc::CLONE_SIGHAND | libc::CLONE_THREAD;
const NAMESPACES: libc::c_int = libc::CLONE_NEWNS
    | libc::CLONE_NEWCGROUP
    | libc::CLONE_NEWUTS
    | libc::CLONE_NEWIPC
    | libc::CLONE_NEWUSER
    | libc::CLONE_NEWPID
    | libc::CLONE_NEWNET;

/// What a build that measures coverage calls at its end, to write what it has counted.
#[cfg(coverage)]
const PROFILE: &[i64] = &[
    SYS_fcntl,
    libc::SYS_ftruncate,
    libc::SYS_mkdirat,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_mkdir,
    SYS_openat,
    libc::SYS_prctl,
    libc::SYS_uname,
];

/// What a thread of this kind may call.
pub(super) fn calls(kind: ThreadKind, needs: &Needs) -> Result<Rules, BackendError> {
    let mut calls = Calls::default();
    calls.any(EVERY);
    calls.any(EVERY_OLD);
    let executable = number(libc::PROT_EXEC);
    calls.with(SYS_mmap, 2, executable, &[0])?;
    calls.with(SYS_mprotect, 2, executable, &[0])?;
    // Only to threads of the program: for an abort, and for the end after a forbidden call.
    calls.with(SYS_tgkill, 0, ALL, &[process::id().into()])?;
    #[cfg(target_env = "musl")]
    calls.any(&[libc::SYS_tkill]);
    // A debug build looks whether a descriptor is open before it closes it.
    calls.with(SYS_fcntl, 1, ALL, &[number(libc::F_GETFD)])?;
    if matches!(kind, ThreadKind::Log | ThreadKind::Closer) {
        return Ok(calls.0);
    }
    calls.any(FILES);
    calls.any(FILES_OLD);
    let changes = number(CHANGES);
    calls.with(SYS_openat, 2, changes, &[0])?;
    #[cfg(target_arch = "x86_64")]
    calls.with(libc::SYS_open, 1, changes, &[0])?;
    match kind {
        ThreadKind::Main => calls.device()?,
        ThreadKind::Data => {
            calls.device()?;
            calls.any(DATA);
            calls.any(DATA_OLD);
            let mut families = vec![libc::AF_UNIX];
            if !needs.connect_tcp.is_empty() {
                families.extend([libc::AF_INET, libc::AF_INET6]);
            }
            let families: Vec<_> = families.into_iter().map(number).collect();
            calls.with(SYS_socket, 0, ALL, &families)?;
            // Between a passed descriptor's thread and this one.
            calls.with(SYS_socketpair, 0, ALL, &[number(libc::AF_UNIX)])?;
        }
        ThreadKind::Requests => {
            calls.device()?;
            calls.any(REQUESTS);
        }
        ThreadKind::Control => {
            calls.any(CONTROL);
            calls.any(DATA_OLD);
        }
        ThreadKind::Capture => calls.any(CAPTURE),
        ThreadKind::Passed => calls.passed()?,
        ThreadKind::Report | ThreadKind::Log | ThreadKind::Closer => {}
    }
    #[cfg(coverage)]
    calls.any(PROFILE);
    Ok(calls.0)
}

/// A flag or a number of a call, none of which is negative.
const fn number(value: libc::c_int) -> u64 {
    value.unsigned_abs() as u64
}
