// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Every kind of runtime, none at all, and tasks that take turns.

use std::pin::pin;
use std::rc::Rc;
use std::task::{Context, Poll, Waker};
use std::thread;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::runtime::Builder;
use tokio::select;
use tokio::task::{LocalSet, spawn_local, yield_now};
use vsock_tokio::AsyncStream;

use crate::streams::{pair_of, pattern};
use crate::{one_thread, soon, two_threads};

/// Far more than a task may transfer in ten turns.
const ROUNDS: usize = 10_000;

async fn echo_once(mut stream: AsyncStream) {
    let mut byte = [0];
    stream.read_exact(&mut byte).await.unwrap();
    stream.write_all(&byte).await.unwrap();
}

#[test]
fn a_runtime_without_drivers_is_enough() {
    for mut builder in [Builder::new_current_thread(), Builder::new_multi_thread()] {
        let runtime = builder.worker_threads(2).build().unwrap();
        runtime.block_on(async {
            let (mut near, far) = AsyncStream::pair().unwrap();
            let echo = tokio::spawn(echo_once(far));
            near.write_u8(5).await.unwrap();
            assert_eq!(near.read_u8().await.unwrap(), 5);
            echo.await.unwrap();
        });
    }
}

#[test]
fn tasks_of_a_local_set_talk_to_each_other_and_to_others() {
    let set = LocalSet::new();
    let runtime = two_threads();
    set.block_on(
        &runtime,
        soon(async {
            let (mut near, far) = AsyncStream::pair().unwrap();
            let local = Rc::new(far);
            let echo = spawn_local(async move { echo_once(Rc::into_inner(local).unwrap()).await });
            near.write_u8(5).await.unwrap();
            assert_eq!(near.read_u8().await.unwrap(), 5);
            echo.await.unwrap();

            let (mut near, far) = AsyncStream::pair().unwrap();
            let echo = tokio::spawn(echo_once(far));
            let asking = spawn_local(async move {
                near.write_u8(6).await.unwrap();
                near.read_u8().await.unwrap()
            });
            assert_eq!(asking.await.unwrap(), 6);
            echo.await.unwrap();
        }),
    );
}

#[test]
fn two_runtimes_on_two_threads_talk_to_each_other() {
    let (mut near, mut far) = AsyncStream::pair().unwrap();
    let other = thread::spawn(move || {
        one_thread().block_on(soon(async {
            for _ in 0..1000 {
                let byte = far.read_u8().await.unwrap();
                far.write_u8(byte).await.unwrap();
            }
        }));
    });
    one_thread().block_on(soon(async {
        for round in 0..1000_u32 {
            near.write_u8((round % 251) as u8).await.unwrap();
            assert_eq!(u32::from(near.read_u8().await.unwrap()), round % 251);
        }
    }));
    other.join().unwrap();
}

#[test]
fn without_a_runtime_futures_can_be_polled() {
    let (mut near, mut far) = AsyncStream::pair().unwrap();
    let mut cx = Context::from_waker(Waker::noop());
    let mut buf = [0; 8];
    assert!(pin!(far.read(&mut buf)).poll(&mut cx).is_pending());
    assert!(matches!(
        pin!(near.write(b"abc")).poll(&mut cx),
        Poll::Ready(Ok(3))
    ));
    assert!(matches!(
        pin!(far.read(&mut buf)).poll(&mut cx),
        Poll::Ready(Ok(3))
    ));
}

#[test]
fn the_halves_may_be_on_two_threads() {
    two_threads().block_on(soon(async {
        let (near, far) = pair_of(5000);
        let (mut reader, mut writer) = near.into_split();
        let (mut far_reader, mut far_writer) = far.into_split();
        let bytes = pattern(4 << 20);
        let expected = bytes.clone();
        let writing = tokio::spawn(async move {
            for piece in bytes.chunks(777) {
                writer.write_all(piece).await.unwrap();
            }
        });
        let echo = tokio::spawn(async move {
            tokio::io::copy(&mut far_reader, &mut far_writer)
                .await
                .unwrap()
        });
        let reading = tokio::spawn(async move {
            let mut got = Vec::new();
            reader.read_to_end(&mut got).await.unwrap();
            got
        });
        writing.await.unwrap();
        assert_eq!(echo.await.unwrap(), 4 << 20);
        assert!(reading.await.unwrap() == expected);
    }));
}

/// A task that is always busy yields to the other tasks of its thread.
#[test]
fn a_task_that_never_waits_yields_to_the_others() {
    one_thread().block_on(soon(async {
        // It reads what it has written itself, so it never has to wait.
        let (mut near, mut far) = AsyncStream::pair().unwrap();
        let busy = tokio::spawn(async move {
            for _ in 0..ROUNDS {
                near.write_u8(1).await.unwrap();
                far.read_u8().await.unwrap();
            }
        });
        for _ in 0..10 {
            yield_now().await; // resumes later
        }
        assert!(!busy.is_finished());
        busy.abort();
    }));
}

/// The same for a listener that always has a connection.
#[test]
fn a_task_that_always_accepts_yields_to_the_others() {
    one_thread().block_on(soon(async {
        let guest = crate::guest::Guest::new();
        let listener = guest.listener();
        let busy = tokio::spawn(async move {
            for _ in 0..ROUNDS {
                let device = guest.connect();
                listener.accept().await.unwrap();
                drop(device);
            }
        });
        for _ in 0..10 {
            yield_now().await;
        }
        assert!(!busy.is_finished());
        busy.abort();
    }));
}

#[test]
fn a_task_selects_among_streams() {
    one_thread().block_on(soon(async {
        let (mut left, mut far_left) = AsyncStream::pair().unwrap();
        let (mut right, mut far_right) = AsyncStream::pair().unwrap();
        let sending = tokio::spawn(async move {
            for byte in 0..200 {
                let one = if byte % 3 == 0 {
                    &mut far_left
                } else {
                    &mut far_right
                };
                one.write_u8(byte).await.unwrap();
                if byte % 7 == 0 {
                    yield_now().await;
                }
            }
        });
        let mut got = Vec::new();
        let (mut left_ended, mut right_ended) = (false, false);
        let (mut from_left, mut from_right) = ([0; 3], [0; 5]);
        while !(left_ended && right_ended) {
            select! {
                read = left.read(&mut from_left), if !left_ended => {
                    let read = read.unwrap();
                    left_ended = read == 0;
                    got.extend_from_slice(&from_left[..read]);
                }
                read = right.read(&mut from_right), if !right_ended => {
                    let read = read.unwrap();
                    right_ended = read == 0;
                    got.extend_from_slice(&from_right[..read]);
                }
            }
        }
        sending.await.unwrap();
        got.sort_unstable();
        assert!(got.into_iter().eq(0..200));
    }));
}
