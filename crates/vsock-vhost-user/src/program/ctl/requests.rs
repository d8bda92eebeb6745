// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! The requests to a running program, and the interpretation of its answers.

use hyper::{Method, StatusCode};
use serde::de::DeserializeOwned;

use super::client::Client;
use super::error::CtlError;
use crate::program::capture::{CaptureStarted, CaptureStopped};
use crate::program::control::{ConnectionName, Failure, Listing};

/// Returns the connections of all guests.
pub(super) async fn connections(client: &Client) -> Result<Listing, CtlError> {
    let text = get(client, "/connections").await?;
    parse(client, &text)
}

/// Returns the body of `GET uri`.
pub(super) async fn get(client: &Client, uri: &str) -> Result<Vec<u8>, CtlError> {
    let (status, body) = client.ask(Method::GET, uri).await?;
    if status == StatusCode::OK {
        Ok(body)
    } else {
        Err(refused(status, &body))
    }
}

/// Resets a connection.
pub(super) async fn close(client: &Client, id: ConnectionName) -> Result<(), CtlError> {
    let uri = format!("/connections/{id}");
    let (status, body) = client.ask(Method::DELETE, &uri).await?;
    match status {
        StatusCode::NO_CONTENT => Ok(()),
        StatusCode::NOT_FOUND => Err(CtlError::NoConnection(id)),
        status => Err(refused(status, &body)),
    }
}

/// Starts a capture.
pub(super) async fn start_capture(client: &Client) -> Result<CaptureStarted, CtlError> {
    match client.ask(Method::POST, "/capture").await? {
        (StatusCode::CREATED, body) => parse(client, &body),
        (status, body) => Err(refused(status, &body)),
    }
}

/// Stops the capture.
pub(super) async fn stop_capture(client: &Client) -> Result<CaptureStopped, CtlError> {
    match client.ask(Method::DELETE, "/capture").await? {
        (StatusCode::OK, body) => parse(client, &body),
        (status, body) => Err(refused(status, &body)),
    }
}

fn parse<T: DeserializeOwned>(client: &Client, text: &[u8]) -> Result<T, CtlError> {
    serde_json::from_slice(text).map_err(|_| CtlError::Answer {
        path: client.path().to_owned(),
    })
}

fn refused(status: StatusCode, body: &[u8]) -> CtlError {
    let text = match serde_json::from_slice::<Failure>(body) {
        Ok(failure) => failure.error,
        Err(_) => "no reason given".to_owned(),
    };
    CtlError::Refused { status, text }
}
