// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Other programs of the guest.

use std::process::{Command, Stdio};

use anyhow::{Context, ensure};

use crate::job::Answer;

/// Runs one to its end. What it complains of is the answer if it fails.
pub(crate) fn run(program: &str, arguments: &[String]) -> anyhow::Result<Answer> {
    let output = Command::new(program)
        .args(arguments)
        .stdin(Stdio::null())
        .output()
        .with_context(|| format!("cannot run {program}"))?;
    ensure!(
        output.status.success(),
        "{program} failed, {}: {}",
        output.status,
        String::from_utf8_lossy(&output.stderr).trim()
    );
    let said = String::from_utf8(output.stdout).context("expected text")?;
    Ok(Answer::Said(said))
}
