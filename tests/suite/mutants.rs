// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Each rule of the compliance suite must fail for a stream or a backend with the fault that the
//! rule is about.
//!
//! The rules that Unix sockets break are proven by their exceptions: an exception whose rule holds
//! fails the suite.
//!
//! The rules must also hold on a machine where threads are slow. A rule that depends on another
//! thread's progress would judge the machine, not the transport. Some mutants therefore do in every
//! call what load causes once in a thousand runs.

use std::any::Any;
use std::collections::BTreeSet;
use std::io::{self, ErrorKind, IoSlice, IoSliceMut, Read, Write};
use std::net::Shutdown;
use std::os::fd::{AsRawFd, OwnedFd, RawFd};
use std::sync::{Mutex, PoisonError};
use std::thread;
use std::time::Duration;

use rustix::event::{EventfdFlags, eventfd};
use vsock_backend_api::{
    Received, Record, VsockBackend, VsockBackendType, VsockMessages, VsockStream,
};
use vsock_compliance::call::Call;
use vsock_compliance::fd::duplicate;
use vsock_compliance::poll::{Deadline, pace};
use vsock_compliance::{
    BackendSource, BoxedStream, CapacityPromise, ConnectionEnd, Mode, PairSource, Scene,
    ServedBackend, backend_rules, message_rules, stream_rules,
};
use vsock_tests::inner::{Inner, Way};
use vsock_tests::unix::SeqpacketSockets;

use crate::compliance::{EMPTY_EXCEPTIONS, UNIX_BACKEND_EXCEPTIONS, UNIX_EXCEPTIONS};
use crate::{DEADLINE, soon};

/// Declares faults, each with the rules that must detect it.
macro_rules! faults {
    (
        $(#[$of:meta])* $name:ident, $table:ident;
        $($(#[$doc:meta])* $fault:ident: $($rule:ident)*;)+
    ) => {
        $(#[$of])*
        #[derive(Clone, Copy, Debug, Eq, PartialEq)]
        enum $name {
            $($(#[$doc])* $fault,)+
        }

        const $table: &[($name, &[&str])] = &[$(($name::$fault, &[$(stringify!($rule)),*])),+];
    };
}

faults! {
    /// A fault of a stream.
    Fault, MUTANTS;
    /// Reads change a byte.
    Corrupts: bytes_of_every_size_arrive_in_order directions_carry_their_own_bytes
        bytes_survive_threads_in_every_mix_of_modes a_blocking_write_returns_when_all_is_accepted
        a_read_before_an_end_returns_its_bytes queued_bytes_come_before_every_end
        ones_own_shutdown_of_read_leaves_what_is_queued;
    /// Vectored calls use only the last buffer.
    SwapsBuffers: vectored_calls_are_one_stream;
    ReadsByteByByte: a_read_gathers_writes;
    /// A blocking read waits until its buffer is full.
    WaitsForAFullBuffer: a_read_does_not_wait_for_a_full_buffer;
    /// A read discards what does not fit.
    DropsTheRest: a_read_stops_at_its_buffer;
    PeekTakes: a_peek_takes_nothing;
    StartsInTheOtherMode: an_end_starts_in_its_mode;
    /// A mode change sends a byte.
    ModeIsAnEvent: a_mode_change_does_not_reach_a_blocked_peer
        a_mode_change_is_no_event_for_the_peer a_mode_change_keeps_the_peers_mode;
    EmptyWriteSends: an_empty_write_wakes_nobody;
    IgnoresShutdown: a_blocked_read_ends_with_a_shutdown a_blocked_write_ends_with_a_shutdown
        a_shutdown_cuts_a_write_short the_fd_is_readable_after_the_peers_end
        the_fd_is_readable_after_its_own_shutdown an_end_is_an_edge
        ones_own_shutdown_of_read_is_an_edge a_shutdown_of_write_ends_the_peers_reading
        a_shutdown_of_read_breaks_the_peers_writing ones_own_shutdown_of_write_breaks_writing;
    ShutsDownOnce: a_second_shutdown_is_ok a_shutdown_after_the_peers_drop_is_ok;
    /// A drop leaves everything open.
    Leaks: a_blocked_read_ends_with_a_drop a_blocked_write_ends_with_a_drop a_drop_is_a_close
        a_drop_is_an_edge_while_bytes_wait a_drop_is_an_edge_after_ones_own_shutdown
        the_fd_may_be_taken_after_an_end a_drop_closes_the_descriptors_of_its_end;
    /// A blocking write returns before everything is accepted.
    WritesHalf: a_blocking_write_returns_when_all_is_accepted;
    /// A write that was cut short returns an error.
    LosesTheCount: a_timeout_cuts_a_write_short;
    /// A timeout cannot be removed.
    KeepsTimeouts: a_read_without_a_usable_timeout_waits a_write_without_a_usable_timeout_waits;
    /// Non-blocking calls that cannot make progress are `TimedOut`.
    TimesOutAlways: nonblocking_mode_ignores_timeouts a_read_of_nothing_would_block
        a_write_into_a_full_direction_would_block;
    /// A non-blocking write accepts everything or nothing.
    AllOrNothing: a_partial_write_returns_its_count;
    PromisesOneMore: a_direction_holds_exactly_its_capacity any_space_counts_before_a_refusal;
    PromisesNoBound: an_unbounded_direction_never_refuses;
    /// A blocking write drops what does not fit.
    NeverBlocks: a_full_direction_blocks_its_writer a_blocked_writer_waits_for_the_space_of_the_fd;
    /// It does not read after a refused write.
    OneWay: a_full_direction_leaves_the_other_free;
    AlwaysReadable: the_fd_is_readable_exactly_while_bytes_wait
        the_fd_ignores_what_does_not_concern_reading a_level_triggered_loop_does_not_spin
        the_fd_tells_the_truth_in_blocking_mode the_fd_may_be_taken_after_data
        the_fd_may_be_taken_after_everything_was_read;
    NeverReadable: each_arrival_after_a_drain_is_an_edge an_end_is_an_edge
        registering_late_reports_what_is_there;
    AlwaysWritable: the_write_fd_is_ready_exactly_while_there_is_space
        the_write_fd_ignores_the_other_direction any_space_counts_before_a_refusal
        new_space_is_an_edge write_and_fd_agree_on_the_space_after_a_refusal
        the_write_fd_may_be_taken_when_full;
    NotCloseOnExec: descriptors_are_close_on_exec;
    /// It signals the former descriptor numbers of its peer.
    SignalsClosedNumbers: a_doorbell_never_rings_a_closed_number;
    /// Messages arrive without their last byte.
    LosesAByte: messages_keep_their_boundaries a_message_may_lie_in_pieces
        messages_come_before_the_end messages_come_before_the_peers_leaving;
    /// An empty message is not sent.
    LosesEmpty: an_empty_message_is_a_message_and_no_end a_waiting_message_is_readable;
    /// The part of a message that does not fit is silently discarded.
    CutsOff: a_message_longer_than_the_buffer_is_told;
    SendsWhatHasNoRoom: a_message_without_room_is_not_sent;
    SendsAfterItsEnd: nothing_is_sent_after_ones_own_end;
    /// It never changes its mode.
    IgnoresModes: a_read_of_nothing_would_block;
    /// No fault: a blocking write sleeps before its first byte, as it would for a lock or for
    /// memory.
    WritesLate:;
    /// No fault: a read begins after every timeout of the peer.
    ReadsLate:;
    /// No fault: a blocking write never sleeps.
    WritesAwake:;
}

/// Pairs of a small capacity with a fault.
struct Mutants {
    inner: Inner,
    fault: Fault,
}

impl PairSource for Mutants {
    fn pair(&self) -> io::Result<(BoxedStream, BoxedStream)> {
        let (application, device) = match self.fault {
            Fault::LosesAByte
            | Fault::LosesEmpty
            | Fault::CutsOff
            | Fault::SendsWhatHasNoRoom
            | Fault::SendsAfterItsEnd => SeqpacketSockets.pair()?,
            _ => self.inner.pair()?,
        };
        let numbers = |stream: &BoxedStream| match self.fault {
            Fault::SignalsClosedNumbers => Ok(vec![stream.as_raw_fd(), stream.write_ready_fd()?]),
            _ => io::Result::Ok(Vec::new()),
        };
        let (theirs, ours) = (numbers(&device)?, numbers(&application)?);
        Ok((
            Box::new(Mutant::new(application, self.fault, theirs)?),
            Box::new(Mutant::new(device, self.fault, ours)?),
        ))
    }

    fn capacity(&self, writer: ConnectionEnd) -> CapacityPromise {
        match (self.fault, self.inner.capacity(writer)) {
            (Fault::PromisesOneMore, CapacityPromise::Bytes(len)) => {
                CapacityPromise::Bytes(len + 1)
            }
            (Fault::PromisesNoBound, _) => CapacityPromise::Unbounded,
            (_, promise) => promise,
        }
    }

    fn initial_mode(&self, end: ConnectionEnd) -> Mode {
        match (self.fault, self.inner.initial_mode(end)) {
            (Fault::StartsInTheOtherMode, Mode::Blocking) => Mode::Nonblocking,
            (_, mode) => mode,
        }
    }

    fn peek(&self, stream: &mut dyn VsockStream, buf: &mut [u8]) -> Option<io::Result<usize>> {
        let mutant: &mut Mutant = stream.as_any_mut()?.downcast_mut()?;
        match self.fault {
            Fault::PeekTakes => Some(mutant.stream().read(buf)),
            _ => self.inner.peek(&mut **mutant.stream(), buf),
        }
    }
}

struct Mutant {
    /// `None` after a drop has leaked it.
    stream: Option<BoxedStream>,
    fault: Fault,
    nonblocking: bool,
    modes: usize,
    timeouts: [Option<Duration>; 2],
    shut_down: bool,
    refused: bool,
    /// A descriptor that is always readable, never readable, or open across an exec, as the fault
    /// needs.
    decoy: OwnedFd,
    peers_numbers: Vec<RawFd>,
}

impl Mutant {
    fn new(stream: BoxedStream, fault: Fault, peers_numbers: Vec<RawFd>) -> io::Result<Self> {
        let (count, flags) = match fault {
            Fault::AlwaysReadable => (1, EventfdFlags::CLOEXEC),
            Fault::NotCloseOnExec => (0, EventfdFlags::empty()),
            _ => (0, EventfdFlags::CLOEXEC),
        };
        Ok(Self {
            stream: Some(stream),
            fault,
            nonblocking: false,
            modes: 0,
            timeouts: [None; 2],
            shut_down: false,
            refused: false,
            decoy: eventfd(count, flags)?,
            peers_numbers,
        })
    }

    fn stream(&mut self) -> &mut BoxedStream {
        self.stream.as_mut().expect("the stream exists")
    }

    fn inner_messages(&mut self) -> io::Result<&mut dyn VsockMessages> {
        let messages = self.stream().messages();
        messages.ok_or_else(|| ErrorKind::Unsupported.into())
    }

    fn seen(&self) -> &BoxedStream {
        self.stream.as_ref().expect("the stream exists")
    }

    /// Keeps the first timeout if that is the fault.
    fn timeout(&mut self, at: usize, timeout: Option<Duration>) -> Option<Duration> {
        if self.fault == Fault::KeepsTimeouts && self.timeouts[at].is_some() {
            return self.timeouts[at];
        }
        self.timeouts[at] = timeout;
        timeout
    }

    fn outcome(&mut self, result: io::Result<usize>) -> io::Result<usize> {
        match result {
            Err(error) if error.kind() == ErrorKind::WouldBlock => match self.fault {
                Fault::TimesOutAlways => Err(ErrorKind::TimedOut.into()),
                _ => Err(error),
            },
            other => other,
        }
    }
}

/// Longer than it takes to see that a thread sleeps.
const MOMENT: Duration = Duration::from_millis(20);
/// Longer than the timeouts of the rules.
const AGES: Duration = Duration::from_millis(300);

impl Mutant {
    /// A blocking write that never sleeps.
    fn write_awake(&mut self, buf: &[u8]) -> io::Result<usize> {
        let deadline = Deadline::after(self.timeouts[1].unwrap_or(Duration::MAX));
        self.stream().set_nonblocking(true)?;
        let mut done = 0;
        let end = loop {
            match self.stream().write(&buf[done..]) {
                Ok(len) if done + len < buf.len() => done += len,
                Ok(len) => break Ok(done + len),
                Err(error) if error.kind() != ErrorKind::WouldBlock => break Err(error),
                Err(_) if deadline.passed() => break Err(ErrorKind::TimedOut.into()),
                Err(_) => thread::yield_now(),
            }
        };
        self.stream().set_nonblocking(false)?;
        // As a write that slept: if some bytes were accepted, their count hides the error.
        if done > 0 {
            Ok(end.unwrap_or(done))
        } else {
            end
        }
    }
}

impl Read for Mutant {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        if self.fault == Fault::ReadsLate {
            pace(AGES)?;
        }
        if self.refused && self.fault == Fault::OneWay {
            return Err(ErrorKind::WouldBlock.into());
        }
        let most = match self.fault {
            Fault::ReadsByteByByte => buf.len().min(1),
            _ => buf.len(),
        };
        if self.fault == Fault::WaitsForAFullBuffer && !self.nonblocking {
            self.stream()
                .set_read_timeout(Some(Duration::from_secs(1)))?;
            return self.stream().read_exact(buf).map(|()| buf.len());
        }
        let read = self.stream().read(&mut buf[..most]);
        if let (Ok(1..), Fault::Corrupts) = (&read, self.fault) {
            buf[0] ^= 1;
        }
        if let (Ok(1..), Fault::DropsTheRest) = (&read, self.fault) {
            while let Ok(1..) = self.stream().read(&mut [0; 64]) {}
        }
        self.outcome(read)
    }

    fn read_vectored(&mut self, bufs: &mut [IoSliceMut<'_>]) -> io::Result<usize> {
        match (self.fault, bufs.last_mut()) {
            (Fault::SwapsBuffers, Some(last)) => self.stream().read(last),
            _ => self.stream().read_vectored(bufs),
        }
    }
}

impl Write for Mutant {
    fn write(&mut self, buf: &[u8]) -> io::Result<usize> {
        let blocking = !self.nonblocking;
        if blocking && self.fault == Fault::WritesLate {
            pace(MOMENT)?;
        }
        let written = match self.fault {
            Fault::WritesAwake if blocking => return self.write_awake(buf),
            Fault::EmptyWriteSends if buf.is_empty() => self.stream().write(b"x").map(|_| 0),
            Fault::WritesHalf if blocking && buf.len() > 1 => {
                let half = buf.len() / 2;
                self.stream().write(&buf[..half])
            }
            Fault::NeverBlocks if blocking => {
                self.stream().set_nonblocking(true)?;
                let _some = self.stream().write(buf);
                self.stream().set_nonblocking(false)?;
                Ok(buf.len())
            }
            Fault::AllOrNothing if buf.len() > Mutants::CAPACITY => {
                Err(ErrorKind::WouldBlock.into())
            }
            _ => self.stream().write(buf),
        };
        match (&written, self.fault) {
            (Ok(len), Fault::LosesTheCount) if *len < buf.len() && blocking => {
                return Err(ErrorKind::TimedOut.into());
            }
            (Err(error), Fault::SignalsClosedNumbers) if error.kind() != ErrorKind::WouldBlock => {
                pace(Duration::from_millis(20))?; // until the numbers are in use again
                for number in &self.peers_numbers {
                    if let Ok(mut file) = duplicate(*number) {
                        let _rung = file.write(&1_u64.to_ne_bytes());
                    }
                }
            }
            (Err(_), _) => self.refused = true,
            _ => {}
        }
        self.outcome(written)
    }

    fn write_vectored(&mut self, bufs: &[IoSlice<'_>]) -> io::Result<usize> {
        match (self.fault, bufs.last()) {
            (Fault::SwapsBuffers, Some(last)) => self.stream().write(last),
            _ => self.stream().write_vectored(bufs),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl AsRawFd for Mutant {
    fn as_raw_fd(&self) -> RawFd {
        match self.fault {
            Fault::AlwaysReadable | Fault::NeverReadable | Fault::NotCloseOnExec => {
                self.decoy.as_raw_fd()
            }
            _ => self.seen().as_raw_fd(),
        }
    }
}

impl VsockStream for Mutant {
    fn backend_type(&self) -> VsockBackendType {
        self.seen().backend_type()
    }
    fn set_nonblocking(&mut self, nonblocking: bool) -> io::Result<()> {
        self.nonblocking = nonblocking;
        self.modes += 1;
        if self.fault == Fault::ModeIsAnEvent && self.modes > 1 {
            self.stream().write_all(b"x")?;
        }
        if self.fault == Fault::IgnoresModes {
            return Ok(());
        }
        self.stream().set_nonblocking(nonblocking)
    }
    fn set_read_timeout(&mut self, timeout: Option<Duration>) -> io::Result<()> {
        let timeout = self.timeout(0, timeout);
        self.stream().set_read_timeout(timeout)
    }
    fn set_write_timeout(&mut self, timeout: Option<Duration>) -> io::Result<()> {
        let timeout = self.timeout(1, timeout);
        self.stream().set_write_timeout(timeout)
    }
    fn shutdown(&mut self, how: Shutdown) -> io::Result<()> {
        let again = std::mem::replace(&mut self.shut_down, true) || self.peer_gone();
        match self.fault {
            Fault::IgnoresShutdown => Ok(()),
            Fault::ShutsDownOnce if again => Err(ErrorKind::NotConnected.into()),
            _ => self.stream().shutdown(how),
        }
    }
    fn write_ready_fd(&self) -> io::Result<RawFd> {
        match self.fault {
            Fault::AlwaysWritable => Ok(self.decoy.as_raw_fd()),
            _ => self.seen().write_ready_fd(),
        }
    }
    fn peer_gone(&self) -> bool {
        self.seen().peer_gone()
    }
    fn messages(&mut self) -> Option<&mut dyn VsockMessages> {
        self.stream().messages()?;
        Some(self)
    }
    fn as_any(&self) -> &dyn Any {
        self
    }
    fn as_any_mut(&mut self) -> Option<&mut dyn Any> {
        Some(self)
    }
    fn abort(mut self: Box<Self>) {
        if let Some(stream) = self.stream.take() {
            stream.abort();
        }
    }
}

/// Streams that were leaked: they exist until the process ends.
static LEAKED: Mutex<Vec<BoxedStream>> = Mutex::new(Vec::new());

impl Drop for Mutant {
    fn drop(&mut self) {
        if self.fault == Fault::Leaks {
            let mut leaked = LEAKED.lock().unwrap_or_else(PoisonError::into_inner);
            leaked.extend(self.stream.take());
        }
    }
}

/// Long enough for what must happen, short enough to wait for what must not.
const TIMEOUT: Duration = Duration::from_millis(500);

impl Mutants {
    const CAPACITY: usize = 1000;

    fn new(fault: Fault) -> Self {
        let inner = Inner::holding(Self::CAPACITY);
        Self { inner, fault }
    }

    /// Checks that the rule `name` holds at either end.
    #[track_caller]
    fn assert_holds(fault: Fault, name: &str) {
        let inner = Inner::holding(5);
        let mutants = Self { inner, fault };
        let mut rules = stream_rules().into_iter();
        let rule = rules.find(|rule| rule.as_ref().name == name);
        let rule = rule.expect("the rule exists");
        for near in ConnectionEnd::BOTH {
            let scene = Scene::new(&mutants, near, DEADLINE);
            if let Err(why) = rule.check(&scene) {
                panic!("{rule:?}, from {scene:?}: {why}");
            }
        }
    }
}

/// Faults that do not concern messages change nothing here.
impl VsockMessages for Mutant {
    fn send_message(&mut self, message: &[IoSlice<'_>], record: Record) -> io::Result<()> {
        let is_empty = message.iter().all(|piece| piece.is_empty());
        let sent = match self.fault {
            Fault::LosesEmpty if is_empty => Ok(()),
            _ => self.inner_messages()?.send_message(message, record),
        };
        match (self.fault, sent) {
            (Fault::SendsWhatHasNoRoom | Fault::SendsAfterItsEnd, Err(_)) => Ok(()),
            (_, sent) => sent,
        }
    }

    fn receive_message(&mut self, buffer: &mut [u8]) -> io::Result<Received> {
        let received = self.inner_messages()?.receive_message(buffer)?;
        Ok(match (self.fault, received) {
            (Fault::LosesAByte, Received::Message { len, record }) => {
                let len = len.saturating_sub(1);
                Received::Message { len, record }
            }
            (Fault::CutsOff, Received::TooLong) => Received::Message {
                len: buffer.len(),
                record: Record::Continues,
            },
            (_, received) => received,
        })
    }
}

#[test]
fn a_timeout_that_passes_before_the_rule_looks_still_cuts_the_write_short() {
    Mutants::assert_holds(Fault::WritesAwake, "a_timeout_cuts_a_write_short");
}

#[test]
fn an_end_that_cuts_a_write_short_comes_after_its_first_bytes() {
    Mutants::assert_holds(Fault::WritesLate, "a_shutdown_cuts_a_write_short");
    Mutants::assert_holds(Fault::WritesLate, "a_drop_cuts_a_write_short");
}

#[test]
fn a_reader_that_is_late_by_the_whole_timeout_does_not_prolong_a_write() {
    Mutants::assert_holds(Fault::ReadsLate, "a_slow_reader_does_not_prolong_a_write");
}

#[test]
fn a_stream_that_ignores_its_mode_breaks_every_rule_without_blocking_it() {
    for rule in [stream_rules(), message_rules()].concat() {
        let judging = Call::start(move || {
            let mutants = Mutants::new(Fault::IgnoresModes);
            let brief = Duration::from_millis(20);
            let scene = Scene::new(&mutants, ConnectionEnd::Application, brief);
            rule.check(&scene).is_err()
        });
        let broken = judging.unwrap().finish(soon());
        assert!(broken.expect("the rule ends"), "{rule:?} holds");
    }
}

#[test]
fn each_rule_about_streams_and_messages_detects_its_fault() {
    let rules = [stream_rules(), message_rules()].concat();
    let unshared = UNIX_EXCEPTIONS.iter().chain(EMPTY_EXCEPTIONS);
    let mut proven: BTreeSet<_> = unshared.map(|exception| exception.name).collect();
    for (fault, names) in MUTANTS {
        let mutants = Mutants::new(*fault);
        for name in *names {
            let rule = rules.iter().find(|rule| rule.as_ref().name == *name);
            let rule = rule.unwrap_or_else(|| panic!("there is no rule {name}"));
            let breaks = |near| rule.check(&Scene::new(&mutants, near, TIMEOUT)).is_err();
            let noticed = ConnectionEnd::BOTH.into_iter().any(breaks);
            assert!(noticed, "{name} does not detect {fault:?}");
            proven.insert(*name);
        }
    }
    let all: BTreeSet<_> = rules.iter().map(|rule| rule.as_ref().name).collect();
    assert_eq!(proven, all);
}

faults! {
    /// A fault of a backend.
    BackendFault, BACKEND_MUTANTS;
    AlwaysReadable: the_backends_fd_is_readable_exactly_while_one_waits;
    /// An accept without a pending connection returns the wrong error.
    AnotherError: an_accept_of_nothing_would_block;
    /// The most recent connection is accepted first.
    Reversed: connections_are_accepted_in_order;
    NotCloseOnExec: the_backends_fd_is_close_on_exec;
    AcceptsBlocking: an_accepted_stream_is_nonblocking;
}

struct MutantBackend {
    backend: Box<dyn VsockBackend>,
    fault: BackendFault,
    decoy: OwnedFd,
}

impl AsRawFd for MutantBackend {
    fn as_raw_fd(&self) -> RawFd {
        match self.fault {
            BackendFault::AlwaysReadable | BackendFault::NotCloseOnExec => self.decoy.as_raw_fd(),
            _ => self.backend.as_raw_fd(),
        }
    }
}

impl VsockBackend for MutantBackend {
    fn accept(&mut self) -> io::Result<BoxedStream> {
        let mut accepted = self.backend.accept();
        match self.fault {
            BackendFault::AnotherError => accepted.map_err(|_| ErrorKind::NotConnected.into()),
            BackendFault::Reversed => {
                while let Ok(next) = self.backend.accept() {
                    accepted = Ok(next);
                }
                accepted
            }
            BackendFault::AcceptsBlocking => {
                let mut stream = accepted?;
                stream.set_nonblocking(false)?;
                stream.set_read_timeout(Some(Duration::from_millis(10)))?;
                Ok(stream)
            }
            BackendFault::AlwaysReadable | BackendFault::NotCloseOnExec => accepted,
        }
    }
    fn connect(&self, dst_port: u32) -> io::Result<BoxedStream> {
        self.backend.connect(dst_port)
    }
    fn r#type(&self) -> VsockBackendType {
        self.backend.r#type()
    }
    fn as_any(&self) -> &dyn Any {
        self
    }
}

impl BackendSource for BackendFault {
    fn backend(&self) -> io::Result<ServedBackend> {
        let ServedBackend { backend, connect } = Inner::by(Way::BackendAccepts).backend()?;
        let (count, flags) = match self {
            Self::AlwaysReadable => (1, EventfdFlags::CLOEXEC),
            _ => (0, EventfdFlags::empty()),
        };
        let backend = Box::new(MutantBackend {
            backend,
            fault: *self,
            decoy: eventfd(count, flags)?,
        });
        Ok(ServedBackend { backend, connect })
    }
}

#[test]
fn each_rule_about_backends_detects_its_fault() {
    let rules = backend_rules();
    let mut proven = BTreeSet::new();
    for (fault, names) in BACKEND_MUTANTS {
        for name in *names {
            let rule = rules.iter().find(|rule| rule.as_ref().name == *name);
            assert!(rule.unwrap().check(fault).is_err(), "{fault:?}");
            proven.insert(*name);
        }
    }
    proven.extend(
        UNIX_BACKEND_EXCEPTIONS
            .iter()
            .map(|exception| exception.name),
    );
    let all: BTreeSet<_> = rules.iter().map(|rule| rule.as_ref().name).collect();
    assert_eq!(proven, all);
}
