// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! A handshake line means the same whether it arrives in pieces or whole.

use vsock_proto::handshake::{CommandParser, LineError, MAX_LINE, OkParser, Parse};

use crate::bytes::Bytes;

/// The result for a whole text: the port, and where its line ends.
type Outcome = Result<Option<(u32, usize)>, LineError>;

fn in_pieces(
    text: &[u8],
    mut lens: Bytes<'_>,
    mut feed: impl FnMut(&[u8]) -> Result<Parse, LineError>,
) -> Outcome {
    let mut at = 0;
    while at < text.len() {
        let len = (usize::from(lens.byte() % 9) + 1).min(text.len() - at);
        match feed(&text[at..at + len])? {
            Parse::NeedMore => at += len,
            Parse::Line { port, used } => {
                assert!(used <= len);
                return Ok(Some((port.into(), at + used)));
            }
        }
    }
    assert!(text.len() <= MAX_LINE, "a line without an end is refused");
    Ok(None)
}

/// The first half of the input gives the lengths of the pieces, the second half is the text.
pub fn fuzz(data: &[u8]) {
    let (lens, text) = data.split_at(data.len() / 2);
    let (mut one, mut two) = (CommandParser::new(), CommandParser::new());
    let whole = in_pieces(text, Bytes(&[]), |piece| one.feed(piece));
    let pieces = in_pieces(text, Bytes(lens), |piece| two.feed(piece));
    assert_eq!(whole, pieces);
    if let Ok(Some((port, end))) = whole {
        assert_ne!(port, u32::MAX);
        assert_eq!(text.get(end - 1), Some(&b'\n'));
    }
    let (mut one, mut two) = (OkParser::new(), OkParser::new());
    let whole = in_pieces(text, Bytes(&[]), |piece| one.feed(piece));
    assert_eq!(whole, in_pieces(text, Bytes(lens), |piece| two.feed(piece)));
}
