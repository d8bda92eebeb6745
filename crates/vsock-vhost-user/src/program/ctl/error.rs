// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

use std::io;
use std::path::PathBuf;

use hyper::StatusCode;
use thiserror::Error;

use super::client::ClientError;
use crate::program::control::ConnectionName;

/// An error of the `ctl` command.
#[derive(Debug, Error)]
pub(crate) enum CtlError {
    #[error(transparent)]
    Client(#[from] ClientError),
    #[error("there is no connection {0}; `ctl PATH connections` lists the connections")]
    NoConnection(ConnectionName),
    #[error("the program answered {status}: {text}")]
    Refused { status: StatusCode, text: String },
    #[error("unexpected answer from {}; is it a --control path?", path.display())]
    Answer { path: PathBuf },
    #[error("cannot start the event loop")]
    Runtime(#[source] io::Error),
    #[error("cannot write to standard output")]
    Output(#[source] io::Error),
}
