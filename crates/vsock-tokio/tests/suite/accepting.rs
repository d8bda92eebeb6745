// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Connections that the guest opens to the host.

use std::future::poll_fn;
use std::io::ErrorKind;
use std::pin::Pin;
use std::sync::Arc;

use futures_core::Stream;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::task::{JoinSet, yield_now};
use vsock_inner::VsockBackend;
use vsock_tokio::{AsyncListener, Incoming};

use crate::guest::{Guest, HOST};
use crate::{assert_fails, on_both, one_thread, soon};

async fn next(incoming: &mut Incoming) -> Option<std::io::Result<vsock_tokio::AsyncStream>> {
    poll_fn(|cx| Pin::new(&mut *incoming).poll_next(cx)).await
}

#[test]
fn an_accept_that_waits_gets_the_next_connection() {
    on_both(async || {
        let guest = Guest::new();
        let listener = guest.listener();
        let accepting = tokio::spawn(async move {
            let (mut stream, _) = listener.accept().await.unwrap();
            stream.read_u8().await.unwrap()
        });
        yield_now().await;
        let mut device = guest.connect();
        device.write_u8(7).await.unwrap();
        assert_eq!(accepting.await.unwrap(), 7);
    });
}

#[test]
fn every_task_that_waits_gets_a_connection() {
    on_both(async || {
        let guest = Guest::new();
        let listener = Arc::new(guest.listener());
        let mut tasks = JoinSet::new();
        for _ in 0..50 {
            let listener = Arc::clone(&listener);
            tasks.spawn(async move {
                let (mut stream, _) = listener.accept().await.unwrap();
                stream.read_u8().await.unwrap()
            });
        }
        yield_now().await;
        for number in 0..50 {
            guest.connect().write_u8(number).await.unwrap();
        }
        let mut numbers = tasks.join_all().await;
        numbers.sort_unstable();
        assert!(numbers.into_iter().eq(0..50));
    });
}

#[test]
fn the_backends_drop_ends_accepts_and_incoming() {
    one_thread().block_on(soon(async {
        let guest = Guest::new();
        let listener: AsyncListener = guest.listener();
        let mut incoming = AsyncListener::from(guest.backend.listen(1025).unwrap()).incoming();
        let accepting = tokio::spawn(async move { listener.accept().await.map(drop) });
        let streaming = tokio::spawn(async move {
            let first = next(&mut incoming).await.unwrap().is_ok();
            let second = next(&mut incoming).await.is_none();
            (first, second, next(&mut incoming).await.is_none())
        });
        let _device = guest.backend.connect(1025).unwrap();
        yield_now().await;
        drop(guest);
        assert_fails(accepting.await.unwrap(), ErrorKind::NotConnected);
        assert_eq!(streaming.await.unwrap(), (true, true, true));
    }));
}

#[test]
fn a_cancelled_listener_returns_interrupted_and_continues_after_resume() {
    one_thread().block_on(soon(async {
        let guest = Guest::new();
        let inner = guest.backend.listen(HOST.port).unwrap();
        let canceller = inner.canceller();
        let listener = AsyncListener::from(inner);
        canceller.cancel();
        assert_fails(listener.accept().await, ErrorKind::Interrupted);
        canceller.resume();
        let _device = guest.connect();
        drop(listener.accept().await.unwrap());

        let mut incoming = listener.incoming();
        let streaming = tokio::spawn(async move {
            let first = next(&mut incoming).await;
            (first, next(&mut incoming).await.is_none())
        });
        yield_now().await;
        canceller.cancel();
        let (first, ended) = streaming.await.unwrap();
        assert_fails(first.unwrap(), ErrorKind::Interrupted);
        assert!(ended);
        drop(guest.backend.listen(HOST.port).unwrap()); // the port is free
    }));
}

#[test]
fn a_listener_that_is_dropped_frees_its_port() {
    let guest = Guest::new();
    let connector = guest.connector();
    let listener = connector.listen(HOST.port).unwrap();
    assert_fails(connector.listen(HOST.port), ErrorKind::AddrInUse);
    drop(listener);
    let listener = connector.listen(HOST.port).unwrap().into_inner();
    assert_eq!(listener.port(), HOST.port);
    assert_fails(connector.listen(0), ErrorKind::InvalidInput);
}
