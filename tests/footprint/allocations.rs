// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! A stream that has carried its first capacity allocates nothing for a write or a read.

use std::io::{ErrorKind, IoSlice, Read, Write};
use std::sync::{Arc, Barrier};
use std::task::{Context, Poll};
use std::time::Duration;

use stats_alloc::{Region, Stats};
use vsock_backend_api::VsockStream;
use vsock_compliance::call::Call;
use vsock_compliance::poll::Deadline;
use vsock_inner::VsockInnerStream;
use vsock_tests::alone::alone;
use vsock_tests::assert_fails;
use vsock_tests::inner::Inner;
use vsock_tests::tasks::Count;

use crate::{ALLOCATOR, allocations};

const SIZES: [usize; 6] = [64, 1, 1000, 4096, 65_536, 200_000];

fn pair(capacity: usize) -> (VsockInnerStream, VsockInnerStream) {
    VsockInnerStream::pair_with(&Inner::holding(capacity).config).unwrap()
}

fn nonblocking(near: &mut VsockInnerStream, far: &mut VsockInnerStream) {
    near.set_nonblocking(true).unwrap();
    far.set_nonblocking(true).unwrap();
}

fn assert_none_in(what: &str, mut work: impl FnMut()) {
    let count = allocations(|| {
        let region = Region::new(ALLOCATOR);
        work();
        region.change()
    });
    assert_eq!(count, 0, "allocations and reallocations: {what}");
}

/// Writes and reads in pieces the length of `buf` until `total` bytes have passed.
fn alternate(
    near: &mut VsockInnerStream,
    far: &mut VsockInnerStream,
    buf: &mut [u8],
    total: usize,
) {
    for _ in 0..total.div_ceil(buf.len()) {
        near.write_all(buf).unwrap();
        far.read_exact(buf).unwrap();
    }
}

/// Writes until there is no space, and reads until there are no bytes.
fn fill_and_drain(near: &mut VsockInnerStream, far: &mut VsockInnerStream, buf: &mut [u8]) {
    while near.write(buf).is_ok() {}
    while far.read(buf).is_ok() {}
}

#[test]
fn alternating_writes_and_reads_allocate_nothing() {
    alone(|| {
        for size in SIZES {
            let (mut near, mut far) = pair(256 * 1024);
            let mut buf = vec![0; size];
            alternate(&mut near, &mut far, &mut buf, 256 * 1024);
            assert_none_in(&format!("{size} bytes back and forth"), || {
                alternate(&mut near, &mut far, &mut buf, (1 << 20).max(1000 * size));
            });
        }
    });
}

#[test]
fn filling_and_draining_allocates_nothing() {
    alone(|| {
        for size in SIZES {
            let (mut near, mut far) = pair(256 * 1024);
            nonblocking(&mut near, &mut far);
            let mut buf = vec![0; size];
            alternate(&mut near, &mut far, &mut buf, 256 * 1024);
            assert_none_in(&format!("filling by {size} bytes"), || {
                (0..20).for_each(|_| fill_and_drain(&mut near, &mut far, &mut buf));
            });
        }
    });
}

#[test]
fn refusals_and_vectored_calls_allocate_nothing() {
    alone(|| {
        let (mut near, mut far) = pair(10_000);
        nonblocking(&mut near, &mut far);
        let mut buf = vec![0; 100];
        alternate(&mut near, &mut far, &mut buf, 20_000);
        let head = [1; 30];
        assert_none_in("refusals and vectored writes", || {
            for _ in 0..1000 {
                assert_eq!(
                    near.write_vectored(&[IoSlice::new(&head), IoSlice::new(&head)])
                        .unwrap(),
                    60
                );
                assert_eq!(far.read(&mut buf).unwrap(), 60);
                assert_fails(far.read(&mut buf), ErrorKind::WouldBlock);
            }
        });
    });
}

/// Two tasks on one thread send `size` bytes back and forth, each until it has to wait.
fn two_tasks(size: usize) -> impl FnMut(usize) {
    let (mut near, mut far) = pair(256 * 1024);
    let (near_task, far_task) = (Count::new().1, Count::new().1);
    let (mut out, mut back) = (vec![1; size], vec![0; size]);
    move |rounds| {
        let near_cx = &mut Context::from_waker(&near_task);
        let far_cx = &mut Context::from_waker(&far_task);
        for _ in 0..rounds {
            assert!(far.poll_read(far_cx, &mut back).is_pending());
            send(near_cx, far_cx, &mut near, &mut far, &mut out);
            assert!(near.poll_read(near_cx, &mut back).is_pending());
            send(far_cx, near_cx, &mut far, &mut near, &mut back);
        }
    }
}

/// Moves `bytes` from one end to the other.
fn send(
    from: &mut Context<'_>,
    to: &mut Context<'_>,
    near: &mut VsockInnerStream,
    far: &mut VsockInnerStream,
    bytes: &mut [u8],
) {
    let (mut sent, mut got, len) = (0, 0, bytes.len());
    while got < len {
        while let Poll::Ready(written) = near.poll_write(from, &bytes[sent..]) {
            sent += written.unwrap();
            if sent == len {
                break;
            }
        }
        let (_, unread) = bytes.split_at_mut(got);
        if let Poll::Ready(read) = far.poll_read(to, unread) {
            got += read.unwrap();
        }
    }
}

#[test]
fn two_tasks_allocate_nothing() {
    alone(|| {
        for size in SIZES {
            let mut tasks = two_tasks(size);
            tasks((256 * 1024_usize).div_ceil(size));
            assert_none_in(&format!("two tasks, {size} bytes"), || tasks(1000));
        }
    });
}

/// Returns what is allocated while two threads move `size` bytes a call, after the first capacity.
fn two_threads(size: usize) -> Stats {
    let (mut near, mut far) = pair(256 * 1024);
    let rounds = (4_usize << 20).div_ceil(size).min(20_000);
    let warm_up = (256 * 1024_usize).div_ceil(size);
    let meet = Arc::new(Barrier::new(3));
    let (at_writer, at_reader) = (Arc::clone(&meet), Arc::clone(&meet));
    let writing = Call::start(move || {
        let buf = vec![0; size];
        (0..warm_up).for_each(|_| near.write_all(&buf).unwrap());
        at_writer.wait();
        at_writer.wait();
        (0..rounds).for_each(|_| near.write_all(&buf).unwrap());
        at_writer.wait();
        at_writer.wait();
    })
    .unwrap();
    let reading = Call::start(move || {
        let mut buf = vec![0; size];
        (0..warm_up).for_each(|_| far.read_exact(&mut buf).unwrap());
        at_reader.wait();
        at_reader.wait();
        (0..rounds).for_each(|_| far.read_exact(&mut buf).unwrap());
        at_reader.wait();
        at_reader.wait();
    })
    .unwrap();
    meet.wait();
    let region = Region::new(ALLOCATOR);
    meet.wait();
    meet.wait();
    let change = region.change();
    meet.wait();
    let done = Deadline::after(Duration::from_secs(20));
    writing.finish(done).unwrap();
    reading.finish(done).unwrap();
    change
}

#[test]
fn two_threads_allocate_nothing() {
    alone(|| {
        for size in SIZES {
            let count = allocations(|| two_threads(size));
            assert_eq!(count, 0, "two threads, {size} bytes a call");
        }
    });
}
