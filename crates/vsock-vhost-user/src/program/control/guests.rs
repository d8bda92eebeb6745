// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Queries to the program's devices. All devices are asked at the same time, so a device that does
//! not answer does not delay the others' answers.

use std::time::Duration;

use tokio::time::{Instant, timeout_at};
use vsock_vhost_user::{ConnectionList, DeviceReport, GuestCid, Inquiry, InspectError, Inspector};

use super::connection_name::ConnectionName;

/// How long devices can take to answer.
const PATIENCE: Duration = Duration::from_secs(1);

/// The answer of each guest's device.
pub(super) type Answers<T> = Vec<(GuestCid, Result<T, InspectError>)>;

/// The devices of all guests.
#[derive(Clone, Debug)]
pub(crate) struct Guests(Vec<Inspector>);

impl Guests {
    pub(crate) const fn new(inspectors: Vec<Inspector>) -> Self {
        Self(inspectors)
    }

    /// Returns the counters of each device.
    pub(super) async fn reports(&self) -> Answers<DeviceReport> {
        self.ask(Inspector::report).await
    }

    /// Returns the connections of each device.
    pub(super) async fn connections(&self) -> Answers<ConnectionList> {
        self.ask(Inspector::connections).await
    }

    /// Resets a connection; returns whether it existed.
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
        // Each question is sent when it is made, and all share one deadline.
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
