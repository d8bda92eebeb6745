// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Random operations on both ends at the same time, each end on a separate thread.
//!
//! The result of a call depends on the other thread, so no model predicts each step. But all bytes
//! must arrive in order, each end must be one that the other side made, and after both threads have
//! finished, the descriptors must be right.

use std::io::{self, ErrorKind, IoSlice, IoSliceMut};
use std::net::Shutdown;
use std::time::Duration;

use proptest::prelude::{ProptestConfig, proptest};
use vsock_compliance::call::Call;
use vsock_compliance::pattern::Pattern;
use vsock_compliance::poll::{PollInterest, Watch, is_readable, is_writable};
use vsock_compliance::transfer::{Transfer, TransferPlan, WaitStyle};
use vsock_compliance::{BoxedStream, ConnectionEnd, Mode, PairSource, refusal_threshold};
use vsock_muxer_harness::strategy::{EndAction, actions};
use vsock_tests::inner::{Inner, Way};

use crate::soon;

/// How long a blocking call waits for the other thread.
const TIMEOUT: Duration = Duration::from_millis(2);

/// One end, and what was done with it.
struct Worker {
    /// `None` after it was dropped.
    stream: Option<BoxedStream>,
    mode: Mode,
    sent: Pattern,
    received: Pattern,
    shut_read: bool,
    shut_write: bool,
    aborted: bool,
    /// The end that reads have reported. `Some(None)` is a clean one.
    read_end: Option<Option<ErrorKind>>,
    write_end: Option<ErrorKind>,
    last_write_refused: bool,
}

impl Worker {
    fn new(stream: BoxedStream, mode: Mode) -> Self {
        Self {
            stream: Some(stream),
            mode,
            sent: Pattern::default(),
            received: Pattern::default(),
            shut_read: false,
            shut_write: false,
            aborted: false,
            read_end: None,
            write_end: None,
            last_write_refused: false,
        }
    }

    fn run(mut self, actions: &[EndAction]) -> Self {
        if let Some(stream) = &mut self.stream {
            stream.set_read_timeout(Some(TIMEOUT)).unwrap();
            stream.set_write_timeout(Some(TIMEOUT)).unwrap();
        }
        for action in actions {
            self.act(action);
        }
        self
    }

    fn act(&mut self, action: &EndAction) {
        let Some(stream) = &mut self.stream else {
            return;
        };
        match action {
            EndAction::Read(len) | EndAction::Peek(len) => {
                let mut buf = vec![0; *len];
                let got = stream.read(&mut buf);
                self.was_read(got, buf);
            }
            EndAction::ReadVectored(lens) => {
                let mut bufs: Vec<_> = lens.iter().map(|len| vec![0; *len]).collect();
                let mut slices: Vec<_> = bufs.iter_mut().map(|buf| IoSliceMut::new(buf)).collect();
                let got = stream.read_vectored(&mut slices);
                self.was_read(got, bufs.concat());
            }
            EndAction::Write(len) => {
                let written = stream.write(&self.sent.peek(*len));
                self.was_written(written, *len);
            }
            EndAction::WriteVectored(lens) => {
                let mut from = self.sent.clone();
                let bufs: Vec<_> = lens.iter().map(|len| from.take(*len)).collect();
                let slices: Vec<_> = bufs.iter().map(|buf| IoSlice::new(buf)).collect();
                let written = stream.write_vectored(&slices);
                self.was_written(written, lens.iter().sum());
            }
            EndAction::SetMode(mode) => {
                stream.set_nonblocking(mode.is_nonblocking()).unwrap();
                self.mode = *mode;
            }
            EndAction::Shutdown(how) => {
                stream.shutdown(*how).unwrap();
                self.shut_read |= *how != Shutdown::Write;
                self.shut_write |= *how != Shutdown::Read;
            }
            EndAction::TakeFd(PollInterest::Read) => {
                let _fd = stream.as_raw_fd();
            }
            EndAction::TakeFd(PollInterest::Write) => {
                stream.write_ready_fd().unwrap();
            }
            // Ignored: no call may wait indefinitely.
            EndAction::SetReadTimeout(_) | EndAction::SetWriteTimeout(_) => {}
            EndAction::Drop => self.stream = None,
            EndAction::Abort => {
                self.aborted = true;
                if let Some(stream) = self.stream.take() {
                    stream.abort();
                }
            }
        }
    }

    /// Returns whether dropping it may have been a close. That is possible even with unread bytes,
    /// if they arrived afterwards.
    fn may_have_closed(&self) -> bool {
        self.stream.is_none() && (!self.aborted || self.shut_write)
    }

    /// Returns whether dropping it may have been a reset.
    fn may_have_reset(&self, unread: bool) -> bool {
        self.stream.is_none() && (self.aborted || unread)
    }

    fn refusal(&self) -> ErrorKind {
        match self.mode {
            Mode::Blocking => ErrorKind::TimedOut,
            Mode::Nonblocking => ErrorKind::WouldBlock,
        }
    }

    fn was_read(&mut self, got: io::Result<usize>, mut buf: Vec<u8>) {
        match got.map_err(|error| error.kind()) {
            Ok(0) if buf.is_empty() => {}
            Ok(0) => self.read_ended(None),
            Ok(len) => {
                assert_eq!(
                    self.read_end, None,
                    "bytes came after the end, own: {}",
                    self.shut_read
                );
                buf.truncate(len);
                self.received
                    .verify(&buf)
                    .expect("every byte arrives once and in order");
            }
            Err(kind) if kind == self.refusal() => {
                assert_eq!(self.read_end, None, "a read would block after the end");
            }
            Err(kind) => {
                assert_eq!(kind, ErrorKind::ConnectionReset);
                self.read_ended(Some(kind));
            }
        }
    }

    fn read_ended(&mut self, end: Option<ErrorKind>) {
        // A shutdown of one's own turns a reset into a clean end. Nothing else changes an end.
        let before = self.read_end.replace(end);
        assert!(
            before.is_none() || before == Some(end) || self.shut_read,
            "{before:?} then {end:?}"
        );
    }

    fn was_written(&mut self, written: io::Result<usize>, wanted: usize) {
        if wanted == 0 {
            assert_eq!(written.unwrap(), 0);
            return;
        }
        self.last_write_refused = false;
        match written.map_err(|error| error.kind()) {
            Ok(len) => {
                assert!(len > 0, "a write returned Ok(0)");
                assert_eq!(self.write_end, None, "a write was accepted after the end");
                // A blocking write that was cut short has seen a full direction, as a refused one
                // has. After either, space counts only above the threshold.
                self.last_write_refused = len < wanted && self.mode == Mode::Blocking;
                self.sent.advance(len);
            }
            Err(kind) if kind == self.refusal() => {
                assert_eq!(self.write_end, None, "a write would block after the end");
                self.last_write_refused = true;
            }
            Err(kind) => {
                assert!(
                    matches!(kind, ErrorKind::BrokenPipe | ErrorKind::ConnectionReset),
                    "{kind:?}"
                );
                self.write_end = Some(kind);
            }
        }
    }
}

/// Checks both directions at rest, from `writer` to `reader`.
fn check_direction(writer: &mut Worker, reader: &mut Worker, capacity: usize) {
    let queued = writer.sent.position() - reader.received.position();
    assert!(
        queued <= capacity as u64,
        "{queued} bytes queued of {capacity}"
    );
    check_write_end(
        writer,
        reader,
        capacity,
        capacity - usize::try_from(queued).unwrap(),
    );
    check_read_end(writer, reader, queued);
}

fn check_write_end(writer: &mut Worker, reader: &Worker, capacity: usize, free: usize) {
    let unread = free < capacity;
    let Some(stream) = &mut writer.stream else {
        return;
    };
    // After a refusal, the transport may report no space until a part of the capacity is free.
    let capacity_counts = !writer.last_write_refused;
    let ready = is_writable(stream.write_ready_fd().unwrap()).unwrap();
    let mut edges = Watch::edges(stream.write_ready_fd().unwrap(), PollInterest::Write).unwrap();
    assert_eq!(edges.now().unwrap().is_some(), ready);
    stream.set_nonblocking(true).unwrap();
    let written = stream
        .write(&writer.sent.peek(1))
        .map_err(|error| error.kind());
    assert_eq!(
        ready,
        written != Err(ErrorKind::WouldBlock),
        "the write fd contradicts {written:?}"
    );
    // A shutdown of either side takes precedence over a reset: writes fail with `BrokenPipe`.
    let clean = reader.shut_read || writer.shut_write;
    match written {
        Ok(len) => {
            writer.sent.advance(len);
            assert!(free > 0 && !clean && reader.stream.is_some());
        }
        Err(ErrorKind::WouldBlock) => {
            assert!(!clean && reader.stream.is_some());
            assert!(
                free < refusal_threshold(capacity),
                "refused with {free} bytes free"
            );
            assert!(
                free == 0 || !capacity_counts,
                "a write was refused with {free} bytes free"
            );
        }
        Err(ErrorKind::BrokenPipe) => assert!(clean || reader.may_have_closed()),
        Err(kind) => {
            assert_eq!(kind, ErrorKind::ConnectionReset);
            assert!(!clean && reader.may_have_reset(unread));
        }
    }
}

fn check_read_end(writer: &Worker, reader: &mut Worker, queued: u64) {
    // The byte that `check_write_end` wrote may have arrived.
    let queued = queued.max(writer.sent.position() - reader.received.position());
    let Some(stream) = &mut reader.stream else {
        return;
    };
    let unread = reader.sent.position() > writer.received.position();
    let clean = writer.shut_write || reader.shut_read;
    let ended = clean || writer.stream.is_none();
    let fd = stream.as_raw_fd();
    assert_eq!(
        is_readable(fd).unwrap(),
        queued > 0 || ended,
        "{queued} queued, ended: {ended}"
    );
    stream.set_nonblocking(true).unwrap();
    let mut rest = vec![0; usize::try_from(queued).unwrap() + 1];
    if reader.shut_read {
        // Bytes written during the reader's shutdown may be missing at the end. The others arrive
        // in order.
        let len = stream.read(&mut rest).unwrap();
        assert!(len as u64 <= queued && (reader.read_end.is_none() || len == 0));
        reader.received.verify(&rest[..len]).unwrap();
    } else if queued > 0 {
        let len = stream
            .read(&mut rest)
            .expect("no byte of a successful write is lost");
        assert_eq!(len as u64, queued);
        reader.received.verify(&rest[..len]).unwrap();
    }
    assert_eq!(is_readable(fd).unwrap(), ended, "drained, ended: {ended}");
    let end = stream.read(&mut rest).map_err(|error| error.kind());
    match end {
        Ok(len) => assert!(len == 0 && (clean || writer.may_have_closed())),
        Err(ErrorKind::ConnectionReset) => assert!(!clean && writer.may_have_reset(unread)),
        Err(kind) => {
            assert_eq!(kind, ErrorKind::WouldBlock);
            assert!(!ended);
        }
    }
}

fn drive(source: &Inner, capacity: usize, there: &[EndAction], here: Vec<EndAction>) {
    let (application, device) = source.pair().unwrap();
    let [application_mode, device_mode] = ConnectionEnd::BOTH.map(|end| source.initial_mode(end));
    let mut application = Worker::new(application, application_mode);
    let device = Worker::new(device, device_mode);
    let other = Call::start(move || device.run(&here)).unwrap();
    application = application.run(there);
    let mut device = other.finish(soon()).expect("a call never returned");
    for (worker, peer) in [(&application, &device), (&device, &application)] {
        if let Some(stream) = &worker.stream {
            assert_eq!(stream.peer_gone(), peer.stream.is_none());
        }
    }
    check_direction(&mut application, &mut device, capacity);
    check_direction(&mut device, &mut application, capacity);
}

fn config() -> ProptestConfig {
    ProptestConfig {
        // Every run has another interleaving, so a failure neither repeats nor shrinks far.
        failure_persistence: None,
        max_shrink_iters: 100,
        ..ProptestConfig::default()
    }
}

/// The writer compares its ways to copy several times.
#[test]
fn long_writes_arrive_unchanged_however_they_are_copied() {
    let plan = |seed| TransferPlan {
        bytes: 32 << 20,
        longest: 100_000,
        style: WaitStyle::Blocking,
        stall_timeout: Duration::from_secs(60),
        seed,
    };
    let ends = Inner::by(Way::BackendAccepts).pair().unwrap();
    let transfer = Transfer::start(ends, plan(1), plan(2)).unwrap();
    transfer.finish().unwrap();
}

proptest! {
    #![proptest_config(config())]

    #[test]
    fn a_pair_of_a_byte(there in actions(1, 80), here in actions(1, 80)) {
        drive(&Inner::holding(1), 1, &there, here);
    }

    #[test]
    fn a_small_accepted_pair(there in actions(7, 150), here in actions(7, 150)) {
        drive(&Inner::holding(7).made_by(Way::BackendAccepts), 7, &there, here);
    }

    #[test]
    fn halves_of_a_page(there in actions(4096, 150), here in actions(4096, 150)) {
        drive(&Inner::holding(4096).made_by(Way::Split), 4096, &there, here);
    }

    #[test]
    fn a_pair_over_many_blocks(there in actions(100_000, 80), here in actions(100_000, 80)) {
        drive(&Inner::holding(100_000).made_by(Way::ListenerAccepts), 100_000, &there, here);
    }
}
