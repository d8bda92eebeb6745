// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

use std::time::Duration;

use vsock_proto::{
    Body, Config, Confirmation, Credit, Ending, HostAction, Phase, SocketType, Violation,
};

use crate::rig::{BOTH, End, RECEIVE, RW, Rig, SEND, credit};

const MILLISECOND: Duration = Duration::from_millis(1);

fn accepting() -> Rig {
    Rig::accepting(Config::default())
}

/// The host has accepted, and the guest does not know yet.
fn responding() -> Rig {
    let mut rig = accepting();
    rig.conn.on_host_connected(rig.now);
    rig
}

fn requesting() -> Rig {
    Rig::requesting(Config::default(), Confirmation::Line)
}

/// The guest has the REQUEST.
fn requested() -> Rig {
    let mut rig = requesting();
    assert_eq!(rig.next(), Some(Body::Request));
    rig
}

#[test]
fn t26_a_refused_request_is_answered_by_exactly_one_rst() {
    let mut rig = accepting();
    rig.refuse();
    assert_eq!(rig.drain(), [Body::Reset]);
    assert!(rig.conn.is_closed());
    assert_eq!(rig.conn.ending(), Some(Ending::HostRefused));
}

#[test]
fn t27_the_response_comes_first_even_when_data_waits() {
    let mut rig = accepting();
    rig.host_sends(b"early");
    assert_eq!(rig.next(), None, "nothing before the host has accepted");
    rig.conn.on_host_connected(rig.now);
    rig.host.then = End::Ended;
    assert_eq!(rig.drain(), [Body::Response, RW, SEND]);
}

#[test]
fn t27_no_credit_request_precedes_the_response() {
    let mut rig = Rig::accepting_from(Config::default(), SocketType::Stream, Credit::default());
    rig.host_sends(b"early");
    rig.conn.on_host_connected(rig.now);
    assert_eq!(rig.drain(), [Body::Response, Body::CreditRequest]);
}

#[test]
fn t51_credit_that_arrives_before_the_response_is_delivered_counts() {
    let mut rig = accepting();
    rig.guest.buf_alloc = 3;
    rig.guest(Body::CreditUpdate);
    rig.conn.on_host_connected(rig.now);
    rig.guest.buf_alloc = 2;
    rig.guest(Body::CreditUpdate);
    rig.host_sends(b"early");
    assert_eq!(rig.next(), Some(Body::Response));
    assert_eq!(rig.drain_bytes(), b"ea");
}

#[test]
fn t28_a_request_for_a_known_tuple_ends_the_old_connection_without_an_rst() {
    for mut rig in [accepting(), Rig::connected(), requesting(), requested()] {
        rig.guest(Body::Request);
        assert!(rig.conn.is_closed());
        assert!(rig.host.is_closed());
        assert_eq!(rig.drain(), [], "an RST would kill the new connection");
        assert_eq!(rig.conn.ending(), Some(Ending::Superseded));
    }
}

#[test]
fn t28_the_credit_of_such_a_request_is_not_that_of_the_old_connection() {
    // The old connection has transferred 3 GiB; the new one starts at zero.
    let mut rig = Rig::connected_to(Config::default(), credit(4096, 3_000_000_000));
    rig.guest = Credit::default();
    rig.guest(Body::Request);
    assert!(rig.conn.is_closed());
    assert_eq!(rig.drain(), []);
}

#[test]
fn t29_a_response_before_the_request_is_ignored() {
    let mut rig = requesting();
    rig.guest(Body::Response);
    assert_eq!(rig.conn.phase(), Phase::Requesting);
    assert!(!rig.host.did(HostAction::Confirm));
    assert_eq!(rig.next(), Some(Body::Request));
    rig.guest(Body::Response);
    assert_eq!(rig.conn.phase(), Phase::Connected);
}

#[test]
fn t29_a_second_response_or_one_on_a_guests_connection_is_ignored() {
    let mut rig = requested();
    for _ in 0..2 {
        rig.guest(Body::Response);
        rig.flush();
    }
    assert_eq!(rig.host.actions, [HostAction::Confirm]);
    assert_eq!(rig.host.got, b"OK 1073741824\n");
    let mut rig = Rig::connected();
    rig.guest(Body::Response);
    assert_eq!(rig.conn.phase(), Phase::Connected);
    assert_eq!(rig.host.actions, []);
}

#[test]
fn t32_t33_t35_every_wait_before_the_connection_is_open_times_out() {
    let deliver = Config::default().deliver_timeout();
    let connect = Config::default().response_timeout();
    let cases = [
        // The RST ensures that a late answer finds no connection.
        (requested(), connect, Ending::TimedOut, &[Body::Reset][..]),
        // The guest has no record of the connection, so it is not told.
        (requesting(), deliver, Ending::NotDelivered, &[]),
        // No RESPONSE comes before the RST.
        (responding(), deliver, Ending::NotDelivered, &[Body::Reset]),
        (accepting(), connect, Ending::TimedOut, &[Body::Reset]),
    ];
    for (mut rig, timeout, ending, told) in cases {
        let phase = rig.conn.phase();
        rig.pass(timeout - MILLISECOND);
        assert_eq!(rig.conn.phase(), phase);
        rig.pass(MILLISECOND);
        assert!(rig.host.is_closed());
        assert_eq!(rig.conn.ending(), Some(ending));
        assert_eq!(rig.drain(), told, "{phase:?}");
        assert_eq!(rig.conn.deadline(), None);
    }
}

#[test]
fn t33_the_guest_has_its_full_time_from_delivery() {
    let mut rig = requesting();
    rig.pass(Config::default().deliver_timeout() - MILLISECOND);
    assert_eq!(rig.next(), Some(Body::Request));
    rig.pass(Config::default().response_timeout() - MILLISECOND);
    rig.guest(Body::Response);
    assert_eq!(rig.conn.phase(), Phase::Connected);
    assert_eq!(rig.conn.deadline(), None);
}

#[test]
fn t34_a_refusal_closes_the_stream_immediately() {
    let mut rig = requested();
    rig.guest(Body::Reset);
    assert_eq!(rig.host.actions, [HostAction::Close]);
    assert!(rig.conn.is_closed());
    assert_eq!(rig.conn.ending(), Some(Ending::GuestRefused));
    assert_eq!(rig.host.got, b"", "without any text");
}

#[test]
fn t37_the_credit_of_request_and_response_counts_whole() {
    let mut rig = requested();
    rig.guest = credit(1000, 5000);
    rig.guest(Body::Response);
    rig.host_sends(&[7; 2000]);
    assert_eq!(rig.drain_bytes().len(), 1000);
    rig.guest_reads(1000);
    assert_eq!(rig.drain_bytes().len(), 1000);
}

#[test]
fn t39_a_client_that_leaves_before_the_answer_ends_the_attempt() {
    for (mut rig, told) in [(requesting(), &[][..]), (requested(), &[Body::Reset])] {
        rig.host_closes();
        assert!(rig.host.is_closed());
        assert_eq!(rig.drain(), told);
        assert!(rig.conn.is_closed());
    }
}

#[test]
fn t44_ok_comes_before_the_guests_data_and_costs_no_credit_even_in_pieces() {
    for piece in [1, usize::MAX] {
        let mut rig = requested();
        rig.host.space = 0;
        rig.guest(Body::Response);
        // In the same batch, before the line was written.
        rig.data(b"hello");
        assert_eq!(rig.host.got, b"");
        for _ in 0..19 {
            rig.host_takes(piece);
        }
        assert_eq!(rig.host.got, b"OK 1073741824\nhello");
        rig.guest(Body::CreditRequest);
        let (update, _) = rig.transmit(0).unwrap();
        assert_eq!(update.credit.fwd_cnt, 5, "only the guest's own bytes");
    }
}

#[test]
fn t45_a_client_that_does_not_read_still_sends() {
    let mut rig = requested();
    rig.host.deaf = true;
    rig.guest(Body::Response);
    rig.flush();
    rig.host_sends(b"one-way");
    assert_eq!(rig.next(), Some(RECEIVE), "the guest need not send more");
    assert_eq!(rig.drain_bytes(), b"one-way");
    assert_eq!(rig.conn.phase(), Phase::Connected);
}

#[test]
fn a_stream_that_names_its_port_reads_only_bytes_of_the_guest() {
    let mut rig = Rig::requesting(Config::default(), Confirmation::OutOfBand);
    rig.next();
    rig.guest(Body::Response);
    assert!(rig.host.did(HostAction::Confirm));
    rig.data(b"hello");
    assert_eq!(rig.host.got, b"hello");
}

#[test]
fn data_before_the_connection_is_open_is_a_violation() {
    for mut rig in [accepting(), responding(), requesting(), requested()] {
        let violation = rig.try_guest(RW, b"x").unwrap_err();
        assert_eq!(violation, Violation::DataTooEarly);
        assert!(rig.host.is_closed());
        assert_eq!(rig.drain(), [Body::Reset]);
        assert_eq!(rig.conn.ending(), Some(Ending::Violated));
    }
}

#[test]
fn t93_a_close_before_the_connection_is_open_ends_it() {
    for mut rig in [accepting(), requested()] {
        let phase = rig.conn.phase();
        rig.guest(SEND);
        assert_eq!(rig.conn.phase(), phase);
        rig.guest(RECEIVE);
        assert!(rig.host.is_closed());
        assert_eq!(rig.drain(), [Body::Reset]);
    }
    let mut rig = accepting();
    rig.guest(BOTH);
    assert!(rig.host.is_closed());
    assert_eq!(rig.drain(), [Body::Reset]);
}

#[test]
fn t93_a_half_close_before_the_response_is_remembered() {
    let mut rig = accepting();
    rig.guest(SEND);
    rig.conn.on_host_connected(rig.now);
    assert_eq!(rig.host.actions, []);
    assert_eq!(rig.next(), Some(Body::Response));
    assert_eq!(rig.host.actions, [HostAction::ShutdownWrite]);
    rig.guest(RECEIVE);
    assert_eq!(rig.drain(), [Body::Reset]);
}

#[test]
fn a_shutdown_that_comes_before_the_response_counts_after_it() {
    let mut rig = requested();
    rig.guest(SEND);
    rig.guest(Body::Response);
    // The line for the client precedes the end.
    assert_eq!(rig.host.actions, [HostAction::Confirm]);
    rig.flush();
    assert_eq!(rig.host.got, b"OK 1073741824\n");
    assert!(rig.host.did(HostAction::ShutdownWrite));
}

#[test]
fn t85_bytes_of_a_host_that_leaves_before_the_response_arrive() {
    let mut rig = responding();
    rig.host.sends.extend(b"motd");
    rig.host_closes();
    assert_eq!(rig.drain(), [Body::Response, RECEIVE, RW, BOTH]);
}

#[test]
fn t133_a_shutdown_sends_an_rst_for_each_connection_known_to_the_guest() {
    let knowing = [requested(), accepting(), responding(), Rig::connected()];
    let cases = knowing.map(|rig| (rig, &[Body::Reset][..])).into_iter();
    for (mut rig, told) in cases.chain([(requesting(), &[][..])]) {
        rig.host_sends(b"x");
        rig.conn.shut_down(rig.now);
        assert!(rig.conn.take_actions().contains(HostAction::Close));
        assert_eq!(rig.conn.deadline(), None);
        assert_eq!(rig.drain(), told);
        assert!(rig.conn.is_closed());
        assert_eq!(rig.conn.ending(), Some(Ending::Aborted));
    }
}

#[test]
fn t101_an_aborted_connection_sends_no_packet() {
    for mut rig in [requesting(), requested(), Rig::connected()] {
        rig.host_sends(b"x");
        rig.conn.abort(rig.now);
        assert!(rig.conn.take_actions().contains(HostAction::Close));
        assert_eq!(rig.drain(), []);
        assert!(rig.conn.is_closed());
        assert_eq!(rig.conn.deadline(), None);
        assert_eq!(rig.conn.ending(), Some(Ending::Aborted));
    }
}
