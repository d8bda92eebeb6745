// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Futures that are dropped midway, at random: no byte and no connection is lost or arrives twice.

use std::io::ErrorKind;
use std::sync::Arc;
use std::time::Duration;

use proptest::collection::vec;
use proptest::prelude::{Strategy, prop_assert, prop_assert_eq, proptest};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::runtime::Runtime;
use tokio::select;
use tokio::task::{JoinSet, yield_now};
use tokio::time::timeout;
use vsock_properties::cases;
use vsock_tokio::{AsyncStream, OwnedReadHalf, OwnedWriteHalf};

use crate::guest::{GUEST, Guest};
use crate::streams::{pair_of, pattern};
use crate::{on_both, one_thread, soon, two_threads};

/// One call: its size, and how many times its future is polled before it is dropped.
type Attempt = (usize, u32);

fn attempts(most: usize) -> impl Strategy<Value = Vec<Attempt>> {
    // At least one call of a list must make progress.
    vec((1..most, 0..3_u32), 1..20).prop_map(move |mut list| {
        list.push((most, 50));
        list
    })
}

/// The result of a future before the task has yielded `yields` times; `None` if it was dropped.
async fn within<F: Future>(yields: u32, future: F) -> Option<F::Output> {
    select! {
        biased;
        output = future => Some(output),
        () = async { for _ in 0..yields { yield_now().await } } => None,
    }
}

async fn write_by(mut writer: OwnedWriteHalf, bytes: &[u8], attempts: &[Attempt]) {
    let mut rest = bytes;
    for (size, polls) in attempts.iter().cycle() {
        let now = &rest[..rest.len().min(*size)];
        if let Some(written) = within(*polls, writer.write(now)).await {
            rest = &rest[written.unwrap()..];
        }
        if rest.is_empty() {
            return;
        }
    }
}

async fn read_by(mut reader: OwnedReadHalf, attempts: &[Attempt]) -> Vec<u8> {
    let mut got = Vec::new();
    for (size, polls) in attempts.iter().cycle() {
        let mut buf = vec![0; *size];
        match within(*polls, reader.read(&mut buf)).await {
            Some(read) => match read.unwrap() {
                0 => break,
                read => got.extend_from_slice(&buf[..read]),
            },
            None => assert!(
                buf.iter().all(|byte| *byte == 0),
                "a dropped read wrote to its buffer"
            ),
        }
    }
    got
}

/// Transfers bytes in both directions. Returns what has arrived at each end.
fn carry(
    runtime: &Runtime,
    (near, far): (AsyncStream, AsyncStream),
    bytes: &[u8],
    writes: &[Attempt],
    reads: &[Attempt],
) -> Vec<Vec<u8>> {
    let mut reading = JoinSet::new();
    for end in [near, far] {
        let (reader, writer) = end.into_split();
        let (bytes, writes, reads) = (bytes.to_vec(), writes.to_vec(), reads.to_vec());
        runtime.spawn(async move { write_by(writer, &bytes, &writes).await });
        reading.spawn_on(
            async move { read_by(reader, &reads).await },
            runtime.handle(),
        );
    }
    runtime.block_on(soon(reading.join_all()))
}

proptest! {
    #![proptest_config(cases(64))]

    #[test]
    fn dropped_reads_and_writes_neither_lose_nor_repeat_bytes(
        capacity in 1..400_usize,
        len in 0..3000_usize,
        writes in attempts(500),
        reads in attempts(500),
        threads in 1..3,
    ) {
        let runtime = if threads == 1 { one_thread() } else { two_threads() };
        let bytes = pattern(len);
        for got in carry(&runtime, pair_of(capacity), &bytes, &writes, &reads) {
            prop_assert!(got == bytes, "{} of {} bytes", got.len(), bytes.len());
        }
    }

    #[test]
    fn dropped_accepts_neither_lose_nor_repeat_connections(
        polls in vec(0..4_u32, 1..12),
        threads in 1..3,
    ) {
        const COUNT: u8 = 40;
        let runtime = if threads == 1 { one_thread() } else { two_threads() };
        let numbers = runtime.block_on(soon(async {
            let guest = Guest::new();
            let listener = Arc::new(guest.listener());
            let mut tasks = JoinSet::new();
            for task in 0..4 {
                let (listener, mut polls) = (Arc::clone(&listener), polls.clone());
                let first = task % polls.len();
                polls.rotate_left(first);
                polls.push(20);
                tasks.spawn(async move {
                    let mut numbers = Vec::new();
                    for polls in polls.iter().cycle() {
                        match within(*polls, listener.accept()).await {
                            Some(Ok((mut stream, _))) => {
                                numbers.push(stream.read_u8().await.unwrap());
                            }
                            Some(Err(error)) => {
                                assert_eq!(error.kind(), ErrorKind::NotConnected);
                                break;
                            }
                            None => {}
                        }
                    }
                    numbers
                });
            }
            for number in 0..COUNT {
                guest.connect().write_u8(number).await.unwrap();
                yield_now().await;
            }
            // The backend's drop resets connections that wait, so the tasks must have them all by
            // then.
            while Arc::strong_count(&listener) > 1 && guest.backend.counters().open > 0 {
                yield_now().await;
            }
            drop(guest);
            tasks.join_all().await.concat()
        }));
        let mut sorted = numbers;
        sorted.sort_unstable();
        prop_assert!(sorted.iter().copied().eq(0..COUNT), "{:?}", sorted);
    }

    #[test]
    fn dropped_connects_leave_nothing_behind(
        polls in vec(0..6_u32, 1..40),
        threads in 1..3,
    ) {
        let runtime = if threads == 1 { one_thread() } else { two_threads() };
        let (made, served, open) = runtime.block_on(soon(async {
            let mut guest = Guest::new();
            let connector = guest.connector();
            let attempts = polls.len();
            let connecting = tokio::spawn(async move {
                let mut made = 0;
                for polls in polls {
                    if let Some(stream) = within(polls, connector.connect_to(GUEST.port)).await {
                        let mut stream = stream.unwrap();
                        stream.write_u8(1).await.unwrap();
                        stream.read_u8().await.unwrap();
                        made += 1;
                    }
                }
                made
            });
            let mut served = 0;
            let mut seen = 0;
            while !connecting.is_finished() || guest.backend.counters().pending > 0 {
                if guest.backend.counters().pending == 0 {
                    yield_now().await;
                    continue;
                }
                seen += 1;
                let mut device = guest.asked().await;
                device.requested_port();
                if device.confirm(1 << 30).is_err() {
                    continue; // it left before
                }
                let device = device.into_any().unwrap().downcast::<vsock_inner::VsockInnerStream>();
                let mut device = AsyncStream::from(*device.unwrap());
                if device.read_u8().await.is_ok() {
                    device.write_u8(2).await.unwrap();
                    served += 1;
                }
            }
            assert!(seen <= attempts);
            (connecting.await.unwrap(), served, guest.backend.counters().open)
        }));
        prop_assert_eq!(made, served);
        prop_assert_eq!(open, 0);
    }
}

#[test]
fn a_timeout_around_each_call_loses_no_byte() {
    on_both(async || {
        let (mut near, mut far) = pair_of(64);
        let bytes = pattern(5000);
        let expected = bytes.clone();
        let writing = tokio::spawn(async move {
            let mut rest = bytes.as_slice();
            while !rest.is_empty() {
                let now = &rest[..rest.len().min(100)];
                if let Ok(written) = timeout(Duration::ZERO, near.write(now)).await {
                    rest = &rest[written.unwrap()..];
                }
                yield_now().await;
            }
        });
        let mut got = Vec::new();
        loop {
            let mut buf = [0; 33];
            match timeout(Duration::ZERO, far.read(&mut buf)).await {
                Ok(Ok(0)) => break,
                Ok(read) => got.extend_from_slice(&buf[..read.unwrap()]),
                Err(_) => yield_now().await,
            }
        }
        writing.await.unwrap();
        assert!(got == expected);
    });
}

#[test]
fn an_abandoned_waker_is_not_kept_indefinitely() {
    let witness = Arc::new(());
    let weak = Arc::downgrade(&witness);
    let (mut near, mut far) = AsyncStream::pair().unwrap();
    let runtime = one_thread();
    runtime.block_on(async {
        let task = tokio::spawn(async move {
            let _witness = witness;
            let mut buf = [0; 1];
            select! {
                biased;
                _ = near.read(&mut buf) => panic!("nothing was written"),
                () = yield_now() => {}
            }
            near
        });
        let near = task.await.unwrap();
        // The task is over, and only the stream still has its waker.
        far.write_u8(1).await.unwrap();
        drop((near, far));
    });
    assert!(weak.upgrade().is_none());
}
