// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Streams that keep messages apart.

use std::io::{self, ErrorKind, IoSlice};
use std::net::Shutdown;

use vsock_backend_api::{Received, Record, VsockMessages};

use crate::breach::{RuleBreach, Verdict, fails, hold};
use crate::pattern::Pattern;
use crate::poll::PollInterest;
use crate::rule::{Sentence, StreamCheck};
use crate::scene::{Pair, Scene, ready, unready};
use crate::source::BoxedStream;

sentences! {
    functions StreamCheck;

    "messages" "A message passes whole, in one call, and with the boundaries that it was sent \
        with." {
        messages_keep_their_boundaries: { boundaries };
        an_empty_message_is_a_message_and_no_end: { empties };
        a_message_may_lie_in_pieces: { pieces };
    }

    "messages" "A message for which there is no room is not sent at all, and the next one that \
        is sent arrives alone." {
        a_message_without_room_is_not_sent: { refusal };
    }

    "messages" "A message that is longer than the buffer is told as such, and the next is not \
        harmed." {
        a_message_longer_than_the_buffer_is_told: { too_long };
    }

    "messages" "What was sent before an end, or before the peer left, arrives before it." {
        messages_come_before_the_end: { before_the_end };
        messages_come_before_the_peers_leaving: { before_leaving };
        nothing_is_sent_after_ones_own_end: { after_own_end };
    }

    "messages" "The descriptor is readable while a message waits, also an empty one." {
        a_waiting_message_is_readable: { readiness };
    }
}

/// The messages of a stream that must have them.
fn of(stream: &mut BoxedStream) -> Result<&mut dyn VsockMessages, RuleBreach> {
    let none = RuleBreach::Inapplicable("the stream keeps no messages apart");
    stream.messages().ok_or(none)
}

fn send(stream: &mut BoxedStream, message: &[u8]) -> Result<io::Result<()>, RuleBreach> {
    Ok(of(stream)?.send_message(&[IoSlice::new(message)], Record::Continues))
}

/// The next message must be this one.
fn expect(stream: &mut BoxedStream, message: &[u8]) -> Verdict {
    let mut buffer = vec![0; message.len() + 1];
    let got = of(stream)?.receive_message(&mut buffer)?;
    let Received::Message { len, .. } = got else {
        let expected = format!("a message of {} bytes", message.len());
        return Err(RuleBreach::unmet(expected, format!("{got:?} arrived")));
    };
    let same = buffer.get(..len) == Some(message);
    hold(same, "the message that was sent", "another one arrived")
}

fn expect_end(stream: &mut BoxedStream) -> Verdict {
    let got = of(stream)?.receive_message(&mut [0; 8])?;
    hold(got == Received::End, "the end", format!("{got:?} arrived"))
}

fn nothing(stream: &mut BoxedStream) -> Verdict {
    let got = of(stream)?.receive_message(&mut [0; 8]);
    fails("a call without a message", got, ErrorKind::WouldBlock)
}

fn boundaries(scene: &Scene<'_>) -> Verdict {
    let Pair { mut near, mut far } = scene.nonblocking()?;
    let mut pattern = Pattern::default();
    let sizes = [1, 2, 4096, 1, 65_536, 7];
    let messages: Vec<Vec<u8>> = sizes.iter().map(|size| pattern.take(*size)).collect();
    for message in &messages {
        send(&mut near, message)??;
    }
    for message in &messages {
        expect(&mut far, message)?;
    }
    nothing(&mut far)
}

fn empties(scene: &Scene<'_>) -> Verdict {
    let Pair { mut near, mut far } = scene.nonblocking()?;
    for message in [&b""[..], b"", b"x", b""] {
        send(&mut near, message)??;
    }
    near.shutdown(Shutdown::Write)?;
    for message in [&b""[..], b"", b"x", b""] {
        expect(&mut far, message)?;
    }
    expect_end(&mut far)
}

fn pieces(scene: &Scene<'_>) -> Verdict {
    let Pair { mut near, mut far } = scene.nonblocking()?;
    let parts = [&b"one "[..], b"", b"message"].map(IoSlice::new);
    of(&mut near)?.send_message(&parts, Record::Ends)?;
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
        hold(sent < 10_000, "a bound", "there is room for 100 MB")?;
    }
    for _ in 0..sent {
        expect(&mut far, &message)?;
    }
    nothing(&mut far)?;
    ready(&near, PollInterest::Write, "after everything was received")?;
    send(&mut near, b"next")??;
    expect(&mut far, b"next")
}

fn too_long(scene: &Scene<'_>) -> Verdict {
    let Pair { mut near, mut far } = scene.nonblocking()?;
    send(&mut near, &[7; 100])??;
    send(&mut near, b"next")??;
    let got = of(&mut far)?.receive_message(&mut [0; 99])?;
    let told = got == Received::TooLong;
    hold(told, "`TooLong`", format!("{got:?} arrived"))?;
    expect(&mut far, b"next")
}

fn before_the_end(scene: &Scene<'_>) -> Verdict {
    let Pair { mut near, mut far } = scene.nonblocking()?;
    send(&mut near, b"last")??;
    near.shutdown(Shutdown::Write)?;
    expect(&mut far, b"last")?;
    expect_end(&mut far)?;
    expect_end(&mut far)?;
    // The other direction is as it was.
    send(&mut far, b"reply")??;
    expect(&mut near, b"reply")
}

fn before_leaving(scene: &Scene<'_>) -> Verdict {
    for unread in [false, true] {
        let Pair { mut near, mut far } = scene.nonblocking()?;
        for message in [b"first", b"third"] {
            send(&mut near, message)??;
        }
        if unread {
            send(&mut far, b"never read")??;
        }
        drop(near);
        expect(&mut far, b"first")?;
        expect(&mut far, b"third")?;
        match of(&mut far)?.receive_message(&mut [0; 8]) {
            Ok(Received::End) if !unread => {}
            reset => fails(
                "a call after the peer has left",
                reset,
                ErrorKind::ConnectionReset,
            )?,
        }
    }
    Ok(())
}

fn after_own_end(scene: &Scene<'_>) -> Verdict {
    let Pair { mut near, far } = scene.nonblocking()?;
    near.shutdown(Shutdown::Write)?;
    let late = send(&mut near, b"late")?;
    fails("a message after one's own end", late, ErrorKind::BrokenPipe)?;
    drop(far);
    Ok(())
}

fn readiness(scene: &Scene<'_>) -> Verdict {
    let Pair { mut near, mut far } = scene.nonblocking()?;
    for message in [&b"x"[..], b""] {
        unready(&far, PollInterest::Read, "without a message")?;
        send(&mut near, message)??;
        ready(&far, PollInterest::Read, "while a message waits")?;
        expect(&mut far, message)?;
    }
    unready(&far, PollInterest::Read, "after the last message")
}
