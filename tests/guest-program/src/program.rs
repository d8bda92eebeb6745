// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Runs other programs in the guest.

use std::process::{Command, Stdio};

use anyhow::{Context, ensure};

use crate::job::{Answer, ProgramOutput};

/// Runs a program to completion. If it fails, the error contains what it printed.
pub(crate) fn run(program: &str, arguments: &[String]) -> anyhow::Result<Answer> {
    let output = Command::new(program)
        .args(arguments)
        .stdin(Stdio::null())
        .output()
        .with_context(|| format!("cannot run {program}"))?;
    let text = |bytes| String::from_utf8(bytes).context("expected text");
    let (out, err) = (text(output.stdout)?, text(output.stderr)?);
    ensure!(
        output.status.success(),
        "{program} failed, {}: {}",
        output.status,
        err.trim()
    );
    Ok(Answer::Output(ProgramOutput { out, err }))
}
