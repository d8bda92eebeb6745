// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Calls that are never answered, or refused.

use std::time::{Duration, Instant};

use anyhow::{Context, bail, ensure};
use tokio::task::JoinSet;
use tokio::time::timeout;

use super::calls::echo;
use crate::client::{Client, MOST};
use crate::counts::Seen;
use crate::load::REFUSED;
use crate::message::Piece;

/// A call's deadline, and how late a slow guest may notice it.
const DEADLINE: Duration = Duration::from_millis(200);
const SLACK: Duration = Duration::from_secs(5);
/// Calls that wait at the same time.
const WAITING: u32 = 10;

pub(super) async fn deadlines<C: Client>(client: &C) -> anyhow::Result<Seen> {
    let mut waiting = JoinSet::new();
    for _ in 0..WAITING {
        let client = client.clone();
        waiting.spawn(async move {
            let start = Instant::now();
            (client.wait(DEADLINE).await, start.elapsed())
        });
    }
    // Other calls are not delayed.
    for number in 0..WAITING {
        echo(client, number).await.context("while others wait")?;
    }
    while let Some(waited) = waiting.join_next().await {
        let (answer, time) = waited.context("a caller has panicked")?;
        let Err(failure) = answer else {
            bail!("a call that is never answered succeeded");
        };
        ensure!(
            failure.code == C::LATE,
            "the deadline failed with {failure}"
        );
        ensure!(
            (DEADLINE..DEADLINE + SLACK).contains(&time),
            "a deadline of {DEADLINE:?} came after {time:?}"
        );
    }
    echo(client, 0).await.context("after the deadlines")?;
    Ok(Seen {
        answered: u64::from(WAITING) + 1,
        cancelled: WAITING.into(),
        ..Seen::default()
    })
}

/// How long it may take to notice that a service has died while its guest boots. The call's own
/// deadline is longer.
const NOTICED: Duration = Duration::from_secs(60);
const NEVER: Duration = Duration::from_secs(120);

pub(super) async fn lost<C: Client>(client: &C) -> anyhow::Result<Seen> {
    let answer = timeout(NOTICED, client.wait(NEVER)).await;
    let answer = answer.context("the client did not notice that the service died")?;
    ensure!(answer.is_err(), "a dead service answered");
    Ok(Seen {
        cancelled: 1,
        ..Seen::default()
    })
}

pub(super) async fn refusals<C: Client>(client: &C) -> anyhow::Result<Seen> {
    for code in 1..=16 {
        let Err(failure) = client.refuse(code).await else {
            bail!("a call refused with code {code} succeeded");
        };
        ensure!(
            failure.code == C::code(code) && failure.text == REFUSED,
            "refused with {code}, the client received {failure}"
        );
    }
    let missing = client.miss().await.err().map(|failure| failure.code);
    ensure!(missing == Some(C::MISSING), "no method: {missing:?}");
    if let Some(code) = C::TOO_LONG {
        let number = 0;
        let bytes = vec![0; MOST + 1];
        match client.echo(Piece { number, bytes }).await {
            Err(failure) => ensure!(failure.code == code, "too long: {failure}"),
            Ok(_) => bail!("a message that is too long was accepted"),
        }
    }
    echo(client, 1).await.context("after the refusals")?;
    Ok(Seen {
        answered: 17,
        ..Seen::default()
    })
}
