// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! The system calls that a thread of each kind may make.
//!
//! The lists are what the threads were seen to call, under glibc; what musl calls in place of it; and what a panic
//! and its backtrace call. No thread may start a program, a process or a thread, or make memory executable.

use std::collections::BTreeMap;
use std::process;

use libc::{
    SYS_accept4, SYS_brk, SYS_clock_getres, SYS_clock_gettime, SYS_clock_nanosleep, SYS_close,
    SYS_connect, SYS_epoll_ctl, SYS_epoll_pwait, SYS_epoll_pwait2, SYS_eventfd2, SYS_exit,
    SYS_exit_group, SYS_fcntl, SYS_flock, SYS_fstat, SYS_fstatfs, SYS_futex, SYS_getcpu,
    SYS_getcwd, SYS_getpeername, SYS_getpid, SYS_getrandom, SYS_getsockname, SYS_getsockopt,
    SYS_gettid, SYS_gettimeofday, SYS_io_destroy, SYS_io_getevents, SYS_io_submit, SYS_ioctl,
    SYS_lseek, SYS_madvise, SYS_membarrier, SYS_mmap, SYS_mprotect, SYS_mremap, SYS_munmap,
    SYS_nanosleep, SYS_newfstatat, SYS_openat, SYS_ppoll, SYS_pread64, SYS_read, SYS_readlinkat,
    SYS_readv, SYS_recvfrom, SYS_recvmsg, SYS_restart_syscall, SYS_rt_sigaction,
    SYS_rt_sigprocmask, SYS_rt_sigreturn, SYS_sched_getaffinity, SYS_sched_yield, SYS_sendmsg,
    SYS_sendto, SYS_setsockopt, SYS_shutdown, SYS_sigaltstack, SYS_socket, SYS_statx, SYS_tgkill,
    SYS_timerfd_settime, SYS_unlinkat, SYS_write, SYS_writev,
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
    // A signal is told to the thread that waits for it over a socket, by the thread that it comes to.
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

/// Removing a socket; and what a backtrace reads, as far as Landlock lets it.
const FILES: &[i64] = &[
    SYS_flock,
    SYS_fstat,
    SYS_getcwd,
    SYS_lseek,
    SYS_newfstatat,
    SYS_pread64,
    SYS_readlinkat,
    SYS_statx,
    SYS_unlinkat,
];

#[cfg(target_arch = "x86_64")]
const FILES_OLD: &[i64] = &[
    libc::SYS_lstat,
    libc::SYS_readlink,
    libc::SYS_stat,
    libc::SYS_unlink,
];
#[cfg(not(target_arch = "x86_64"))]
const FILES_OLD: &[i64] = &[];

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
    if matches!(kind, ThreadKind::Log | ThreadKind::Closer) {
        // What the standard library asks before it closes a descriptor, in a debug build.
        calls.with(SYS_fcntl, 1, ALL, &[number(libc::F_GETFD)])?;
        return Ok(calls.0);
    }
    calls.any(FILES);
    calls.any(FILES_OLD);
    calls.any(END);
    calls.any(DEVICE);
    let changes = number(libc::O_ACCMODE | libc::O_CREAT | libc::O_TRUNC);
    calls.with(SYS_openat, 2, changes, &[0])?;
    #[cfg(target_arch = "x86_64")]
    calls.with(libc::SYS_open, 1, changes, &[0])?;
    let fcntls = [
        libc::F_DUPFD_CLOEXEC,
        libc::F_GETFD,
        libc::F_GETFL,
        libc::F_GET_SEALS,
        libc::F_SETFD,
        libc::F_SETFL,
    ];
    calls.with(SYS_fcntl, 1, ALL, &fcntls.map(number))?;
    calls.with(
        SYS_ioctl,
        1,
        ALL,
        &[libc::FIONBIO, libc::FIONREAD].map(u64::from),
    )?;
    match kind {
        ThreadKind::Data => {
            calls.any(DATA);
            calls.any(DATA_OLD);
            let mut families = vec![libc::AF_UNIX];
            if !needs.connect_tcp.is_empty() {
                families.extend([libc::AF_INET, libc::AF_INET6]);
            }
            let families: Vec<_> = families.into_iter().map(number).collect();
            calls.with(SYS_socket, 0, ALL, &families)?;
        }
        ThreadKind::Requests => calls.any(REQUESTS),
        ThreadKind::Main | ThreadKind::Log | ThreadKind::Closer => {}
    }
    #[cfg(coverage)]
    calls.any(PROFILE);
    Ok(calls.0)
}

/// A flag or a number of a call, none of which is negative.
const fn number(value: libc::c_int) -> u64 {
    value.unsigned_abs() as u64
}
