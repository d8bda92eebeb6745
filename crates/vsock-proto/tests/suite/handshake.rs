// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

use proptest::prelude::*;
use vsock_proto::Port;
use vsock_proto::handshake::{CommandParser, LineError, MAX_LINE, OkParser, Parse, ok_line};

fn command(line: &[u8]) -> Result<Parse, LineError> {
    CommandParser::new().feed(line)
}

fn port_of(line: &[u8]) -> Result<u32, LineError> {
    match command(line)? {
        Parse::Line { port, .. } => Ok(port.into()),
        Parse::NeedMore => panic!("no line in {line:?}"),
    }
}

#[test]
fn t38_a_command_may_come_byte_by_byte() {
    let mut parser = CommandParser::new();
    for byte in b"CONNECT 1024" {
        assert_eq!(parser.feed(&[*byte]), Ok(Parse::NeedMore));
    }
    let (port, used) = (Port::new(1024), 1);
    assert_eq!(parser.feed(b"\n"), Ok(Parse::Line { port, used }));
}

#[test]
fn t40_a_line_without_end_is_refused_at_the_limit() {
    let mut parser = CommandParser::new();
    assert_eq!(parser.feed(&[b'x'; MAX_LINE - 1]), Ok(Parse::NeedMore));
    assert_eq!(parser.room(), 1, "for the newline");
    let too_long = Err(LineError::TooLong { limit: MAX_LINE });
    assert_eq!(parser.feed(b"x"), too_long);
    assert_eq!(command(&[b' '; 1000]), too_long);
}

#[test]
fn t40_a_line_of_just_the_limit_is_a_line() {
    let mut line = vec![b' '; MAX_LINE];
    line[..10].copy_from_slice(b"CONNECT 52");
    line[MAX_LINE - 1] = b'\n';
    assert_eq!(port_of(&line), Ok(52));
    line.insert(10, b' ');
    let too_long = Err(LineError::TooLong { limit: MAX_LINE });
    assert_eq!(port_of(&line), too_long);
}

#[test]
fn t41_bytes_after_the_newline_are_left_in_place() {
    let (port, used) = (Port::new(1234), 13);
    let line = command(b"CONNECT 1234\nHELLO\nWORLD");
    assert_eq!(line, Ok(Parse::Line { port, used }));
}

#[test]
fn t43_a_command_is_a_word_of_any_case_and_a_decimal_port() {
    let good = [
        (&b"CONNECT 0\n"[..], 0),
        (b"CONNECT 4294967294\n", u32::MAX - 1),
        (b"CONNECT 0052\n", 52),
        (b"connect 52\n", 52),
        (b"Connect\t52\n", 52),
        (b"  CONNECT   52  \n", 52),
        (b"CONNECT 52\r\n", 52),
    ];
    for (line, port) in good {
        assert_eq!(port_of(line), Ok(port), "{line:?}");
    }
    let no_port = [
        "CONNECT 4294967295",
        "CONNECT 4294967296",
        "CONNECT 99999999999999999999",
        "CONNECT +52",
        "CONNECT -1",
        "CONNECT 0x34",
        "CONNECT 5.2",
        "CONNECT 5\x002",
        "CONNECT \u{b2}",
    ];
    let other = ["", " \r", "CONNECT", "CONNECT ", "CONNECT 1 2", "CONNECT52"];
    let words = ["JOIN 52", "52", "OK 52", "GET / HTTP/1.1\r"];
    let malformed = other
        .iter()
        .chain(&words)
        .map(|line| (line, LineError::Malformed));
    let bad = no_port.iter().map(|line| (line, LineError::BadPort));
    for (line, error) in bad.chain(malformed) {
        let line = format!("{line}\n");
        assert_eq!(port_of(line.as_bytes()), Err(error), "{line:?}");
    }
}

#[test]
fn t46_ok_names_a_port_in_decimal() {
    for (port, line) in [
        (0, &b"OK 0\n"[..]),
        (9, b"OK 9\n"),
        (1 << 30, b"OK 1073741824\n"),
        (u32::MAX, b"OK 4294967295\n"),
    ] {
        assert_eq!(ok_line(Port::new(port)).as_bytes(), line);
    }
}

#[test]
fn an_answer_is_not_a_command() {
    let answer = OkParser::new().feed(b"CONNECT 52\n");
    assert_eq!(answer, Err(LineError::Malformed));
    let endless = OkParser::new().feed(&[b'O'; 40]);
    assert_eq!(endless, Err(LineError::TooLong { limit: MAX_LINE }));
}

proptest! {
    #[test]
    fn t38_the_parser_gives_the_same_result_for_any_pieces(
        port in 0..u32::MAX,
        payload in proptest::collection::vec(any::<u8>(), 0..20),
        cuts in proptest::collection::vec(0_usize..40, 0..8),
    ) {
        let line = format!("CONNECT {port}\n");
        let mut input = line.clone().into_bytes();
        input.extend_from_slice(&payload);
        let mut cuts: Vec<_> = cuts.into_iter().map(|cut| cut.min(input.len())).collect();
        cuts.sort_unstable();
        cuts.push(input.len());

        let mut parser = CommandParser::new();
        let mut start = 0;
        for cut in cuts {
            let room = parser.room();
            match parser.feed(&input[start..cut]).unwrap() {
                Parse::NeedMore => prop_assert!(cut < line.len()),
                Parse::Line { port: parsed, used } => {
                    prop_assert_eq!(u32::from(parsed), port);
                    prop_assert_eq!(start + used, line.len());
                    prop_assert!(used <= room);
                    return Ok(());
                }
            }
            start = cut;
        }
        prop_assert!(false, "the line was there");
    }

    #[test]
    fn no_bytes_break_the_parser(pieces in proptest::collection::vec(
        proptest::collection::vec(
            prop_oneof![any::<u8>(), Just(b' '), Just(b'\n'), b'0'..=b'9'],
            0..40,
        ),
        0..5,
    )) {
        let mut parser = CommandParser::new();
        let mut fed = 0;
        for piece in pieces {
            match parser.feed(&piece) {
                Ok(Parse::NeedMore) => fed += piece.len(),
                Ok(Parse::Line { used, .. }) => {
                    prop_assert!(used <= piece.len());
                    break;
                }
                Err(_) => break,
            }
            prop_assert!(fed < MAX_LINE);
        }
    }

    #[test]
    fn the_client_parses_the_devices_line(port in 0..u32::MAX) {
        let line = ok_line(Port::new(port));
        let parsed = OkParser::new().feed(line.as_bytes()).unwrap();
        prop_assert_eq!(parsed, Parse::Line {
            port: Port::new(port),
            used: line.len(),
        });
    }
}
