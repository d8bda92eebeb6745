// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! The command `ctl`: monitors and controls a running program through its control socket.

mod client;
mod error;
mod output;
mod requests;
mod tables;
mod top;

use std::io::{self, ErrorKind, IsTerminal};

use tokio::runtime::Builder;

use self::client::Client;
pub(crate) use self::error::CtlError;
use self::output::print;
use self::requests::{close, connections, get, start_capture, stop_capture};
use super::args::{CaptureAction, CtlAction, CtlArgs};

/// Runs the command.
///
/// # Errors
///
/// The program cannot be reached, or it refused the request.
pub(crate) fn run(args: &CtlArgs) -> Result<(), CtlError> {
    let runtime = Builder::new_current_thread().enable_all().build();
    let runtime = runtime.map_err(CtlError::Runtime)?;
    let done = runtime.block_on(act(args));
    match done {
        // The reader of standard output, such as `head`, has seen enough.
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
        CtlAction::Capture { action } => match action {
            CaptureAction::Start => print(&tables::started(&start_capture(&client).await?)),
            CaptureAction::Stop => print(&tables::stopped(&stop_capture(&client).await?)),
        },
        CtlAction::Top => top::run(&client, io::stdout().is_terminal()).await,
    }
}
