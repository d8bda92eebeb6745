// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Waits that another thread cancels, and waits with a timeout.

use std::fmt::Debug;
use std::io::{ErrorKind, Read, Write};
use std::sync::Arc;
use std::time::Duration;

use proptest::collection::vec;
use proptest::{prop_assert_eq, prop_oneof, proptest, strategy::Just, strategy::Strategy};
use vsock_backend_api::{VsockBackend, VsockStream};
use vsock_compliance::call::Call;
use vsock_compliance::poll::Stopwatch;
use vsock_inner::{Canceller, Capacity, VsockInnerBackend, VsockInnerConfig, VsockInnerStream};
use vsock_tests::assert_fails;
use vsock_tests::inner::Inner;

use crate::{listening, soon, waiting};

const PORT: u32 = 1024;

#[test]
fn a_canceller_can_be_shared_and_sent() {
    fn traits<T: Clone + Debug + Send + Sync + 'static>() {}
    traits::<Canceller>();
}

#[test]
fn a_read_that_waits_is_cancelled_and_so_is_every_later_one_until_it_is_resumed() {
    let (mut near, mut far) = VsockInnerStream::pair().unwrap();
    let canceller = near.canceller();
    for _ in 0..3 {
        let reading = waiting(move || (near.read(&mut [0; 8]), near));
        canceller.cancel();
        let (read, back) = reading.finish(soon()).unwrap();
        near = back;
        assert_fails(read, ErrorKind::Interrupted);
        for _ in 0..2 {
            assert_fails(near.read(&mut [0; 8]), ErrorKind::Interrupted);
            assert_fails(near.peek(&mut [0; 8]), ErrorKind::Interrupted);
        }
        canceller.resume();
    }
    far.write_all(b"hello").unwrap();
    assert_eq!(near.read(&mut [0; 8]).unwrap(), 5);
}

#[test]
fn a_cancellation_ends_the_wait_even_if_it_is_resumed_immediately() {
    let (mut near, _far) = VsockInnerStream::pair().unwrap();
    let canceller = near.canceller();
    let reading = waiting(move || near.read(&mut [0; 8]));
    canceller.cancel();
    canceller.resume();
    assert_fails(reading.finish(soon()).unwrap(), ErrorKind::Interrupted);
}

#[test]
fn a_call_that_polls_for_a_long_time_is_cancelled_too() {
    let config = VsockInnerConfig::default().spin_budget(Duration::from_secs(3600));
    let (mut near, _far) = VsockInnerStream::pair_with(&config).unwrap();
    let canceller = near.canceller();
    let reading = Call::start(move || near.read(&mut [0; 8])).unwrap();
    canceller.cancel();
    assert_fails(reading.finish(soon()).unwrap(), ErrorKind::Interrupted);
}

#[test]
fn a_call_that_can_make_progress_is_not_cancelled() {
    let (mut near, mut far) = VsockInnerStream::pair().unwrap();
    near.canceller().cancel();
    assert_eq!(near.write(b"ping").unwrap(), 4);
    far.write_all(b"hello").unwrap();
    assert_eq!(near.read(&mut [0; 8]).unwrap(), 5);
    far.shutdown(std::net::Shutdown::Write).unwrap();
    assert_eq!(near.read(&mut [0; 8]).unwrap(), 0);
    assert_eq!(
        far.read(&mut [0; 8]).unwrap(),
        4,
        "the peer's calls are not affected"
    );
}

#[test]
fn nonblocking_calls_are_not_affected() {
    let (mut near, _far) = VsockInnerStream::pair().unwrap();
    near.canceller().cancel();
    near.set_nonblocking(true).unwrap();
    assert_fails(near.read(&mut [0; 8]), ErrorKind::WouldBlock);
}

#[test]
fn a_cancelled_write_returns_the_count_that_it_moved() {
    let (mut near, mut far) = VsockInnerStream::pair_with(&Inner::holding(16).config).unwrap();
    let canceller = near.canceller();
    let writing = waiting(move || (near.write(&[7; 100]), near));
    canceller.cancel();
    let (written, mut near) = writing.finish(soon()).unwrap();
    assert_eq!(written.unwrap(), 16);
    assert_fails(near.write(&[7]), ErrorKind::Interrupted);
    assert_eq!(
        far.read(&mut [0; 100]).unwrap(),
        16,
        "exactly the bytes that the write counted"
    );
    canceller.resume();
    assert_eq!(near.write(&[7]).unwrap(), 1);
}

#[test]
fn a_half_is_cancelled_by_its_own_canceller_and_by_that_of_the_stream() {
    let (near, far) = VsockInnerStream::pair_with(&Inner::holding(16).config).unwrap();
    let of_stream = near.canceller();
    let (mut reader, mut writer) = near.into_split();
    writer.write_all(&[0; 16]).unwrap();
    for (canceller, reads, writes) in [
        (&reader.canceller(), true, false),
        (&writer.canceller(), false, true),
        (&of_stream, true, true),
    ] {
        let brief = Some(Duration::from_millis(1));
        reader.set_timeout(brief).unwrap();
        writer.set_timeout(brief).unwrap();
        canceller.cancel();
        let kind = |cancelled| match cancelled {
            true => ErrorKind::Interrupted,
            false => ErrorKind::TimedOut,
        };
        let read = reader.read(&mut [0]).unwrap_err();
        assert_eq!(read.kind(), kind(reads));
        let write = writer.write(&[0]).unwrap_err();
        assert_eq!(write.kind(), kind(writes));
        canceller.resume();
    }
    drop(far);
}

#[test]
fn a_canceller_outlives_its_stream_and_keeps_none_of_its_resources() {
    let backend = VsockInnerBackend::new().unwrap();
    let connector = backend.get_connector();
    let (stream, listener) = (
        connector.connect_stream().unwrap(),
        backend.listen(PORT).unwrap(),
    );
    let cancellers = [stream.canceller(), listener.canceller()];
    let (reader, writer) = stream.into_split();
    let of_halves = [reader.canceller(), writer.canceller()];
    drop((reader, writer, listener, backend));
    assert_eq!(connector.counters().open, 0);
    for canceller in cancellers.iter().chain(&of_halves) {
        canceller.cancel();
        canceller.clone().resume();
    }
}

#[test]
fn every_accept_that_waits_is_cancelled() {
    let (backend, listener) = listening();
    let listener = Arc::new(listener);
    let canceller = listener.canceller();
    let accepting = [(); 3].map(|()| {
        let listener = Arc::clone(&listener);
        waiting(move || listener.accept())
    });
    canceller.cancel();
    for call in accepting {
        assert_fails(call.finish(soon()).unwrap(), ErrorKind::Interrupted);
    }
    assert_fails(listener.accept(), ErrorKind::Interrupted);
    let _device = backend.connect(PORT).unwrap();
    listener.accept().unwrap(); // it does not wait
    canceller.resume();
    let late = listener.accept_timeout(Duration::from_millis(1));
    assert_fails(late, ErrorKind::TimedOut);
}

#[test]
fn an_accept_is_cancelled_even_if_it_is_resumed_immediately() {
    let (_backend, listener) = listening();
    let listener = Arc::new(listener);
    let canceller = listener.canceller();
    let accepting = waiting(move || listener.accept());
    canceller.cancel();
    canceller.resume();
    assert_fails(accepting.finish(soon()).unwrap(), ErrorKind::Interrupted);
}

#[test]
fn an_accept_times_out_and_never_early() {
    let (_backend, listener) = listening();
    let timeout = Duration::from_millis(50);
    let watch = Stopwatch::start();
    assert_fails(listener.accept_timeout(timeout), ErrorKind::TimedOut);
    assert!(watch.elapsed() >= timeout);
    assert_fails(
        listener.accept_timeout(Duration::ZERO),
        ErrorKind::InvalidInput,
    );
}

#[test]
fn an_accept_with_a_timeout_gets_a_connection_or_ends_with_the_backend() {
    let (backend, listener) = listening();
    let listener = Arc::new(listener);
    let accept = |timeout| {
        let listener = Arc::clone(&listener);
        waiting(move || listener.accept_timeout(timeout))
    };
    let accepting = accept(Duration::MAX); // too long for the clock
    let _device = backend.connect(PORT).unwrap();
    accepting.finish(soon()).unwrap().unwrap();
    let accepting = accept(Duration::from_secs(3600));
    drop(backend);
    assert_fails(accepting.finish(soon()).unwrap(), ErrorKind::NotConnected);
}

#[test]
fn nonblocking_mode_ignores_the_timeout_of_an_accept() {
    let (_backend, listener) = listening();
    listener.set_nonblocking(true).unwrap();
    assert_fails(
        listener.accept_timeout(Duration::MAX),
        ErrorKind::WouldBlock,
    );
}

#[test]
fn a_long_spin_does_not_outlast_the_timeout() {
    let config = VsockInnerConfig::default().spin_budget(Duration::from_secs(3600));
    let (mut near, _far) = VsockInnerStream::pair_with(&config).unwrap();
    near.set_read_timeout(Some(Duration::from_millis(5)))
        .unwrap();
    assert_fails(near.read(&mut [0]), ErrorKind::TimedOut);
}

#[test]
fn a_write_that_finds_space_again_and_again_still_times_out() {
    let config = VsockInnerConfig::default()
        .to_device(Capacity::Bytes(4))
        .spin_budget(Duration::from_secs(3600));
    let (mut near, mut far) = VsockInnerStream::pair_with(&config).unwrap();
    near.set_write_timeout(Some(Duration::from_millis(20)))
        .unwrap();
    let reading = std::thread::spawn(move || while far.read_exact(&mut [0]).is_ok() {});
    // At about a byte a spin, this would take hours.
    let watch = Stopwatch::start();
    let written = near.write(&vec![0; 1 << 32]).unwrap();
    assert!(written < 1 << 32 && watch.elapsed() >= Duration::from_millis(20));
    drop(near);
    reading.join().unwrap();
}

#[derive(Clone, Copy, Debug)]
enum Step {
    Cancel,
    Resume,
    Write(usize),
    Read(usize),
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        Just(Step::Cancel),
        Just(Step::Resume),
        (1..40_usize).prop_map(Step::Write),
        (1..40_usize).prop_map(Step::Read),
    ]
}

proptest! {
    #[test]
    fn a_call_is_cancelled_exactly_where_it_would_wait(steps in vec(step(), 0..60)) {
        const CAPACITY: usize = 32;
        // After a refused write, a quarter must be free.
        const RESUME: usize = CAPACITY / 4;
        let config = Inner::holding(CAPACITY).config;
        let (mut near, mut far) = VsockInnerStream::pair_with(&config).unwrap();
        // A call that waits although it was cancelled would fail in another way.
        near.set_write_timeout(Some(Duration::from_millis(1))).unwrap();
        far.set_read_timeout(Some(Duration::from_millis(1))).unwrap();
        let cancellers = [near.canceller(), far.canceller()];
        let (mut queued, mut refused, mut cancelled) = (0, false, false);
        for step in steps {
            let waited = match cancelled {
                true => ErrorKind::Interrupted,
                false => ErrorKind::TimedOut,
            };
            match step {
                Step::Cancel => cancellers.iter().for_each(Canceller::cancel),
                Step::Resume => cancellers.iter().for_each(Canceller::resume),
                Step::Write(len) => {
                    let free = CAPACITY - queued;
                    let fits = if refused && free < RESUME { 0 } else { free };
                    let want = if fits == 0 { Err(waited) } else { Ok(len.min(fits)) };
                    let got = near.write(&vec![0; len]).map_err(|error| error.kind());
                    prop_assert_eq!(got, want);
                    refused = len > fits;
                    queued += want.unwrap_or(0);
                }
                Step::Read(len) => {
                    let want = if queued == 0 { Err(waited) } else { Ok(len.min(queued)) };
                    let got = far.read(&mut vec![0; len]).map_err(|error| error.kind());
                    prop_assert_eq!(got, want);
                    queued -= want.unwrap_or(0);
                }
            }
            cancelled = match step {
                Step::Cancel => true,
                Step::Resume => false,
                Step::Write(_) | Step::Read(_) => cancelled,
            };
        }
    }
}
