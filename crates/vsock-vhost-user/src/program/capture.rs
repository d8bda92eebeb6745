// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! The packet capture of all guests. It starts with the program, or is started and stopped while
//! the program runs.

mod control;
mod outcome;

use std::fs;
use std::io::{self, ErrorKind};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use vsock_sockets::journal::{Journal, say};
use vsock_vhost_user::{Capture, CaptureConfig, CaptureError, Inspector, VhostUserVsock};

use super::args::CaptureArgs;
use super::error::{ProgramError, with_causes};
use super::logging::Logging;
use super::sandbox::{Sandbox, ThreadKind};

pub(crate) use self::control::{CaptureControl, CaptureOrder};
pub(crate) use self::outcome::{CaptureOutcome, CaptureRefusal, CaptureStarted, CaptureStopped};

/// How long devices can take to join a capture.
const PATIENCE: Duration = Duration::from_secs(1);

/// The maximum number of capture files in a directory.
const MAX_FILES: u32 = 9999;

/// The current capture, if there is one, and the settings for new ones.
#[derive(Debug)]
pub(crate) struct Captures {
    current: Mutex<Option<Current>>,
    directory: Option<PathBuf>,
    config: CaptureConfig,
    /// Confines the threads that write captures.
    sandbox: Arc<Sandbox>,
    /// For messages that clients of the control socket can repeat.
    journal: Journal,
}

#[derive(Debug)]
struct Current {
    capture: Capture,
    file: PathBuf,
}

impl Captures {
    /// Starts the capture of `--capture`, if that option is given.
    pub(crate) fn begin(args: &CaptureArgs, sandbox: &Arc<Sandbox>) -> Result<Self, ProgramError> {
        let config = args.config();
        let directory = args.capture_dir.as_deref().map(directory).transpose()?;
        let current = match args.capture.clone() {
            Some(file) => {
                let capture =
                    Capture::create_with(&file, config, sandbox.begin(ThreadKind::Capture))?;
                log::info!("capturing packets to {}", file.display());
                Some(Current { capture, file })
            }
            None => None,
        };
        Ok(Self {
            current: Mutex::new(current),
            directory,
            config,
            sandbox: Arc::clone(sandbox),
            journal: Journal::default(),
        })
    }

    /// Adds these devices to the current capture, if there is one.
    pub(crate) fn show<'a>(&self, devices: impl Iterator<Item = &'a VhostUserVsock>) {
        if let Some(Current { capture, .. }) = &*self.current() {
            devices.for_each(|device| device.start_capture(capture));
        }
    }

    /// Confines the thread that carries out orders, if it can be confined: starting a capture means
    /// creating a file and a thread, so only a thread that never starts one is confined.
    fn confine(&self) -> io::Result<()> {
        match self.directory {
            Some(_) => Ok(()),
            None => self.sandbox.begin(ThreadKind::Capture)(),
        }
    }

    /// Starts a capture into a new file. A capture that has ended by itself is replaced.
    fn start(&self, guests: &[Inspector]) -> Result<CaptureStarted, CaptureRefusal> {
        let mut current = self.current();
        let running = current.as_ref().filter(|one| one.capture.is_running());
        if let Some(Current { file, .. }) = running {
            return Err(CaptureRefusal::Running(text(file)));
        }
        let directory = self.directory.as_ref();
        let directory = directory.ok_or(CaptureRefusal::NoDirectory)?;
        // Drop a capture that has ended by itself, and with it its file, before opening another.
        *current = None;
        let (capture, file) = create_in(directory, self.config, &self.sandbox)?;
        let name = text(&file);
        say!(self.journal, Info, "capturing packets to {name}");
        let started = CaptureStarted {
            file: name,
            silent_guests: show(&capture, guests, &self.journal),
        };
        *current = Some(Current { capture, file });
        Ok(started)
    }

    /// Stops the current capture.
    fn stop(&self) -> Result<CaptureStopped, CaptureRefusal> {
        // The lock is held until the capture has ended, so the end of the program waits for it.
        let mut current = self.current();
        let Current { capture, file } = current.take().ok_or(CaptureRefusal::NotRunning)?;
        let before = capture.counters();
        let (counters, incomplete) = match capture.stop() {
            Ok(counters) => (counters, None),
            Err(error) => (before, Some(with_causes(&error))),
        };
        let file = text(&file);
        say!(self.journal, Info, "stopped the capture to {file}");
        Ok(CaptureStopped {
            file,
            packets: counters.packets,
            dropped: counters.dropped,
            file_bytes: counters.file_bytes,
            incomplete,
        })
    }

    /// Stops the current capture at the end of the program, and reports the messages that were left
    /// out. If the capture had ended by itself, the reason was logged then.
    pub(crate) fn end(&self, logging: &Logging) {
        let ended = self.current().take().map(|current| current.capture.stop());
        if let Some(Err(error @ CaptureError::NotEnded)) = ended {
            logging.write_line(&with_causes(&ProgramError::Capture(error)));
        }
        self.journal.tell_all();
    }

    fn current(&self) -> MutexGuard<'_, Option<Current>> {
        // The value is replaced as a whole, so it is consistent even after a panic.
        self.current.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Returns the absolute path of the capture directory, which is valid in the clients' working
/// directories too.
fn directory(path: &Path) -> Result<PathBuf, ProgramError> {
    let found = fs::canonicalize(path).and_then(|path| {
        if fs::metadata(&path)?.is_dir() {
            Ok(path)
        } else {
            Err(ErrorKind::NotADirectory.into())
        }
    });
    found.map_err(|source| {
        let path = path.to_owned();
        ProgramError::CaptureDir { path, source }
    })
}

/// Starts a capture into a new file with the first free number. Clients cannot choose a name, and
/// no file is overwritten.
fn create_in(
    directory: &Path,
    config: CaptureConfig,
    sandbox: &Arc<Sandbox>,
) -> Result<(Capture, PathBuf), CaptureRefusal> {
    for number in 1..=MAX_FILES {
        let file = directory.join(format!("packets-{number}.pcapng"));
        match Capture::create_new_with(&file, config, sandbox.begin(ThreadKind::Capture)) {
            Ok(capture) => return Ok((capture, file)),
            Err(CaptureError::Open { source, .. }) if source.kind() == ErrorKind::AlreadyExists => {
            }
            Err(error) => return Err(CaptureRefusal::Failed(with_causes(&error))),
        }
    }
    Err(CaptureRefusal::TooManyFiles(MAX_FILES))
}

/// Adds these guests to a capture; returns the guests whose devices do not answer.
fn show(capture: &Capture, guests: &[Inspector], journal: &Journal) -> Vec<u64> {
    let end = Instant::now() + PATIENCE;
    // Ask all devices before waiting for the first, so that they share the time.
    let asked = guests.iter().map(|guest| guest.start_capture(capture));
    let asked: Vec<_> = asked.collect();
    let answers = guests.iter().zip(asked).filter_map(|(guest, inquiry)| {
        let answer = inquiry.wait(end.saturating_duration_since(Instant::now()));
        let error = answer.err()?;
        let cid = guest.guest_cid();
        say!(
            journal,
            Warn,
            "cannot capture the packets of guest {cid}: {error}"
        );
        Some(cid.into())
    });
    answers.collect()
}

fn text(path: &Path) -> String {
    path.display().to_string()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::program::args::SandboxMode;
    use crate::program::sandbox::Needs;

    fn unconfined() -> Arc<Sandbox> {
        Arc::new(Sandbox::prepare(SandboxMode::Off, &Needs::default()).unwrap())
    }

    #[test]
    fn existing_files_are_kept_and_their_numbers_skipped() {
        let directory = tempfile::tempdir().unwrap();
        let at = |number| directory.path().join(format!("packets-{number}.pcapng"));
        fs::write(at(1), "kept").unwrap();
        std::os::unix::fs::symlink("nowhere", at(2)).unwrap();
        let (capture, file) =
            create_in(directory.path(), CaptureConfig::default(), &unconfined()).unwrap();
        capture.stop().unwrap();
        assert_eq!(file, at(3));
        assert_eq!(fs::read(at(1)).unwrap(), b"kept");
        assert!(!directory.path().join("nowhere").exists());
    }

    #[test]
    fn the_error_names_a_directory_that_has_been_removed() {
        let directory = tempfile::tempdir().unwrap();
        let gone = directory.path().join("gone");
        let refusal = create_in(&gone, CaptureConfig::default(), &unconfined()).unwrap_err();
        assert!(
            refusal
                .to_string()
                .contains("gone/packets-1.pcapng: No such file"),
            "{refusal}"
        );
    }
}
