// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Weaknesses that channel-per-message transports of this kind have had: none may come back. Each
//! test bears the number of its weakness. Where there was a choice, the contract made it: a drop
//! without a shutdown is a reset (S4), an expired timeout is `TimedOut` (S9), HUP is never reported
//! (S11).

use std::io::{ErrorKind, IoSlice, Read, Write};
use std::net::Shutdown;
use std::os::fd::AsRawFd;
use std::time::Duration;

use vsock_backend_api::{VsockBackend, VsockStream};
use vsock_compliance::call::Call;
use vsock_compliance::fd;
use vsock_compliance::pattern::Pattern;
use vsock_compliance::poll::{PollInterest, Stopwatch, Watch, is_readable, is_writable};
use vsock_compliance::transfer::{TransferPlan, TransferProgress, WaitStyle, receive, send};
use vsock_inner::{VsockInnerBackend, VsockInnerConfig, VsockInnerStream};

use crate::{PATIENCE, soon};

/// The application's end and a non-blocking device's end.
fn accepted() -> (VsockInnerStream, Box<dyn VsockStream>) {
    let mut backend = VsockInnerBackend::new().unwrap();
    let application = backend.get_connector().connect_stream().unwrap();
    (application, backend.accept().unwrap())
}

fn readable(stream: &dyn VsockStream) -> bool {
    is_readable(stream.as_raw_fd()).unwrap()
}

#[test]
fn s1_bytes_before_a_drop_are_read_before_the_end() {
    for room in [1, 4, 5, 64] {
        let (mut application, mut device) = accepted();
        application.write_all(b"hello").unwrap();
        drop(application);
        let mut got = Vec::new();
        let mut buf = vec![0; room];
        let end = loop {
            match device.read(&mut buf) {
                Ok(len @ 1..) => got.extend_from_slice(&buf[..len]),
                end => break end,
            }
        };
        assert_eq!(got, b"hello", "through a buffer of {room}");
        assert_eq!(end.unwrap(), 0);
    }
}

/// How a busy non-blocking reader and a writer end: every byte there, and the fd not readable.
fn busy_reader(rounds: usize) {
    for round in 0..rounds {
        let (mut application, mut device) = accepted();
        let _fd = device.as_raw_fd(); // taken, so that the writer has a doorbell to ring
        let mut want = Pattern::default();
        let writing = Call::start(move || {
            let mut sent = Pattern::default();
            for _ in 0..2000 {
                application.write_all(&sent.take(97)).unwrap();
            }
            application
        })
        .unwrap();
        let mut buf = [0; 4096];
        let deadline = soon();
        while want.position() < 2000 * 97 {
            match device.read(&mut buf) {
                Ok(len) => want.verify(&buf[..len]).unwrap(),
                Err(error) => assert_eq!(error.kind(), ErrorKind::WouldBlock),
            }
            assert!(!deadline.passed(), "bytes were lost in round {round}");
        }
        let _application = writing.finish(soon()).unwrap();
        assert!(!readable(&*device), "readable for ever after round {round}");
        assert_eq!(
            device.read(&mut buf).unwrap_err().kind(),
            ErrorKind::WouldBlock
        );
    }
}

#[test]
fn s2_a_busy_nonblocking_reader_loses_no_byte() {
    busy_reader(20);
}

#[test]
fn s3_a_drained_fd_is_not_readable_for_ever() {
    let (mut application, mut device) = accepted();
    let fd = device.as_raw_fd();
    for _ in 0..1000 {
        application.write_all(b"abc").unwrap();
        assert!(is_readable(fd).unwrap());
        assert_eq!(device.read(&mut [0; 64]).unwrap(), 3);
        assert!(!is_readable(fd).unwrap());
    }
}

#[test]
fn s4_an_abort_is_a_reset_and_a_drop_or_a_shutdown_is_an_end() {
    let (application, mut device) = accepted();
    application.abort();
    assert_eq!(
        device.read(&mut [0]).unwrap_err().kind(),
        ErrorKind::ConnectionReset
    );
    assert_eq!(
        device.write(b"x").unwrap_err().kind(),
        ErrorKind::ConnectionReset
    );

    for shut in [None, Some(Shutdown::Both)] {
        let (mut application, mut device) = accepted();
        if let Some(how) = shut {
            application.shutdown(how).unwrap();
        }
        drop(application);
        assert_eq!(device.read(&mut [0]).unwrap(), 0);
        assert_eq!(
            device.write(b"x").unwrap_err().kind(),
            ErrorKind::BrokenPipe
        );
    }
}

#[test]
fn s5_a_half_close_passes_both_ways() {
    let (mut application, mut device) = accepted();
    application.write_all(b"request").unwrap();
    application.shutdown(Shutdown::Write).unwrap();
    assert_eq!(device.read(&mut [0; 64]).unwrap(), 7);
    assert_eq!(device.read(&mut [0; 64]).unwrap(), 0);
    device.write_all(b"response").unwrap();
    device.shutdown(Shutdown::Write).unwrap();
    let mut response = Vec::new();
    application.read_to_end(&mut response).unwrap();
    assert_eq!(response, b"response");
}

#[test]
fn s6_a_writer_that_nobody_reads_is_held_back() {
    let (mut application, device) = accepted();
    application.set_nonblocking(true).unwrap();
    let mut taken = 0;
    let refused = loop {
        match application.write(&[0; 64 * 1024]) {
            Ok(len) => taken += len,
            Err(error) => break error,
        }
    };
    assert_eq!(refused.kind(), ErrorKind::WouldBlock);
    assert_eq!(taken, 256 * 1024);
    assert_eq!(application.queued_out(), 256 * 1024);
    drop(device);
}

#[test]
fn s6_one_byte_writes_queue_as_densely_as_large_ones() {
    let (mut application, _device) = accepted();
    application.set_nonblocking(true).unwrap();
    let taken = (0..)
        .take_while(|_| application.write(b"x").is_ok())
        .count();
    assert_eq!(taken, 256 * 1024);
}

#[test]
fn s7_mode_flips_of_the_reader_never_reach_the_writer() {
    let (mut application, mut device) = accepted();
    let plan = |style, seed| TransferPlan {
        bytes: 4 << 20,
        longest: 3000,
        style,
        stall_timeout: PATIENCE,
        seed,
    };
    let (blocking, flipping) = (plan(WaitStyle::Blocking, 1), plan(WaitStyle::Flipping, 2));
    let writing = Call::start(move || {
        send(&mut application, blocking, &TransferProgress::default()).map(|()| application)
    })
    .unwrap();
    let reading = Call::start(move || {
        receive(&mut *device, flipping, &TransferProgress::default()).map(|()| device)
    })
    .unwrap();
    let _device = reading.finish(soon()).unwrap().unwrap();
    let _application = writing.finish(soon()).unwrap().unwrap();
}

#[test]
fn s8_an_empty_write_queues_nothing_and_wakes_nobody() {
    let (mut application, mut device) = accepted();
    let mut edges = Watch::edges(device.as_raw_fd(), PollInterest::Read).unwrap();
    assert_eq!(application.write(&[]).unwrap(), 0);
    assert!(edges.now().unwrap().is_none());
    assert!(!readable(&*device));
    assert_eq!(
        device.read(&mut [0]).unwrap_err().kind(),
        ErrorKind::WouldBlock
    );
}

#[test]
fn s9_a_read_timeout_is_counted_from_the_call_and_is_timed_out() {
    let (mut application, mut device) = accepted();
    let timeout = Duration::from_millis(30);
    application.set_read_timeout(Some(timeout)).unwrap();
    let reading = Call::start(move || {
        let watch = Stopwatch::start();
        (application.read(&mut [0]), watch.elapsed())
    })
    .unwrap();
    while !reading.has_returned() {
        assert_eq!(device.write(&[]).unwrap(), 0);
    }
    let (read, took) = reading.finish(soon()).unwrap();
    assert_eq!(read.unwrap_err().kind(), ErrorKind::TimedOut);
    assert!(took >= timeout);
}

#[test]
fn s9_a_zero_timeout_is_invalid_and_a_write_timeout_works() {
    let (mut application, _device) = accepted();
    for refused in [
        application.set_read_timeout(Some(Duration::ZERO)),
        application.set_write_timeout(Some(Duration::ZERO)),
    ] {
        assert_eq!(refused.unwrap_err().kind(), ErrorKind::InvalidInput);
    }
    application
        .set_write_timeout(Some(Duration::from_millis(5)))
        .unwrap();
    application.write_all(&[0; 256 * 1024]).unwrap();
    assert_eq!(
        application.write(b"x").unwrap_err().kind(),
        ErrorKind::TimedOut
    );
}

#[test]
fn s10_an_edge_triggered_reader_sees_every_arrival() {
    let (mut application, mut device) = accepted();
    let mut edges = Watch::edges(device.as_raw_fd(), PollInterest::Read).unwrap();
    for round in 0..100 {
        application.write_all(b"one").unwrap();
        application.write_all(b"two").unwrap();
        assert!(edges.now().unwrap().is_some(), "no edge in round {round}");
        assert_eq!(device.read(&mut [0; 64]).unwrap(), 6);
        assert_eq!(
            device.read(&mut [0; 64]).unwrap_err().kind(),
            ErrorKind::WouldBlock
        );
    }
}

#[test]
fn s11_a_dead_peer_is_noticed_without_polling_for_bytes() {
    let (mut application, device) = accepted();
    application.write_all(b"unread").unwrap();
    let mut edges = Watch::edges(device.as_raw_fd(), PollInterest::Read).unwrap();
    assert!(edges.now().unwrap().is_some());
    assert!(!device.peer_gone());
    drop(application);
    let report = edges.now().unwrap().unwrap();
    assert!(report.readable() && !report.hung_up());
    assert!(device.peer_gone());
}

#[test]
fn s11_writability_follows_the_space() {
    let (mut application, mut device) = accepted();
    application.set_nonblocking(true).unwrap();
    let fd = application.write_ready_fd().unwrap();
    assert!(is_writable(fd).unwrap());
    while application.write(&[0; 4096]).is_ok() {}
    assert!(!is_writable(fd).unwrap());
    device.read_exact(&mut vec![0; 256 * 1024]).unwrap();
    assert!(is_writable(fd).unwrap());
}

#[test]
fn s12_small_writes_gather_and_vectored_writes_are_whole() {
    let (mut application, mut device) = accepted();
    for _ in 0..10 {
        application.write_all(b"0123456789").unwrap();
    }
    assert_eq!(device.read(&mut [0; 4096]).unwrap(), 100);
    let slices = [
        IoSlice::new(b"head"),
        IoSlice::new(b""),
        IoSlice::new(b"tail"),
    ];
    assert_eq!(application.write_vectored(&slices).unwrap(), 8);
    assert_eq!(device.read(&mut [0; 4096]).unwrap(), 8);
}

#[test]
fn s13_a_spoiled_fd_never_makes_a_write_fail_or_repeat() {
    let (mut application, mut device) = accepted();
    let mut by_hand = fd::duplicate(device.as_raw_fd()).unwrap();
    // The counter one below its maximum: a doorbell that counts up would block or fail.
    by_hand.write_all(&(u64::MAX - 1).to_ne_bytes()).unwrap();
    application.write_all(b"once").unwrap();
    let mut got = [0; 64];
    assert_eq!(device.read(&mut got).unwrap(), 4);
    assert_eq!(
        device.read(&mut got).unwrap_err().kind(),
        ErrorKind::WouldBlock
    );
}

#[test]
fn s14_whoever_is_woken_by_a_drop_sees_it() {
    for _ in 0..200 {
        let (application, mut device) = accepted();
        let mut edges = Watch::edges(device.as_raw_fd(), PollInterest::Read).unwrap();
        edges.now().unwrap();
        let dropping = Call::start(move || drop(application)).unwrap();
        // The first wake may come before the drop is over. But a read that would block then means
        // that another edge comes.
        let deadline = soon();
        let end = loop {
            edges.wait(deadline).expect("the drop was missed");
            match device.read(&mut [0]) {
                Err(error) if error.kind() == ErrorKind::WouldBlock => {}
                end => break end,
            }
        };
        assert_eq!(end.unwrap(), 0);
        dropping.finish(soon()).unwrap();
    }
}

#[test]
fn s15_unread_bytes_of_a_dropped_reader_are_told_to_the_writer() {
    let (mut application, device) = accepted();
    application.write_all(b"nobody reads this").unwrap();
    drop(device);
    assert_eq!(
        application.write(b"x").unwrap_err().kind(),
        ErrorKind::ConnectionReset
    );
}

#[test]
fn s16_connects_that_nobody_accepts_are_refused_in_the_end() {
    let backend = VsockInnerBackend::with_config(VsockInnerConfig::default().pending(10)).unwrap();
    let connector = backend.get_connector();
    let mut connected = Vec::new();
    let refused = loop {
        match connector.connect_stream() {
            Ok(stream) => connected.push(stream),
            Err(error) => break error,
        }
    };
    assert_eq!(
        (connected.len(), refused.kind()),
        (10, ErrorKind::ConnectionRefused)
    );
}

#[test]
fn s17_each_accept_returns_the_next_connection() {
    let mut backend = VsockInnerBackend::new().unwrap();
    let connector = backend.get_connector();
    let mut clients = Vec::new();
    for name in 0..50_u8 {
        let mut client = connector.connect_stream().unwrap();
        client.write_all(&[name]).unwrap();
        clients.push(client);
        if name % 3 != 0 {
            continue;
        }
        assert!(readable_backend(&backend));
    }
    for name in 0..50 {
        let mut got = [0];
        backend.accept().unwrap().read_exact(&mut got).unwrap();
        assert_eq!(got, [name]);
    }
    assert!(!readable_backend(&backend));
}

fn readable_backend(backend: &VsockInnerBackend) -> bool {
    is_readable(backend.as_raw_fd()).unwrap()
}

#[test]
fn s18_the_guest_reaches_a_listener_of_the_host() {
    let backend = VsockInnerBackend::new().unwrap();
    let listener = backend.listen(9).unwrap();
    let mut device = backend.connect(9).unwrap();
    device.write_all(b"from the guest").unwrap();
    assert_eq!(listener.accept().unwrap().read(&mut [0; 64]).unwrap(), 14);
}

#[test]
fn s19_the_handshake_takes_pieces_and_leaves_what_follows() {
    let mut backend = VsockInnerBackend::new().unwrap();
    let connector = backend.get_connector();
    let connecting = Call::start(move || connector.connect_to(1)).unwrap();
    connecting.asleep(soon()).unwrap();
    let mut muxer = backend.accept().unwrap();
    for piece in ["O", "K 10", "73741824", "\nservice"] {
        muxer.write_all(piece.as_bytes()).unwrap();
    }
    let mut stream = connecting.finish(soon()).unwrap().unwrap();
    let mut got = [0; 7];
    stream.read_exact(&mut got).unwrap();
    assert_eq!(&got, b"service");
}

#[test]
fn s20_both_directions_are_used_at_once_from_two_threads() {
    let (application, mut device) = accepted();
    device.set_nonblocking(false).unwrap();
    let (mut reader, mut writer) = application.into_split();
    let echoing = Call::start(move || {
        let mut buf = vec![0; 10_000];
        loop {
            match device.read(&mut buf) {
                Ok(0) => return device.shutdown(Shutdown::Write),
                Ok(len) => device.write_all(&buf[..len])?,
                Err(error) => return Err(error),
            }
        }
    })
    .unwrap();
    let reading = Call::start(move || {
        let mut echo = Vec::new();
        reader.read_to_end(&mut echo).map(|_| echo)
    })
    .unwrap();
    let sent = Pattern::default().take(4 << 20);
    let copy = sent.clone();
    let writing =
        Call::start(move || writer.write_all(&copy).and_then(|()| writer.shutdown())).unwrap();
    writing.finish(soon()).unwrap().unwrap();
    assert!(
        reading.finish(soon()).unwrap().unwrap() == sent,
        "the echo differs"
    );
    echoing.finish(soon()).unwrap().unwrap();
}

#[test]
fn s21_a_mode_belongs_to_one_end() {
    let (mut near, mut far) = VsockInnerStream::pair().unwrap();
    near.set_nonblocking(true).unwrap();
    far.set_read_timeout(Some(Duration::from_millis(1)))
        .unwrap();
    assert_eq!(far.read(&mut [0]).unwrap_err().kind(), ErrorKind::TimedOut);
    assert_eq!(
        near.read(&mut [0]).unwrap_err().kind(),
        ErrorKind::WouldBlock
    );
}

#[test]
fn s22_one_read_drains_a_thousand_writes() {
    let (mut application, mut device) = accepted();
    let mut edges = Watch::edges(device.as_raw_fd(), PollInterest::Read).unwrap();
    for _ in 0..1000 {
        application.write_all(b"x").unwrap();
    }
    assert!(edges.now().unwrap().is_some());
    assert_eq!(device.read(&mut [0; 4096]).unwrap(), 1000);
    assert!(!readable(&*device));
    application.write_all(b"x").unwrap();
    assert!(edges.now().unwrap().is_some());
}

#[test]
fn s23_a_stream_tells_what_is_queued_and_whether_its_peer_is_gone() {
    let (mut application, device) = accepted();
    application.write_all(&[0; 42]).unwrap();
    let any = device.into_any().unwrap();
    let device = any.downcast::<VsockInnerStream>().unwrap();
    assert_eq!((application.queued_out(), device.queued_in()), (42, 42));
    assert!(!application.peer_gone());
    drop(device);
    assert!(application.peer_gone());
}

#[test]
fn no_byte_comes_after_the_end_of_ones_own_reading() {
    for _ in 0..500 {
        let (mut near, mut far) = VsockInnerStream::pair().unwrap();
        near.set_nonblocking(true).unwrap();
        let writing = Call::start(move || while far.write(b"x").is_ok() {}).unwrap();
        while near.read(&mut [0; 64]).is_err() {}
        near.shutdown(Shutdown::Read).unwrap();
        while near.read(&mut [0; 64]).unwrap() > 0 {}
        writing.finish(soon()).unwrap();
        assert_eq!(near.read(&mut [0; 64]).unwrap(), 0, "a byte after the end");
        assert_eq!(near.queued_in(), 0);
    }
}
