// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! hyper's HTTP/1 and HTTP/2, and axum, over in-process streams.

use std::convert::Infallible;

use axum08::Router;
use axum08::extract::ConnectInfo;
use axum08::routing::{get, post};
use http_body_util::{BodyExt, Full};
use hyper::body::{Bytes, Incoming};
use hyper::client::conn::{http1 as client1, http2 as client2};
use hyper::server::conn::{http1, http2};
use hyper::service::service_fn;
use hyper::{Request, Response};
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::task::JoinSet;
use vsock_tokio::{AsyncListener, AsyncStream, VsockConnectInfo};

use crate::guest::{GUEST, Guest, HOST};
use crate::streams::pattern;
use crate::{on_both, one_thread, soon, two_threads};

const LARGE: usize = 1 << 20;

async fn reversed(request: Request<Incoming>) -> Result<Response<Full<Bytes>>, Infallible> {
    let mut body = request
        .into_body()
        .collect()
        .await
        .unwrap()
        .to_bytes()
        .to_vec();
    body.reverse();
    Ok(Response::new(Full::from(body)))
}

fn request(body: Vec<u8>) -> Request<Full<Bytes>> {
    let request = Request::post("http://guest/").header("host", "guest");
    request.body(Full::from(body)).unwrap()
}

async fn body(response: Response<Incoming>) -> Bytes {
    response.into_body().collect().await.unwrap().to_bytes()
}

fn expected(len: usize) -> Vec<u8> {
    let mut bytes = pattern(len);
    bytes.reverse();
    bytes
}

#[test]
fn http_1_keeps_a_connection_for_many_requests() {
    on_both(async || {
        let (near, far) = AsyncStream::pair().unwrap();
        let serving =
            http1::Builder::new().serve_connection(TokioIo::new(far), service_fn(reversed));
        let serving = tokio::spawn(serving);
        let (mut client, connection) = client1::handshake(TokioIo::new(near)).await.unwrap();
        tokio::spawn(connection);
        for len in [0, 1, 1000, 70_000, LARGE] {
            client.ready().await.unwrap();
            let response = client.send_request(request(pattern(len))).await.unwrap();
            assert!(body(response).await == expected(len));
        }
        drop(client);
        serving.await.unwrap().unwrap();
    });
}

#[test]
fn http_2_carries_many_concurrent_requests() {
    on_both(async || {
        let (near, far) = AsyncStream::pair().unwrap();
        let serving = http2::Builder::new(TokioExecutor::new());
        let serving = serving.serve_connection(TokioIo::new(far), service_fn(reversed));
        let serving = tokio::spawn(serving);
        let shaking = client2::handshake(TokioExecutor::new(), TokioIo::new(near));
        let (client, connection) = shaking.await.unwrap();
        tokio::spawn(connection);
        let mut calls = JoinSet::new();
        for len in [0, 1, 1000, 70_000, LARGE].repeat(2) {
            let mut client = client.clone();
            calls.spawn(async move {
                let response = client.send_request(request(pattern(len))).await.unwrap();
                body(response).await == expected(len)
            });
        }
        assert!(calls.join_all().await.into_iter().all(|right| right));
        drop(client);
        serving.await.unwrap().unwrap();
    });
}

async fn caller(ConnectInfo(info): ConnectInfo<VsockConnectInfo>) -> String {
    format!("{:?} {:?}", info.peer_addr(), info.local_addr())
}

#[test]
fn axum_serves_a_listener_until_it_is_stopped() {
    two_threads().block_on(soon(async {
        let guest = Guest::new();
        let app = Router::new().route("/", get(caller)).route(
            "/len",
            post(|body: Bytes| async move { body.len().to_string() }),
        );
        let app = app.into_make_service_with_connect_info::<VsockConnectInfo>();
        let (stop, stopped) = tokio::sync::oneshot::channel::<()>();
        let serving = axum08::serve(guest.listener(), app)
            .with_graceful_shutdown(async { drop(stopped.await) });
        let serving = tokio::spawn(serving.into_future());

        let mut clients = JoinSet::new();
        for _ in 0..10 {
            let device = TokioIo::new(guest.connect());
            clients.spawn(async move {
                let (mut client, connection) = client1::handshake(device).await.unwrap();
                tokio::spawn(connection);
                let asking = Request::get("/")
                    .header("host", "host")
                    .body(Full::<Bytes>::default());
                let addresses_seen = client.send_request(asking.unwrap()).await.unwrap();
                let addresses_seen = body(addresses_seen).await;
                let asking = Request::post("/len").header("host", "host");
                let asking = asking.body(Full::from(pattern(100_000)));
                client.ready().await.unwrap();
                let len = client.send_request(asking.unwrap()).await.unwrap();
                (addresses_seen, body(len).await)
            });
        }
        let addresses = format!("{:?} {:?}", Some(GUEST), Some(HOST));
        for (addresses_seen, len) in clients.join_all().await {
            assert_eq!(
                (&addresses_seen[..], &len[..]),
                (addresses.as_bytes(), b"100000".as_slice())
            );
        }
        stop.send(()).unwrap();
        serving.await.unwrap().unwrap();
    }));
}

#[test]
fn axum_waits_quietly_after_the_backend_is_dropped() {
    one_thread().block_on(soon(async {
        let guest = Guest::new();
        let mut listener: AsyncListener = guest.listener();
        assert_eq!(
            axum08::serve::Listener::local_addr(&listener).unwrap(),
            Some(HOST)
        );
        drop(guest);
        let accepting = tokio::spawn(async move {
            axum08::serve::Listener::accept(&mut listener).await;
        });
        for _ in 0..10 {
            tokio::task::yield_now().await;
        }
        assert!(!accepting.is_finished());
        accepting.abort();
    }));
}
