// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! The sandbox. Before the program serves guests, each thread confines itself in two ways. Seccomp
//! allows only the system calls that a thread of its kind makes. Landlock allows only the files and
//! ports that the program still needs.
//!
//! A guest or VMM that takes over a thread through a defect can do no more than that. A thread
//! cannot undo its confinement. If the kernel lacks a part of this, the program runs without that
//! part and logs a warning.

#[cfg(any(
    target_arch = "x86_64",
    target_arch = "aarch64",
    target_arch = "riscv64"
))]
mod calls;
mod files;
mod filter;
mod kind;
mod needs;
mod violation;

use std::io;
use std::sync::Arc;
use std::thread;

use landlock::{RestrictionStatus, RulesetCreated, RulesetError};
use thiserror::Error;

pub(crate) use self::kind::ThreadKind;
pub(crate) use self::needs::Needs;

use self::filter::{Filters, Verdict};
use super::args::SandboxMode;

/// An error while setting up the sandbox, on a kernel that supports it.
#[derive(Debug, Error)]
pub(crate) enum SandboxError {
    #[error("cannot compile the system call filter")]
    Filter(#[from] seccompiler::BackendError),
    #[error("cannot install the system call filter")]
    Seccomp(#[source] seccompiler::Error),
    #[error("cannot restrict access to files and ports")]
    Files(#[from] RulesetError),
    #[error("cannot handle SIGSYS, the signal for a forbidden system call")]
    Signal(#[source] io::Error),
    #[error("cannot start a thread")]
    Thread(#[source] io::Error),
    #[error("cannot duplicate a descriptor")]
    Descriptor(#[source] io::Error),
}

/// The support that the kernel offers.
#[derive(Debug, Default)]
struct Found {
    /// A warning for each feature that is missing.
    missing: Vec<String>,
    has_seccomp: bool,
}

/// The file and port rules for a thread that will apply them later.
#[derive(Debug)]
pub(crate) struct Files(Option<RulesetCreated>);

/// The rules that confine the program's threads.
#[derive(Debug)]
pub(crate) struct Sandbox {
    /// The system calls of each kind of thread; `None` if they are not confined.
    filters: Option<Filters>,
    /// The files and ports of the program; `None` if they are not confined.
    files: Option<RulesetCreated>,
    /// The same for threads that reopen passed descriptors.
    passed_files: Option<RulesetCreated>,
    /// Warnings for the log.
    notices: Vec<String>,
}

impl Sandbox {
    /// Prepares the rules and finds out what the kernel supports. This confines no thread but the
    /// probe, which then ends.
    pub(crate) fn prepare(mode: SandboxMode, needs: &Needs) -> Result<Self, SandboxError> {
        let verdict = match mode {
            SandboxMode::Off => return Ok(Self::nothing()),
            SandboxMode::Log => Verdict::Logged,
            SandboxMode::Enforce => Verdict::Killed,
        };
        // Landlock has no mode in which it only logs.
        let files = |kind| {
            let ruleset = (verdict == Verdict::Killed).then(|| files::ruleset(needs, kind));
            ruleset.transpose()
        };
        let sandbox = Self {
            filters: Filters::new(needs, verdict)?,
            files: files(ThreadKind::Main)?,
            passed_files: files(ThreadKind::Passed)?,
            notices: Vec::new(),
        };
        let Found {
            mut missing,
            has_seccomp,
        } = sandbox.probe()?;
        match verdict {
            Verdict::Killed => violation::handle().map_err(SandboxError::Signal)?,
            Verdict::Logged => missing.push(
                "the sandbox only logs: forbidden system calls appear in the kernel log \
                 (type=1326), and access to files is not restricted"
                    .to_owned(),
            ),
        }
        Ok(Self {
            filters: sandbox.filters.filter(|_| has_seccomp),
            notices: missing,
            ..sandbox
        })
    }

    const fn nothing() -> Self {
        Self {
            filters: None,
            files: None,
            passed_files: None,
            notices: Vec::new(),
        }
    }

    /// Confines a temporary thread to find out what the kernel supports: applying rules is the only
    /// reliable test, and it cannot be undone.
    fn probe(&self) -> Result<Found, SandboxError> {
        thread::scope(|scope| {
            let probe = thread::Builder::new().name("probe".to_owned());
            let probe = probe.spawn_scoped(scope, || self.find());
            let found = probe.map_err(SandboxError::Thread)?.join();
            found.unwrap_or_else(|_| Err(SandboxError::Thread(io::Error::other("it panicked"))))
        })
    }

    fn find(&self) -> Result<Found, SandboxError> {
        let mut found = Found::default();
        if let Some(files) = self.files(ThreadKind::Main)?.confine()? {
            found.missing.extend(files::missing(&files));
        }
        let filtered = match &self.filters {
            Some(filters) => filters
                .apply(ThreadKind::Main)
                .map_err(|error| error.to_string()),
            None => Err("the sandbox does not support this architecture".to_owned()),
        };
        match filtered {
            Ok(()) => found.has_seccomp = true,
            Err(error) => found
                .missing
                .push(format!("system calls are not confined by seccomp: {error}")),
        }
        Ok(found)
    }

    /// Returns whether threads are confined to certain system calls.
    pub(crate) const fn confines_calls(&self) -> bool {
        self.filters.is_some()
    }

    /// Logs a warning for each part of the sandbox that is missing.
    pub(crate) fn report(&self) {
        for notice in &self.notices {
            log::warn!("{notice}");
        }
    }

    /// Confines the calling thread for the rest of its life.
    pub(crate) fn confine(&self, kind: ThreadKind) -> Result<(), SandboxError> {
        self.files(kind)?.confine()?;
        self.confine_calls(kind)
    }

    /// Confines the calling thread to its system calls. For a thread that has inherited its
    /// confinement to files and ports from the thread that started it.
    pub(crate) fn confine_calls(&self, kind: ThreadKind) -> Result<(), SandboxError> {
        violation::note(kind);
        match &self.filters {
            Some(filters) => filters.apply(kind).map_err(SandboxError::Seccomp),
            None => Ok(()),
        }
    }

    /// Returns the rules that confine a thread to its files and ports later. They need a
    /// descriptor, of which none may be left by then.
    pub(crate) fn files(&self, kind: ThreadKind) -> Result<Files, SandboxError> {
        let files = match kind {
            ThreadKind::Passed => &self.passed_files,
            _ => &self.files,
        };
        let files = files.as_ref().map(RulesetCreated::try_clone);
        Ok(Files(files.transpose().map_err(SandboxError::Descriptor)?))
    }

    /// Returns the function that a thread of this kind runs first, if the thread that starts it is
    /// not confined.
    pub(crate) fn begin(
        self: &Arc<Self>,
        kind: ThreadKind,
    ) -> impl FnOnce() -> io::Result<()> + Send + use<> {
        let sandbox = Arc::clone(self);
        move || sandbox.confine(kind).map_err(io::Error::other)
    }
}

impl Files {
    /// Confines the calling thread and the threads that it starts. Returns which of the rules the
    /// kernel enforces.
    pub(crate) fn confine(self) -> Result<Option<RestrictionStatus>, SandboxError> {
        Ok(self.0.map(RulesetCreated::restrict_self).transpose()?)
    }
}

#[cfg(test)]
mod tests;
