// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! A gRPC call from the host to a service in the guest, through a tonic channel. What `tonic-build`
//! generates from a `.proto` file is written by hand here, for one method from a string to a
//! string.
//!
//! This process plays the guest: `cargo run -p vsock-tokio --all-features --example grpc`

#![expect(clippy::print_stdout, reason = "an example for people")]

use std::convert::Infallible;
use std::error::Error;

use tokio::task::yield_now;
use tokio_stream::once;
use tonic_prost::ProstCodec;
use tonic014::body::Body;
use tonic014::transport::{Endpoint, Server};
use tonic014::{Request, Response, Status, client, server};
use tower::service_fn;
use vsock_inner::{VsockBackend, VsockInnerBackend};
use vsock_tokio::{AsyncConnector, AsyncFdStream};

type Codec = ProstCodec<String, String>;

async fn greet(name: Request<String>) -> Result<Response<String>, Status> {
    Ok(Response::new(format!("hello, {}", name.into_inner())))
}

/// The device, which accepts one connection, and the service in the guest.
async fn guest(mut backend: VsockInnerBackend) -> Result<(), Box<dyn Error + Send + Sync>> {
    while backend.counters().pending == 0 {
        yield_now().await;
    }
    let mut device = backend.accept()?;
    println!("a connection to port {:?}", device.requested_port());
    device.confirm(1 << 30)?;
    let stream = AsyncFdStream::new(device);
    let greeter = service_fn(async |request: hyper::Request<Body>| {
        let mut grpc = server::Grpc::new(Codec::default());
        Ok::<_, Infallible>(grpc.unary(service_fn(greet), request).await)
    });
    let server = Server::builder();
    Ok(server.serve_with_incoming(greeter, once(stream)).await?)
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn Error>> {
    let backend = VsockInnerBackend::new()?; // goes into the device
    let connector = AsyncConnector::from(backend.get_connector()).to_port(50_051);
    tokio::spawn(guest(backend));

    let endpoint = Endpoint::from_static("http://guest");
    let mut grpc = client::Grpc::new(endpoint.connect_with_connector(connector).await?);
    grpc.ready().await?;
    let (name, path) = ("host".to_owned(), "/greeter.Greeter/Greet".parse()?);
    let answer = grpc.unary(Request::new(name), path, Codec::default());
    println!("{}", answer.await?.into_inner());
    Ok(())
}
