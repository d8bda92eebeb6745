// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! The system calls that each kind of thread can make.
//!
//! The lists contain the calls that the threads were observed to make with glibc, the calls that
//! musl makes instead, and the calls of a panic and its backtrace. No thread can start a process or
//! make memory executable. Only the threads of passed descriptors can start threads.

use std::collections::BTreeMap;
use std::process;

use libc::{
    SYS_accept4, SYS_brk, SYS_clock_getres, SYS_clock_gettime, SYS_clock_nanosleep, SYS_clone,
    SYS_clone3, SYS_close, SYS_connect, SYS_epoll_create1, SYS_epoll_ctl, SYS_epoll_pwait,
    SYS_epoll_pwait2, SYS_eventfd2, SYS_exit, SYS_exit_group, SYS_fcntl, SYS_flock, SYS_fstat,
    SYS_fstatfs, SYS_ftruncate, SYS_futex, SYS_getcpu, SYS_getcwd, SYS_getpeername, SYS_getpid,
    SYS_getrandom, SYS_getsockname, SYS_getsockopt, SYS_gettid, SYS_gettimeofday, SYS_io_destroy,
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

/// Allowed calls by number. A call with rules is allowed if one of its rules matches; a call
/// without rules is always allowed.
pub(super) type Rules = BTreeMap<i64, Vec<SeccompRule>>;

#[derive(Default)]
struct Calls(Rules);

impl Calls {
    /// Allows these calls with any arguments.
    fn any(&mut self, numbers: &[i64]) {
        self.0
            .extend(numbers.iter().map(|number| (*number, Vec::new())));
    }

    /// Allows a call if the bits of `mask` in an argument, counted from 0, equal one of `values`.
    fn with(
        &mut self,
        number: i64,
        argument: u8,
        mask: u64,
        values: &[u64],
    ) -> Result<(), BackendError> {
        for value in values {
            self.with_all(number, &[(argument, mask, *value)])?;
        }
        Ok(())
    }

    /// Allows a call if this is true of all these arguments: the bits of the mask equal the value.
    fn with_all(&mut self, number: i64, arguments: &[(u8, u64, u64)]) -> Result<(), BackendError> {
        // Only the lower half of the register is compared: that is all of an int, whose upper half
        // the kernel ignores, and all flags of the other arguments.
        let conditions = arguments.iter().map(|(argument, mask, value)| {
            SeccompCondition::new(*argument, Dword, MaskedEq(*mask), *value)
        });
        let rule = SeccompRule::new(conditions.collect::<Result<_, _>>()?)?;
        self.0.entry(number).or_default().push(rule);
        Ok(())
    }
}

impl Calls {
    /// Allows the calls of a device's threads, and of any thread that can drop a device.
    fn device(&mut self) -> Result<(), BackendError> {
        self.any(REMOVE);
        self.any(END);
        self.any(DEVICE);
        self.with(SYS_sendmsg, 2, FAST_OPEN, &[0])?;
        let fcntls = [
            libc::F_DUPFD_CLOEXEC,
            libc::F_GETFL,
            libc::F_GET_SEALS,
            libc::F_SETFL,
        ];
        self.with(SYS_fcntl, 1, ALL, &fcntls.map(number))?;
        let ioctls = [libc::FIONBIO, libc::FIONREAD].map(u64::from);
        self.with(SYS_ioctl, 1, ALL, &ioctls)
    }

    /// Allows the calls of the threads of passed descriptors.
    fn passed(&mut self) -> Result<(), BackendError> {
        self.any(PASSED);
        self.with(SYS_fcntl, 1, ALL, &[number(libc::F_GETFL)])?;
        // A thread of this process, not a new process and not in a new namespace.
        self.with(SYS_clone, 0, number(THREAD | NAMESPACES), &[number(THREAD)])?;
        self.with(SYS_prctl, 0, ALL, &[number(libc::PR_SET_NAME)])?;
        // Reopening both ends of a pipe or FIFO, for `keep`.
        let both_ends = libc::O_RDWR | libc::O_NONBLOCK;
        let (mask, values) = (
            // `O_TMPFILE`, which creates a file, contains the bit of `O_DIRECTORY`.
            number(CHANGES | both_ends | libc::O_DIRECTORY),
            [number(both_ends)],
        );
        self.with(SYS_openat, 2, mask, &values)?;
        #[cfg(target_arch = "x86_64")]
        self.with(libc::SYS_open, 1, mask, &values)?;
        Ok(())
    }
}

/// The flags with which `open` can write or create a file.
const CHANGES: libc::c_int = libc::O_ACCMODE | libc::O_CREAT | libc::O_TRUNC;

/// The flag with which sending also connects. Landlock does not see such a connection.
const FAST_OPEN: u64 = number(libc::MSG_FASTOPEN);

/// The bits of a socket's type, without the flags.
const SOCKET_TYPE: u64 = 0xf;

/// All bits of an argument.
const ALL: u64 = u32::MAX as u64;

/// Calls of every thread: memory, locks, time, the log, signals, and the end of a thread or of the
/// program.
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
    SYS_sigaltstack,
    SYS_write,
    SYS_writev,
];

/// Older forms of the calls in [`EVERY`], on architectures that have them: musl uses these.
#[cfg(target_arch = "x86_64")]
const EVERY_OLD: &[i64] = &[libc::SYS_poll, libc::SYS_time];
#[cfg(not(target_arch = "x86_64"))]
const EVERY_OLD: &[i64] = &[];

/// Calls of a backtrace, which reads files within the limits that Landlock sets.
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

/// Calls that remove a socket.
const REMOVE: &[i64] = &[
    SYS_flock,
    SYS_unlinkat,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_unlink,
];

/// Calls at the end of a device, made by any thread that drops the last part of one.
const END: &[i64] = &[SYS_accept4, SYS_epoll_ctl, SYS_io_destroy, SYS_shutdown];

/// Calls of both threads of a device: sockets, guest data and notifications.
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
    SYS_setsockopt,
    SYS_timerfd_settime,
];

/// Further calls of a device thread: waiting for events, and connecting to services.
const DATA: &[i64] = &[SYS_connect, SYS_epoll_pwait, SYS_epoll_pwait2];

#[cfg(target_arch = "x86_64")]
const DATA_OLD: &[i64] = &[libc::SYS_epoll_wait];
#[cfg(not(target_arch = "x86_64"))]
const DATA_OLD: &[i64] = &[];

/// Further calls of a front-end thread: checking the memory that a VMM shares.
const FRONT_END: &[i64] = &[SYS_fstatfs];

/// Calls of the control thread: accepting and serving clients.
const CONTROL: &[i64] = &[
    SYS_accept4,
    SYS_epoll_ctl,
    SYS_epoll_pwait,
    SYS_epoll_pwait2,
    SYS_getpeername,
    SYS_getsockname,
    SYS_getsockopt,
    SYS_recvfrom,
    SYS_shutdown,
];

/// Further calls of a capture thread: truncating a file to whole blocks.
const CAPTURE: &[i64] = &[SYS_ftruncate];

/// Calls of the threads of passed descriptors: reading and writing the descriptors, and starting
/// threads that do, with either C library.
const PASSED: &[i64] = &[
    // Allowed here, because another filter makes this call fail with `ENOSYS`.
    SYS_clone3,
    // Resetting a TCP socket: it is disconnected (`AF_UNSPEC`).
    SYS_connect,
    // Waiting for room after the guest has closed the connection, until it is aborted.
    SYS_epoll_create1,
    SYS_epoll_ctl,
    SYS_epoll_pwait,
    SYS_epoll_pwait2,
    SYS_getpeername,
    SYS_getsockopt,
    SYS_recvfrom,
    SYS_rseq,
    SYS_set_robust_list,
    SYS_set_tid_address,
    SYS_setsockopt,
    SYS_shutdown,
];

/// The flags with which `clone` starts a thread of this process, and those that it must not have.
const THREAD: libc::c_int = libc::CLONE_VM | libc::CLONE_SIGHAND | libc::CLONE_THREAD;
const NAMESPACES: libc::c_int = libc::CLONE_NEWNS
    | libc::CLONE_NEWCGROUP
    | libc::CLONE_NEWUTS
    | libc::CLONE_NEWIPC
    | libc::CLONE_NEWUSER
    | libc::CLONE_NEWPID
    | libc::CLONE_NEWNET;

/// Calls of a coverage build, which writes its counters at the end.
#[cfg(coverage)]
const PROFILE: &[i64] = &[
    SYS_fcntl,
    SYS_ftruncate,
    libc::SYS_mkdirat,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_mkdir,
    SYS_openat,
    SYS_prctl,
    libc::SYS_uname,
];

/// Returns the calls that a thread of this kind can make.
pub(super) fn calls(kind: ThreadKind, needs: &Needs) -> Result<Rules, BackendError> {
    let mut calls = Calls::default();
    calls.any(EVERY);
    calls.any(EVERY_OLD);
    // Memory can be mapped and protected, but not made executable.
    let executable = number(libc::PROT_EXEC);
    calls.with(SYS_mmap, 2, executable, &[0])?;
    calls.with(SYS_mprotect, 2, executable, &[0])?;
    // The thread that receives a signal reports it over a socket to the thread that waits for it.
    calls.with(SYS_sendto, 3, FAST_OPEN, &[0])?;
    // Only to threads of this program: for an abort, and for the end after a forbidden call.
    calls.with(SYS_tgkill, 0, ALL, &[process::id().into()])?;
    // This call cannot be bound to the program, so its signals are.
    #[cfg(target_env = "musl")]
    {
        let signals = [libc::SIGABRT, libc::SIGSYS].map(number);
        calls.with(libc::SYS_tkill, 1, ALL, &signals)?;
    }
    // A debug build checks that a descriptor is open before it closes it.
    calls.with(SYS_fcntl, 1, ALL, &[number(libc::F_GETFD)])?;
    calls.any(FILES);
    calls.any(FILES_OLD);
    // After opening a file, musl marks it close-on-exec.
    calls.with(SYS_fcntl, 1, ALL, &[number(libc::F_SETFD)])?;
    // Files can be opened for reading only. Any thread opens some if it panics, and glibc also when
    // it returns memory to the system.
    let changes = number(CHANGES);
    calls.with(SYS_openat, 2, changes, &[0])?;
    #[cfg(target_arch = "x86_64")]
    calls.with(libc::SYS_open, 1, changes, &[0])?;
    match kind {
        ThreadKind::Main => calls.device()?,
        ThreadKind::Device => {
            calls.device()?;
            calls.any(DATA);
            calls.any(DATA_OLD);
            calls.with(SYS_socket, 0, ALL, &[number(libc::AF_UNIX)])?;
            if !needs.connect_tcp.is_empty() {
                // Only TCP, which Landlock restricts. It does not restrict UDP, MPTCP or SCTP.
                for family in [libc::AF_INET, libc::AF_INET6].map(number) {
                    let stream = (1, SOCKET_TYPE, number(libc::SOCK_STREAM));
                    calls.with_all(SYS_socket, &[(0, ALL, family), stream, (2, ALL, 0)])?;
                }
            }
            // The pair between a passed descriptor's thread and this one.
            calls.with(SYS_socketpair, 0, ALL, &[number(libc::AF_UNIX)])?;
        }
        ThreadKind::FrontEnd => {
            calls.device()?;
            calls.any(FRONT_END);
        }
        ThreadKind::Control => {
            calls.any(CONTROL);
            calls.any(DATA_OLD);
            calls.with(SYS_sendmsg, 2, FAST_OPEN, &[0])?;
        }
        ThreadKind::Capture => calls.any(CAPTURE),
        ThreadKind::Passed => calls.passed()?,
        ThreadKind::Report | ThreadKind::Log | ThreadKind::Closer => {}
    }
    #[cfg(coverage)]
    calls.any(PROFILE);
    Ok(calls.0)
}

/// Converts a flag or a number of a call. None of them is negative.
const fn number(value: libc::c_int) -> u64 {
    value.unsigned_abs() as u64
}
