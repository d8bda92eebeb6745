// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Why the program fails, and its exit codes.

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

/// The exit code for wrong arguments; clap has the same.
const WRONG_ARGUMENTS: u8 = 2;

/// Why the program has failed.
#[derive(Debug, Error)]
pub(crate) enum ProgramError {
    #[error("cannot listen for host processes")]
    Unix(#[source] io::Error),
    #[error("cannot forward ports of a guest")]
    Forward(#[source] io::Error),
    #[error("guest {cid} cannot be connected to other guests")]
    Siblings { cid: u64, source: JoinError },
    #[error("the device of guest {cid} failed")]
    Device { cid: u64, source: VhostUserError },
    #[error("cannot wait for signals")]
    Signals(#[source] io::Error),
    #[error("cannot start a thread")]
    Thread(#[source] io::Error),
    #[error("cannot listen on {} for control", path.display())]
    Control { path: PathBuf, source: io::Error },
    #[error(transparent)]
    Ctl(#[from] CtlError),
    #[error("cannot take the sockets of the service manager")]
    HandedOver(#[from] HandedOverError),
    #[error("cannot confine the program; --sandbox off starts it unconfined")]
    Sandbox(#[from] SandboxError),
    #[error(transparent)]
    Capture(#[from] CaptureError),
    #[error("cannot capture packets in {}, expected a directory", path.display())]
    CaptureDir { path: PathBuf, source: io::Error },
    #[error(transparent)]
    Connect(#[from] ConnectError),
    #[error(transparent)]
    Inherited(#[from] InheritedError),
    #[error(transparent)]
    Generate(#[from] GenerateError),
}

impl ProgramError {
    /// What the program ends with: as for an argument that cannot be parsed, if the value of one is
    /// wrong.
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

    /// What failed, and why, down to the cause.
    pub(crate) fn text(&self) -> String {
        format!("vsock-vhost-user: {}", with_causes(self))
    }
}

/// An error and its causes, in one line.
pub(crate) fn with_causes(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text.push_str(&format!(": {error}"));
        cause = error.source();
    }
    text
}
