// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

use std::io;
use std::path::PathBuf;

use thiserror::Error;

/// Why a capture cannot start, or has ended.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum CaptureError {
    /// A limit is out of its range.
    #[error("invalid value for `{field}`: expected {least} to {most}, found {value}")]
    Limit {
        /// The field of [`CaptureConfig`](crate::CaptureConfig).
        field: &'static str,
        /// The value of the field.
        value: u64,
        /// The minimum.
        least: u64,
        /// The maximum.
        most: u64,
    },
    /// The file cannot be opened for writing. A FIFO without a reader is such a file (`ENXIO`).
    #[error("cannot write a capture to {}", path.display())]
    Open {
        /// The path of the file.
        path: PathBuf,
        /// The cause.
        source: io::Error,
    },
    /// The writer thread cannot start.
    #[error("cannot start the thread that writes the capture")]
    Thread(#[source] io::Error),
    /// Writing failed, for example because the disk is full, and the capture has ended. The file
    /// ends with the last complete packet.
    #[error("cannot write the capture")]
    Write(#[source] io::Error),
    /// The file has reached its size limit, and the capture has ended.
    #[error("the file has reached its limit of {0} bytes")]
    FileLimit(u64),
    /// The remaining packets could not be written within two seconds. The writer thread still waits
    /// for the file.
    #[error("cannot write the rest of the capture: the file is blocked")]
    NotEnded,
    /// The writer thread has panicked.
    #[error("the thread that writes the capture has panicked")]
    Panicked,
}
