// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! The workloads of a client, and the checks of their results.

mod calls;
mod failing;
mod storm;

use std::sync::Arc;
use std::time::Instant;

use anyhow::{Context, ensure};
use serde::{Deserialize, Serialize};

use crate::client::{Client, Service};
use crate::counts::Seen;
use crate::grpc::client::GrpcClient;
use crate::http::client::HttpClient;
use crate::message::Amount;
use crate::task::Protocol;
use crate::transport::Transport;
use crate::ttrpc::client::TtrpcClient;

/// A workload of a client.
#[derive(Clone, Copy, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub enum Work {
    /// This many calls, some of them at the same time, over one client.
    Calls(u32),
    /// A stream in each direction, one after another.
    Streams {
        /// Bytes in each direction.
        bytes: u64,
        /// Bytes in a message.
        piece: u32,
    },
    /// A stream in both directions at the same time: each message is answered before the next is
    /// sent.
    Chat(u32),
    /// Calls whose deadline passes, while other calls are answered.
    Deadlines,
    /// Calls that the service or the protocol refuses.
    Refusals,
    /// A call that is in progress when the service dies.
    Lost,
    /// Calls of all kinds, cancelled at random moments, then calls that complete.
    Storm {
        /// How many calls are cancelled.
        calls: u32,
        /// The seed of the moments.
        seed: u64,
    },
}

/// Runs the workload against a service of the other side.
pub async fn call(
    transport: Arc<dyn Transport>,
    protocol: Protocol,
    port: u32,
    work: Work,
) -> anyhow::Result<Seen> {
    let service = Service { transport, port };
    let start = Instant::now();
    let mut seen = match protocol {
        Protocol::Grpc => perform::<GrpcClient>(&service, work).await,
        Protocol::Ttrpc => perform::<TtrpcClient>(&service, work).await,
        Protocol::Http1 => perform::<HttpClient<false>>(&service, work).await,
        Protocol::Http2 => perform::<HttpClient<true>>(&service, work).await,
    }?;
    seen.millis = u64::try_from(start.elapsed().as_millis()).unwrap_or(u64::MAX);
    Ok(seen)
}

async fn perform<C: Client>(service: &Service, work: Work) -> anyhow::Result<Seen> {
    let client = C::connect(service).await?;
    match work {
        Work::Calls(count) => calls::calls(&client, count).await,
        Work::Streams { bytes, piece } => streams(&client, bytes, piece).await,
        Work::Chat(count) => chat(&client, count).await,
        Work::Deadlines => failing::deadlines(&client).await,
        Work::Refusals => failing::refusals(&client).await,
        Work::Lost => failing::lost(&client).await,
        Work::Storm { calls, seed } => storm::run(service, client, calls, seed).await,
    }
}

async fn streams<C: Client>(client: &C, bytes: u64, piece: u32) -> anyhow::Result<Seen> {
    let up = Amount {
        bytes,
        piece,
        seed: 1,
    };
    let arrived = client.upload(up).await.context("upload")?;
    ensure!(arrived == up.summary(), "upload: {} arrived", arrived.bytes);
    let down = Amount { seed: 2, ..up };
    let arrived = client.download(down).await.context("download")?;
    ensure!(
        arrived == down.summary(),
        "download: {} bytes arrived",
        arrived.bytes
    );
    Ok(Seen {
        answered: 2,
        bytes: 2 * bytes,
        ..Seen::default()
    })
}

async fn chat<C: Client>(client: &C, count: u32) -> anyhow::Result<Seen> {
    let piece = 1_000;
    let amount = Amount {
        bytes: u64::from(count) * u64::from(piece),
        piece,
        seed: 3,
    };
    let came_back = client.chat(amount).await?;
    ensure!(
        came_back == amount.summary(),
        "{} bytes came back",
        came_back.bytes
    );
    Ok(Seen {
        answered: 1,
        bytes: 2 * amount.bytes,
        ..Seen::default()
    })
}
