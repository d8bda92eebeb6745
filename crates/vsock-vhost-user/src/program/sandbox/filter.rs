// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! The system call filter for each kind of thread (seccomp).

use std::collections::BTreeMap;
use std::env::consts::ARCH;
use std::iter;

use seccompiler::{
    BackendError, BpfProgram, SeccompAction, SeccompFilter, TargetArch, apply_filter,
};

#[cfg(any(
    target_arch = "x86_64",
    target_arch = "aarch64",
    target_arch = "riscv64"
))]
use super::calls::calls;
use super::kind::ThreadKind;
use super::needs::Needs;

/// `seccompiler` supports no other architectures, so this is never called.
#[cfg(not(any(
    target_arch = "x86_64",
    target_arch = "aarch64",
    target_arch = "riscv64"
)))]
fn calls(
    _: ThreadKind,
    _: &Needs,
) -> Result<BTreeMap<i64, Vec<seccompiler::SeccompRule>>, BackendError> {
    Ok(BTreeMap::new())
}

/// The consequence of a call that is not allowed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    /// The kernel sends `SIGSYS`, which kills the program.
    Killed,
    /// The kernel logs the call and carries it out.
    Logged,
}

/// The filters for each kind of thread. If a thread has several, the strictest verdict applies.
#[derive(Debug)]
pub(super) struct Filters(Vec<(ThreadKind, BpfProgram)>);

impl Filters {
    /// Compiles the filters; `None` on an architecture that is not supported.
    pub(super) fn new(needs: &Needs, verdict: Verdict) -> Result<Option<Self>, BackendError> {
        let Ok(arch) = TargetArch::try_from(ARCH) else {
            return Ok(None);
        };
        let otherwise = match verdict {
            Verdict::Killed => SeccompAction::Trap,
            Verdict::Logged => SeccompAction::Log,
        };
        let program = |kind| {
            let calls = calls(kind, needs)?;
            let filter = SeccompFilter::new(calls, otherwise.clone(), SeccompAction::Allow, arch)?;
            Ok((kind, filter.try_into()?))
        };
        // This filter must be installed first: the other one forbids installing filters.
        let first = without_clone3(arch).map(|program| (ThreadKind::Passed, program));
        let all = ThreadKind::ALL.into_iter().map(program);
        let programs: Result<_, BackendError> = iter::once(first).chain(all).collect();
        Ok(Some(Self(programs?)))
    }

    /// Confines the calling thread.
    pub(super) fn apply(&self, kind: ThreadKind) -> Result<(), seccompiler::Error> {
        let mut programs = self.0.iter().filter(|(of, _)| *of == kind);
        programs.try_for_each(|(_, program)| apply_filter(program))
    }
}

/// Returns a filter that makes `clone3` fail with `ENOSYS`, so that the C library falls back to
/// `clone`. A filter can check the flags of `clone`, which are an argument; those of `clone3` are
/// in memory, which a filter cannot read.
fn without_clone3(arch: TargetArch) -> Result<BpfProgram, BackendError> {
    let clone3 = BTreeMap::from([(libc::SYS_clone3, Vec::new())]);
    let missing = SeccompAction::Errno(libc::ENOSYS.unsigned_abs());
    let filter = SeccompFilter::new(clone3, SeccompAction::Allow, missing, arch)?;
    filter.try_into()
}
