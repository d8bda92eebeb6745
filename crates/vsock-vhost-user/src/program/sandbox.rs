// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! What the program may do once it serves: each thread confines itself to the system calls that a
//! thread of its kind makes (seccomp), and to the files and ports that the program uses then
//! (Landlock).
//!
//! A guest or a VMM that has taken over a thread by some defect can do no more than that. Nothing
//! of it can be taken back. What the kernel does not have is missing, and the log says so.

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

/// Why the program cannot be confined, though the kernel could.
#[derive(Debug, Error)]
pub(crate) enum SandboxError {
    #[error("cannot make the filter of system calls")]
    Filter(#[from] seccompiler::BackendError),
    #[error("cannot filter system calls")]
    Seccomp(#[source] seccompiler::Error),
    #[error("cannot confine the program to the files and ports that it needs")]
    Files(#[from] RulesetError),
    #[error("cannot handle the signal of a forbidden system call")]
    Signal(#[source] io::Error),
    #[error("cannot start a thread")]
    Thread(#[source] io::Error),
    #[error("no descriptor is left")]
    Descriptor(#[source] io::Error),
}

/// What of it the kernel has.
#[derive(Debug, Default)]
struct Found {
    /// What it lacks, each as a line for the log.
    missing: Vec<String>,
    has_seccomp: bool,
}

/// The files and ports of a thread that is not confined yet.
#[derive(Debug)]
pub(crate) struct Files(Option<RulesetCreated>);

/// The confinement of the program, for its threads.
#[derive(Debug)]
pub(crate) struct Sandbox {
    /// What a thread of each kind may call, where the kernel can tell.
    filters: Option<Filters>,
    /// What the program may open, where it is to be told.
    files: Option<RulesetCreated>,
    /// The same for threads that open again what was passed.
    passed_files: Option<RulesetCreated>,
    /// What the log says of it.
    notices: Vec<String>,
}

impl Sandbox {
    /// Finds out what the kernel has, on a thread that then ends. Nothing else is confined by this.
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
                "the sandbox only logs: the kernel's log has each system call that it would forbid \
                 (type=1326), and files are not confined"
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

    /// Confines a thread, which is then gone, and tells what was missing.
    fn probe(&self) -> Result<Found, SandboxError> {
        thread::scope(|scope| {
            let probe = thread::Builder::new().name("probe".to_owned());
            let probe = probe.spawn_scoped(scope, || self.find());
            let found = probe.map_err(SandboxError::Thread)?.join();
            found.unwrap_or_else(|_| Err(SandboxError::Thread(io::Error::other("it has panicked"))))
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
            None => Err("this program knows no system calls of this architecture".to_owned()),
        };
        match filtered {
            Ok(()) => found.has_seccomp = true,
            Err(error) => found.missing.push(format!(
                "system calls are not confined, the kernel has no seccomp for the program: {error}"
            )),
        }
        Ok(found)
    }

    /// Whether a thread may make some system calls only.
    pub(crate) const fn confines_calls(&self) -> bool {
        self.filters.is_some()
    }

    /// Logs what is missing.
    pub(crate) fn report(&self) {
        for notice in &self.notices {
            log::warn!("{notice}");
        }
    }

    /// Confines the thread that calls it, for ever.
    pub(crate) fn confine(&self, kind: ThreadKind) -> Result<(), SandboxError> {
        self.files(kind)?.confine()?;
        self.confine_calls(kind)
    }

    /// Confines the thread that calls it to its system calls: one that is confined to files and
    /// ports already, as the thread that has started it was.
    pub(crate) fn confine_calls(&self, kind: ThreadKind) -> Result<(), SandboxError> {
        violation::note(kind);
        match &self.filters {
            Some(filters) => filters.apply(kind).map_err(SandboxError::Seccomp),
            None => Ok(()),
        }
    }

    /// What confines a thread to its files and ports later, when there may be no descriptor left.
    pub(crate) fn files(&self, kind: ThreadKind) -> Result<Files, SandboxError> {
        let files = match kind {
            ThreadKind::Passed => &self.passed_files,
            _ => &self.files,
        };
        let files = files.as_ref().map(RulesetCreated::try_clone);
        Ok(Files(files.transpose().map_err(SandboxError::Descriptor)?))
    }

    /// What a thread of this kind does first, if the one that starts it is not confined.
    pub(crate) fn begin(
        self: &Arc<Self>,
        kind: ThreadKind,
    ) -> impl FnOnce() -> io::Result<()> + Send + use<> {
        let sandbox = Arc::clone(self);
        move || sandbox.confine(kind).map_err(io::Error::other)
    }
}

impl Files {
    /// Confines the thread that calls it, and those that it starts. Returns what the kernel could
    /// do.
    pub(crate) fn confine(self) -> Result<Option<RestrictionStatus>, SandboxError> {
        Ok(self.0.map(RulesetCreated::restrict_self).transpose()?)
    }
}

#[cfg(test)]
mod tests;
