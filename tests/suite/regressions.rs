// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Weaknesses that transports of this kind with one channel for each message have had. None may
//! return. Most are covered by rules of the compliance suite, which run over every way to open a
//! connection. The others have tests with their number, here or next to similar tests. Where there
//! was a choice, the contract made it: a drop is a close and an abort is a reset (S4), an expired
//! timeout is `TimedOut` (S9), and HUP is never reported (S11).

use std::collections::BTreeSet;
use std::io::{ErrorKind, Read, Write};
use std::net::Shutdown;

use vsock_backend_api::{VsockBackend, VsockStream};
use vsock_compliance::call::Call;
use vsock_compliance::fd;
use vsock_compliance::pattern::Pattern;
use vsock_compliance::poll::{PollInterest, Watch};
use vsock_compliance::{backend_rules, stream_rules};
use vsock_inner::{VsockInnerBackend, VsockInnerStream};
use vsock_tests::assert_fails;

use crate::soon;

/// Each weakness, and the rules that would detect it.
const WEAKNESSES: &str = "
S1: bytes before a drop were lost
    queued_bytes_come_before_every_end a_read_before_an_end_returns_its_bytes a_drop_is_a_close
S2: a busy non-blocking reader lost bytes
    bytes_survive_threads_in_every_mix_of_modes
S3: a drained fd was readable for ever
    a_level_triggered_loop_does_not_spin the_fd_is_readable_exactly_while_bytes_wait
S4: a drop, a shutdown and an abort looked the same
    a_drop_is_a_close an_abort_is_a_reset a_shutdown_of_write_ends_the_peers_reading
S5: there was no half-close
    a_shutdown_of_write_ends_the_peers_reading ones_own_shutdown_of_write_breaks_writing
S6: a writer without a reader was not held back
    a_write_into_a_full_direction_would_block a_direction_holds_exactly_its_capacity
S7: a change of the reader's mode reached the writer
    bytes_survive_threads_in_every_mix_of_modes a_mode_change_does_not_reach_a_blocked_peer
    a_mode_change_is_no_event_for_the_peer
S8: an empty write queued something
    an_empty_write_wakes_nobody an_empty_call_takes_nothing
S9: timeouts were counted from the last message, and there was none for writes
    a_read_times_out_and_never_early a_write_times_out_and_never_early
    empty_writes_do_not_prolong_a_read a_zero_timeout_is_refused_and_changes_nothing
S10: an edge-triggered reader missed arrivals
    each_arrival_after_a_drain_is_an_edge
S11: neither a dead peer nor space for writing could be polled
    a_drop_is_an_edge_while_bytes_wait only_a_drop_makes_the_peer_gone hup_is_never_reported
    the_write_fd_is_ready_exactly_while_there_is_space
S12: each small write was a read of its own
    a_read_gathers_writes vectored_calls_are_one_stream
S13: a spoiled fd made writes fail
    an_fd_written_by_hand_adds_no_bytes an_fd_read_by_hand_costs_no_bytes
S15: unread bytes of a dropped reader were not told
    a_drop_with_unread_bytes_is_a_reset
S17: connections were accepted in the wrong order
    connections_are_accepted_in_order the_backends_fd_is_readable_exactly_while_one_waits
S21: a mode belonged to both ends
    a_mode_change_keeps_the_peers_mode
S22: each write had to be read, and cleared at the fd, by itself
    a_read_gathers_writes each_arrival_after_a_drain_is_an_edge
S23: a stream could not tell whether its peer was gone
    only_a_drop_makes_the_peer_gone
";

#[test]
fn every_weakness_is_covered_by_an_existing_rule() {
    let streams = stream_rules().into_iter().map(|rule| rule.as_ref().name);
    let backends = backend_rules().into_iter().map(|rule| rule.as_ref().name);
    let rules: BTreeSet<_> = streams.chain(backends).collect();
    let by_rules = WEAKNESSES.lines().filter(|line| line.starts_with(' '));
    let mut named: Vec<_> = by_rules.flat_map(str::split_whitespace).collect();
    assert_eq!(named.len(), 38);
    named.retain(|name| !rules.contains(name));
    assert!(named.is_empty(), "there are no such rules: {named:?}");
}

/// Returns the application's end and a non-blocking device's end.
fn accepted() -> (VsockInnerStream, Box<dyn VsockStream>) {
    let mut backend = VsockInnerBackend::new().unwrap();
    let application = backend.get_connector().connect_stream().unwrap();
    (application, backend.accept().unwrap())
}

#[test]
fn s13_a_misused_fd_never_makes_a_write_fail_or_repeat() {
    let (mut application, mut device) = accepted();
    let mut by_hand = fd::duplicate(device.as_raw_fd()).unwrap();
    // The counter is one below its maximum: a doorbell that adds to it would block or fail.
    by_hand.write_all(&(u64::MAX - 1).to_ne_bytes()).unwrap();
    application.write_all(b"once").unwrap();
    let mut got = [0; 64];
    assert_eq!(device.read(&mut got).unwrap(), 4);
    assert_fails(device.read(&mut got), ErrorKind::WouldBlock);
}

#[test]
fn s14_a_thread_woken_by_a_drop_sees_the_drop() {
    for _ in 0..200 {
        let (application, mut device) = accepted();
        let mut edges = Watch::edges(device.as_raw_fd(), PollInterest::Read).unwrap();
        edges.now().unwrap();
        let dropping = Call::start(move || drop(application)).unwrap();
        // The first wake-up can precede the end of the drop. If a read would block then, another
        // edge must follow.
        let deadline = soon();
        let end = loop {
            edges.wait(deadline).expect("the drop is an edge");
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
fn s20_two_threads_use_both_directions_at_the_same_time() {
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
fn no_byte_is_read_after_a_shutdown_of_reading() {
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
