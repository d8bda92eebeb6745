// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Messages through the in-process transport, compared with a model: a bounded queue of whole
//! messages.

use std::collections::VecDeque;
use std::io::{ErrorKind, IoSlice};
use std::os::fd::AsRawFd;

use proptest::collection::vec;
use proptest::prelude::{Strategy, any, prop_assert, prop_assert_eq, prop_oneof, proptest};
use proptest::sample::select;
use vsock_compliance::poll::{is_readable, is_writable};
use vsock_compliance::refusal_threshold;
use vsock_inner::{
    Capacity, Received, Record, VsockAddr, VsockBackend, VsockInnerBackend, VsockInnerConfig,
    VsockInnerSeqpacket, VsockStream,
};

/// Bytes that a message takes in addition to its payload.
const WORD: usize = 4;

#[derive(Clone, Debug)]
enum Step {
    /// Sends this many parts, with or without the end of a record.
    Send(usize, usize, bool),
    /// Receives into a buffer of this size.
    Receive(usize),
}

fn step(capacity: usize) -> impl Strategy<Value = Step> {
    prop_oneof![
        (0..capacity + 3, 1..4_usize, any::<bool>())
            .prop_map(|(len, parts, ends)| Step::Send(len, parts, ends)),
        (0..capacity + 3).prop_map(Step::Receive),
    ]
}

/// Returns the ends of the guest that connects and of the guest that has answered.
fn pair(capacity: usize) -> (VsockInnerSeqpacket, Box<dyn VsockStream>) {
    let config = VsockInnerConfig::default().to_device(Capacity::Bytes(capacity));
    let mut backend = VsockInnerBackend::with_config(config).unwrap();
    let from = VsockAddr { cid: 3, port: 1 };
    let to = VsockAddr { cid: 4, port: 2 };
    let connector = backend.get_connector();
    let mut near = connector.start_connect_seqpacket_from(from, to).unwrap();
    near.set_nonblocking(true).unwrap();
    let mut far = backend.accept().unwrap();
    assert_eq!(far.requested_port(), Some(2));
    far.confirm_from(to, from).unwrap();
    (near, far)
}

fn record(ends: bool) -> Record {
    if ends {
        Record::Ends
    } else {
        Record::Continues
    }
}

proptest! {
    #[test]
    fn messages_are_queued_whole_within_the_capacity(
        (capacity, steps) in select(vec![1_usize, 10, 300, 40_000])
            .prop_flat_map(|capacity| {
                (proptest::prelude::Just(capacity), vec(step(capacity), 1..80))
            }),
    ) {
        let (mut near, mut far) = pair(capacity);
        let write_fd = near.write_ready_fd().unwrap();
        let all = capacity + WORD;
        let mut queue = VecDeque::new();
        let mut used = 0;
        // After a refusal, how much must be free before a message is accepted.
        let mut needed = None;
        for (at, step) in steps.iter().enumerate() {
            match *step {
                Step::Send(len, parts, ends) => {
                    let byte = u8::try_from(at).unwrap();
                    let message = vec![byte; len];
                    let parts: Vec<_> = message
                        .chunks(len.div_ceil(parts).max(1))
                        .map(IoSlice::new)
                        .collect();
                    let messages = near.messages().unwrap();
                    let sent = messages.send_message(&parts, record(ends));
                    let least = needed.unwrap_or(0);
                    let expected = if len > capacity {
                        Err(ErrorKind::InvalidInput)
                    } else if all - used < (len + WORD).max(least) {
                        needed = Some((len + WORD).max(least).max(refusal_threshold(all)));
                        Err(ErrorKind::WouldBlock)
                    } else {
                        needed = None;
                        used += len + WORD;
                        queue.push_back((byte, len, ends));
                        Ok(())
                    };
                    prop_assert_eq!(sent.map_err(|error| error.kind()), expected);
                }
                Step::Receive(room) => {
                    let mut buffer = vec![0xff; room];
                    let messages = far.messages().unwrap();
                    let received = messages.receive_message(&mut buffer);
                    let expected = match queue.pop_front() {
                        None => Err(ErrorKind::WouldBlock),
                        Some((_, len, _)) if len > room => {
                            used -= len + WORD;
                            Ok(Received::TooLong)
                        }
                        Some((byte, len, ends)) => {
                            used -= len + WORD;
                            prop_assert!(buffer[..len].iter().all(|one| *one == byte));
                            let record = record(ends);
                            Ok(Received::Message { len, record })
                        }
                    };
                    prop_assert_eq!(received.map_err(|error| error.kind()), expected);
                }
            }
            prop_assert_eq!(is_readable(far.as_raw_fd()).unwrap(), !queue.is_empty());
            let writable = all - used >= needed.unwrap_or(1);
            prop_assert_eq!(is_writable(write_fd).unwrap(), writable, "{:?}", step);
        }
        drop(near);
        for (_, len, _) in queue {
            let mut buffer = vec![0; len];
            let received = far.messages().unwrap().receive_message(&mut buffer).unwrap();
            let whole = matches!(received, Received::Message { len: got, .. } if got == len);
            prop_assert!(whole, "{:?}", received);
        }
        let end = far.messages().unwrap().receive_message(&mut []).unwrap();
        prop_assert_eq!(end, Received::End);
    }
}

#[test]
fn the_end_of_the_peers_reading_is_an_event_until_the_next_read() {
    let (mut near, mut far) = pair(100);
    for fd in [near.as_raw_fd(), far.as_raw_fd()] {
        assert!(!is_readable(fd).unwrap());
    }
    near.shutdown(std::net::Shutdown::Read).unwrap();
    assert!(is_readable(far.as_raw_fd()).unwrap());
    assert!(far.peer_stopped_reading() && !near.peer_stopped_reading());
    let messages = far.messages().unwrap();
    let nothing = messages.receive_message(&mut [0; 8]).unwrap_err();
    assert_eq!(nothing.kind(), ErrorKind::WouldBlock);
    assert!(!is_readable(far.as_raw_fd()).unwrap());
    // Later arrivals are events again.
    let messages = near.messages().unwrap();
    messages
        .send_message(&[IoSlice::new(b"more")], Record::Continues)
        .unwrap();
    assert!(is_readable(far.as_raw_fd()).unwrap());
    let refused = far.messages().unwrap().send_message(&[], Record::Continues);
    assert_eq!(refused.unwrap_err().kind(), ErrorKind::BrokenPipe);
}

#[test]
fn a_pending_connection_takes_no_message_and_a_refused_one_reports_it() {
    let mut backend = VsockInnerBackend::new().unwrap();
    let (from, to) = (VsockAddr { cid: 3, port: 1 }, VsockAddr { cid: 4, port: 2 });
    let connector = backend.get_connector();
    let mut near = connector.start_connect_seqpacket_from(from, to).unwrap();
    let kind = |result: std::io::Result<()>| result.unwrap_err().kind();
    assert_eq!(kind(near.finish_connect()), ErrorKind::WouldBlock);
    let messages = near.messages().unwrap();
    assert_eq!(
        kind(messages.send_message(&[], Record::Ends)),
        ErrorKind::WouldBlock
    );
    let far = backend.accept().unwrap();
    drop(far);
    assert_eq!(kind(near.finish_connect()), ErrorKind::ConnectionRefused);
    let messages = near.messages().unwrap();
    assert_eq!(
        kind(messages.send_message(&[], Record::Ends)),
        ErrorKind::ConnectionRefused
    );
}
