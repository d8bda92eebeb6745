// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! A ttrpc call from the host to a service in the guest, as Kata's runtime calls its agent. What
//! `ttrpc-codegen` generates from a `.proto` file is written by hand here, for one method whose
//! payload is text.
//!
//! This process plays the guest: `cargo run -p vsock-tokio --features fd --example ttrpc`

#![expect(clippy::print_stdout, reason = "an example for people")]

use std::collections::HashMap;
use std::error::Error;

use async_trait::async_trait;
use tokio::task::yield_now;
use ttrpc::asynchronous::transport::{Listener, Socket};
use ttrpc::asynchronous::{Client, MethodHandler, Server, Service, TtrpcContext};
use ttrpc::{Code, Request, Response, get_status};
use vsock_inner::{VsockBackend, VsockInnerBackend};
use vsock_tokio::{AsyncConnector, AsyncFdStream};

const PORT: u32 = 1024; // the port of Kata's agent

struct Greet;
#[async_trait]
impl MethodHandler for Greet {
    async fn handler(&self, _: TtrpcContext, request: Request) -> ttrpc::Result<Response> {
        let mut response = Response::new();
        response.set_status(get_status(Code::OK, ""));
        response.payload = [b"hello, ", &*request.payload].concat();
        Ok(response)
    }
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn Error>> {
    let mut backend = VsockInnerBackend::new()?; // goes into the device
    let connector = AsyncConnector::from(backend.get_connector());
    let connecting = tokio::spawn(async move { connector.connect_to(PORT).await });

    // What a device does. Its end plays the guest.
    yield_now().await;
    let mut device = backend.accept()?;
    assert_eq!(device.requested_port(), Some(PORT));
    device.confirm(PORT)?;
    let guest = AsyncFdStream::new(device)?;
    let greet: Box<dyn MethodHandler + Send + Sync> = Box::new(Greet);
    let methods = HashMap::from([("Greet".to_owned(), greet)]);
    let streams = HashMap::new();
    let service = Service { methods, streams };
    let mut server = Server::new()
        .add_listener(Listener::new(tokio_stream::once(Ok(guest))))
        .register_service(HashMap::from([("greeter.Greeter".to_owned(), service)]));
    server.start().await?;

    let client = Client::new(Socket::new(connecting.await??));
    let mut request = Request::new();
    request.service = "greeter.Greeter".to_owned();
    request.method = "Greet".to_owned();
    request.payload = b"host".to_vec();
    let answer = client.request(request).await?;
    println!("{}", String::from_utf8(answer.payload)?);
    Ok(())
}
