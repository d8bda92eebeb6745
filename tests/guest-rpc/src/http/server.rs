// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! The service over HTTP.

use std::future::pending;
use std::io;

use axum08::body::{Body, Bytes};
use axum08::extract::{DefaultBodyLimit, State};
use axum08::http::StatusCode;
use axum08::routing::post;
use axum08::serve::Listener;
use axum08::{Router, serve};
use prost::Message;
use tokio_stream::StreamExt;

use super::{CHAT, DOWNLOAD, ECHO, REFUSE, REFUSED, UPLOAD, WAIT};
use crate::client::MOST;
use crate::load::{self, Load, Tally};
use crate::message::{Amount, Piece, Refusal};
use crate::transport::{Connection, Incoming};

type Answer<T> = Result<T, (StatusCode, String)>;

pub(crate) async fn run(load: Load, incoming: Incoming) {
    let router = Router::new()
        .route(ECHO, post(echo))
        .route(UPLOAD, post(upload))
        .route(DOWNLOAD, post(download))
        .route(CHAT, post(chat))
        .route(WAIT, post(wait))
        .route(REFUSE, post(refuse))
        .layer(DefaultBodyLimit::max(MOST))
        .with_state(load);
    serve(Port(incoming), router).await.ok();
}

/// A listening port of the host or the guest.
struct Port(Incoming);

impl Listener for Port {
    type Io = Connection;
    type Addr = ();

    async fn accept(&mut self) -> (Connection, ()) {
        loop {
            match self.0.next().await {
                Some(Ok(stream)) => return (stream, ()),
                Some(Err(_)) => {}
                None => pending().await,
            }
        }
    }

    fn local_addr(&self) -> io::Result<()> {
        Ok(())
    }
}

async fn echo(State(load): State<Load>, body: Bytes) -> Answer<Vec<u8>> {
    let call = load.begin();
    let piece = decode::<Piece>(body)?;
    call.finish();
    Ok(piece.encode_to_vec())
}

async fn upload(State(load): State<Load>, body: Body) -> Answer<Vec<u8>> {
    let call = load.begin();
    let mut tally = Tally::default();
    let mut bytes = body.into_data_stream();
    while let Some(bytes) = bytes.next().await {
        tally.add(&bytes.map_err(unreadable)?);
    }
    call.finish();
    Ok(tally.summary().encode_to_vec())
}

async fn download(State(load): State<Load>, body: Bytes) -> Answer<Body> {
    let mut call = Some(load.begin());
    let pieces = decode::<Amount>(body)?
        .pieces()
        .map(|piece| Some(piece.bytes));
    // The last element is not part of the body: it records that the stream was read to its end.
    let bytes = tokio_stream::iter(pieces.chain([None])).filter_map(move |bytes| {
        if bytes.is_none() {
            if let Some(call) = call.take() {
                call.finish();
            }
        }
        bytes.map(Ok::<_, io::Error>)
    });
    Ok(Body::from_stream(bytes))
}

async fn chat(State(load): State<Load>, body: Body) -> Body {
    let mut call = Some(load.begin());
    let bytes = body.into_data_stream().map(Some);
    let bytes = bytes.chain(tokio_stream::once(None));
    Body::from_stream(bytes.filter_map(move |bytes| {
        if bytes.is_none() {
            if let Some(call) = call.take() {
                call.finish();
            }
        }
        bytes
    }))
}

async fn wait(State(load): State<Load>) {
    let _call = load.begin();
    pending::<()>().await;
}

async fn refuse(State(load): State<Load>, body: Bytes) -> Answer<()> {
    let call = load.begin();
    let code = u16::try_from(decode::<Refusal>(body)?.code).unwrap_or(0);
    call.finish();
    let status = StatusCode::from_u16(REFUSED + code).map_err(unreadable)?;
    Err((status, load::REFUSED.to_owned()))
}

fn decode<T: Message + Default>(bytes: Bytes) -> Answer<T> {
    T::decode(bytes).map_err(unreadable)
}

fn unreadable(error: impl std::fmt::Display) -> (StatusCode, String) {
    (StatusCode::BAD_REQUEST, error.to_string())
}
