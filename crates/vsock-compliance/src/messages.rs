// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Calls of streams that keep messages apart.

use std::io::{self, ErrorKind, IoSlice};

use vsock_backend_api::{Received, Record, VsockMessages};

use crate::breach::{RuleBreach, Verdict, fails, same};
use crate::source::BoxedStream;

/// The messages of a stream that must have them.
pub(crate) fn messages_of(stream: &mut BoxedStream) -> Result<&mut dyn VsockMessages, RuleBreach> {
    let none = RuleBreach::Inapplicable("the stream keeps no messages apart");
    stream.messages().ok_or(none)
}

pub(crate) fn send(stream: &mut BoxedStream, message: &[u8]) -> Result<io::Result<()>, RuleBreach> {
    Ok(messages_of(stream)?.send_message(&[IoSlice::new(message)], Record::Continues))
}

/// The next message must be this one.
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

/// There must be no message, and this must be why.
pub(crate) fn expect_none(stream: &mut BoxedStream, kind: ErrorKind) -> Verdict {
    let got = messages_of(stream)?.receive_message(&mut [0; 8]);
    fails("a call without a message", got, kind)
}
