// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Calls of streams with message boundaries.

use std::io::{self, ErrorKind, IoSlice};

use vsock_backend_api::{Received, Record, VsockMessages};

use crate::breach::{RuleBreach, Verdict, fails, same};
use crate::source::BoxedStream;

/// Returns the message interface of a stream. Without one, the rule is inapplicable.
pub(crate) fn messages_of(stream: &mut BoxedStream) -> Result<&mut dyn VsockMessages, RuleBreach> {
    let none = RuleBreach::Inapplicable("the stream has no message boundaries");
    stream.messages().ok_or(none)
}

pub(crate) fn send(stream: &mut BoxedStream, message: &[u8]) -> Result<io::Result<()>, RuleBreach> {
    Ok(messages_of(stream)?.send_message(&[IoSlice::new(message)], Record::Continues))
}

/// Checks that the next message is this one.
pub(crate) fn expect(stream: &mut BoxedStream, message: &[u8]) -> Verdict {
    let mut buffer = vec![0; message.len() + 1];
    match messages_of(stream)?.receive_message(&mut buffer)? {
        Received::Message { len, .. } => same(buffer.get(..len).unwrap_or(&buffer), message),
        other => {
            let expected = format!("a message of {} bytes", message.len());
            Err(RuleBreach::unmet(expected, format!("{other:?} arrived")))
        }
    }
}

/// Checks that there is no message, for this reason.
pub(crate) fn expect_none(stream: &mut BoxedStream, kind: ErrorKind) -> Verdict {
    let got = messages_of(stream)?.receive_message(&mut [0; 8]);
    fails("a call without a message", got, kind)
}
