// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! A process of ours that ends with us, and that a watchdog may end from another thread.

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

/// How often a thing is looked at that no descriptor tells.
const PACE: Duration = Duration::from_millis(10);

/// A running program whose words go to a file.
#[derive(Clone, Debug)]
pub struct Child {
    process: Arc<Mutex<Process>>,
    id: u32,
    log: PathBuf,
}

impl Child {
    /// Starts it.
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

    /// Its number.
    #[must_use]
    pub fn id(&self) -> u32 {
        self.id
    }

    /// How it ended, if it has.
    #[must_use]
    pub fn ended(&self) -> Option<ExitStatus> {
        self.process().try_wait().ok().flatten()
    }

    /// Ends it at once.
    pub fn kill(&self) {
        let mut process = self.process();
        // It may have ended by itself.
        process.kill().ok();
        process.wait().ok();
    }

    /// Asks it to end; how it did. One that does not within the limit is killed: an error.
    pub fn terminate(&self, limit: Duration) -> anyhow::Result<ExitStatus> {
        let process = i32::try_from(self.id).context("the process has a strange number")?;
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

    /// The end of what it said.
    #[must_use]
    pub fn last_words(&self) -> String {
        let text = std::fs::read(&self.log).unwrap_or_default();
        let text = String::from_utf8_lossy(&text);
        let lines: Vec<&str> = text.trim().lines().rev().take(3).collect();
        lines.into_iter().rev().collect::<Vec<_>>().join(" | ")
    }

    fn process(&self) -> MutexGuard<'_, Process> {
        self.process.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Says how a process ended, in words.
#[must_use]
pub fn describe(status: ExitStatus) -> String {
    match status.signal() {
        Some(signal) => format!("died of signal {signal}"),
        None => format!("ended with {}", status.code().unwrap_or(-1)),
    }
}

/// Looks again and again, up to a limit, where the system has no event to wait for.
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
