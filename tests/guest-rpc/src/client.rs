// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! The calls that a client can make, over any protocol.

use std::sync::Arc;
use std::time::Duration;

use crate::message::{Amount, Piece, Summary};
use crate::transport::Transport;

/// Where a service is.
#[derive(Clone)]
pub(crate) struct Service {
    pub(crate) transport: Arc<dyn Transport>,
    pub(crate) port: u32,
}

/// A call that failed.
#[derive(Debug, thiserror::Error)]
#[error("code {code}: {text}")]
pub(crate) struct Failure {
    /// The protocol's error code.
    pub(crate) code: i32,
    pub(crate) text: String,
}

impl Failure {
    /// A failure without a code: the connection failed.
    pub(crate) fn broken(error: impl std::fmt::Debug) -> Self {
        Self {
            code: -1,
            text: format!("{error:?}"),
        }
    }
}

/// The largest message in bytes.
pub(crate) const MOST: usize = 4 << 20;

/// The result of a call.
pub(crate) type Answer<T> = Result<T, Failure>;

/// A client, which connects at its first call at the latest. Dropping a call's future cancels the
/// call.
pub(crate) trait Client: Clone + Send + Sync + 'static {
    /// The codes of a call whose deadline has passed, and of a method that does not exist.
    const LATE: i32;
    const MISSING: i32;
    /// The code for a message that is too long, if the protocol has one.
    const TOO_LONG: Option<i32>;
    /// Whether other calls on a connection continue when one is cancelled.
    const OTHERS_GO_ON: bool = true;

    /// Translates a gRPC refusal code into the protocol's code.
    fn code(refusal: i32) -> i32 {
        refusal
    }

    fn connect(service: &Service) -> impl Future<Output = Answer<Self>> + Send;
    /// Sends a piece and receives it back.
    fn echo(&self, piece: Piece) -> impl Future<Output = Answer<Piece>> + Send;
    /// Sends a stream, and receives a summary of what arrived.
    fn upload(&self, amount: Amount) -> impl Future<Output = Answer<Summary>> + Send;
    /// Receives a stream.
    fn download(&self, amount: Amount) -> impl Future<Output = Answer<Summary>> + Send;
    /// Sends a stream piece by piece, each after the previous one has come back. Returns a summary
    /// of what came back.
    fn chat(&self, amount: Amount) -> impl Future<Output = Answer<Summary>> + Send;
    /// Waits for a service that never answers, for at most `limit`.
    fn wait(&self, limit: Duration) -> impl Future<Output = Answer<()>> + Send;
    /// Makes a call that the service refuses with this gRPC code.
    fn refuse(&self, code: i32) -> impl Future<Output = Answer<()>> + Send;
    /// Calls a method that the service does not have.
    fn miss(&self) -> impl Future<Output = Answer<()>> + Send;
}
