// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Connections that the host opens to the guest.

use std::io::ErrorKind;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::select;
use tokio::task::yield_now;
use tokio::time::timeout;
use vsock_inner::VsockInnerConfig;

use crate::guest::{GUEST, Guest, HOST};
use crate::{assert_fails, on_both, one_thread, soon};

#[test]
fn a_connection_is_ready_when_the_guest_has_accepted() {
    on_both(async || {
        let mut guest = Guest::new();
        let connector = guest.connector();
        let connecting = tokio::spawn(async move {
            let mut stream = connector.connect_to(GUEST.port).await.unwrap();
            stream.write_all(b"hello").await.unwrap();
            assert_eq!(stream.peer_addr().unwrap(), GUEST);
            assert_eq!(stream.local_addr().unwrap(), HOST);
            stream
        });
        let (port, mut device) = guest.accept().await;
        assert_eq!(port, GUEST.port);
        let mut text = [0; 5];
        device.read_exact(&mut text).await.unwrap();
        assert_eq!(&text, b"hello");
        drop(connecting.await.unwrap());
    });
}

#[test]
fn a_guest_that_refuses_is_an_error() {
    one_thread().block_on(soon(async {
        let mut guest = Guest::new();
        let connector = guest.connector();
        let connecting = tokio::spawn(async move { connector.connect_to(52).await.map(drop) });
        guest.asked().await.abort();
        assert_fails(connecting.await.unwrap(), ErrorKind::ConnectionRefused);
        assert_eq!(guest.backend.counters().open, 0);
    }));
}

#[test]
fn a_malformed_answer_is_invalid_data() {
    one_thread().block_on(soon(async {
        let mut guest = Guest::new();
        let connector = guest.connector();
        let connecting = tokio::spawn(async move { connector.connect_to(52).await.map(drop) });
        guest.asked().await.write_all(b"NO 52\n").unwrap();
        assert_fails(connecting.await.unwrap(), ErrorKind::InvalidData);
    }));
}

#[test]
fn a_full_backlog_and_a_dropped_backend_refuse() {
    one_thread().block_on(soon(async {
        let guest = Guest::with(VsockInnerConfig::default().pending(1));
        let connector = guest.connector();
        let first = connector.clone();
        let first = tokio::spawn(async move { first.connect_to(52).await.map(drop) });
        yield_now().await;
        assert_fails(connector.connect_to(52).await, ErrorKind::ConnectionRefused);
        drop(guest);
        assert_fails(first.await.unwrap(), ErrorKind::ConnectionRefused);
        assert_fails(connector.connect_to(52).await, ErrorKind::ConnectionRefused);
        assert_fails(connector.listen(52), ErrorKind::ConnectionRefused);
        assert_eq!(connector.get_ref().counters().open, 0);
    }));
}

#[test]
fn a_tokio_timeout_abandons_the_connection() {
    one_thread().block_on(soon(async {
        let mut guest = Guest::new();
        let connector = guest.connector();
        let connecting = timeout(Duration::from_millis(1), connector.connect_to(52));
        connecting.await.unwrap_err();
        // The device finds that the client has left, and cannot answer it.
        let mut device = guest.asked().await;
        assert_eq!(device.requested_port(), Some(52));
        assert!(device.peer_gone());
        assert!(device.confirm(1 << 30).is_err());
        drop(device);
        assert_eq!(guest.backend.counters().open, 0);
    }));
}

#[test]
fn an_abandoned_connection_is_a_reset_for_the_device() {
    one_thread().block_on(soon(async {
        let mut guest = Guest::new();
        let connector = guest.connector();
        let device = select! {
            biased;
            _ = connector.connect_to(52) => panic!("nothing has answered"),
            device = guest.asked() => device,
        };
        let mut device = device;
        device.requested_port();
        assert_fails(device.read(&mut [0]), ErrorKind::ConnectionReset);

        // A connection that was accepted in the meantime is reset too.
        let (_, mut device) = select! {
            biased;
            _ = connector.connect_to(52), if false => panic!("never polled"),
            accepted = async {
                let connecting = connector.connect_to(52);
                tokio::pin!(connecting);
                select! {
                    biased;
                    _ = &mut connecting => panic!("nothing has answered"),
                    accepted = guest.accept() => accepted,
                }
            } => accepted,
        };
        assert_fails(device.read(&mut [0]).await, ErrorKind::ConnectionReset);
    }));
}
