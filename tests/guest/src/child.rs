// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! A child process that ends with its parent, and that a watchdog can kill from another thread.

use std::fs::File;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Child as Process, Command, ExitStatus, Stdio};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use anyhow::Context;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use vsock_compliance::poll::{Deadline, pace};

/// How often to check a state for which the system has no event.
const PACE: Duration = Duration::from_millis(10);

/// A running program whose output goes to a file.
#[derive(Clone, Debug)]
pub struct Child {
    process: Arc<Mutex<Process>>,
    id: u32,
    log: PathBuf,
}

impl Child {
    /// Starts a program.
    pub fn spawn(command: &mut Command, log: &Path) -> anyhow::Result<Self> {
        let file = File::create(log).with_context(|| format!("cannot write {}", log.display()))?;
        let process = command
            .stdin(Stdio::null())
            .stdout(file.try_clone()?)
            .stderr(file)
            .spawn()
            .with_context(|| {
                format!(
                    "cannot start {}",
                    Path::new(command.get_program()).display()
                )
            })?;
        Ok(Self {
            id: process.id(),
            process: Arc::new(Mutex::new(process)),
            log: log.to_owned(),
        })
    }

    /// The process identifier.
    #[must_use]
    pub fn id(&self) -> u32 {
        self.id
    }

    /// Returns the exit status, if the process has ended.
    #[must_use]
    pub fn ended(&self) -> Option<ExitStatus> {
        self.process().try_wait().ok().flatten()
    }

    /// Kills the process immediately.
    pub fn kill(&self) {
        let mut process = self.process();
        // The process may already have ended.
        process.kill().ok();
        process.wait().ok();
    }

    /// Sends SIGTERM and returns the exit status. A process that outlives `limit` is killed, which
    /// is an error.
    pub fn terminate(&self, limit: Duration) -> anyhow::Result<ExitStatus> {
        let process = i32::try_from(self.id).context("the process identifier is out of range")?;
        if let Some(status) = self.ended() {
            return Ok(status);
        }
        kill(Pid::from_raw(process), Signal::SIGTERM)?;
        let status = wait_until(limit, || Ok(self.ended()))?;
        if status.is_none() {
            self.kill();
        }
        status.with_context(|| format!("did not end within {limit:?} of SIGTERM"))
    }

    /// The last lines of its output.
    #[must_use]
    pub fn log_tail(&self) -> String {
        let text = std::fs::read(&self.log).unwrap_or_default();
        let text = String::from_utf8_lossy(&text);
        let lines: Vec<&str> = text.trim().lines().rev().take(3).collect();
        lines.into_iter().rev().collect::<Vec<_>>().join(" | ")
    }

    fn process(&self) -> MutexGuard<'_, Process> {
        self.process.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Describes an exit status in words.
#[must_use]
pub fn describe(status: ExitStatus) -> String {
    match status.signal() {
        Some(signal) => format!("died of signal {signal}"),
        None => format!("ended with {}", status.code().unwrap_or(-1)),
    }
}

/// Calls `look` until it returns a value or the limit passes, where the system has no event to wait
/// for.
pub fn wait_until<T>(
    limit: Duration,
    mut look: impl FnMut() -> anyhow::Result<Option<T>>,
) -> anyhow::Result<Option<T>> {
    let deadline = Deadline::after(limit);
    loop {
        let found = look()?;
        if found.is_some() || deadline.passed() {
            return Ok(found);
        }
        pace(PACE)?;
    }
}
