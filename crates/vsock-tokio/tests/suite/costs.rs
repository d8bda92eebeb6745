// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! The cost of transferring bytes: no allocation and, between two tasks of one thread, no system
//! call.

use std::fs;
use std::io::IoSlice;

use nix::sys::resource::{UsageWho, getrusage};
use stats_alloc::Region;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::task::yield_now;
use vsock_inner::VsockInnerStream;
use vsock_tests::alone::alone;
use vsock_tokio::{AsyncFdStream, AsyncStream};

use crate::guest::Guest;
use crate::streams::pair_of;
use crate::{ALLOCATOR, one_thread, soon};

const ROUNDS: usize = 2000;

/// Sends requests and reads the answers of a task that runs [`answer`].
async fn ask(stream: &mut (impl AsyncRead + AsyncWrite + Unpin), rounds: usize) {
    let mut buf = [7; 64];
    for _ in 0..rounds {
        stream.write_all(&buf).await.unwrap();
        stream.read_exact(&mut buf).await.unwrap();
    }
}

async fn answer(mut stream: impl AsyncRead + AsyncWrite + Unpin) {
    let mut buf = [0; 64];
    while stream.read_exact(&mut buf).await.is_ok() {
        stream.write_all(&buf).await.unwrap();
    }
}

/// The least of three measurements. The cost of a call shows in all of them, that of the test
/// runner in only one.
async fn least(mut work: impl AsyncFnMut() -> u64) -> u64 {
    let counts = [work().await, work().await, work().await];
    counts.into_iter().min().unwrap_or(u64::MAX)
}

async fn allocations(mut work: impl AsyncFnMut()) -> u64 {
    least(async || {
        let region = Region::new(ALLOCATOR);
        work().await;
        let change = region.change();
        (change.allocations + change.reallocations) as u64
    })
    .await
}

#[test]
fn requests_and_answers_allocate_nothing() {
    alone(|| {
        one_thread().block_on(soon(async {
            let (mut near, far) = AsyncStream::pair().unwrap();
            tokio::spawn(answer(far));
            ask(&mut near, 5000).await; // use the whole capacity once
            let count = allocations(async || ask(&mut near, ROUNDS).await).await;
            assert_eq!(count, 0);
        }));
    });
}

#[test]
fn a_stream_that_fills_and_drains_allocates_nothing() {
    alone(|| {
        one_thread().block_on(soon(async {
            let (near, mut far) = pair_of(10_000);
            let (_reader, mut writer) = near.into_split();
            tokio::spawn(async move {
                let message = [7; 777];
                let pieces = [&message[..], &message[..]].map(IoSlice::new);
                while writer.write_vectored(&pieces).await.is_ok() {}
            });
            let mut buf = vec![0; 3000];
            let mut drain = async || {
                for _ in 0..ROUNDS {
                    far.read_exact(&mut buf).await.unwrap();
                }
            };
            drain().await;
            assert_eq!(allocations(drain).await, 0);
        }));
    });
}

#[test]
fn an_accept_that_waits_again_allocates_nothing() {
    alone(|| {
        one_thread().block_on(soon(async {
            let guest = Guest::new();
            let listener = guest.listener();
            let wait = async || {
                for _ in 0..ROUNDS {
                    tokio::select! {
                        biased;
                        _ = listener.accept() => panic!("the guest has not connected"),
                        () = yield_now() => {}
                    }
                }
            };
            wait().await;
            assert_eq!(allocations(wait).await, 0);
        }));
    });
}

/// Calls of `read` and `write` by this thread, and how often it slept.
fn system_calls() -> u64 {
    let text = fs::read_to_string("/proc/thread-self/io").unwrap();
    let counts = text.lines().filter_map(|line| {
        let (name, count) = line.split_once(": ")?;
        name.starts_with("sysc")
            .then(|| count.parse::<u64>().unwrap())
    });
    let slept = getrusage(UsageWho::RUSAGE_THREAD).unwrap();
    counts.sum::<u64>() + u64::try_from(slept.voluntary_context_switches()).unwrap()
}

/// The cost of two tasks on this thread.
async fn cost(
    mut near: impl AsyncRead + AsyncWrite + Unpin,
    far: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
) -> u64 {
    let before = system_calls();
    let looking = system_calls() - before;
    tokio::spawn(answer(far));
    ask(&mut near, 10).await;
    least(async || {
        let before = system_calls();
        ask(&mut near, ROUNDS).await;
        system_calls() - before - looking
    })
    .await
}

#[test]
fn two_tasks_of_one_thread_make_no_system_call() {
    alone(|| {
        one_thread().block_on(soon(async {
            let (near, far) = AsyncStream::pair().unwrap();
            assert_eq!(cost(near, far).await, 0);
            // Check that the counter works: with descriptors, each task wakes the other and clears
            // its own.
            let (near, far) = VsockInnerStream::pair().unwrap();
            let near = AsyncFdStream::new(Box::new(near)).unwrap();
            let far = AsyncFdStream::new(Box::new(far)).unwrap();
            assert!(cost(near, far).await >= 4 * ROUNDS as u64);
        }));
    });
}
