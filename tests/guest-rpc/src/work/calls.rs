// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Calls that are answered.

use anyhow::{Context, ensure};
use tokio::task::JoinSet;

use crate::client::Client;
use crate::counts::Seen;
use crate::message::{Amount, Piece};

/// How many calls run at the same time.
const AT_ONCE: u32 = 16;
/// Message sizes, from nothing to several of the guest's buffers.
const SIZES: [u32; 8] = [0, 1, 17, 100, 1_000, 4_096, 10_000, 70_000];

pub(super) async fn calls<C: Client>(client: &C, count: u32) -> anyhow::Result<Seen> {
    let mut callers = JoinSet::new();
    for caller in 0..AT_ONCE {
        let client = client.clone();
        callers.spawn(async move {
            let mine = (caller..count).step_by(AT_ONCE as usize);
            for number in mine {
                echo(&client, number).await?;
            }
            anyhow::Ok(())
        });
    }
    while let Some(caller) = callers.join_next().await {
        caller.context("a caller has panicked")??;
    }
    let answered = count.into();
    Ok(Seen {
        answered,
        ..Seen::default()
    })
}

/// Checks that the service answers, and answers this caller.
pub(super) async fn echo<C: Client>(client: &C, number: u32) -> anyhow::Result<()> {
    let piece = piece(number);
    let answer = client.echo(piece.clone()).await?;
    ensure!(
        answer == piece,
        "call {number} received the answer to another call"
    );
    Ok(())
}

/// Returns a piece that is unique to this number.
fn piece(number: u32) -> Piece {
    let size = SIZES[number as usize % SIZES.len()];
    let amount = Amount {
        bytes: size.into(),
        piece: size,
        seed: number.into(),
    };
    let bytes = amount.pieces().next().unwrap_or_default().bytes;
    let number = number.into();
    Piece { number, bytes }
}
