// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! The program's errors and exit codes.

use std::error::Error;
use std::io;
use std::path::PathBuf;
use std::process::ExitCode;

use thiserror::Error;
use vsock_vhost_user::{CaptureError, JoinError, VhostUserError};

use super::connect::ConnectError;
use super::ctl::CtlError;
use super::generate::GenerateError;
use super::inherited::InheritedError;
use super::sandbox::SandboxError;
use super::systemd::HandedOverError;

/// The exit code for invalid arguments, the same as clap's.
const WRONG_ARGUMENTS: u8 = 2;

/// An error that ends the program.
#[derive(Debug, Error)]
pub(crate) enum ProgramError {
    #[error("cannot listen for host processes")]
    Unix(#[source] io::Error),
    #[error("cannot forward a guest's ports")]
    Forward(#[source] io::Error),
    #[error("cannot add guest {cid} to its groups")]
    Siblings { cid: u64, source: JoinError },
    #[error("the device of guest {cid} failed")]
    Device { cid: u64, source: VhostUserError },
    #[error("cannot wait for signals")]
    Signals(#[source] io::Error),
    #[error("cannot start a thread")]
    Thread(#[source] io::Error),
    #[error("cannot listen for control requests on {}", path.display())]
    Control { path: PathBuf, source: io::Error },
    #[error(transparent)]
    Ctl(#[from] CtlError),
    #[error("cannot use the sockets from the service manager")]
    HandedOver(#[from] HandedOverError),
    #[error("cannot set up the sandbox (--sandbox off runs without one)")]
    Sandbox(#[from] SandboxError),
    #[error(transparent)]
    Capture(#[from] CaptureError),
    #[error("cannot write captures to {}: expected a directory", path.display())]
    CaptureDir { path: PathBuf, source: io::Error },
    #[error(transparent)]
    Connect(#[from] ConnectError),
    #[error(transparent)]
    Inherited(#[from] InheritedError),
    #[error(transparent)]
    Generate(#[from] GenerateError),
}

impl ProgramError {
    /// Returns the exit code. It is the one for invalid arguments if the value of an argument
    /// turned out to be invalid only when it was used.
    pub(crate) fn code(&self) -> ExitCode {
        if let Self::Connect(error) = self {
            return ExitCode::from(error.code());
        }
        let wrong_value = matches!(
            self,
            Self::Inherited(InheritedError::NotOpen(_) | InheritedError::NoSocket(_))
                | Self::Device {
                    source: VhostUserError::Cid(_) | VhostUserError::QueueSize(_),
                    ..
                }
        );
        ExitCode::from(if wrong_value { WRONG_ARGUMENTS } else { 1 })
    }
}

/// Returns the text of an error and its causes, in one line.
pub(crate) fn with_causes(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text.push_str(&format!(": {error}"));
        cause = error.source();
    }
    text
}
