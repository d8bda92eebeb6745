// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Streams with message boundaries.

use std::io::{ErrorKind, IoSlice};

use vsock_backend_api::{Received, Record};

use crate::breach::{Verdict, fails, hold};
use crate::messages::{expect, expect_none, messages_of, send};
use crate::poll::PollInterest;
use crate::rule::{Sentence, StreamCheck};
use crate::scene::{Pair, Scene, ready};

sentences! {
    steps StreamCheck;

    "messages" "A message is transferred as a whole, in one call, and with the boundaries with \
        which it was sent." {
        messages_keep_their_boundaries: [[
            Send(Near, 1), Send(Near, 2), Send(Near, 4096), Send(Near, 1), Send(Near, 65_536),
            Send(Near, 7), Receive(Far, 1), Receive(Far, 2), Receive(Far, 4096), Receive(Far, 1),
            Receive(Far, 65_536), Receive(Far, 7), ReceiveFails(Far, ErrorKind::WouldBlock),
        ]];
        an_empty_message_is_a_message_and_no_end: [[
            Send(Near, 0), Send(Near, 0), Send(Near, 1), Send(Near, 0),
            Shutdown(Near, Shut::Write), Receive(Far, 0), Receive(Far, 0), Receive(Far, 1),
            Receive(Far, 0), EndOfMessages(Far),
        ]];
        a_message_may_lie_in_pieces: { pieces };
    }

    "messages" "A message for which there is no room is not sent at all, and does not affect the \
        next message." {
        a_message_without_room_is_not_sent: { refusal };
    }

    "messages" "A message longer than the buffer is reported as too long, and does not affect the \
        next message." {
        a_message_longer_than_the_buffer_is_told: { too_long };
    }

    "messages" "Messages sent before an end, or before the peer leaves, arrive before it." {
        messages_come_before_the_end: [[
            Send(Near, 4), Shutdown(Near, Shut::Write), Receive(Far, 4), EndOfMessages(Far),
            EndOfMessages(Far), Send(Far, 5), Receive(Near, 5),
        ]];
        messages_come_before_the_peers_leaving: [
            [Send(Near, 5), Send(Near, 6), Drop(Near), Receive(Far, 5), Receive(Far, 6),
                EndOfMessages(Far)],
            [Send(Near, 5), Send(Near, 6), Send(Far, 7), Drop(Near), Receive(Far, 5),
                Receive(Far, 6), ReceiveFails(Far, ErrorKind::ConnectionReset)],
        ];
        nothing_is_sent_after_ones_own_end: [[
            Shutdown(Near, Shut::Write), SendFails(Near, ErrorKind::BrokenPipe),
        ]];
    }

    "messages" "The descriptor is readable while a message waits, including an empty one." {
        a_waiting_message_is_readable: [[
            Unready(Far, In), Send(Near, 1), Ready(Far, In), Receive(Far, 1), Unready(Far, In),
            Send(Near, 0), Ready(Far, In), Receive(Far, 0), Unready(Far, In),
        ]];
    }
}

fn pieces(scene: &Scene<'_>) -> Verdict {
    let Pair { mut near, mut far } = scene.nonblocking()?;
    let parts = [&b"one "[..], b"", b"message"].map(IoSlice::new);
    messages_of(&mut near)?.send_message(&parts, Record::Ends)?;
    expect(&mut far, b"one message")
}

fn refusal(scene: &Scene<'_>) -> Verdict {
    let Pair { mut near, mut far } = scene.nonblocking()?;
    let message = vec![7; 10_000];
    let mut sent = 0;
    loop {
        match send(&mut near, &message)? {
            Ok(()) => sent += 1,
            refused => {
                fails("a message without room", refused, ErrorKind::WouldBlock)?;
                break;
            }
        }
        hold(sent < 10_000, "a limit", "100 MB were accepted")?;
    }
    for _ in 0..sent {
        expect(&mut far, &message)?;
    }
    expect_none(&mut far, ErrorKind::WouldBlock)?;
    ready(&near, PollInterest::Write, "after everything was received")?;
    send(&mut near, b"next")??;
    expect(&mut far, b"next")
}

fn too_long(scene: &Scene<'_>) -> Verdict {
    let Pair { mut near, mut far } = scene.nonblocking()?;
    send(&mut near, &[7; 100])??;
    send(&mut near, b"next")??;
    let got = messages_of(&mut far)?.receive_message(&mut [0; 99])?;
    let told = got == Received::TooLong;
    hold(told, "`TooLong`", format!("{got:?} arrived"))?;
    expect(&mut far, b"next")
}
