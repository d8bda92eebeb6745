// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Bytes between two ends.

use std::fmt::Debug;
use std::io::{ErrorKind, IoSlice, Read, Write};
use std::thread;

use tokio::io::{
    AsyncReadExt, AsyncWrite, AsyncWriteExt, copy_bidirectional, copy_bidirectional_with_sizes,
};
use tokio::{join, select};
use vsock_inner::{Capacity, VsockInnerConfig, VsockInnerStream};
use vsock_tokio::{
    AsyncConnector, AsyncListener, AsyncStream, Incoming, OwnedReadHalf, OwnedWriteHalf, ReadHalf,
    WriteHalf,
};

use crate::guest::{GUEST, Guest, HOST};
use crate::{assert_fails, on_both, one_thread, soon};

/// Bytes that show their position.
pub(crate) fn pattern(len: usize) -> Vec<u8> {
    (0..251).cycle().take(len).collect()
}

/// A pair with the given capacity in both directions.
pub(crate) fn pair_of(capacity: usize) -> (AsyncStream, AsyncStream) {
    let config = VsockInnerConfig::default()
        .to_device(Capacity::Bytes(capacity))
        .to_application(Capacity::Bytes(capacity));
    let (near, far) = VsockInnerStream::pair_with(&config).unwrap();
    (near.into(), far.into())
}

#[test]
fn every_type_can_be_sent_shared_and_moved() {
    fn traits<T: Debug + Send + Sync + Unpin>() {}
    traits::<AsyncStream>();
    traits::<ReadHalf<'_>>();
    traits::<WriteHalf<'_>>();
    traits::<OwnedReadHalf>();
    traits::<OwnedWriteHalf>();
    traits::<AsyncListener>();
    traits::<AsyncConnector>();
    traits::<Incoming>();
}

#[test]
fn bytes_arrive_in_both_directions_concurrently() {
    on_both(async || {
        let (near, far) = pair_of(1000);
        let sent = pattern(1 << 20);
        let ends = [near, far].map(|end| {
            let sent = sent.clone();
            tokio::spawn(async move {
                let (mut reader, mut writer) = end.into_split();
                let reading = tokio::spawn(async move {
                    let mut got = Vec::new();
                    reader.read_to_end(&mut got).await.unwrap();
                    got
                });
                writer.write_all(&sent).await.unwrap();
                drop(writer);
                reading.await.unwrap()
            })
        });
        for end in ends {
            assert!(end.await.unwrap() == sent);
        }
    });
}

#[test]
fn a_task_talks_to_a_thread_that_blocks() {
    let (near, mut far) = VsockInnerStream::pair().unwrap();
    let echo = thread::spawn(move || {
        let mut buf = [0; 5];
        for _ in 0..1000 {
            far.read_exact(&mut buf).unwrap();
            far.write_all(&buf).unwrap();
        }
        far
    });
    one_thread().block_on(soon(async {
        let mut near = AsyncStream::from(near);
        for round in 0..1000 {
            let text = format!("{round:05}");
            near.write_all(text.as_bytes()).await.unwrap();
            let mut answer = [0; 5];
            near.read_exact(&mut answer).await.unwrap();
            assert_eq!(answer, text.as_bytes());
        }
    }));
    echo.join().unwrap();
}

#[test]
fn vectored_writes_take_all_pieces() {
    one_thread().block_on(soon(async {
        let (mut near, mut far) = AsyncStream::pair().unwrap();
        assert!(near.is_write_vectored());
        let pieces = [b"one ".as_slice(), b"", b"two ", b"three"].map(IoSlice::new);
        assert_eq!(near.write_vectored(&pieces).await.unwrap(), 13);
        {
            let (_, mut writer) = near.split();
            assert!(writer.is_write_vectored());
            assert_eq!(writer.write_vectored(&pieces).await.unwrap(), 13);
        }
        let (_reader, mut writer) = near.into_split();
        assert!(writer.is_write_vectored());
        assert_eq!(writer.write_vectored(&pieces).await.unwrap(), 13);
        drop(writer);
        let mut text = String::new();
        far.read_to_string(&mut text).await.unwrap();
        assert_eq!(text, "one two three".repeat(3));
    }));
}

#[test]
fn reads_fill_uninitialized_memory() {
    one_thread().block_on(soon(async {
        let (mut near, mut far) = AsyncStream::pair().unwrap();
        near.write_all(&pattern(100_000)).await.unwrap();
        let mut got = Vec::with_capacity(100_000);
        while got.len() < 100_000 {
            far.read_buf(&mut got).await.unwrap();
        }
        assert!(got == pattern(100_000));
    }));
}

#[test]
fn empty_reads_and_writes_are_ready_and_transfer_nothing() {
    one_thread().block_on(soon(async {
        let (mut near, mut far) = pair_of(1);
        assert_eq!(far.read(&mut []).await.unwrap(), 0);
        assert_eq!(near.write(b"x").await.unwrap(), 1); // full
        assert_eq!(near.write(&[]).await.unwrap(), 0);
        assert_eq!(near.write_vectored(&[IoSlice::new(&[])]).await.unwrap(), 0);
        near.shutdown().await.unwrap();
        assert_eq!(near.write(&[]).await.unwrap(), 0);
        assert_fails(near.write(b"y").await, ErrorKind::BrokenPipe);
        near.flush().await.unwrap();
        let mut rest = Vec::new();
        far.read_to_end(&mut rest).await.unwrap();
        assert_eq!(rest, b"x");
    }));
}

#[test]
fn a_writer_without_a_reader_is_limited_by_the_capacity() {
    one_thread().block_on(soon(async {
        let (mut near, mut far) = pair_of(10_000);
        assert_eq!(near.write(&pattern(20_000)).await.unwrap(), 10_000);
        let refused = select! {
            biased;
            written = near.write(b"more") => Some(written),
            () = tokio::task::yield_now() => None,
        };
        assert!(refused.is_none());
        let mut buf = vec![0; 10_000];
        let (read, written) = join!(far.read_exact(&mut buf), near.write(b"more"));
        assert_eq!((read.unwrap(), written.unwrap()), (10_000, 4));
    }));
}

#[test]
fn copy_bidirectional_is_a_proxy_between_two_connections() {
    on_both(async || {
        let (mut client, mut left) = pair_of(100);
        let (mut right, mut server) = pair_of(1000);
        let proxy = tokio::spawn(async move { copy_bidirectional(&mut left, &mut right).await });
        let serving = tokio::spawn(async move {
            let mut question = Vec::new();
            server.read_to_end(&mut question).await.unwrap();
            question.reverse();
            server.write_all(&question).await.unwrap();
        });
        let question = pattern(100_000);
        let mut expected = question.clone();
        expected.reverse();
        client.write_all(&question).await.unwrap();
        client.shutdown().await.unwrap();
        let mut answer = Vec::new();
        client.read_to_end(&mut answer).await.unwrap();
        assert!(answer == expected);
        assert_eq!(proxy.await.unwrap().unwrap(), (100_000, 100_000));
        serving.await.unwrap();
    });
}

#[test]
fn copy_bidirectional_of_borrowed_and_of_tiny_streams_ends() {
    one_thread().block_on(soon(async {
        let (mut client, mut left) = pair_of(1);
        let (mut right, server) = pair_of(1);
        let (mut from_proxy, mut to_proxy) = server.into_split();
        let (mut reader, mut writer) = client.split();
        let (mut up, mut down) = (String::new(), String::new());
        let (copied, .., read_up, read_down) = join!(
            copy_bidirectional_with_sizes(&mut left, &mut right, 7, 1),
            async {
                writer.write_all(b"up").await.unwrap();
                writer.shutdown().await.unwrap();
            },
            async {
                to_proxy.write_all(b"down").await.unwrap();
                drop(to_proxy);
            },
            from_proxy.read_to_string(&mut up),
            reader.read_to_string(&mut down),
        );
        assert_eq!((read_up.unwrap(), read_down.unwrap()), (2, 4));
        assert_eq!(copied.unwrap(), (2, 4));
        assert_eq!((up.as_str(), down.as_str()), ("up", "down"));
    }));
}

#[test]
fn addresses_are_those_that_the_device_reports() {
    let (near, _far) = AsyncStream::pair().unwrap();
    assert_fails(near.peer_addr(), ErrorKind::AddrNotAvailable);
    assert_fails(near.local_addr(), ErrorKind::AddrNotAvailable);

    one_thread().block_on(soon(async {
        let guest = Guest::new();
        let listener = guest.listener();
        let device = guest.connect();
        let (mut host, peer) = listener.accept().await.unwrap();
        assert_eq!(peer, Some(GUEST));
        assert_eq!(listener.local_addr().unwrap(), HOST);
        assert_eq!(
            (host.peer_addr().unwrap(), host.local_addr().unwrap()),
            (GUEST, HOST)
        );
        assert_eq!(
            (device.peer_addr().unwrap(), device.local_addr().unwrap()),
            (HOST, GUEST)
        );
        {
            let (reader, writer) = host.split();
            assert_eq!(
                (reader.peer_addr().unwrap(), reader.local_addr().unwrap()),
                (GUEST, HOST)
            );
            assert_eq!(
                (writer.peer_addr().unwrap(), writer.local_addr().unwrap()),
                (GUEST, HOST)
            );
        }
        let (reader, writer) = host.into_split();
        assert_eq!(
            (reader.peer_addr().unwrap(), reader.local_addr().unwrap()),
            (GUEST, HOST)
        );
        assert_eq!(
            (writer.peer_addr().unwrap(), writer.local_addr().unwrap()),
            (GUEST, HOST)
        );
    }));
}

#[test]
fn a_stream_goes_back_and_forth_between_a_task_and_a_thread() {
    let (near, mut far) = VsockInnerStream::pair().unwrap();
    let runtime = one_thread();
    let mut near = AsyncStream::from(near);
    for round in 0..100_u8 {
        far.write_all(&[round]).unwrap();
        near = runtime.block_on(soon(async move {
            assert_eq!(near.read_u8().await.unwrap(), round);
            let mut buf = [0; 1];
            let nothing = select! {
                biased;
                read = near.read(&mut buf) => Some(read),
                () = tokio::task::yield_now() => None,
            };
            assert!(nothing.is_none()); // its waker stays in the stream
            near
        }));
        let mut blocking = near.into_inner();
        let reader = thread::spawn(move || {
            let mut byte = [0];
            blocking.read_exact(&mut byte).unwrap(); // in the blocking mode from before
            (byte[0], blocking)
        });
        far.write_all(&[round ^ 0xff]).unwrap();
        let (byte, stream) = reader.join().unwrap();
        assert_eq!(byte, round ^ 0xff);
        near = stream.into();
    }
}
