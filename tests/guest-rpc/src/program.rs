// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! The program in the guest: runs one task over `AF_VSOCK`, and prints the result as a line of
//! JSON.

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

/// The byte that tells the host that a call has begun.
const CALLED: u8 = 1;

/// Runs the task that the first argument contains.
///
/// # Errors
///
/// Returns the task's error.
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
            // Nothing is dropped in a killed process: only the kernel closes what it leaves behind.
            raise(Signal::SIGKILL)?;
            pending().await
        }
        Part::Serve { until } => {
            let service = serve(&transport, protocol, port)?;
            let mut host = Vsock::default().connect(until).await?;
            tokio::select! {
                // The host ends this connection when it is done.
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
