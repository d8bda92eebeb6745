// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

use std::io;
use std::path::PathBuf;

use hyper::StatusCode;
use thiserror::Error;

use super::client::ClientError;
use crate::program::control::ConnectionName;

/// Why the command has failed.
#[derive(Debug, Error)]
pub(crate) enum CtlError {
    #[error(transparent)]
    Client(#[from] ClientError),
    #[error("there is no connection {0}: `ctl PATH connections` lists those that there are")]
    NoConnection(ConnectionName),
    #[error("the program answers {status}: {text}")]
    Refused { status: StatusCode, text: String },
    #[error("{} is not answered as expected, is it the socket of --control?", path.display())]
    Answer { path: PathBuf },
    #[error("cannot set up the command's event loop")]
    Runtime(#[source] io::Error),
    #[error("cannot write to standard output")]
    Output(#[source] io::Error),
}
