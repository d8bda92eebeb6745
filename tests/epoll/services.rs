// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! The services that the crate provides.

use std::io::{ErrorKind, Read, Write};
use std::net::Shutdown;

use vsock_compliance::{BoxedStream, PairSource};
use vsock_epoll::services::{Lines, LinesError, Proxy, Reply};
use vsock_epoll::{StreamLimits, StreamSubscriber};
use vsock_inner::Capacity;
use vsock_tests::assert_fails;
use vsock_tests::inner::{Inner, Way};
use vsock_tests::unix::Sockets;

use crate::{add, pair, read_all, read_to_end, rest, soon, waiting};

/// Two applications whose device ends are joined by a proxy.
fn proxied(
    left: &dyn PairSource,
    right: &dyn PairSource,
) -> (StreamSubscriber<Proxy>, BoxedStream, BoxedStream) {
    let mut proxy =
        StreamSubscriber::new(Proxy::new(), StreamLimits::default().backlog(700)).unwrap();
    let (left, left_device) = pair(left);
    let (right, right_device) = pair(right);
    Proxy::join(proxy.streams(), left_device, right_device).unwrap();
    (proxy, left, right)
}

fn sources() -> [(Box<dyn PairSource>, Box<dyn PairSource>); 3] {
    [
        (Box::new(Sockets), Box::new(Inner::holding(1000))),
        (Box::new(Inner::holding(10)), Box::new(Inner::by(Way::Pair))),
        (Box::new(Inner::by(Way::Pair)), Box::new(Sockets)),
    ]
}

/// Sends everything to the other end, which reads, and ends the direction. Returns what arrived.
fn carry(
    proxy: &mut StreamSubscriber<Proxy>,
    from: &mut BoxedStream,
    to: &mut BoxedStream,
    sent: &[u8],
) -> Vec<u8> {
    let (mut at, mut got) = (0, Vec::new());
    let deadline = soon();
    loop {
        waiting(deadline, (at, got.len()));
        while at < sent.len() {
            match from.write(&sent[at..]) {
                Ok(written) => at += written,
                Err(error) => {
                    assert_eq!(error.kind(), ErrorKind::WouldBlock);
                    break;
                }
            }
        }
        if at == sent.len() {
            from.shutdown(Shutdown::Write).unwrap();
        }
        rest(proxy);
        let (more, ended) = read_all(&mut **to);
        got.extend(more);
        if ended {
            return got;
        }
    }
}

#[test]
fn t83_a_proxy_passes_an_end_on_and_the_answer_back() {
    for (left, right) in sources() {
        let (mut proxy, mut left, mut right) = proxied(&*left, &*right);
        let request: Vec<u8> = (0..30_000_u32).map(|at| at.to_le_bytes()[0]).collect();
        assert!(carry(&mut proxy, &mut left, &mut right, &request) == request);
        assert_eq!(proxy.streams().len(), 2);
        let answer: Vec<u8> = request.iter().rev().copied().collect();
        assert!(carry(&mut proxy, &mut right, &mut left, &answer) == answer);
        rest(&mut proxy);
        assert!(proxy.streams().is_empty());
        assert_eq!(proxy.counters().bytes_lost, 0);
    }
}

#[test]
fn t85_a_proxy_delivers_what_came_before_a_reset() {
    let (mut proxy, mut left, mut right) = proxied(&Inner::by(Way::Pair), &Inner::holding(10));
    left.write_all(&[5; 600]).unwrap();
    rest(&mut proxy);
    drop(left);
    assert_eq!(read_to_end(&mut proxy, &mut *right), [5; 600]);
    assert!(proxy.streams().is_empty());
}

#[test]
fn a_proxy_delivers_the_last_bytes_of_a_side_that_has_stopped_reading() {
    let (mut proxy, mut left, mut right) = proxied(&Inner::by(Way::Pair), &Inner::by(Way::Pair));
    right.write_all(b"last words").unwrap();
    right.shutdown(Shutdown::Both).unwrap();
    left.write_all(b"no one reads this").unwrap();
    rest(&mut proxy);
    assert_eq!(read_all(&mut *left), (b"last words".to_vec(), true));
    assert_fails(left.write(b"x"), ErrorKind::BrokenPipe);
    drop((left, right));
    rest(&mut proxy);
    assert!(proxy.streams().is_empty());
}

#[test]
fn a_proxy_without_room_for_the_second_stream_closes_the_first() {
    let limits = StreamLimits::default().streams(1);
    let mut proxy = StreamSubscriber::new(Proxy::default(), limits).unwrap();
    let (mut left, left_device) = pair(&Inner::by(Way::Pair));
    let (_right, right_device) = pair(&Inner::by(Way::Pair));
    Proxy::join(proxy.streams(), left_device, right_device).unwrap_err();
    assert_eq!(left.read(&mut [0]).unwrap(), 0);
    rest(&mut proxy);
}

#[test]
fn a_stream_without_a_partner_waits() {
    let mut proxy = StreamSubscriber::new(Proxy::new(), StreamLimits::default()).unwrap();
    let (mut host, id) = add(&mut proxy, &Inner::by(Way::Pair));
    host.write_all(b"x").unwrap();
    rest(&mut proxy);
    assert!(proxy.streams().close(id));
}

type Answer = fn(&[u8], &mut Vec<u8>) -> Reply;

fn lines(limits: StreamLimits, longest: usize) -> StreamSubscriber<Lines<Answer>> {
    let answer: Answer = |line, answer| {
        answer.extend(line.iter().rev());
        answer.push(b'\n');
        if line == b"bye" {
            Reply::SendAndClose
        } else {
            Reply::Send
        }
    };
    StreamSubscriber::new(Lines::new(longest, answer).unwrap(), limits).unwrap()
}

#[test]
fn lines_in_any_number_of_pieces_are_answered() {
    let mut service = lines(StreamLimits::default(), 100);
    let (mut host, _) = add(&mut service, &Inner::by(Way::Pair));
    for piece in ["ab", "c\nde", "f\n", "\n", "bye\nnever read\n"] {
        host.write_all(piece.as_bytes()).unwrap();
        rest(&mut service);
    }
    assert_eq!(read_all(&mut *host), (b"cba\nfed\n\neyb\n".to_vec(), true));
    rest(&mut service);
    assert!(service.streams().is_empty());
}

#[test]
fn an_endless_line_closes_its_stream() {
    for bytes in [&[b'x'; 101][..], &[[b'x'; 101].as_slice(), b"\n"].concat()] {
        let mut service = lines(StreamLimits::default(), 100);
        let (mut host, _) = add(&mut service, &Inner::by(Way::Pair));
        host.write_all(bytes).unwrap();
        rest(&mut service);
        assert!(service.streams().is_empty());
    }
    let none = Lines::new(0, |_: &[u8], _: &mut Vec<u8>| Reply::Send);
    assert_eq!(none.err(), Some(LinesError::NoLength));
}

#[test]
fn requests_wait_while_their_answers_are_unread() {
    let mut service = lines(StreamLimits::default().backlog(64), 20);
    let mut source = Inner::by(Way::Pair);
    source.config = source.config.to_application(Capacity::Bytes(16));
    let (mut host, id) = add(&mut service, &source);
    let request = b"0123456789\n".repeat(200);
    let (mut at, mut got) = (0, Vec::new());
    let deadline = soon();
    while got.len() < request.len() {
        waiting(deadline, (at, got.len()));
        while at < request.len() {
            match host.write(&request[at..]) {
                Ok(written) => at += written,
                Err(_) => break,
            }
        }
        rest(&mut service);
        assert!(service.streams().backlog(id) <= 64);
        got.extend(read_all(&mut *host).0);
    }
    assert!(got == b"9876543210\n".repeat(200));
}

#[test]
fn an_answer_that_does_not_fit_closes_the_stream() {
    let mut service = lines(StreamLimits::default().backlog(8), 100);
    let (mut host, _) = add(&mut service, &Inner::holding(4));
    for byte in b"0123456789012345678901234567890123456789\n" {
        if host.write(&[*byte]).is_err() {
            rest(&mut service);
            host.write_all(&[*byte]).unwrap();
        }
    }
    rest(&mut service);
    assert!(service.streams().is_empty());
}
