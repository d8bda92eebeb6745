// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

use std::io::Read;

use proptest::collection::vec;
use proptest::prelude::{Just, Strategy, any};
use proptest::{prop_assert, prop_assert_eq, proptest};
use vm_memory::VolatileSlice;
use vsock_backend_api::VsockStream;
use vsock_driver::{Counted, Letters, Memory};
use vsock_inner::VsockInnerStream;
use vsock_muxer::GuestPayload;
use vsock_proto::{Header, MessageFlags, Progress};

use super::{pair, pattern};
use crate::chain::BadChain;
use crate::direct::DirectTypes;
use crate::stream_io::{MAX_PAYLOAD, Scratch};
use crate::tx::{TxPayload, header};

fn packet(payload: &[u8]) -> Vec<u8> {
    let header = Header {
        src_cid: 3,
        len: u32::try_from(payload.len()).unwrap(),
        ..Header::default()
    };
    [&header.encode()[..], payload].concat()
}

/// Creates a stream that takes this many bytes in one call.
fn taking(bytes: usize) -> Counted {
    Counted {
        takes: [bytes].into(),
        ..Counted::default()
    }
}

/// Splits plain memory into pieces of these lengths, and a last one for the rest.
fn pieces<'m>(mut bytes: &'m mut [u8], lens: &[usize]) -> Vec<VolatileSlice<'m>> {
    let mut pieces = Vec::new();
    for &len in lens {
        let (piece, rest) = bytes.split_at_mut(len.clamp(1, bytes.len().max(1)).min(bytes.len()));
        if !piece.is_empty() {
            pieces.push(VolatileSlice::from(piece));
        }
        bytes = rest;
    }
    if !bytes.is_empty() {
        pieces.push(VolatileSlice::from(bytes));
    }
    pieces
}

struct Sender {
    direct: DirectTypes<Memory>,
    scratch: Scratch,
}

impl Sender {
    fn new() -> Self {
        Self {
            direct: DirectTypes::new(),
            scratch: Scratch::default(),
        }
    }

    fn direct(least: usize) -> Self {
        let mut sender = Self::new();
        sender.direct.add::<VsockInnerStream>(least);
        sender
    }

    /// Parses a packet and passes its payload to `act`.
    fn with<R>(
        &mut self,
        slices: &[VolatileSlice<'_>],
        act: impl FnOnce(&mut dyn GuestPayload) -> R,
    ) -> Result<R, BadChain> {
        let readable = slices.iter().map(|slice| slice.len()).sum();
        let (header, cursor) = header(slices, readable)?;
        let mut payload = TxPayload {
            slices,
            cursor,
            left: header.len as usize,
            direct: &self.direct,
            scratch: &mut self.scratch,
        };
        Ok(act(&mut payload))
    }
}

#[test]
fn t12_header_in_44_descriptors_of_one_byte() {
    let mut bytes = packet(b"payload");
    let slices = pieces(&mut bytes, &[1; 44]);
    let mut stream = taking(100);
    let progress = Sender::new().with(&slices, |payload| payload.write_to(&mut stream));
    assert_eq!(progress, Ok(Progress::Done(7)));
    assert_eq!(stream.sink, b"payload");
}

#[test]
fn t13_a_chain_shorter_than_its_header_says_is_not_a_packet() {
    let whole = packet(&[7; 100]);
    for len in 0..whole.len() {
        let mut short = whole[..len].to_vec();
        let slices = pieces(&mut short, &[13, 31]);
        assert_eq!(Sender::new().with(&slices, |_| ()), Err(BadChain));
    }
}

#[test]
fn t14_a_packet_over_the_limit_is_refused_and_a_longer_chain_is_not() {
    let mut over = packet(&vec![1; MAX_PAYLOAD + 1]);
    let slices = pieces(&mut over, &[44]);
    assert_eq!(Sender::new().with(&slices, |_| ()), Err(BadChain));

    let mut longer = packet(b"abc");
    longer.extend([0xff; 5000]);
    let slices = pieces(&mut longer, &[44, 2]);
    let mut stream = taking(5000);
    let progress = Sender::new().with(&slices, |payload| payload.write_to(&mut stream));
    assert_eq!(progress, Ok(Progress::Done(3)));
    assert_eq!(stream.sink, b"abc", "the bytes after it are not payload");
}

#[test]
fn t02_a_length_that_changes_after_it_was_read_has_no_effect() {
    let mut bytes = packet(b"abc");
    bytes.extend([0xff; 100]);
    let slices = pieces(&mut bytes, &[44]);
    let mut stream = taking(5000);
    let progress = Sender::new().with(&slices, |payload| {
        let len = slices[0].subslice(24, 4).unwrap();
        len.copy_from(&[100_u8, 0, 0, 0]);
        payload.write_to(&mut stream)
    });
    assert_eq!(progress, Ok(Progress::Done(3)));
    assert_eq!(stream.sink, b"abc");
}

#[test]
fn t111_scattered_payload_is_written_or_sent_with_one_call() {
    let payload = pattern(40_000);
    let mut bytes = packet(&payload);
    let slices = pieces(&mut bytes, &[4096; 10]);
    let mut stream = taking(65_536);
    let progress = Sender::direct(0).with(&slices, |payload| payload.write_to(&mut stream));
    assert_eq!(progress, Ok(Progress::Done(40_000)));
    assert_eq!(stream.writes, [40_000]);
    assert!(stream.sink == payload);
    let mut letters = Letters::default();
    let flags = MessageFlags::END_OF_RECORD;
    let progress = Sender::direct(0).with(&slices, |payload| payload.send_to(&mut letters, flags));
    assert_eq!(progress, Ok(Progress::Done(40_000)));
    assert!(letters.post().sent == [(payload, true)]);
}

#[test]
fn a_write_to_a_closed_peer_reports_it() {
    for mut sender in [Sender::new(), Sender::direct(0)] {
        for (aborts, said) in [(false, Progress::Closed), (true, Progress::Failed)] {
            let (mut device, application) = pair(1000);
            if aborts {
                application.abort();
            } else {
                drop(application);
            }
            let mut bytes = packet(b"abc");
            let slices = pieces(&mut bytes, &[44]);
            let progress = sender.with(&slices, |payload| payload.write_to(&mut device));
            assert_eq!(progress, Ok(said));
        }
    }
}

/// Generates where to cut a packet, and how much the stream takes.
fn cuts() -> impl Strategy<Value = (usize, Vec<usize>)> {
    (0..20_000_usize).prop_flat_map(|len| (Just(len), vec(1..4000_usize, 0..24)))
}

proptest! {
    #[test]
    fn all_payload_arrives_from_any_layout(
        (len, lens) in cuts(),
        capacity in 1..30_000_usize,
        least in proptest::sample::select(vec![0_usize, 500, 100_000]),
        tail in any::<u8>(),
    ) {
        let payload = pattern(len);
        let mut bytes = packet(&payload);
        bytes.extend(vec![0xee; usize::from(tail)]);
        let slices = pieces(&mut bytes, &lens);
        let (mut device, mut application) = pair(capacity);
        let mut got = vec![0; len];
        let (written, rest) = Sender::direct(least)
            .with(&slices, |payload| {
                let written = match payload.write_to(&mut device as &mut dyn VsockStream) {
                    Progress::Done(written) => written,
                    _ => 0,
                };
                // Bytes that the stream refuses go to the backlog.
                let mut rest = vec![0; len - written];
                payload.copy_to(&mut rest);
                (written, rest)
            })
            .unwrap();
        prop_assert_eq!(written, len.min(capacity));
        if written > 0 {
            application.read_exact(&mut got[..written]).unwrap();
        }
        got[written..].copy_from_slice(&rest);
        prop_assert!(got == payload);
    }
}
