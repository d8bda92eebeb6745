// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! The guest's side: does one task over `AF_VSOCK`, and says what came of it as a line of JSON.

use std::future::pending;
use std::sync::Arc;

use anyhow::Context;
use nix::sys::signal::{Signal, raise};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::serve::serve;
use crate::task::{Part, Task};
use crate::transport::Transport;
use crate::vsock::Vsock;
use crate::work::call;

/// What the host is told when it has called.
const CALLED: u8 = 1;

/// Does the task that the first argument is.
///
/// # Errors
///
/// What went wrong in the task.
pub fn run() -> anyhow::Result<()> {
    perform()
}

#[tokio::main(flavor = "current_thread")]
#[expect(clippy::print_stdout, reason = "it is what the host reads")]
async fn perform() -> anyhow::Result<()> {
    let task = std::env::args().nth(1).context("expected a task as JSON")?;
    let Task {
        protocol,
        port,
        wake,
        part,
    } = serde_json::from_str(&task)?;
    let transport = Vsock(wake);
    let result = match part {
        Part::Call(work) => {
            let seen = call(Arc::new(transport), protocol, port, work).await?;
            serde_json::to_string(&seen)?
        }
        Part::Die { until } => {
            let service = serve(&transport, protocol, port)?;
            let _host = Vsock::default().connect(until).await?;
            service.called().await;
            // What a killed process leaves is closed by the kernel alone: nothing is dropped.
            raise(Signal::SIGKILL)?;
            pending().await
        }
        Part::Serve { until } => {
            let service = serve(&transport, protocol, port)?;
            let mut host = Vsock::default().connect(until).await?;
            tokio::select! {
                // It ends when the host is done.
                _ = host.read_u8() => {}
                () = service.called() => {
                    host.write_u8(CALLED).await?;
                    host.read_u8().await.ok();
                }
            }
            serde_json::to_string(&service.end().await?)?
        }
    };
    println!("{result}");
    Ok(())
}
