// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Every interleaving of two ends that do a few things at the same time.
//!
//! The streams are the shipping ones, over the models of `sync`. A lost wake-up shows as a deadlock,
//! a byte that two threads reach as a race, and a descriptor that does not agree with the stream as a
//! failed assertion, once all threads have come to rest.

mod closing;

use std::io::{ErrorKind, Read, Write};
use std::net::Shutdown;
use std::os::fd::AsRawFd;
use std::time::Duration;

use loom::thread;
use vsock_backend_api::{VsockAddr, VsockStream};

use crate::canceller::Canceller;
use crate::config::{Capacity, VsockInnerConfig};
use crate::handshake::{self, HandshakeError};
use crate::reader::VsockInnerReader;
use crate::request;
use crate::stream::VsockInnerStream;
use crate::writer::VsockInnerWriter;

/// Explores the interleavings with up to four preemptions, or as many as `LOOM_MAX_PREEMPTIONS` says.
/// Most of these are complete within a minute without any bound.
fn explore(execution: impl Fn() + Send + Sync + 'static) {
    let mut builder = loom::model::Builder::new();
    builder.preemption_bound.get_or_insert(4);
    builder.check(execution);
}

/// Two ends that never spin: the checker would only explore that one sees nothing new.
fn pair(capacity: usize) -> (VsockInnerStream, VsockInnerStream) {
    let config = VsockInnerConfig::default()
        .to_device(Capacity::Bytes(capacity))
        .to_application(Capacity::Bytes(capacity))
        .spin_budget(Duration::ZERO);
    VsockInnerStream::pair_with(&config).unwrap()
}

/// A direction: its writer and its reader, and the other halves, to be kept.
fn direction(capacity: usize) -> (VsockInnerWriter, VsockInnerReader, impl Sized) {
    let (near, far) = pair(capacity);
    let (near_reader, writer) = near.into_split();
    let (reader, far_writer) = far.into_split();
    (writer, reader, (near_reader, far_writer))
}

/// Everything up to the end, and how it ended.
fn read_all(reader: &mut impl Read) -> (Vec<u8>, Option<ErrorKind>) {
    let mut all = Vec::new();
    let mut buf = [0; 4];
    loop {
        match reader.read(&mut buf) {
            Ok(0) => return (all, None),
            Ok(n) => all.extend_from_slice(&buf[..n]),
            Err(error) => return (all, Some(error.kind())),
        }
    }
}

/// At rest, the descriptor says what a read would do.
fn assert_readability(reader: &mut VsockInnerReader) {
    let polls_ready = reader.doorbell().polls_ready();
    reader.set_nonblocking(true).unwrap();
    let blocks = reader
        .peek(&mut [0])
        .is_err_and(|error| error.kind() == ErrorKind::WouldBlock);
    assert_eq!(
        polls_ready, !blocks,
        "readable: {polls_ready}, a read blocks: {blocks}"
    );
}

/// At rest, the descriptor says what a write would do.
fn assert_writability(writer: &mut VsockInnerWriter) {
    let polls_ready = writer.doorbell().polls_ready();
    writer.set_nonblocking(true).unwrap();
    let blocks = writer
        .write(&[9])
        .is_err_and(|error| error.kind() == ErrorKind::WouldBlock);
    assert_eq!(
        polls_ready, !blocks,
        "writable: {polls_ready}, a write blocks: {blocks}"
    );
}

#[test]
fn a_blocked_reader_misses_no_byte_and_no_end() {
    explore(|| {
        let (mut writer, mut reader, _rest) = direction(8);
        let reading = thread::spawn(move || read_all(&mut reader));
        writer.write_all(&[1, 2, 3]).unwrap();
        writer.shutdown().unwrap();
        assert_eq!(reading.join().unwrap(), (vec![1, 2, 3], None));
    });
}

#[test]
fn a_blocked_reader_wakes_for_each_of_two_writes() {
    explore(|| {
        let (mut writer, mut reader, _rest) = direction(8);
        let reading = thread::spawn(move || {
            let mut two = [0; 2];
            reader.read_exact(&mut two).unwrap();
            two
        });
        writer.write_all(&[1]).unwrap();
        writer.write_all(&[2]).unwrap();
        assert_eq!(reading.join().unwrap(), [1, 2]);
    });
}

#[test]
fn a_blocked_writer_misses_no_space() {
    explore(|| {
        let (mut writer, mut reader, _rest) = direction(1);
        let writing = thread::spawn(move || writer.write(&[1, 2]).unwrap());
        let mut two = [0; 2];
        reader.read_exact(&mut two).unwrap();
        assert_eq!((two, writing.join().unwrap()), ([1, 2], 2));
    });
}

#[test]
fn a_blocked_writer_waits_for_its_share_of_the_capacity() {
    // A refused write at a capacity of eight counts on space again from two bytes on.
    explore(|| {
        let (mut writer, mut reader, _rest) = direction(8);
        writer.write_all(&[0; 8]).unwrap();
        let writing = thread::spawn(move || writer.write(&[1]).unwrap());
        reader.read_exact(&mut [0]).unwrap();
        reader.read_exact(&mut [0]).unwrap();
        assert_eq!(writing.join().unwrap(), 1);
    });
}

#[test]
fn the_queue_goes_round_in_its_blocks_without_a_race() {
    explore(|| {
        let (mut writer, mut reader, _rest) = direction(4);
        writer.write_all(&[1, 2]).unwrap();
        let reading = thread::spawn(move || {
            let mut bytes = [0; 6];
            reader.set_nonblocking(true).unwrap();
            let first = reader.read(&mut bytes[..3]).unwrap();
            reader.set_nonblocking(false).unwrap();
            reader.read_exact(&mut bytes[first..]).unwrap();
            bytes
        });
        writer.write_all(&[3, 4]).unwrap();
        writer.write_all(&[5, 6]).unwrap();
        assert_eq!(reading.join().unwrap(), [1, 2, 3, 4, 5, 6]);
    });
}

/// As a read into guest memory does: it copies first, over the seams of blocks, and takes then.
#[test]
fn what_was_shown_is_what_is_taken_then_while_the_writer_goes_round() {
    explore(|| {
        let (mut writer, mut reader, _rest) = direction(4);
        writer.write_all(&[1, 2]).unwrap();
        let reading = thread::spawn(move || {
            let (mut shown, mut bytes) = ([0; 4], [0; 6]);
            let there = reader.peek(&mut shown).unwrap();
            reader.read_exact(&mut bytes[..there]).unwrap();
            assert_eq!(shown[..there], bytes[..there]);
            reader.read_exact(&mut bytes[there..]).unwrap();
            bytes
        });
        writer.write_all(&[3, 4]).unwrap();
        writer.write_all(&[5, 6]).unwrap();
        assert_eq!(reading.join().unwrap(), [1, 2, 3, 4, 5, 6]);
    });
}

#[test]
fn a_polled_reader_is_readable_exactly_when_there_is_something() {
    explore(|| {
        let (mut writer, mut reader, _rest) = direction(8);
        reader.set_nonblocking(true).unwrap();
        reader.as_raw_fd();
        let writing = thread::spawn(move || {
            writer.write_all(&[1]).unwrap();
            writer.write_all(&[2]).unwrap();
            writer
        });
        drop(reader.read(&mut [0; 4]));
        drop(reader.read(&mut [0; 4]));
        let _writer = writing.join().unwrap();
        assert_readability(&mut reader);
    });
}

#[test]
fn a_reader_that_answers_its_own_request_is_readable_exactly_when_there_is_something() {
    explore(|| {
        let (mut writer, mut reader, _rest) = direction(8);
        reader.set_nonblocking(true).unwrap();
        reader.as_raw_fd();
        let writing = thread::spawn(move || {
            writer.write_all(&[1]).unwrap();
            writer.write_all(&[2]).unwrap();
            writer
        });
        // As a look ahead does that has seen something.
        let something = reader.peek(&mut [0]).is_ok();
        reader.doorbell().wake();
        assert!(!something || reader.doorbell().polls_ready());
        drop(reader.read(&mut [0; 4]));
        reader.doorbell().wake();
        let _writer = writing.join().unwrap();
        assert_readability(&mut reader);
    });
}

#[test]
fn an_edge_comes_for_whatever_comes_after_a_refused_read() {
    explore(|| {
        let (mut writer, mut reader, _rest) = direction(8);
        reader.set_nonblocking(true).unwrap();
        reader.as_raw_fd();
        let writing = thread::spawn(move || {
            writer.write_all(&[1]).unwrap();
            writer
        });
        let mut edges = reader.doorbell().edges();
        if reader.read(&mut [0; 4]).is_ok() {
            edges = reader.doorbell().edges();
            assert_eq!(
                reader.read(&mut [0]).unwrap_err().kind(),
                ErrorKind::WouldBlock
            );
        }
        let _writer = writing.join().unwrap();
        if reader.peek(&mut [0]).is_ok() {
            assert!(reader.doorbell().edges() > edges, "data without an edge");
        }
    });
}

#[test]
fn a_descriptor_taken_late_agrees_with_what_happens_meanwhile() {
    explore(|| {
        let (mut writer, mut reader, _rest) = direction(8);
        let writing = thread::spawn(move || {
            writer.write_all(&[1]).unwrap();
            writer
        });
        reader.as_raw_fd();
        reader.set_nonblocking(true).unwrap();
        drop(reader.read(&mut [0; 4]));
        let _writer = writing.join().unwrap();
        assert_readability(&mut reader);
    });
}

#[test]
fn a_descriptor_taken_late_agrees_with_the_peers_drop() {
    explore(|| {
        let (writer, mut reader, _rest) = direction(8);
        let dropping = thread::spawn(move || drop(writer));
        reader.as_raw_fd();
        dropping.join().unwrap();
        assert!(reader.doorbell().polls_ready());
        assert_readability(&mut reader);
    });
}

#[test]
fn a_polled_writer_is_writable_exactly_when_there_is_space() {
    explore(|| {
        let (mut writer, mut reader, _rest) = direction(2);
        writer.set_nonblocking(true).unwrap();
        writer.write_ready_fd().unwrap();
        writer.write_all(&[1, 2]).unwrap();
        let reading = thread::spawn(move || {
            reader.read_exact(&mut [0]).unwrap();
            reader.read_exact(&mut [0]).unwrap();
            reader
        });
        drop(writer.write(&[3]));
        drop(writer.write(&[4, 5]));
        let _reader = reading.join().unwrap();
        assert_writability(&mut writer);
    });
}

#[test]
fn a_writer_refused_meanwhile_is_woken_at_its_share() {
    explore(|| {
        let (mut writer, mut reader, _rest) = direction(8);
        writer.set_nonblocking(true).unwrap();
        writer.write_all(&[0; 8]).unwrap();
        let reading = thread::spawn(move || {
            reader.read_exact(&mut [0]).unwrap();
            reader.read_exact(&mut [0]).unwrap();
            reader
        });
        writer.write_ready_fd().unwrap();
        drop(writer.write(&[1]));
        let _reader = reading.join().unwrap();
        assert_writability(&mut writer);
    });
}

#[test]
fn a_reset_comes_after_the_bytes() {
    explore(|| {
        let (mut near, mut far) = pair(8);
        let reading = thread::spawn(move || read_all(&mut far));
        near.write_all(&[1, 2]).unwrap();
        near.abort();
        assert_eq!(
            reading.join().unwrap(),
            (vec![1, 2], Some(ErrorKind::ConnectionReset))
        );
    });
}

#[test]
fn a_blocked_writer_learns_of_the_readers_drop() {
    explore(|| {
        let (mut writer, reader, _rest) = direction(1);
        writer.write_all(&[1]).unwrap();
        // What the drop throws away makes space, so a byte or two may still be accepted.
        let writing = thread::spawn(move || writer.write_all(&[2, 3, 4]).unwrap_err().kind());
        drop(reader);
        assert_eq!(writing.join().unwrap(), ErrorKind::ConnectionReset);
    });
}

#[test]
fn a_blocked_writer_learns_of_the_readers_shutdown() {
    explore(|| {
        let (mut writer, mut reader, _rest) = direction(1);
        writer.write_all(&[1]).unwrap();
        let writing = thread::spawn(move || writer.write(&[2]).unwrap_err().kind());
        reader.shutdown().unwrap();
        assert_eq!(writing.join().unwrap(), ErrorKind::BrokenPipe);
        assert_eq!(read_all(&mut reader), (vec![1], None));
    });
}

#[test]
fn both_ends_may_be_dropped_at_the_same_time() {
    explore(|| {
        let (mut near, mut far) = pair(8);
        near.as_raw_fd();
        far.as_raw_fd();
        near.write_all(&[1, 2, 3]).unwrap();
        let dropping = thread::spawn(move || drop(near));
        drop(far.write(&[4]));
        drop(far);
        dropping.join().unwrap();
    });
}

#[test]
fn a_wake_up_in_flight_finds_no_closed_descriptor() {
    // The model's eventfd is freed with its ready_fd: a use after that is a use after free.
    explore(|| {
        let (mut writer, mut reader, _rest) = direction(8);
        reader.set_nonblocking(true).unwrap();
        reader.as_raw_fd();
        drop(reader.read(&mut [0]));
        let writing = thread::spawn(move || writer.write(&[1]).is_ok());
        drop(reader);
        writing.join().unwrap();
    });
}

#[test]
fn the_last_half_of_an_end_makes_an_edge_and_the_end_is_gone() {
    explore(|| {
        let (near, far) = pair(8);
        let (reader, writer) = near.into_split();
        let (mut far_reader, _far_writer) = far.into_split();
        far_reader.as_raw_fd();
        far_reader.shutdown().unwrap(); // readable from here on
        let edges = far_reader.doorbell().edges();
        let dropping = thread::spawn(move || drop(reader));
        drop(writer);
        dropping.join().unwrap();
        assert!(far_reader.peer_gone());
        assert!(
            far_reader.doorbell().edges() > edges,
            "the peer's drop made no edge"
        );
    });
}

#[test]
fn a_change_of_mode_is_nothing_to_the_peer() {
    explore(|| {
        let (mut near, mut far) = pair(8);
        far.as_raw_fd();
        let writing = thread::spawn(move || {
            near.set_nonblocking(true).unwrap();
            near.write_all(&[1]).unwrap();
            near.set_nonblocking(false).unwrap();
            near.write_all(&[2]).unwrap();
            near.shutdown(Shutdown::Write).unwrap();
            near
        });
        let mut all = Vec::new();
        far.set_nonblocking(true).unwrap();
        let mut buf = [0; 4];
        if let Ok(n) = far.read(&mut buf) {
            all.extend_from_slice(&buf[..n]);
        }
        far.set_nonblocking(false).unwrap();
        all.extend(read_all(&mut far).0);
        let _near = writing.join().unwrap();
        assert_eq!(all, [1, 2]);
    });
}

#[test]
fn a_cancellation_ends_a_blocked_read() {
    explore(|| {
        let (_writer, mut reader, _rest) = direction(8);
        let canceller = reader.canceller();
        let reading = thread::spawn(move || reader.read(&mut [0]).unwrap_err().kind());
        canceller.cancel();
        canceller.cancel();
        assert_eq!(reading.join().unwrap(), ErrorKind::Interrupted);
    });
}

/// A reader whose descriptor was taken, while another thread does `act` with its peer and its canceller.
fn read_while(act: fn(&mut VsockInnerWriter, &Canceller)) {
    explore(move || {
        let (mut writer, mut reader, _rest) = direction(8);
        reader.as_raw_fd();
        let canceller = reader.canceller();
        let acting = thread::spawn(move || {
            act(&mut writer, &canceller);
            (writer, canceller)
        });
        let first = reader.read(&mut [0; 4]).map_err(|error| error.kind());
        let (_writer, canceller) = acting.join().unwrap();
        // A call that can make progress does, cancelled or not.
        if first != Ok(1) {
            assert_eq!(first, Err(ErrorKind::Interrupted));
            assert_eq!(reader.read(&mut [0; 4]).unwrap(), 1);
        }
        canceller.resume();
        assert_readability(&mut reader);
    });
}

#[test]
fn a_cancellation_before_a_write_costs_no_byte_and_no_readiness() {
    read_while(|writer, canceller| {
        canceller.cancel();
        writer.write_all(&[1]).unwrap();
    });
}

#[test]
fn a_cancellation_after_a_write_costs_no_byte_and_no_readiness() {
    read_while(|writer, canceller| {
        writer.write_all(&[1]).unwrap();
        canceller.cancel();
    });
}

#[test]
fn a_cancelled_write_returns_what_it_has_moved() {
    explore(|| {
        let (mut writer, mut reader, _rest) = direction(1);
        let canceller = writer.canceller();
        let writing = thread::spawn(move || {
            let written = writer.write(&[1, 2]).unwrap();
            (written, writer)
        });
        canceller.cancel();
        let mut read = reader.read(&mut [0; 2]).unwrap();
        let (written, _writer) = writing.join().unwrap();
        reader.set_nonblocking(true).unwrap();
        read += reader.read(&mut [0; 2]).unwrap_or(0);
        assert_eq!(read, written);
    });
}

#[test]
fn a_reader_that_was_cancelled_is_woken_as_before() {
    explore(|| {
        let (mut writer, mut reader, _rest) = direction(8);
        let canceller = reader.canceller();
        canceller.cancel();
        let cancelled = reader.read(&mut [0]).unwrap_err().kind();
        assert_eq!(cancelled, ErrorKind::Interrupted);
        canceller.resume();
        let reading = thread::spawn(move || reader.read(&mut [0; 4]).unwrap());
        writer.write_all(&[1]).unwrap();
        assert_eq!(reading.join().unwrap(), 1);
    });
}

/// A stream that waits for its connection, and the device's end.
fn pending() -> (VsockInnerStream, VsockInnerStream) {
    let (mut near, mut far) = pair(64);
    request::ask(&mut near, &mut far, 5);
    near.set_nonblocking(true).unwrap();
    (near, far)
}

#[test]
fn a_confirmation_meets_a_write_and_a_poll_of_its_descriptor() {
    explore(|| {
        let (mut near, mut far) = pending();
        assert_eq!(far.requested_port(), Some(5));
        let confirming = thread::spawn(move || {
            far.confirm(1).unwrap();
            far
        });
        near.write_ready_fd().unwrap();
        drop(near.write(&[1]));
        let _far = confirming.join().unwrap();
        assert!(near.is_connected());
        assert!(near.writer.doorbell().polls_ready());
        assert_eq!(near.write(&[1]).unwrap(), 1);
    });
}

#[test]
fn a_confirmation_wakes_who_waits_for_it_and_shows_the_addresses() {
    explore(|| {
        let (near, mut far) = pending();
        assert_eq!(far.requested_port(), Some(5));
        let addr = |cid| VsockAddr { cid, port: 5 };
        let confirming = thread::spawn(move || {
            far.confirm_from(addr(3), addr(2)).unwrap();
            far
        });
        handshake::wait(&near, 5, Duration::MAX, Duration::ZERO).unwrap();
        assert_eq!(near.peer(), Some(addr(3)));
        drop(confirming.join().unwrap());
    });
}

#[test]
fn a_refusal_wakes_who_waits_and_makes_both_descriptors_ready() {
    explore(|| {
        let (mut near, far) = pending();
        let refusing = thread::spawn(move || drop(far));
        let refused = handshake::wait(&near, 5, Duration::MAX, Duration::ZERO);
        assert!(matches!(refused, Err(HandshakeError::Refused { .. })));
        near.as_raw_fd();
        near.write_ready_fd().unwrap();
        refusing.join().unwrap();
        assert!(near.reader.doorbell().polls_ready() && near.writer.doorbell().polls_ready());
        let refused = ErrorKind::ConnectionRefused;
        assert_eq!(near.read(&mut [0]).unwrap_err().kind(), refused);
        assert_eq!(near.write(&[0]).unwrap_err().kind(), refused);
    });
}

#[test]
fn a_wrong_answer_is_never_taken_for_a_refusal() {
    explore(|| {
        let (mut near, mut far) = pending();
        let reading = thread::spawn(move || {
            let wrong = [ErrorKind::WouldBlock, ErrorKind::InvalidData];
            let first = near.read(&mut [0]).unwrap_err().kind();
            assert!(wrong.contains(&first), "{first}");
            near
        });
        far.write_all(b"NO").unwrap();
        let mut near = reading.join().unwrap();
        near.as_raw_fd();
        assert!(near.reader.doorbell().polls_ready());
        assert_eq!(
            near.read(&mut [0]).unwrap_err().kind(),
            ErrorKind::InvalidData
        );
    });
}
