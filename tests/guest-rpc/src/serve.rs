// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Runs the service until it is told to stop.

use std::time::Duration;

use anyhow::Context;
use tokio::task::JoinHandle;
use tokio::time::timeout;
use tokio_stream::StreamExt;

use crate::counts::Counts;
use crate::load::Load;
use crate::task::Protocol;
use crate::transport::{Incoming, Transport};
use crate::{grpc, http, ttrpc};

/// How long it may take until the service notices that its clients have left.
const LATE: Duration = Duration::from_secs(15);

/// Starts the service on a port, on the current runtime.
pub fn serve(transport: &dyn Transport, protocol: Protocol, port: u32) -> anyhow::Result<Service> {
    let load = Load::default();
    let incoming = counted(transport.listen(port)?, load.clone());
    let task = match protocol {
        Protocol::Grpc => tokio::spawn(grpc::server::run(load.clone(), incoming)),
        Protocol::Ttrpc => tokio::spawn(ttrpc::server::run(load.clone(), incoming)),
        Protocol::Http1 | Protocol::Http2 => {
            tokio::spawn(http::server::run(load.clone(), incoming))
        }
    };
    Ok(Service {
        load,
        protocol,
        task,
    })
}

/// A running service.
#[derive(Debug)]
pub struct Service {
    load: Load,
    protocol: Protocol,
    task: JoinHandle<()>,
}

impl Service {
    /// Waits until a call has begun.
    pub async fn called(&self) {
        self.load.reach(|counts| counts.begun > 0).await;
    }

    /// Waits until all clients have left, and stops.
    pub async fn end(self) -> anyhow::Result<Counts> {
        // ttrpc 0.10 keeps the tasks of streams whose client has left.
        let forgets = self.protocol == Protocol::Ttrpc;
        let idle = |counts: &Counts| counts.is_closed() && (forgets || counts.is_served());
        let idle = timeout(LATE, self.load.reach(idle)).await;
        let counts = self.load.counts();
        self.task.abort();
        idle.with_context(|| {
            format!("the clients have left, but the service still counts {counts:?}")
        })?;
        Ok(counts)
    }
}

fn counted(incoming: Incoming, load: Load) -> Incoming {
    Box::pin(incoming.map(move |stream| stream.map(|stream| stream.with(load.connected()))))
}
