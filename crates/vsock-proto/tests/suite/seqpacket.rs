// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Messages and records on seqpacket sockets.

use vsock_proto::{
    Body, Config, Confirmation, Ending, MessageFlags, Progress, SocketType, Transmit, Violation,
};

use crate::rig::{Rig, SEND, buf_alloc, limits, room};

const NONE: MessageFlags = MessageFlags::NONE;
const EOM: MessageFlags = MessageFlags::END_OF_MESSAGE;
const EOR: MessageFlags = MessageFlags::END_OF_RECORD;

fn rig() -> Rig {
    Rig::seqpacket(Config::default())
}

/// Sends one message of the host as the caller would, through buffers of this size; returns the
/// flags of the packets.
fn host_message(rig: &mut Rig, len: usize, end: MessageFlags, room: usize) -> Vec<MessageFlags> {
    let mut flags = Vec::new();
    let mut left = len;
    rig.conn.on_host_readable(rig.now);
    loop {
        let sent = match rig.conn.poll_transmit(rig.now, room) {
            None => return flags,
            Some(Transmit::Data(mut grant)) => {
                let piece = left.min(room).min(grant.packet_bytes());
                left -= piece;
                let end = if left == 0 { end } else { NONE };
                let packet = grant.sent_piece(piece, end);
                if left == 0 {
                    grant.finish(Progress::Pending);
                }
                packet
            }
            Some(Transmit::Packet(packet)) => packet,
        };
        match sent.body {
            Body::Data(piece) => flags.push(piece),
            Body::CreditRequest => rig.guest_reads(rig.conn.in_flight()),
            Body::Reset => return flags,
            other => panic!("{other:?}"),
        }
    }
}

#[test]
fn t111_whole_partial_and_empty_messages_keep_their_boundaries() {
    #[rustfmt::skip]
    let cases = [
        (&[("one", EOM), ("two", EOR)][..], vec![("one", EOM), ("two", EOR)]),
        (&[("in ", NONE), ("three ", NONE), ("pieces", EOR)], vec![("in three pieces", EOR)]),
        (&[("", EOM), ("", EOR)], vec![("", EOM), ("", EOR)]),
    ];
    for (pieces, messages) in cases {
        let mut rig = rig();
        for (bytes, flags) in pieces {
            let whole = rig.host.writes;
            rig.piece(bytes.as_bytes(), *flags);
            rig.flush();
            assert_eq!(rig.host.writes > whole, flags.ends_message());
        }
        let expected = messages
            .iter()
            .map(|(text, end)| (text.as_bytes().to_vec(), *end));
        assert_eq!(rig.host.messages, expected.collect::<Vec<_>>());
    }
}

#[test]
fn t111_empty_messages_wait_their_turn() {
    let mut rig = rig();
    rig.host.space = 0;
    rig.piece(b"first", EOM);
    rig.piece(b"", EOM);
    rig.piece(b"third", EOM);
    rig.host_takes(100);
    let lens: Vec<_> = rig.host.messages.iter().map(|(m, _)| m.len()).collect();
    assert_eq!(lens, [5, 0, 5]);
    assert!(!rig.conn.interest().write);
}

#[test]
fn t111_empty_messages_are_bounded() {
    let mut rig = Rig::seqpacket(limits(|limits| limits.max_empty_messages(3)));
    rig.host.space = 0;
    rig.piece(b"x", EOM);
    for _ in 0..3 {
        rig.piece(b"", EOM);
    }
    let violation = rig.try_guest(Body::Data(EOM), b"").unwrap_err();
    assert_eq!(violation, Violation::TooManyEmptyMessages { limit: 3 });
    assert_eq!(rig.drain(), [Body::Reset]);
}

#[test]
fn t111_delivered_empty_messages_do_not_count() {
    let mut rig = Rig::seqpacket(limits(|limits| limits.max_empty_messages(1)));
    rig.host.space = 0;
    for _ in 0..5 {
        rig.piece(b"x", EOM);
        rig.piece(b"", EOM);
        rig.host_takes(1);
    }
    assert_eq!(rig.host.messages.len(), 10);
}

#[test]
fn t111_a_message_that_is_too_long_resets() {
    let mut rig = Rig::seqpacket(limits(|limits| limits.max_message(10)));
    rig.piece(b"01234", NONE);
    let violation = rig.try_guest(Body::Data(EOM), b"567890").unwrap_err();
    assert_eq!(violation, Violation::MessageTooLong { len: 11, limit: 10 });
    assert_eq!(rig.conn.memory(), 0);
    assert_eq!(rig.drain(), [Body::Reset]);
    assert_eq!(rig.host.messages, [], "no part of a message");
}

/// The guest needs every byte of its window for one message, and does not yet know that some of it
/// is free again.
#[test]
fn t111_a_message_as_large_as_the_window_does_not_stall() {
    let mut rig = Rig::seqpacket(buf_alloc(1000));
    let mut known = 0_u32;
    let mut sent = 0_u32;
    let mut send = |rig: &mut Rig, len: u32, flags| {
        let mut left = len;
        while left > 0 {
            let credit = 1000 - (sent - known);
            assert!(credit > 0, "stalled with {left} bytes left");
            let piece = left.min(credit);
            left -= piece;
            let flags = if left == 0 { flags } else { NONE };
            rig.piece(&vec![b'm'; piece as usize], flags);
            sent += piece;
            rig.flush();
            while let Some((packet, _)) = rig.transmit(100) {
                known = packet.credit.fwd_cnt;
            }
        }
    };
    send(&mut rig, 100, EOM);
    send(&mut rig, 1000, EOM);
    send(&mut rig, 1000, EOR);
    let lens: Vec<_> = rig.host.messages.iter().map(|(m, _)| m.len()).collect();
    assert_eq!(lens, [100, 1000, 1000]);
}

#[test]
fn t111_a_message_that_the_stream_refuses_waits_whole() {
    let mut rig = rig();
    rig.host.space = 4;
    rig.piece(b"message", EOM);
    assert_eq!(rig.host.messages, []);
    rig.host_takes(2);
    assert_eq!(rig.host.messages, [], "not in parts");
    rig.host_takes(1);
    assert_eq!(rig.host.messages, [(b"message".to_vec(), EOM)]);
}

#[test]
fn t111_half_a_message_is_dropped_with_the_end_and_credited() {
    let mut rig = rig();
    rig.host.space = 0;
    rig.piece(b"whole", EOM);
    rig.piece(b"hal", NONE);
    rig.guest(SEND);
    rig.host_takes(100);
    assert_eq!(rig.host.messages, [(b"whole".to_vec(), EOM)]);
    rig.guest(Body::CreditRequest);
    assert_eq!(rig.transmit(0).unwrap().0.credit.fwd_cnt, 8);
}

#[test]
fn t111_end_marks_only_the_last_packet_of_a_host_message() {
    let mut rig = rig();
    assert_eq!(host_message(&mut rig, 250, EOM, 100), [NONE, NONE, EOM]);
    assert_eq!(host_message(&mut rig, 200, EOR, 100), [NONE, EOR]);
    assert_eq!(host_message(&mut rig, 0, EOM, 100), [EOM]);
}

#[test]
fn t111_boundaries_survive_a_small_window() {
    let mut rig = small(300);
    let flags = host_message(&mut rig, 250, EOM, 100);
    assert_eq!(flags.last(), Some(&EOM));
    assert!(flags[..flags.len() - 1].iter().all(|flags| *flags == NONE));
    let flags = host_message(&mut rig, 250, EOR, 100);
    assert_eq!(flags.last(), Some(&EOR));
}

#[test]
fn t111_a_host_message_passes_if_the_guest_can_hold_it_and_otherwise_resets() {
    let mut rig = small(1000);
    assert_eq!(host_message(&mut rig, 1000, EOM, 4000), [EOM]);
    assert_eq!(rig.conn.ending(), None);
    let mut rig = small(1000);
    host_message(&mut rig, 1001, EOM, 4000);
    assert_eq!(rig.conn.ending(), Some(Ending::MessageTooLong));
    assert!(rig.conn.is_closed(), "the RST was sent");
}

/// Sends a message in pieces of this many bytes as far as possible, while the guest takes none of
/// them. Returns the number of pieces.
fn pieces(rig: &mut Rig, mut left: usize, piece: usize) -> usize {
    let mut sent = 0;
    while left > 0 {
        match rig.conn.poll_transmit(rig.now, piece) {
            None => break,
            Some(Transmit::Packet(packet)) => assert_eq!(packet.body, Body::CreditRequest),
            Some(Transmit::Data(mut grant)) => {
                assert!(grant.packets() > 0);
                let len = piece.min(left).min(grant.packet_bytes());
                left -= len;
                grant.sent_piece(len, if left == 0 { EOM } else { NONE });
                sent += 1;
            }
        }
    }
    sent
}

fn small(buf_alloc: u32) -> Rig {
    let guest = room(buf_alloc);
    let mut rig = Rig::accepting_from(Config::default(), SocketType::SeqPacket, guest).establish();
    rig.conn.on_host_readable(rig.now);
    rig
}

/// The guest takes the message out only when it is complete, so waiting for room would never end.
#[test]
fn t111_a_message_alone_is_not_held_back_by_the_number_of_its_packets() {
    let mut rig = small(4096);
    // The overhead of four packets uses up the buffer.
    assert_eq!(pieces(&mut rig, 200, 16), 13);
    assert_eq!(rig.conn.ending(), None);
}

#[test]
fn t59_a_message_after_others_is_held_back_by_the_number_of_packets() {
    let mut rig = small(4096);
    assert_eq!(pieces(&mut rig, 16, 16), 1);
    // The overhead of four packets uses up the buffer.
    assert_eq!(pieces(&mut rig, 200, 16), 3);
    rig.guest_reads(16);
    // Now the guest's buffer contains only the message.
    assert_eq!(pieces(&mut rig, 200 - 3 * 16, 16), 10);
}

/// Sends as many empty messages as possible. Returns how many were sent, and how many times the
/// guest was asked for credit.
fn empties(rig: &mut Rig) -> (u32, u32) {
    let (mut sent, mut asked) = (0, 0);
    loop {
        match rig.conn.poll_transmit(rig.now, 100) {
            None => return (sent, asked),
            Some(Transmit::Packet(packet)) => {
                assert_eq!(packet.body, Body::CreditRequest);
                asked += 1;
            }
            Some(Transmit::Data(mut grant)) => {
                grant.sent_piece(0, EOM);
                sent += 1;
            }
        }
    }
}

/// Empty messages advance no counter: each update stands for one that was received.
#[test]
fn t129_an_update_makes_room_for_one_empty_message() {
    let mut rig = small(16 * 1024);
    assert_eq!(
        empties(&mut rig),
        (16, 0),
        "an answer would contain nothing useful"
    );
    assert_eq!(rig.conn.deadline(), None);
    for _ in 0..100 {
        rig.guest(Body::CreditUpdate);
        assert_eq!(empties(&mut rig), (1, 0));
    }
}

#[test]
fn t129_only_an_update_makes_room_for_an_empty_message() {
    let mut rig = small(16 * 1024);
    empties(&mut rig);
    rig.guest(Body::CreditRequest);
    assert_eq!(rig.transmit(0).unwrap().0.body, Body::CreditUpdate);
    rig.piece(b"x", EOM);
    // A smaller buffer is reported in a separate update.
    rig.guest.buf_alloc -= 1;
    rig.guest(Body::CreditUpdate);
    rig.pass(std::time::Duration::from_secs(60));
    assert_eq!(empties(&mut rig), (0, 0));
}

#[test]
fn t129_an_answer_makes_no_room_for_an_empty_message() {
    let mut rig = small(16 * 1024);
    assert_eq!(pieces(&mut rig, 1, 1), 1);
    assert_eq!(
        empties(&mut rig),
        (15, 1),
        "credit is requested when packets are scarce"
    );
    rig.guest(Body::CreditUpdate);
    assert_eq!(empties(&mut rig), (0, 0), "the answer");
    rig.guest_reads(1);
    // The message before them was received.
    assert_eq!(empties(&mut rig), (1, 0));
    rig.guest(Body::CreditUpdate);
    assert_eq!(empties(&mut rig), (1, 0), "one more was received");
}

#[test]
fn t129_a_message_that_was_received_shows_that_those_before_it_were() {
    let mut rig = small(16 * 1024);
    for _ in 0..10 {
        if let Some(Transmit::Data(mut grant)) = rig.conn.poll_transmit(rig.now, 100) {
            grant.sent_piece(0, EOM);
        }
    }
    assert_eq!(pieces(&mut rig, 1, 1), 1);
    rig.guest_reads(1);
    assert_eq!(empties(&mut rig).0, 16);
}

#[test]
fn t111_a_guest_that_shrinks_below_a_message_under_way_is_reset() {
    let mut rig = small(4096);
    assert_eq!(pieces(&mut rig, 2000, 1000), 2);
    rig.guest_reads(2000);
    if let Some(Transmit::Data(mut grant)) = rig.conn.poll_transmit(rig.now, 1000) {
        assert_eq!(grant.message_limit(), 4096);
        grant.sent_piece(1000, NONE);
    }
    rig.guest.buf_alloc = 1001;
    rig.guest(Body::CreditUpdate);
    assert_eq!(
        rig.conn.ending(),
        None,
        "the message may still become complete"
    );
    rig.guest.buf_alloc = 1000;
    rig.guest(Body::CreditUpdate);
    assert_eq!(rig.conn.ending(), Some(Ending::MessageTooLong));
}

#[test]
fn t111_a_message_that_the_host_never_takes_resets() {
    for at_once in [true, false] {
        let mut rig = rig();
        rig.host.longest = Some(4);
        if at_once {
            rig.piece(b"12345", EOM);
        } else {
            rig.piece(b"123", NONE);
            rig.piece(b"45", EOM);
            rig.flush();
        }
        assert_eq!(rig.conn.ending(), Some(Ending::MessageTooLong));
        assert_eq!(rig.drain(), [Body::Reset]);
        assert!(rig.host.is_closed());
        assert_eq!(rig.host.messages, []);
    }
}

#[test]
fn t111_a_message_that_is_read_and_too_long_resets() {
    let mut rig = small(4096);
    let Some(Transmit::Data(grant)) = rig.conn.poll_transmit(rig.now, 100) else {
        panic!("no grant");
    };
    grant.finish(Progress::TooLong);
    assert_eq!(rig.conn.ending(), Some(Ending::MessageTooLong));
    assert_eq!(rig.drain(), [Body::Reset]);
}

#[test]
fn t56_messages_for_a_host_that_has_stopped_reading_are_credited() {
    let mut rig = rig();
    rig.host.deaf = true;
    rig.piece(b"one", EOM);
    rig.piece(b"two", EOM);
    rig.guest(Body::CreditRequest);
    assert_eq!(rig.transmit(0).unwrap().0.credit.fwd_cnt, 6);
    assert_eq!(rig.host.writes, 1);
}

#[test]
fn a_confirmation_is_a_separate_message() {
    let config = Config::default();
    let mut rig = Rig::requesting_as(config, Confirmation::Line, SocketType::SeqPacket);
    assert_eq!(rig.next(), Some(Body::Request));
    rig.host.space = 0;
    rig.guest(Body::Response);
    rig.piece(b"hi", EOM);
    assert_eq!(rig.host.messages, []);
    rig.host_takes(100);
    let line = b"OK 1073741824\n".to_vec();
    assert_eq!(rig.host.messages, [(line, EOM), (b"hi".to_vec(), EOM)]);
}
