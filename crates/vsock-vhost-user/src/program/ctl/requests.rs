// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! The requests, and what their answers mean.

use hyper::{Method, StatusCode};

use super::client::Client;
use super::error::CtlError;
use crate::program::control::{ConnectionName, Failure, Listing};

/// The connections of all guests.
pub(super) async fn connections(client: &Client) -> Result<Listing, CtlError> {
    let text = get(client, "/connections").await?;
    serde_json::from_slice(&text).map_err(|_| CtlError::Answer {
        path: client.path().to_owned(),
    })
}

/// What there is at a path.
pub(super) async fn get(client: &Client, uri: &str) -> Result<Vec<u8>, CtlError> {
    let (status, body) = client.ask(Method::GET, uri).await?;
    if status == StatusCode::OK {
        Ok(body)
    } else {
        Err(refused(status, &body))
    }
}

/// Ends a connection.
pub(super) async fn close(client: &Client, id: ConnectionName) -> Result<(), CtlError> {
    let uri = format!("/connections/{id}");
    let (status, body) = client.ask(Method::DELETE, &uri).await?;
    match status {
        StatusCode::NO_CONTENT => Ok(()),
        StatusCode::NOT_FOUND => Err(CtlError::NoConnection(id)),
        status => Err(refused(status, &body)),
    }
}

fn refused(status: StatusCode, body: &[u8]) -> CtlError {
    let text = match serde_json::from_slice::<Failure>(body) {
        Ok(failure) => failure.error,
        Err(_) => "it does not say why".to_owned(),
    };
    CtlError::Refused { status, text }
}
