// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! What a client of the service can ask, whichever protocol carries it.

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

/// A call that did not succeed.
#[derive(Debug, thiserror::Error)]
#[error("code {code}: {text}")]
pub(crate) struct Failure {
    /// The protocol's.
    pub(crate) code: i32,
    pub(crate) text: String,
}

impl Failure {
    /// One that the protocol has no code for: the connection failed.
    pub(crate) fn broken(error: impl std::fmt::Debug) -> Self {
        Self {
            code: -1,
            text: format!("{error:?}"),
        }
    }
}

/// How many bytes a message may have.
pub(crate) const MOST: usize = 4 << 20;

/// The result of a call.
pub(crate) type Answer<T> = Result<T, Failure>;

/// A client, which connects at its first call if not before. Dropping the future of a call cancels
/// it.
pub(crate) trait Client: Clone + Send + Sync + 'static {
    /// The codes of a call that is too late, and of a method that does not exist.
    const LATE: i32;
    const MISSING: i32;
    /// The code of a message that is too long, where there is one.
    const TOO_LONG: Option<i32>;
    /// Whether other calls of the same connection go on when one is cancelled.
    const OTHERS_GO_ON: bool = true;

    /// The code in the protocol of a refusal with this gRPC code.
    fn code(refusal: i32) -> i32 {
        refusal
    }

    fn connect(service: &Service) -> impl Future<Output = Answer<Self>> + Send;
    /// Gets a piece back.
    fn echo(&self, piece: Piece) -> impl Future<Output = Answer<Piece>> + Send;
    /// Sends a stream, and gets the sum of what arrived.
    fn upload(&self, amount: Amount) -> impl Future<Output = Answer<Summary>> + Send;
    /// Receives a stream.
    fn download(&self, amount: Amount) -> impl Future<Output = Answer<Summary>> + Send;
    /// Sends a stream, each piece when the one before it has come back; the sum of what did.
    fn chat(&self, amount: Amount) -> impl Future<Output = Answer<Summary>> + Send;
    /// Waits for a service that never answers, but not longer than this.
    fn wait(&self, limit: Duration) -> impl Future<Output = Answer<()>> + Send;
    /// Is refused with this gRPC code.
    fn refuse(&self, code: i32) -> impl Future<Output = Answer<()>> + Send;
    /// Calls a method that the service does not have.
    fn miss(&self) -> impl Future<Output = Answer<()>> + Send;
}
