// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! axum serves the guest on a port of the host.
//!
//! This process plays the guest: `cargo run -p vsock-tokio --all-features --example http`

#![expect(clippy::print_stdout, reason = "an example for people")]

use std::error::Error;

use axum08::extract::ConnectInfo;
use axum08::routing::get;
use axum08::{Router, serve};
use http_body_util::{BodyExt, Empty};
use hyper::Request;
use hyper::body::Bytes;
use hyper::client::conn::http1::handshake;
use hyper_util::rt::TokioIo;
use vsock_inner::{VsockAddr, VsockBackend, VsockInnerBackend};
use vsock_tokio::{AsyncFdStream, AsyncListener, VsockConnectInfo};

const GUEST: VsockAddr = VsockAddr { cid: 3, port: 4000 };
const HOST: VsockAddr = VsockAddr { cid: 2, port: 80 };

async fn hello(ConnectInfo(info): ConnectInfo<VsockConnectInfo>) -> String {
    format!("hello, guest at {:?}", info.peer_addr())
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn Error>> {
    let backend = VsockInnerBackend::new()?; // goes into the device
    let listener = AsyncListener::from(backend.listen(HOST.port)?);
    let app = Router::new().route("/", get(hello));
    let app = app.into_make_service_with_connect_info::<VsockConnectInfo>();
    tokio::spawn(serve(listener, app).into_future());

    // What the device does when the guest connects, then the guest program.
    let guest = AsyncFdStream::new(backend.connect_from(GUEST, HOST)?)?;
    let (mut client, connection) = handshake(TokioIo::new(guest)).await?;
    tokio::spawn(connection);
    let request = Request::get("/")
        .header("host", "host")
        .body(Empty::<Bytes>::new())?;
    let response = client.send_request(request).await?;
    println!("{}", response.status());
    let body = response.into_body().collect().await?.to_bytes();
    println!("{}", String::from_utf8_lossy(&body));
    Ok(())
}
