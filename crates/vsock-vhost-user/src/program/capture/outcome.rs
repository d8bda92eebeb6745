// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! The outcome of an order as JSON: the program writes it, and `ctl` reads it.

use serde::{Deserialize, Serialize};
use thiserror::Error;

/// The answer to `POST /capture`.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub(crate) struct CaptureStarted {
    pub(crate) file: String,
    /// The CIDs of guests whose devices did not answer in time: their packets are not captured.
    pub(crate) silent_guests: Vec<u64>,
}

/// The answer to `DELETE /capture`.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub(crate) struct CaptureStopped {
    pub(crate) file: String,
    /// All packets of the captured guests.
    pub(crate) packets: u64,
    /// How many of these packets are not in the file.
    pub(crate) dropped: u64,
    pub(crate) file_bytes: u64,
    /// Why the capture had already ended, or did not end in time.
    pub(crate) incomplete: Option<String>,
}

/// The outcome of an order that was carried out.
#[derive(Debug)]
pub(crate) enum CaptureOutcome {
    Started(CaptureStarted),
    Stopped(CaptureStopped),
}

/// The reason for refusing an order.
#[derive(Clone, Debug, Eq, Error, PartialEq)]
pub(crate) enum CaptureRefusal {
    #[error("already capturing packets to {0}; stop that capture first")]
    Running(String),
    #[error("there is no capture to stop")]
    NotRunning,
    #[error("there is no capture directory; start the program with --capture-dir DIR")]
    NoDirectory,
    #[error("the capture directory already contains {0} captures; remove some")]
    TooManyFiles(u32),
    #[error("{0}")]
    Failed(String),
    #[error("the program is busy with another capture; try again later")]
    Busy,
}
