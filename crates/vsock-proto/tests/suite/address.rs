// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

use proptest::prelude::*;
use vsock_proto::{
    Body, Cid, CidError, ConnKey, Credit, GuestCid, Header, MessageFlags, Op, Packet, Port,
    RejectCause, Route, ShutdownFlags, SocketType, SocketTypes,
};

fn guest() -> GuestCid {
    GuestCid::try_from(3).unwrap()
}

fn route() -> Route {
    Route::to_guest(guest(), SocketTypes::STREAM)
}

fn header(op: Op) -> Header {
    Header {
        src_cid: 3,
        dst_cid: 2,
        src_port: 1024,
        dst_port: 52,
        len: 0,
        socket_type: 1,
        op: op.into(),
        flags: 0,
        buf_alloc: 4096,
        fwd_cnt: 7,
    }
}

/// A header that is unusual in one or two fields.
fn with(op: Op, change: impl FnOnce(&mut Header)) -> Header {
    let mut header = header(op);
    change(&mut header);
    header
}

#[test]
fn t4_t6_t7_t8_t9_a_packet_without_a_connection_gets_an_rst_or_no_answer() {
    use RejectCause::{ForeignDestination, ForeignSource, UnknownOp, UnknownType};

    const OVER: u64 = 1 << 32;
    // The cause, and the address and socket type of the RST that answers the packet.
    #[rustfmt::skip]
    let mut cases = vec![
        // All 64 bits of a CID are compared, and no RST can come from an invalid CID.
        (with(Op::Request, |h| h.dst_cid += OVER), ForeignDestination(OVER + 2), None),
        (with(Op::Request, |h| h.src_cid += OVER), ForeignSource(OVER + 3), None),
        // A forged source CID.
        (with(Op::Request, |h| h.src_cid = 4), ForeignSource(4), None),
        // Only a connecting guest learns that the CID does not exist, from that CID.
        (with(Op::Request, |h| h.dst_cid = 5), ForeignDestination(5), Some((5, 1))),
        // An unknown type, and an RST with an unknown type.
        (with(Op::ReadWrite, |h| h.socket_type = 3), UnknownType(3), Some((2, 3))),
        (with(Op::Reset, |h| h.socket_type = 3), UnknownType(3), None),
    ];
    for op in [Op::Reset, Op::Shutdown, Op::ReadWrite, Op::CreditUpdate] {
        for socket_type in [1, 3] {
            let astray = with(op, |h| (h.dst_cid, h.socket_type) = (5, socket_type));
            cases.push((astray, ForeignDestination(5), None));
        }
    }
    for op in [0, 8, 255, u16::MAX] {
        cases.push((with(Op::Request, |h| h.op = op), UnknownOp(op), None));
    }
    for (header, cause, answer) in cases {
        let reject = route().parse(&header).unwrap_err();
        assert_eq!(reject.cause, cause);
        let rst = reject.reply.map(|reply| route().reset_header(&reply));
        let bears = rst.map(|rst| (rst.src_cid, rst.socket_type));
        assert_eq!(bears, answer, "{header:?}");
        if let Some(rst) = rst {
            assert_eq!((rst.op, rst.dst_cid), (Op::Reset.into(), 3));
            assert_eq!((rst.src_port, rst.dst_port), (52, 1024));
            assert_eq!((rst.buf_alloc, rst.fwd_cnt, rst.len), (0, 0, 0));
        }
    }
}

#[test]
fn t5_reserved_cids_are_not_guests() {
    for reserved in [0, 1, 2, u64::from(u32::MAX), u64::MAX] {
        let refused = GuestCid::try_from(reserved).unwrap_err();
        assert_eq!(refused, CidError::Reserved(reserved));
    }
    let refused = GuestCid::try_from(1 << 32).unwrap_err();
    assert_eq!(refused, CidError::UpperBits(1 << 32));
    for usable in [3, 0xffff_fffe] {
        assert_eq!(u64::from(GuestCid::try_from(usable).unwrap()), usable);
    }
    assert_eq!(GuestCid::try_from(77).unwrap().to_string(), "77");
    assert_eq!(Cid::HOST.to_string(), "2");
}

#[test]
fn t6_replies_contain_the_configured_cids() {
    let packet = route().parse(&header(Op::Request)).unwrap();
    let response = Packet {
        body: Body::Response,
        ..packet
    };
    let back = route().header(&response);
    assert_eq!((back.src_cid, back.dst_cid), (2, 3));
    assert_eq!((back.src_port, back.dst_port), (52, 1024));
    let reset = route().reset_for(&packet).unwrap();
    let back = route().reset_header(&reset);
    assert_eq!((back.src_cid, back.dst_cid, back.op), (2, 3, 3));
    assert_eq!((back.src_port, back.dst_port), (52, 1024));
}

#[test]
fn t4_t6_t7_a_route_that_includes_guests_reaches_every_guest_but_its_own() {
    let route = route().to_guests_too();
    for cid in [4, 77, 0xffff_fffe] {
        let packet = route
            .parse(&with(Op::ReadWrite, |h| h.dst_cid = cid))
            .unwrap();
        assert_eq!(u64::from(packet.key.host_cid), cid);
        let reset = route.reset_header(&route.reset_for(&packet).unwrap());
        assert_eq!((reset.src_cid, reset.dst_cid), (cid, 3));
    }
    for cid in [0, 1, 3, u64::from(u32::MAX), u64::MAX, 1 << 32 | 4] {
        let reject = route
            .parse(&with(Op::ReadWrite, |h| h.dst_cid = cid))
            .unwrap_err();
        assert_eq!(reject.cause, RejectCause::ForeignDestination(cid));
        assert_eq!(reject.reply, None);
    }
    let forged = with(Op::Reset, |h| (h.src_cid, h.dst_cid) = (4, 5));
    let cause = route.parse(&forged).unwrap_err().cause;
    assert_eq!(cause, RejectCause::ForeignSource(4));
}

#[test]
fn t30_an_rst_without_a_connection_is_not_answered() {
    let reset = route().parse(&header(Op::Reset)).unwrap();
    assert_eq!(route().reset_for(&reset), None);
}

#[test]
fn t31_every_other_packet_without_a_connection_gets_an_rst() {
    use Op::{CreditRequest, CreditUpdate, ReadWrite, Response, Shutdown};
    for op in [Response, Shutdown, ReadWrite, CreditUpdate, CreditRequest] {
        let packet = route().parse(&header(op)).unwrap();
        let reply = route().reset_for(&packet).unwrap();
        assert_eq!(reply.key, packet.key);
        assert_eq!(reply.socket_type, 1);
    }
}

#[test]
fn t109_types_follow_from_what_was_accepted() {
    const STREAM: u64 = SocketTypes::F_STREAM;
    const SEQPACKET: u64 = SocketTypes::F_SEQPACKET;
    const STRICT: u64 = SocketTypes::F_NO_IMPLIED_STREAM;
    let cases = [
        (0, true, false),
        (STREAM, true, false),
        (SEQPACKET, true, true),
        (STREAM | SEQPACKET, true, true),
        (SEQPACKET | STRICT, false, true),
        (STREAM | STRICT, true, false),
        (STREAM | SEQPACKET | STRICT, true, true),
        (1 << 32, true, false),
    ];
    for (acked, stream, seqpacket) in cases {
        let types = SocketTypes::from_features(acked);
        let has = [SocketType::Stream, SocketType::SeqPacket].map(|one| types.contains(one));
        assert_eq!(has, [stream, seqpacket], "{acked:#x}");
    }
    assert_eq!(SocketTypes::from_features(SEQPACKET), SocketTypes::ALL);
}

#[test]
fn t109_a_type_that_was_not_negotiated_is_unknown() {
    let seqpacket = with(Op::Request, |h| h.socket_type = 2);
    let reject = route().parse(&seqpacket).unwrap_err();
    assert_eq!(reject.cause, RejectCause::UnknownType(2));
    assert!(reject.reply.is_some());
    let both = Route::to_guest(guest(), SocketTypes::ALL);
    let packet = both.parse(&seqpacket).unwrap();
    assert_eq!(packet.socket_type, SocketType::SeqPacket);
}

#[test]
fn t112_the_operation_decides_the_meaning_of_flags() {
    use Body::{CreditUpdate, Data, Shutdown};

    let both = Route::to_guest(guest(), SocketTypes::ALL);
    #[rustfmt::skip]
    let cases = [
        (Op::Shutdown, 1, 3, Shutdown(ShutdownFlags::BOTH)),
        (Op::Shutdown, 2, 1, Shutdown(ShutdownFlags::RECEIVE)),
        (Op::ReadWrite, 2, 3, Data(MessageFlags::END_OF_RECORD)),
        (Op::ReadWrite, 2, 1, Data(MessageFlags::END_OF_MESSAGE)),
        (Op::ReadWrite, 1, 3, Data(MessageFlags::NONE)), // No meaning on a stream.
        (Op::CreditUpdate, 1, 3, CreditUpdate),
    ];
    for (op, socket_type, flags, body) in cases {
        let header = with(op, |h| (h.socket_type, h.flags) = (socket_type, flags));
        assert_eq!(both.parse(&header).unwrap().body, body);
    }
}

fn any_body() -> impl Strategy<Value = Body> {
    prop_oneof![
        Just(Body::Request),
        Just(Body::Response),
        Just(Body::Reset),
        (0_u32..4).prop_map(|bits| Body::Shutdown(ShutdownFlags::from_bits(bits))),
        (0_u32..4).prop_map(|bits| Body::Data(MessageFlags::from_bits(bits))),
        Just(Body::CreditUpdate),
        Just(Body::CreditRequest),
    ]
}

proptest! {
    #[test]
    fn a_packet_arrives_as_it_was_sent(
        body in any_body(),
        host_cid in prop_oneof![Just(2_u64), 4_u64..u64::from(u32::MAX)],
        local: u32,
        peer: u32,
        len: u32,
        buf_alloc: u32,
        fwd_cnt: u32,
    ) {
        let to_guest = Route::to_guest(guest(), SocketTypes::ALL).to_guests_too();
        let to_host = Route::to_host(guest(), SocketTypes::ALL).to_guests_too();
        let host_cid = Cid::try_from(host_cid).unwrap();
        let packet = Packet {
            key: ConnKey::new(Port::from(local), Port::from(peer)).with_host_cid(host_cid),
            socket_type: SocketType::SeqPacket,
            body,
            len,
            credit: Credit { buf_alloc, fwd_cnt },
        };
        let arrived = to_host.parse(&to_guest.header(&packet)).unwrap();
        prop_assert_eq!(arrived, Packet { key: packet.key.mirror(), ..packet });
    }

    #[test]
    fn no_header_is_answered_by_more_than_an_rst_to_its_sender(
        src_cid in prop_oneof![Just(3_u64), any::<u64>()],
        dst_cid in prop_oneof![Just(2_u64), 0_u64..8, any::<u64>()],
        socket_type in prop_oneof![1_u16..3, any::<u16>()],
        op in prop_oneof![1_u16..8, any::<u16>()],
        flags: u32,
    ) {
        let header = Header { src_cid, dst_cid, socket_type, op, flags, ..header(Op::Request) };
        match route().parse(&header) {
            Ok(packet) => {
                prop_assert_eq!((src_cid, dst_cid), (3, 2));
                prop_assert_eq!(u16::from(packet.body.op()), op);
            }
            Err(reject) => if let Some(reply) = reject.reply {
                prop_assert_eq!(src_cid, 3);
                prop_assert_ne!(op, u16::from(Op::Reset));
                let back = route().reset_header(&reply);
                prop_assert_eq!((back.src_cid, back.dst_cid), (dst_cid, 3));
            }
        }
    }
}
