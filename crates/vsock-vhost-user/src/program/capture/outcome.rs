// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! What became of an order, for both ends of the control socket.

use serde::{Deserialize, Serialize};
use thiserror::Error;

/// What `POST /capture` answers.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub(crate) struct CaptureStarted {
    pub(crate) file: String,
    /// The CIDs of guests whose devices did not answer in time: their packets are not captured.
    pub(crate) silent_guests: Vec<u64>,
}

/// What `DELETE /capture` answers.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub(crate) struct CaptureStopped {
    pub(crate) file: String,
    /// Packets that passed, and those of them that are not in the file.
    pub(crate) packets: u64,
    pub(crate) dropped: u64,
    pub(crate) file_bytes: u64,
    /// Why the capture had ended before, or has not ended in time.
    pub(crate) incomplete: Option<String>,
}

/// What was done.
#[derive(Debug)]
pub(crate) enum CaptureOutcome {
    Started(CaptureStarted),
    Stopped(CaptureStopped),
}

/// Why nothing was done.
#[derive(Clone, Debug, Eq, Error, PartialEq)]
pub(crate) enum CaptureRefusal {
    #[error("packets are being captured to {0}; stop that capture first")]
    Running(String),
    #[error("there is no capture to stop")]
    NotRunning,
    #[error("there is no directory for captures; start the program with --capture-dir DIR")]
    NoDirectory,
    #[error("the directory of captures has {0} of them; remove some")]
    TooManyFiles(u32),
    #[error("{0}")]
    Failed(String),
    #[error("the program is busy with another capture; ask again later")]
    Busy,
}
