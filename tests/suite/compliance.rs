// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! The contract's rules, over every way to open a connection.

use std::collections::BTreeSet;

use vsock_compliance::{
    ComplianceReport, Exception, backend_rules, judge_backends, judge_messages, judge_streams,
    message_rules, stream_rules,
};
use vsock_inner::{Capacity, VsockInnerConfig};
use vsock_tests::inner::{Inner, Way};
use vsock_tests::unix::{Accepted, SeqpacketSockets, Sockets, StdSockets};

/// Checks that every rule holds except those listed as inapplicable.
#[track_caller]
fn assert_good(report: &ComplianceReport, inapplicable: &str) {
    assert!(report.is_good(), "\n{report}");
    let left_out: BTreeSet<_> = report
        .inapplicable()
        .iter()
        .map(|(name, _)| *name)
        .collect();
    assert_eq!(
        left_out,
        inapplicable.split_whitespace().collect(),
        "\n{report}"
    );
}

const BOUNDED: &str = "an_unbounded_direction_never_refuses";

#[track_caller]
fn assert_complies(source: &Inner) {
    assert_good(&judge_streams(source, &[]), BOUNDED);
}

#[test]
fn a_pair_complies() {
    assert_complies(&Inner::by(Way::Pair));
}

#[test]
fn accepted_streams_of_the_backend_comply() {
    assert_complies(&Inner::by(Way::BackendAccepts));
}

#[test]
fn accepted_streams_of_a_listener_comply() {
    assert_complies(&Inner::by(Way::ListenerAccepts));
}

#[test]
fn split_halves_comply() {
    assert_complies(&Inner::by(Way::Split));
}

#[test]
fn a_capacity_of_one_byte_complies() {
    assert_complies(&Inner::holding(1));
}

#[test]
fn a_capacity_of_three_bytes_complies() {
    assert_complies(&Inner::holding(3).made_by(Way::BackendAccepts));
}

#[test]
fn a_capacity_of_a_page_complies() {
    assert_complies(&Inner::holding(4096).made_by(Way::Split));
}

#[test]
fn a_capacity_past_a_power_of_two_complies() {
    assert_complies(&Inner::holding(70_001));
}

#[test]
fn directions_of_different_capacity_comply() {
    let config = VsockInnerConfig::default()
        .to_device(Capacity::Bytes(5))
        .to_application(Capacity::Bytes(1 << 20));
    assert_complies(&Inner::with(config).made_by(Way::ListenerAccepts));
}

#[test]
fn a_transport_that_never_spins_complies() {
    let mut source = Inner::holding(4096);
    source.config.spin_budget = std::time::Duration::ZERO;
    assert_complies(&source);
}

/// The rules that need a full direction.
const FILLED: &str = "\
    a_blocked_write_ends_with_a_drop a_blocked_write_ends_with_a_shutdown \
    a_blocked_writer_waits_for_the_space_of_the_fd a_direction_holds_exactly_its_capacity \
    a_drop_cuts_a_write_short a_full_direction_blocks_its_writer \
    a_full_direction_leaves_the_other_free a_partial_write_returns_its_count \
    a_shutdown_cuts_a_write_short a_slow_reader_does_not_prolong_a_write \
    a_timeout_cuts_a_write_short a_write_into_a_full_direction_would_block \
    a_write_times_out_and_never_early a_write_without_a_usable_timeout_waits \
    an_empty_call_returns_zero_when_full an_end_makes_the_write_fd_ready_with_an_edge \
    an_interruption_does_not_end_a_write any_space_counts_before_a_refusal new_space_is_an_edge \
    nonblocking_mode_ignores_timeouts the_write_fd_ignores_the_other_direction \
    the_write_fd_is_ready_exactly_while_there_is_space the_write_fd_may_be_taken_after_an_end \
    the_write_fd_may_be_taken_when_full write_and_fd_agree_on_the_space_after_a_refusal";

#[test]
fn an_unbounded_pair_complies_except_for_rules_that_need_a_bound() {
    let config = VsockInnerConfig::default()
        .to_device(Capacity::Unbounded)
        .to_application(Capacity::Unbounded);
    assert_good(&judge_streams(&Inner::with(config), &[]), FILLED);
}

#[test]
fn the_backend_complies() {
    assert_good(&judge_backends(&Inner::by(Way::BackendAccepts), &[]), "");
}

#[test]
fn names_of_rules_are_unique() {
    let streams = [stream_rules(), message_rules()].concat();
    let names = streams.iter().map(|rule| rule.as_ref().name);
    let backends = backend_rules();
    let all: Vec<_> = names
        .chain(backends.iter().map(|rule| rule.as_ref().name))
        .collect();
    assert_eq!(all.iter().collect::<BTreeSet<_>>().len(), all.len());
}

const fn except(name: &'static str, reason: &'static str) -> Exception {
    Exception { name, reason }
}

const INTERRUPTED: &str = "the call returns `Interrupted`, which std's helpers retry";
const CLEAN: &str = "an abort is a drop, and a panic is no event: both are a clean end";
const ONCE: &str = "the reset is reported once, to the reader alone";
const EAGAIN: &str = "an expired timeout is `WouldBlock`";
const NOT_TOLD: &str = "a socket does not tell whether its peer was dropped or shut down";
const BY_HAND: &str = "the descriptor is the stream: what is read or written there are its bytes";

/// The rules that Unix sockets break. The suite fails if one of them holds after all.
pub(crate) const UNIX_EXCEPTIONS: &[Exception] = &[
    except("an_interruption_does_not_end_a_read", INTERRUPTED),
    except("an_interruption_does_not_end_a_write", INTERRUPTED),
    except("a_blocked_read_ends_with_an_abort", CLEAN),
    except("a_drop_cuts_a_write_short", ONCE),
    except("a_read_before_a_reset_returns_its_bytes", CLEAN),
    except("the_fd_stays_readable_after_a_reset", CLEAN),
    except("an_end_makes_the_write_fd_ready_with_an_edge", ONCE),
    except("a_drop_with_unread_bytes_is_a_reset", ONCE),
    except("a_drop_by_a_panic_is_a_reset", CLEAN),
    except("an_abort_is_a_reset", CLEAN),
    except("a_drop_with_unread_bytes_loses_nothing_written", ONCE),
    except("a_reset_is_sticky", CLEAN),
    except("a_zero_timeout_is_refused_and_changes_nothing", EAGAIN),
    except("a_read_times_out_and_never_early", EAGAIN),
    except("a_write_times_out_and_never_early", EAGAIN),
    except("empty_writes_do_not_prolong_a_read", EAGAIN),
    except(
        "a_slow_reader_does_not_prolong_a_write",
        "the timeout restarts with every buffer",
    ),
    except("a_drop_is_an_edge_after_an_end", NOT_TOLD),
    except("only_a_drop_makes_the_peer_gone", NOT_TOLD),
    except(
        "hup_is_never_reported",
        "a shutdown and a drop are reported as RDHUP and HUP",
    ),
    except(
        "the_write_fd_may_be_taken_after_an_end",
        "the peer's shutdown of Read is no event",
    ),
    except("an_fd_read_by_hand_costs_no_bytes", BY_HAND),
    except("an_fd_written_by_hand_adds_no_bytes", BY_HAND),
];

const LOOKS: &str = "an empty call checks the socket, as any other call does";

/// The rules that `std`'s Unix sockets break in addition.
pub(crate) const EMPTY_EXCEPTIONS: &[Exception] = &[
    except("an_empty_call_returns_zero_at_once", LOOKS),
    except("an_empty_call_returns_zero_when_full", LOOKS),
    except("an_empty_call_takes_nothing", LOOKS),
    except("an_empty_call_returns_zero_after_a_shutdown", LOOKS),
    except("an_empty_call_returns_zero_after_a_reset", LOOKS),
];

/// The rules that a backend over Unix sockets breaks.
pub(crate) const UNIX_BACKEND_EXCEPTIONS: &[Exception] = &[
    except("a_dropped_backend_resets_what_waits", CLEAN),
    except(
        "a_dropped_backend_refuses",
        "its socket file is gone, so a connect is `NotFound`",
    ),
];

/// Rules about facts that a socket does not reveal, and rules that depend on a promised capacity.
const UNIX_UNKNOWN: &str = "\
    a_peek_takes_nothing a_partial_write_returns_its_count \
    a_direction_holds_exactly_its_capacity an_unbounded_direction_never_refuses \
    any_space_counts_before_a_refusal write_and_fd_agree_on_the_space_after_a_refusal \
    a_blocked_writer_waits_for_the_space_of_the_fd";

#[test]
fn unix_sockets_comply_except_for_known_differences() {
    assert_good(&judge_streams(&Sockets, UNIX_EXCEPTIONS), UNIX_UNKNOWN);
}

#[test]
fn stds_unix_sockets_comply_except_for_known_differences() {
    let exceptions = [UNIX_EXCEPTIONS, EMPTY_EXCEPTIONS].concat();
    assert_good(&judge_streams(&StdSockets, &exceptions), UNIX_UNKNOWN);
}

#[test]
fn accepted_streams_of_the_unix_backend_comply_as_sockets_do() {
    assert_good(&judge_streams(&Accepted, UNIX_EXCEPTIONS), UNIX_UNKNOWN);
}

#[test]
fn the_unix_backend_complies_except_for_known_differences() {
    assert_good(&judge_backends(&Accepted, UNIX_BACKEND_EXCEPTIONS), "");
}

#[test]
fn t111_unix_sockets_that_keep_messages_apart_comply() {
    assert_good(&judge_messages(&SeqpacketSockets, &[]), "");
}

#[test]
fn rules_about_messages_do_not_apply_to_byte_streams() {
    let report = judge_messages(&Sockets, &[]);
    assert!(report.is_good(), "\n{report}");
    assert!(!report.inapplicable().is_empty());
}
