// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! The program's devices, asked all together: one that does not answer delays no other's answer.

use std::time::Duration;

use tokio::time::{Instant, timeout_at};
use vsock_vhost_user::{ConnectionList, DeviceReport, GuestCid, Inquiry, InspectError, Inspector};

use super::connection_name::ConnectionName;

/// How long devices have for an answer.
const PATIENCE: Duration = Duration::from_secs(1);

/// What each guest's device has answered.
pub(super) type Answers<T> = Vec<(GuestCid, Result<T, InspectError>)>;

/// What to ask.
#[derive(Clone, Debug)]
pub(crate) struct Guests(Vec<Inspector>);

impl Guests {
    pub(crate) const fn new(inspectors: Vec<Inspector>) -> Self {
        Self(inspectors)
    }

    /// The figures of each.
    pub(super) async fn reports(&self) -> Answers<DeviceReport> {
        self.ask(Inspector::report).await
    }

    /// The connections of each.
    pub(super) async fn connections(&self) -> Answers<ConnectionList> {
        self.ask(Inspector::connections).await
    }

    /// Ends a connection; returns whether there was one.
    pub(super) async fn reset(&self, name: ConnectionName) -> Result<bool, InspectError> {
        let mut inspectors = self.0.iter();
        let inspector = inspectors.find(|inspector| u64::from(inspector.guest_cid()) == name.guest);
        match inspector {
            Some(inspector) => within(Instant::now() + PATIENCE, inspector.reset(name.id)).await,
            None => Ok(false),
        }
    }

    async fn ask<T>(&self, question: impl Fn(&Inspector) -> Inquiry<T>) -> Answers<T> {
        let deadline = Instant::now() + PATIENCE;
        let ask = |inspector: &Inspector| (inspector.guest_cid(), question(inspector));
        let asked: Vec<_> = self.0.iter().map(ask).collect();
        let mut answers = Vec::with_capacity(asked.len());
        for (guest, inquiry) in asked {
            answers.push((guest, within(deadline, inquiry).await));
        }
        answers
    }
}

async fn within<T>(deadline: Instant, inquiry: Inquiry<T>) -> Result<T, InspectError> {
    let answer = timeout_at(deadline, inquiry).await;
    answer.unwrap_or(Err(InspectError::TimedOut))
}
