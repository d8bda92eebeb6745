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

use std::collections::BTreeSet;
use std::io;
use std::time::Duration;

use vsock_backend_api::VsockStream;
use vsock_compliance::call::Call;
use vsock_compliance::{
    BoxedStream, CapacityPromise, ConnectionEnd, Mode, PairSource, Scene, message_rules,
    stream_rules,
};
use vsock_tests::inner::Inner;
use vsock_tests::unix::SeqpacketSockets;

use self::stream::Mutant;
use crate::compliance::{EMPTY_EXCEPTIONS, UNIX_EXCEPTIONS};
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

// After the macro, which `backend` uses.
mod backend;
mod stream;

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
