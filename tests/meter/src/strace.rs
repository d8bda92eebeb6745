// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

use std::io;
use std::process::{Command, ExitStatus, Stdio};

use thiserror::Error;

/// Why a command's system calls could not be counted by `strace`.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum StraceError {
    /// `strace` cannot be started.
    #[error("strace cannot be started; is it installed?")]
    Start(#[source] io::Error),
    /// The command failed, or tracing is not permitted.
    #[error("the command under strace ended with {status}: {said}")]
    Failed {
        /// How it ended.
        status: ExitStatus,
        /// The last line that it said.
        said: String,
    },
    /// The summary has no total.
    #[error("the summary of strace has no total")]
    NoTotal,
}

/// Runs `program` with `arguments` under `strace -f -c` and tells how many system calls it made.
///
/// That is every call of every thread, from start to end of the process: to count a job, run the
/// process with the job and without it, and take the difference. Tracing slows each system call
/// down by some microseconds, so a job whose threads wait for each other may make more or fewer
/// of them than it makes undisturbed.
///
/// # Errors
///
/// There is no `strace`, it may not trace, or the program fails.
pub fn count_under_strace(program: &str, arguments: &[&str]) -> Result<u64, StraceError> {
    let output = Command::new("strace")
        .args(["-f", "-c", "-U", "calls,name", "--", program])
        .args(arguments)
        .env("LC_ALL", "C")
        .stdout(Stdio::null())
        .output()
        .map_err(StraceError::Start)?;
    let said = String::from_utf8_lossy(&output.stderr);
    if !output.status.success() {
        return Err(StraceError::Failed {
            status: output.status,
            said: said.lines().last().unwrap_or_default().to_owned(),
        });
    }
    total_in(&said).ok_or(StraceError::NoTotal)
}

/// The count in the line `<calls> total` that ends the summary.
fn total_in(summary: &str) -> Option<u64> {
    summary.lines().rev().find_map(|line| {
        let count = line.trim_end().strip_suffix("total")?;
        count.trim().parse().ok()
    })
}

#[cfg(test)]
mod tests {
    use super::{StraceError, count_under_strace, total_in};

    #[test]
    fn the_total_ends_the_summary() {
        let summary = "    calls syscall\n--------- ----\n        3 read\n        1 total\n";
        assert_eq!(total_in(summary), Some(1));
        assert_eq!(total_in("        3 read\n"), None);
    }

    #[test]
    fn a_command_that_does_more_counts_more() {
        let copy = |blocks: &str| {
            let count = format!("count={blocks}");
            count_under_strace(
                "dd",
                &[
                    "if=/dev/zero",
                    "of=/dev/null",
                    "bs=1",
                    "status=none",
                    &count,
                ],
            )
        };
        let (few, many) = match (copy("0"), copy("100")) {
            (Ok(few), Ok(many)) => (few, many),
            (Err(why), _) | (_, Err(why)) => {
                println!("not checked: {why}");
                return;
            }
        };
        assert_eq!(many - few, 200, "a read and a write for each block");
    }

    #[test]
    fn a_command_that_fails_is_an_error() {
        let failure = count_under_strace("false", &[]).unwrap_err();
        assert!(
            matches!(failure, StraceError::Failed { .. } | StraceError::Start(_)),
            "{failure}"
        );
    }
}
