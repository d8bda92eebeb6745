// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! How directions end, and what the peer sees.

use std::future::pending;
use std::io::{self, ErrorKind};
use std::panic::{AssertUnwindSafe, catch_unwind};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::runtime::Runtime;
use vsock_tokio::AsyncStream;

use crate::{assert_fails, on_both, one_thread, soon, two_threads};

/// What the peer sees of an end: the result of its read after the bytes, and of its write.
async fn seen(mut peer: AsyncStream) -> (String, io::Result<usize>, io::Result<usize>) {
    let mut bytes = Vec::new();
    let read = peer.read_to_end(&mut bytes).await;
    let written = peer.write(b"x").await;
    (String::from_utf8(bytes).unwrap(), read, written)
}

#[test]
fn a_half_close_lets_the_answer_through() {
    one_thread().block_on(soon(async {
        let (mut near, mut far) = AsyncStream::pair().unwrap();
        near.write_all(b"question").await.unwrap();
        near.shutdown().await.unwrap();
        near.shutdown().await.unwrap(); // shutting down twice succeeds
        let mut question = String::new();
        far.read_to_string(&mut question).await.unwrap();
        assert_eq!(far.read(&mut [0]).await.unwrap(), 0);
        far.write_all(b"answer").await.unwrap();
        drop(far);
        let mut answer = String::new();
        near.read_to_string(&mut answer).await.unwrap();
        assert_eq!((question.as_str(), answer.as_str()), ("question", "answer"));
    }));
}

#[test]
fn a_drop_is_a_close() {
    one_thread().block_on(soon(async {
        let (mut near, far) = AsyncStream::pair().unwrap();
        near.write_all(b"last").await.unwrap();
        drop(near);
        let (bytes, read, written) = seen(far).await;
        assert_eq!((bytes.as_str(), read.unwrap()), ("last", 4));
        assert_fails(written, ErrorKind::BrokenPipe);
    }));
}

#[test]
fn a_drop_with_bytes_unread_and_an_abort_are_resets() {
    one_thread().block_on(soon(async {
        let (near, mut far) = AsyncStream::pair().unwrap();
        far.write_all(b"unread").await.unwrap();
        drop(near);
        let (_, read, written) = seen(far).await;
        assert_fails(read, ErrorKind::ConnectionReset);
        assert_fails(written, ErrorKind::ConnectionReset);

        let (mut near, far) = AsyncStream::pair().unwrap();
        near.write_all(b"last").await.unwrap();
        near.abort();
        let (_, read, written) = seen(far).await;
        assert_fails(read, ErrorKind::ConnectionReset);
        assert_fails(written, ErrorKind::ConnectionReset);
    }));
}

#[test]
fn a_dropped_half_ends_only_its_direction() {
    one_thread().block_on(soon(async {
        let (near, mut far) = AsyncStream::pair().unwrap();
        let (mut reader, writer) = near.into_split();
        drop(writer);
        assert_eq!(far.read(&mut [0]).await.unwrap(), 0);
        far.write_all(b"still").await.unwrap();
        let mut text = [0; 5];
        reader.read_exact(&mut text).await.unwrap();
        drop(reader);
        assert_fails(far.write(b"x").await, ErrorKind::BrokenPipe);

        let (near, mut far) = AsyncStream::pair().unwrap();
        let (reader, mut writer) = near.into_split();
        drop(reader);
        assert_fails(far.write(b"x").await, ErrorKind::BrokenPipe);
        writer.write_all(b"still").await.unwrap();
        writer.shutdown().await.unwrap();
        far.read_exact(&mut text).await.unwrap();
        assert_eq!(far.read(&mut text).await.unwrap(), 0);
    }));
}

#[test]
fn aborted_halves_are_resets() {
    one_thread().block_on(soon(async {
        let (near, mut far) = AsyncStream::pair().unwrap();
        let (reader, writer) = near.into_split();
        writer.abort();
        reader.abort();
        assert_fails(far.read(&mut [0]).await, ErrorKind::ConnectionReset);
        assert_fails(far.write(b"x").await, ErrorKind::ConnectionReset);
    }));
}

#[test]
fn borrowed_halves_end_their_direction_only_by_a_shutdown() {
    one_thread().block_on(soon(async {
        let (mut near, mut far) = AsyncStream::pair().unwrap();
        for _ in 0..3 {
            let (mut reader, mut writer) = near.split();
            writer.write_all(b"a").await.unwrap();
            writer.flush().await.unwrap();
            far.write_all(b"b").await.unwrap();
            assert_eq!(reader.read_u8().await.unwrap(), b'b');
        }
        near.split().1.shutdown().await.unwrap();
        let mut text = String::new();
        far.read_to_string(&mut text).await.unwrap();
        assert_eq!(text, "aaa");
        far.write_all(b"c").await.unwrap();
        assert_eq!(near.read_u8().await.unwrap(), b'c');
    }));
}

#[test]
fn a_peer_that_leaves_wakes_waiting_tasks() {
    on_both(async || {
        let (near, far) = AsyncStream::pair().unwrap();
        let (mut reader, mut writer) = near.into_split();
        let reading = tokio::spawn(async move { reader.read(&mut [0; 8]).await });
        let writing = tokio::spawn(async move {
            loop {
                if let Err(error) = writer.write_all(&[0; 100_000]).await {
                    return error.kind();
                }
            }
        });
        tokio::task::yield_now().await;
        far.abort();
        assert_fails(reading.await.unwrap(), ErrorKind::ConnectionReset);
        assert_eq!(writing.await.unwrap(), ErrorKind::ConnectionReset);
    });
}

#[test]
fn a_task_that_panics_resets_its_peer() {
    on_both(async || {
        let (mut near, far) = AsyncStream::pair().unwrap();
        let task = tokio::spawn(async move {
            near.write_all(b"partial").await.unwrap();
            if true {
                panic!("on purpose");
            }
            drop(near);
        });
        let (_, read, written) = seen(far).await;
        assert_fails(read, ErrorKind::ConnectionReset);
        assert_fails(written, ErrorKind::ConnectionReset);
        assert!(task.await.unwrap_err().is_panic());
    });
}

#[test]
fn a_panic_outside_a_task_also_resets_the_peer() {
    let (near, far) = AsyncStream::pair().unwrap();
    let (_reader, writer) = near.into_split();
    let panicked = catch_unwind(AssertUnwindSafe(move || {
        let _writer = writer;
        panic!("on purpose");
    }));
    assert!(panicked.is_err());
    let (_, read, _) = one_thread().block_on(soon(seen(far)));
    assert_fails(read, ErrorKind::ConnectionReset);
}

/// Moves an end into a task of `runtime` that never completes.
fn hold(runtime: &Runtime, end: AsyncStream) {
    let (mut reader, mut writer) = end.into_split();
    runtime.spawn(async move {
        let mut buf = [0; 8];
        tokio::select! {
            _ = reader.read(&mut buf) => {}
            _ = writer.write_all(&[0; 1 << 20]) => {}
        }
        pending::<()>().await;
    });
}

#[test]
fn a_runtime_that_shuts_down_closes_the_streams_of_its_tasks() {
    for first in [one_thread(), two_threads()] {
        let (near, far) = AsyncStream::pair().unwrap();
        hold(&first, near);
        first.block_on(tokio::task::yield_now());
        drop(first);
        let (_, read, written) = one_thread().block_on(soon(seen(far)));
        read.unwrap();
        assert_fails(written, ErrorKind::BrokenPipe);
    }
}

#[test]
fn a_stream_outlives_the_runtime_on_which_it_waited() {
    let (mut near, mut far) = AsyncStream::pair().unwrap();
    let first = one_thread();
    let mut buf = [0; 8];
    first.block_on(async {
        tokio::select! {
            biased;
            _ = near.read(&mut buf) => panic!("nothing was written"),
            () = tokio::task::yield_now() => {}
        }
    });
    drop(first); // and with it the task that has left its waker
    let second = two_threads();
    second.block_on(soon(async {
        far.write_all(b"later").await.unwrap(); // wakes a task that no longer exists
        assert_eq!(near.read(&mut buf).await.unwrap(), 5);
    }));
}
