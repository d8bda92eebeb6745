// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Calls that are cancelled at random moments, on a shared connection and on separate ones.

use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, ensure};
use fastrand::Rng;
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio::time::timeout;

use super::calls::{calls, echo};
use crate::client::{Answer, Client, Service};
use crate::counts::Seen;
use crate::message::Amount;

/// How many calls run at the same time.
const AT_ONCE: usize = 16;
/// The latest moment of a cancellation: a guest under software emulation has answered some calls by
/// then.
const LATEST: u64 = 60_000;
/// Calls that must succeed afterwards.
const AFTERWARDS: u32 = 50;

pub(super) async fn run<C: Client>(
    service: &Service,
    client: C,
    count: u32,
    seed: u64,
) -> anyhow::Result<Seen> {
    echo(&client, 0).await.context("before the storm")?;
    let turns = Arc::new(Semaphore::new(AT_ONCE));
    let mut random = Rng::with_seed(seed);
    let mut callers = JoinSet::new();
    for number in 0..count {
        let shared = (C::OTHERS_GO_ON && random.bool()).then(|| client.clone());
        let kind = random.u8(..);
        let moment = Duration::from_micros(random.u64(..LATEST));
        let (turns, service) = (Arc::clone(&turns), service.clone());
        callers.spawn(async move {
            let _turn = turns.acquire().await?;
            let call = async {
                let client = match shared {
                    Some(client) => client,
                    None => C::connect(&service).await?,
                };
                one(&client, number, kind).await
            };
            // Dropping the future cancels the call.
            match timeout(moment, call).await {
                Ok(done) => done.map(|()| true),
                Err(_) => Ok(false),
            }
        });
    }
    let mut seen = Seen::default();
    while let Some(caller) = callers.join_next().await {
        match caller.context("a caller has panicked")?? {
            true => seen.answered += 1,
            false => seen.cancelled += 1,
        }
    }
    ensure!(seen.cancelled > 0, "no call was cancelled");
    let after = calls(&client, AFTERWARDS).await;
    after.context("on the connection with the cancelled calls")?;
    let new = C::connect(service).await.context("a new client")?;
    calls(&new, AFTERWARDS).await.context("a new client")?;
    Ok(seen)
}

/// Makes a call of some kind, and checks its result if it completes.
async fn one<C: Client>(client: &C, number: u32, kind: u8) -> anyhow::Result<()> {
    let amount = Amount {
        bytes: 300_000,
        piece: 10_000,
        seed: number.into(),
    };
    let streamed = |answer: Answer<_>| {
        ensure!(
            answer? == amount.summary(),
            "call {number}: the sum is wrong"
        );
        Ok(())
    };
    match kind % 5 {
        0 => echo(client, number).await,
        1 => streamed(client.upload(amount).await),
        2 => streamed(client.download(amount).await),
        3 => streamed(client.chat(amount).await),
        _ => Ok(client.wait(Duration::from_secs(60)).await?),
    }
}
