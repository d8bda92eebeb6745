// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! The host connects to an echo service in the guest, and the guest to one in the host.
//!
//! This process plays the guest: `cargo run -p vsock-tokio --features fd --example echo`

#![expect(clippy::print_stdout, reason = "an example for people")]

use std::io;

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, copy, split};
use tokio::task::yield_now;
use vsock_inner::{VsockAddr, VsockBackend, VsockInnerBackend};
use vsock_tokio::{AsyncConnector, AsyncFdStream, AsyncListener};

const GUEST: VsockAddr = VsockAddr { cid: 3, port: 4000 };
const HOST: VsockAddr = VsockAddr { cid: 2, port: 7 };

/// Sends all data back, until the peer has ended its direction. Dropping the stream ends ours.
async fn echo(stream: impl AsyncRead + AsyncWrite) -> io::Result<()> {
    let (mut reader, mut writer) = split(stream);
    copy(&mut reader, &mut writer).await.map(drop)
}

/// Sends a text, and returns what comes back.
async fn say(mut stream: impl AsyncRead + AsyncWrite + Unpin, text: &str) -> io::Result<String> {
    stream.write_all(text.as_bytes()).await?;
    stream.shutdown().await?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await?;
    Ok(answer)
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> io::Result<()> {
    let mut backend = VsockInnerBackend::new()?; // goes into the device
    let connector = AsyncConnector::from(backend.get_connector());
    let listener: AsyncListener = connector.listen(HOST.port)?;

    // The host connects to port 7 of the guest, whose device accepts and confirms.
    let calling = tokio::spawn(async move { say(connector.connect_to(7).await?, "hello").await });
    yield_now().await;
    let mut device = backend.accept()?;
    println!(
        "the host asks for port {:?} of the guest",
        device.requested_port()
    );
    device.confirm_from(GUEST, HOST)?;
    tokio::spawn(echo(AsyncFdStream::new(device)?));
    println!("the guest answers {:?}", calling.await??);

    // The guest connects to port 7 of the host.
    let device = backend.connect_from(GUEST, HOST)?;
    let (stream, peer) = listener.accept().await?;
    tokio::spawn(echo(stream));
    let answer = say(AsyncFdStream::new(device)?, "good evening").await?;
    println!("the host answers {answer:?} to {peer:?}");
    Ok(())
}
