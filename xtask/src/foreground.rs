// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Runs a program that the user can interrupt. It leaves no process and no file behind.

use std::os::unix::process::CommandExt;
use std::process::{Command, ExitCode, ExitStatus, Stdio};
use std::thread;

use anyhow::{Context, anyhow};
use nix::sys::signal::{Signal, killpg};
use nix::unistd::Pid;
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use signal_hook::iterator::Signals;

/// Runs the command without standard input, and returns its exit code.
///
/// The command gets a process group and a temporary directory of its own. SIGINT, SIGTERM and
/// SIGHUP end the whole group, and a second signal kills it. However the command ends, remaining
/// processes of the group are killed, and the directory is removed.
pub(crate) fn run(command: &mut Command) -> anyhow::Result<ExitCode> {
    // A short name: the programs keep sockets in it, and their paths have at most 107 bytes.
    let directory = tempfile::Builder::new().prefix("vsock-").tempdir()?;
    // Before the child is started, so that no signal is missed.
    let mut signals = Signals::new([SIGHUP, SIGINT, SIGTERM])?;
    let handle = signals.handle();
    let mut child = command
        .stdin(Stdio::null())
        .env("TMPDIR", directory.path())
        .process_group(0)
        .spawn()
        .with_context(|| format!("cannot start {}", command.get_program().display()))?;
    let group = Pid::from_raw(child.id().try_into()?);
    // An error means that the group is empty: all of its processes have ended.
    let send = move |signal| killpg(group, signal).unwrap_or_default();
    let interrupts = thread::spawn(move || {
        let mut next = Signal::SIGTERM;
        for _ in signals.forever() {
            send(next);
            next = Signal::SIGKILL;
        }
    });
    let status = child.wait();
    handle.close();
    send(Signal::SIGKILL);
    let ended = interrupts.join();
    let code = code_of(status?);
    ended.map_err(|_| anyhow!("the thread that waits for signals panicked"))?;
    Ok(code)
}

fn code_of(status: ExitStatus) -> ExitCode {
    // A signal has no code, and is a failure.
    let code = status.code().and_then(|code| u8::try_from(code).ok());
    code.map_or(ExitCode::FAILURE, ExitCode::from)
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::path::Path;

    use super::*;

    #[test]
    fn the_exit_code_is_that_of_the_program() {
        let code = run(Command::new("sh").args(["-c", "exit 77"])).unwrap();
        assert_eq!(code, ExitCode::from(77));
    }

    #[test]
    fn neither_a_process_nor_a_directory_is_left() {
        let said = std::env::temp_dir().join(format!("xtask-left-{}", std::process::id()));
        let script = format!(
            "sleep 1000 & mkdir $TMPDIR/some && echo $! $TMPDIR > {}; exit 3",
            said.display()
        );
        let code = run(Command::new("sh").args(["-c", &script])).unwrap();
        assert_eq!(code, ExitCode::from(3));
        let text = fs::read_to_string(&said).unwrap();
        fs::remove_file(said).unwrap();
        let (process, directory) = text.trim().split_once(' ').unwrap();
        assert!(!Path::new(directory).exists());
        let process = Path::new("/proc").join(process);
        // A killed process takes a moment to end, and stays a zombie until its parent waits for it.
        while process.exists() {
            let stat = fs::read_to_string(process.join("stat")).unwrap_or_default();
            if stat.contains(") Z ") {
                break;
            }
            thread::yield_now();
        }
    }
}
