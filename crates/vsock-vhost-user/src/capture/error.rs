// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

use std::io;
use std::path::PathBuf;

use thiserror::Error;

/// Why there is no capture, or why it has ended.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum CaptureError {
    /// A limit is out of its range.
    #[error("{field} is {value}, expected {least} to {most}")]
    Limit {
        /// The field of [`CaptureConfig`](crate::CaptureConfig).
        field: &'static str,
        /// Its value.
        value: u64,
        /// The least that it may be.
        least: u64,
        /// The most.
        most: u64,
    },
    /// The file cannot be written. A FIFO that has no reader yet is such a file (`ENXIO`).
    #[error("cannot write a capture to {}", path.display())]
    Open {
        /// Where.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The thread that writes cannot be started.
    #[error("cannot start the thread that writes the capture")]
    Thread(#[source] io::Error),
    /// Writing failed, as on a full disk: the capture has ended. The file ends with the last packet
    /// that it has whole.
    #[error("cannot write")]
    Write(#[source] io::Error),
    /// The file has the bytes that it may have: the capture has ended.
    #[error("the file has the {0} bytes that it may have")]
    FileLimit(u64),
    /// The file did not take what was left within two seconds. The thread that writes waits for it
    /// still.
    #[error("the file does not take what was captured")]
    NotEnded,
    /// The thread that writes has panicked.
    #[error("the thread that writes the capture has panicked")]
    Panicked,
}
