// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! The answers to the requests of the control socket.

use std::convert::Infallible;
use std::sync::Arc;

use http_body_util::Full;
use hyper::body::{Bytes, Incoming};
use hyper::header::{ALLOW, CONTENT_TYPE, HeaderValue};
use hyper::{Method, Request, Response, StatusCode};
use serde::Serialize;
use vsock_vhost_user::InspectError;

use super::connection_name::ConnectionName;
use super::controlled::Controlled;
use super::guests::Guests;
use super::listing::{Failure, Listing};
use super::metrics;
use crate::program::capture::{CaptureControl, CaptureOrder, CaptureOutcome, CaptureRefusal};

type Answer = Response<Full<Bytes>>;

const JSON: HeaderValue = HeaderValue::from_static("application/json");

/// Answers one request. Its body is ignored.
pub(super) async fn answer(
    controlled: Arc<Controlled>,
    request: Request<Incoming>,
) -> Result<Answer, Infallible> {
    let Controlled {
        guests, capture, ..
    } = &*controlled;
    let reads = [Method::GET, Method::HEAD].contains(request.method());
    let deletes = *request.method() == Method::DELETE;
    let posts = *request.method() == Method::POST;
    let path = request.uri().path();
    Ok(match path.strip_prefix("/connections/") {
        Some(name) if deletes => delete(guests, name).await,
        Some(_) => not_allowed("DELETE"),
        None if path == "/metrics" && reads => scrape(guests).await,
        None if path == "/connections" && reads => {
            let listing = Listing::of(&guests.connections().await);
            json(StatusCode::OK, &listing)
        }
        None if ["/metrics", "/connections"].contains(&path) => not_allowed("GET, HEAD"),
        None if path == "/capture" && posts => ordered(capture, CaptureOrder::Start).await,
        None if path == "/capture" && deletes => ordered(capture, CaptureOrder::Stop).await,
        None if path == "/capture" => not_allowed("POST, DELETE"),
        None => failure(
            StatusCode::NOT_FOUND,
            "expected GET /metrics, GET /connections, DELETE /connections/ID, POST /capture or \
             DELETE /capture"
                .to_owned(),
        ),
    })
}

async fn scrape(guests: &Guests) -> Answer {
    match metrics::text_of(guests.reports().await) {
        Ok(page) => typed(
            StatusCode::OK,
            HeaderValue::from_static(metrics::CONTENT_TYPE),
            page.into(),
        ),
        Err(error) => failure(StatusCode::INTERNAL_SERVER_ERROR, error.to_string()),
    }
}

async fn delete(guests: &Guests, name: &str) -> Answer {
    let name: ConnectionName = match name.parse() {
        Ok(name) => name,
        Err(error) => return failure(StatusCode::BAD_REQUEST, format!("{name}: {error}")),
    };
    match guests.reset(name).await {
        Ok(true) => {
            let mut answer = Response::new(Full::default());
            *answer.status_mut() = StatusCode::NO_CONTENT;
            answer
        }
        Ok(false) | Err(InspectError::Ended) => failure(
            StatusCode::NOT_FOUND,
            format!("there is no connection {name}"),
        ),
        Err(error) => failure(StatusCode::SERVICE_UNAVAILABLE, error.to_string()),
    }
}

async fn ordered(capture: &CaptureControl, order: CaptureOrder) -> Answer {
    match capture.order(order).await {
        Ok(CaptureOutcome::Started(started)) => json(StatusCode::CREATED, &started),
        Ok(CaptureOutcome::Stopped(stopped)) => json(StatusCode::OK, &stopped),
        Err(refusal) => {
            let status = match refusal {
                CaptureRefusal::NotRunning => StatusCode::NOT_FOUND,
                CaptureRefusal::Running(_)
                | CaptureRefusal::NoDirectory
                | CaptureRefusal::TooManyFiles(_) => StatusCode::CONFLICT,
                CaptureRefusal::Failed(_) => StatusCode::INTERNAL_SERVER_ERROR,
                CaptureRefusal::Busy => StatusCode::SERVICE_UNAVAILABLE,
            };
            failure(status, refusal.to_string())
        }
    }
}

fn not_allowed(allowed: &'static str) -> Answer {
    let mut answer = failure(
        StatusCode::METHOD_NOT_ALLOWED,
        format!("expected one of these methods: {allowed}"),
    );
    let allowed = HeaderValue::from_static(allowed);
    answer.headers_mut().insert(ALLOW, allowed);
    answer
}

fn failure(status: StatusCode, error: String) -> Answer {
    json(status, &Failure { error })
}

fn json(status: StatusCode, value: &impl Serialize) -> Answer {
    match serde_json::to_vec(value) {
        Ok(mut text) => {
            text.push(b'\n');
            typed(status, JSON, text.into())
        }
        Err(error) => typed(
            StatusCode::INTERNAL_SERVER_ERROR,
            HeaderValue::from_static("text/plain; charset=utf-8"),
            error.to_string().into(),
        ),
    }
}

fn typed(status: StatusCode, content_type: HeaderValue, body: Bytes) -> Answer {
    let mut answer = Response::new(Full::new(body));
    *answer.status_mut() = status;
    answer.headers_mut().insert(CONTENT_TYPE, content_type);
    answer
}
