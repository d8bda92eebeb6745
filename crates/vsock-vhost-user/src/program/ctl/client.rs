// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Sends a request to a control socket. The time and the size of the answer are limited.

use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use http_body_util::{BodyExt, Empty, Limited};
use hyper::body::Bytes;
use hyper::client::conn::http1;
use hyper::header::HOST;
use hyper::{Method, Request, StatusCode};
use hyper_util::rt::TokioIo;
use thiserror::Error;
use tokio::net::UnixStream;
use tokio::task;
use tokio::time::timeout;

/// How long the program can take to answer. It waits up to one second for its devices.
const PATIENCE: Duration = Duration::from_secs(10);

/// The maximum length of an answer in bytes, enough for about 200,000 connections.
const MAX_ANSWER: usize = 64 * 1024 * 1024;

/// An error while sending a request or receiving its answer.
#[derive(Debug, Error)]
pub(crate) enum ClientError {
    #[error(
        "cannot connect to {}: expected the --control path of a running program",
        path.display()
    )]
    Connect { path: PathBuf, source: io::Error },
    #[error(
        "no answer from {} within {} seconds; is it a --control path?",
        path.display(),
        PATIENCE.as_secs()
    )]
    TimedOut { path: PathBuf },
    #[error("invalid HTTP from {}: expected a --control path", path.display())]
    Http { path: PathBuf, source: hyper::Error },
    #[error("incomplete answer from {}", path.display())]
    Body {
        path: PathBuf,
        source: Box<dyn std::error::Error + Send + Sync>,
    },
}

/// A client of the control socket at a path.
#[derive(Debug)]
pub(super) struct Client {
    path: PathBuf,
}

impl Client {
    pub(super) fn new(path: &Path) -> Self {
        let path = path.to_owned();
        Self { path }
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// Sends a request, on a separate connection, and returns the status and the body.
    pub(super) async fn ask(
        &self,
        method: Method,
        uri: &str,
    ) -> Result<(StatusCode, Vec<u8>), ClientError> {
        let answer = timeout(PATIENCE, self.exchange(method, uri)).await;
        let path = || self.path.clone();
        answer.unwrap_or_else(|_| Err(ClientError::TimedOut { path: path() }))
    }

    async fn exchange(
        &self,
        method: Method,
        uri: &str,
    ) -> Result<(StatusCode, Vec<u8>), ClientError> {
        let path = || self.path.clone();
        let http = |source| ClientError::Http {
            path: path(),
            source,
        };
        let stream = UnixStream::connect(&self.path).await;
        let stream = stream.map_err(|source| ClientError::Connect {
            path: path(),
            source,
        })?;
        let (mut sender, connection) =
            http1::handshake(TokioIo::new(stream)).await.map_err(http)?;
        let connection = task::spawn(connection);
        let mut request = Request::new(Empty::<Bytes>::new());
        *request.method_mut() = method;
        // Parsing does not fail: the URI is a constant, or contains a name that was parsed.
        *request.uri_mut() = uri.parse().unwrap_or_default();
        let host = hyper::header::HeaderValue::from_static("localhost");
        request.headers_mut().insert(HOST, host);
        let answer = sender.send_request(request).await.map_err(http)?;
        let (parts, body) = answer.into_parts();
        let body = Limited::new(body, MAX_ANSWER).collect().await;
        let body = body.map_err(|source| ClientError::Body {
            path: path(),
            source,
        })?;
        connection.abort();
        Ok((parts.status, body.to_bytes().to_vec()))
    }
}
