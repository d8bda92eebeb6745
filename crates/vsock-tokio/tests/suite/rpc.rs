// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! gRPC with tonic, in both directions.

use std::convert::Infallible;
use std::future::pending;
use std::time::Duration;

use hyper::Request as HttpRequest;
use tokio::task::JoinSet;
use tonic_prost::ProstCodec;
use tonic014::body::Body;
use tonic014::transport::{Channel, Endpoint, Server};
use tonic014::{Code, Request, Response, Status, client, server};
use tower::service_fn;
use tower_service::Service;
use vsock_tokio::{AsyncStream, VsockConnectInfo};

use crate::guest::{GUEST, Guest, HOST};
use crate::{on_both, one_thread, soon};

type Codec = ProstCodec<String, String>;

/// Answers with the caller's address, or never answers if the request says so.
async fn greet(name: Request<String>) -> Result<Response<String>, Status> {
    if name.get_ref() == "never" {
        pending::<()>().await;
    }
    let info = name.extensions().get::<VsockConnectInfo>().copied();
    let peer = info.and_then(|info| info.peer_addr());
    let peer = peer.map_or_else(String::new, |peer| peer.to_string());
    Ok(Response::new(format!("{} from {peer}", name.into_inner())))
}

type Served = hyper::Response<Body>;

fn greeter() -> impl Service<HttpRequest<Body>, Response = Served, Error = Infallible, Future: Send>
+ Clone
+ Send
+ 'static {
    service_fn(async |request: HttpRequest<Body>| {
        let mut grpc = server::Grpc::new(Codec::default());
        Ok(grpc.unary(service_fn(greet), request).await)
    })
}

async fn call(channel: &Channel, name: &str, within: Option<Duration>) -> Result<String, Status> {
    let mut grpc = client::Grpc::new(channel.clone());
    let ready = grpc.ready().await;
    ready.map_err(|error| Status::unavailable(error.to_string()))?;
    let mut request = Request::new(name.to_owned());
    if let Some(within) = within {
        request.set_timeout(within);
    }
    let path = "/greeter.Greeter/Greet".parse().unwrap();
    let answer = grpc.unary(request, path, Codec::default()).await?;
    Ok(answer.into_inner())
}

/// The guest: serves each connection from the host with a server of its own.
async fn serve_guest(mut guest: Guest) {
    let mut serving = JoinSet::new();
    loop {
        let (_, stream) = guest.accept().await;
        let streams = tokio_stream::once(std::io::Result::Ok(stream));
        serving.spawn(Server::builder().serve_with_incoming(greeter(), streams));
    }
}

fn endpoint() -> Endpoint {
    Endpoint::from_static("http://guest")
}

#[test]
fn a_channel_calls_a_service_of_the_guest() {
    on_both(async || {
        let guest = Guest::new();
        let connector = guest.connector().to_port(GUEST.port);
        let guest = tokio::spawn(serve_guest(guest));
        let channel = endpoint().connect_with_connector(connector).await.unwrap();
        let mut calls = JoinSet::new();
        for number in 0..1000 {
            let channel = channel.clone();
            calls.spawn(async move {
                let name = number.to_string();
                call(&channel, &name, None).await.unwrap() == format!("{name} from {HOST}")
            });
        }
        assert!(calls.join_all().await.into_iter().all(|right| right));
        let late = call(&channel, "never", Some(Duration::from_millis(5))).await;
        assert!(matches!(
            late.unwrap_err().code(),
            Code::Cancelled | Code::DeadlineExceeded
        ));
        assert_eq!(
            call(&channel, "again", None).await.unwrap(),
            format!("again from {HOST}")
        );
        guest.abort();
    });
}

#[test]
fn a_channel_reconnects_after_its_connection_breaks() {
    one_thread().block_on(soon(async {
        let mut guest = Guest::new();
        let channel = endpoint().connect_with_connector_lazy(guest.connector().to_port(GUEST.port));
        let first = tokio::spawn({
            let channel = channel.clone();
            async move { call(&channel, "first", None).await }
        });
        let (port, stream) = guest.accept().await;
        assert_eq!(port, GUEST.port);
        stream.abort();
        first.await.unwrap().unwrap_err();
        let guest = tokio::spawn(serve_guest(guest));
        assert_eq!(
            call(&channel, "second", None).await.unwrap(),
            format!("second from {HOST}")
        );
        guest.abort();
    }));
}

#[test]
fn the_guest_calls_a_service_of_the_host() {
    on_both(async || {
        let guest = Guest::new();
        let incoming = guest.listener().incoming();
        let serving = tokio::spawn(Server::builder().serve_with_incoming(greeter(), incoming));
        let streams: Vec<AsyncStream> = (0..4).map(|_| guest.connect()).collect();
        for stream in streams {
            let mut stream = Some(hyper_util::rt::TokioIo::new(stream));
            let once = service_fn(move |_| {
                let stream = stream.take();
                async move { stream.ok_or_else(|| std::io::Error::other("once")) }
            });
            let channel = endpoint().connect_with_connector(once).await.unwrap();
            for _ in 0..50 {
                let answer = call(&channel, "guest", None).await.unwrap();
                assert_eq!(answer, format!("guest from {GUEST}"));
            }
        }
        drop(guest);
        serving.await.unwrap().unwrap(); // ends with the backend
    });
}

#[test]
fn a_guest_that_refuses_is_an_error_of_the_channel() {
    one_thread().block_on(soon(async {
        let guest = Guest::new();
        let connector = guest.connector().to_port(GUEST.port);
        drop(guest);
        let endpoint = endpoint();
        let connecting = endpoint.connect_with_connector(connector);
        connecting.await.unwrap_err();
    }));
}
