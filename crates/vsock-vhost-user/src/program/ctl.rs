// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! The command `ctl`: shows and steers another process of this program, through its control socket.

mod client;
mod tables;
mod top;

use std::io::{self, ErrorKind, IsTerminal, Write};
use std::path::PathBuf;

use hyper::{Method, StatusCode};
use thiserror::Error;
use tokio::runtime::Builder;

use self::client::{Client, ClientError};
use super::args::{CtlAction, CtlArgs};
use super::control::{ConnectionName, Failure, Listing};

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

/// Does it.
///
/// # Errors
///
/// The program cannot be reached, or has refused.
pub(crate) fn run(args: &CtlArgs) -> Result<(), CtlError> {
    let runtime = Builder::new_current_thread().enable_all().build();
    let runtime = runtime.map_err(CtlError::Runtime)?;
    let done = runtime.block_on(act(args));
    match done {
        // Whatever reads our output has seen enough.
        Err(CtlError::Output(error)) if error.kind() == ErrorKind::BrokenPipe => Ok(()),
        done => done,
    }
}

async fn act(args: &CtlArgs) -> Result<(), CtlError> {
    let client = Client::new(&args.path);
    match args.action {
        CtlAction::Connections => {
            let listing = connections(&client).await?;
            print(&tables::connections(&listing))
        }
        CtlAction::Metrics => {
            let page = get(&client, "/metrics").await?;
            print(&tables::metrics(&String::from_utf8_lossy(&page)))
        }
        CtlAction::Close { id } => close(&client, id).await,
        CtlAction::Top => top::run(&client, io::stdout().is_terminal()).await,
    }
}

async fn connections(client: &Client) -> Result<Listing, CtlError> {
    let text = get(client, "/connections").await?;
    serde_json::from_slice(&text).map_err(|_| CtlError::Answer {
        path: client.path().to_owned(),
    })
}

async fn get(client: &Client, uri: &str) -> Result<Vec<u8>, CtlError> {
    let (status, body) = client.ask(Method::GET, uri).await?;
    if status == StatusCode::OK {
        Ok(body)
    } else {
        Err(refused(status, &body))
    }
}

async fn close(client: &Client, id: ConnectionName) -> Result<(), CtlError> {
    let uri = format!("/connections/{id}");
    let (status, body) = client.ask(Method::DELETE, &uri).await?;
    match status {
        StatusCode::NO_CONTENT => Ok(()),
        StatusCode::NOT_FOUND => Err(CtlError::NoConnection(id)),
        status => Err(refused(status, &body)),
    }
}

fn refused(status: StatusCode, body: &[u8]) -> CtlError {
    let text = match serde_json::from_slice::<Failure>(body) {
        Ok(failure) => failure.error,
        Err(_) => "it does not say why".to_owned(),
    };
    CtlError::Refused { status, text }
}

fn print(text: &str) -> Result<(), CtlError> {
    let mut stdout = io::stdout().lock();
    let written = stdout.write_all(text.as_bytes());
    written
        .and_then(|()| stdout.flush())
        .map_err(CtlError::Output)
}
