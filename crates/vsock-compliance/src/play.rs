// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Executes the steps of a check.

use std::io::{self, ErrorKind, IoSlice, IoSliceMut, Read, Write};
use std::time::Duration;

use vsock_backend_api::Received;

use crate::breach::{RuleBreach, Verdict, count, fails, hold, succeeds};
use crate::call::Call;
use crate::messages::{expect, expect_none, messages_of, send};
use crate::pattern::Pattern;
use crate::poll::{PollInterest, PollReport, Watch, pace};
use crate::scene::{Pair, Scene, edge, edges, no_edge, ready, ready_fd, unready};
use crate::source::{BoxedStream, PairSource};
use crate::step::{Side, Step, Want};

/// A call in progress: its side, its kind and its thread.
struct Started {
    side: Side,
    op: CallOp,
    call: Call<(BoxedStream, Done)>,
}

/// The result of a call, and the buffer of a read.
type Done = (io::Result<usize>, [u8; 8]);

#[derive(Clone, Copy, Eq, PartialEq)]
enum CallOp {
    Read,
    Write,
}

/// The state of one end during a check.
struct End {
    /// `None` after the end was dropped, and while one of its calls is in progress.
    stream: Option<BoxedStream>,
    sent: Pattern,
    received: Pattern,
    read_edges: Option<Watch>,
    write_edges: Option<Watch>,
    level: Option<Watch>,
}

impl End {
    fn new(stream: BoxedStream, sent: u64, received: u64) -> Self {
        Self {
            stream: Some(stream),
            sent: Pattern::starting_at(sent),
            received: Pattern::starting_at(received),
            read_edges: None,
            write_edges: None,
            level: None,
        }
    }

    fn edges(&mut self, interest: PollInterest) -> &mut Option<Watch> {
        match interest {
            PollInterest::Read => &mut self.read_edges,
            PollInterest::Write => &mut self.write_edges,
        }
    }

    fn watch(&mut self, interest: PollInterest) -> Result<&mut Watch, RuleBreach> {
        self.edges(interest).as_mut().ok_or_else(nothing)
    }

    /// Checks the result of a read, and that its bytes are the next ones.
    fn received(&mut self, bytes: &[u8], got: io::Result<usize>, want: Want) -> Verdict {
        let len = *got.as_ref().unwrap_or(&0);
        returned("a read", got, want)?;
        let Some(bytes) = bytes.get(..len) else {
            let seen = format!("it returned {len} bytes");
            return Err(RuleBreach::unmet("a read within its buffer", seen));
        };
        self.received.verify(bytes).map_err(|at| {
            let expected = "the bytes that were written, in order";
            RuleBreach::unmet(expected, format!("byte {at} differs"))
        })
    }

    fn wrote(&mut self, got: io::Result<usize>, want: Want) -> Verdict {
        self.sent.advance(*got.as_ref().unwrap_or(&0));
        returned("a write", got, want)
    }
}

fn returned(what: &str, got: io::Result<usize>, want: Want) -> Verdict {
    match want {
        Want::Count(len) => count(what, got, len),
        Want::Fails(kind) => fails(what, got, kind),
    }
}

/// The error for a step without a subject, which is a mistake in the table.
fn nothing() -> RuleBreach {
    RuleBreach::unmet("a consistent table of steps", "a step has no subject")
}

/// A check in progress.
struct Play<'a> {
    scene: &'a Scene<'a>,
    near: End,
    far: End,
    started: Option<Started>,
}

/// Executes the steps on a new pair with both ends non-blocking.
pub(crate) fn play(scene: &Scene<'_>, steps: &[Step]) -> Verdict {
    let Pair { near, far } = scene.nonblocking()?;
    let mut play = Play {
        scene,
        near: End::new(near, 0, 12_345),
        far: End::new(far, 12_345, 0),
        started: None,
    };
    for (at, step) in steps.iter().enumerate() {
        play.take(step).map_err(|breach| {
            breach.after(format_args!("at {step:?}, after {:?}", &steps[..at]))
        })?;
    }
    Ok(())
}

impl Play<'_> {
    fn end(&mut self, side: Side) -> &mut End {
        match side {
            Side::Near => &mut self.near,
            Side::Far => &mut self.far,
        }
    }

    fn stream(&mut self, side: Side) -> Result<&mut BoxedStream, RuleBreach> {
        self.end(side).stream.as_mut().ok_or_else(nothing)
    }

    fn take_stream(&mut self, side: Side) -> Result<BoxedStream, RuleBreach> {
        self.end(side).stream.take().ok_or_else(nothing)
    }

    fn take(&mut self, step: &Step) -> Verdict {
        match *step {
            Step::Repeat(times, steps) => {
                (0..times).try_for_each(|_| steps.iter().try_for_each(|step| self.take(step)))
            }
            Step::Shutdown(side, how) => Ok(self.stream(side)?.shutdown(how)?),
            Step::SetMode(side, mode) => {
                Ok(self.stream(side)?.set_nonblocking(mode.is_nonblocking())?)
            }
            Step::ReadTimeout(side, timeout) => {
                succeeds("a timeout", self.stream(side)?.set_read_timeout(timeout))
            }
            Step::WriteTimeout(side, timeout) => {
                succeeds("a timeout", self.stream(side)?.set_write_timeout(timeout))
            }
            Step::ZeroTimeoutsRefused(side) => {
                let stream = self.stream(side)?;
                let zero = Some(Duration::ZERO);
                let read = stream.set_read_timeout(zero);
                fails("a read timeout of zero", read, ErrorKind::InvalidInput)?;
                let write = stream.set_write_timeout(zero);
                fails("a write timeout of zero", write, ErrorKind::InvalidInput)
            }
            Step::Pace(time) => Ok(pace(time)?),
            Step::Drop(side) => self.take_stream(side).map(drop),
            Step::Abort(side) => self.take_stream(side).map(|stream| stream.abort()),
            _ => self.transfer(step),
        }?;
        self.check_hangup()
    }

    /// Executes steps that transfer bytes.
    fn transfer(&mut self, step: &Step) -> Verdict {
        match *step {
            Step::Write(side, wish) => {
                let len = match side {
                    Side::Near => self.scene.some(wish),
                    Side::Far => self.scene.some_back(wish),
                };
                let bytes = self.end(side).sent.peek(len);
                let written = self.stream(side)?.write(&bytes);
                self.end(side).wrote(written, Want::Count(len))
            }
            Step::WriteReturns(side, want) => {
                self.start(side, CallOp::Write)?;
                self.block(&Step::Returned(want))
            }
            Step::Fill(side) => {
                let scene = self.scene;
                let End { stream, sent, .. } = self.end(side);
                let stream = stream.as_mut().ok_or_else(nothing)?;
                scene.fill_with(stream, sent).map(drop)
            }
            Step::Read(side, want) => {
                self.start(side, CallOp::Read)?;
                self.block(&Step::Returned(want))
            }
            Step::Peek(side, want) => {
                let source = self.scene.source();
                match source.peek(&mut **self.stream(side)?, &mut [0; 8]) {
                    Some(seen) => returned("a peek", seen, want),
                    None => Ok(()),
                }
            }
            Step::Drain(side) => self.drain(side),
            Step::EmptyWrites(side) => empty_writes(self.stream(side)?),
            Step::EmptyCalls(side) => {
                let source = self.scene.source();
                empty_calls(source, self.stream(side)?)
            }
            Step::Carry(from) => {
                let to = match from {
                    Side::Near => Side::Far,
                    Side::Far => Side::Near,
                };
                self.transfer(&Step::Write(from, 1))?;
                self.transfer(&Step::Read(to, Want::Count(1)))
            }
            _ => self.block(step),
        }
    }

    fn drain(&mut self, side: Side) -> Verdict {
        let written = match side {
            Side::Near => self.far.sent.position(),
            Side::Far => self.near.sent.position(),
        };
        let mut buf = vec![0; 64 * 1024];
        loop {
            match self.stream(side)?.read(&mut buf) {
                Ok(len) if len > 0 => self.end(side).received(&buf, Ok(len), Want::Count(len))?,
                Ok(_) => break,
                Err(error) => match error.kind() {
                    ErrorKind::WouldBlock | ErrorKind::ConnectionReset => break,
                    _ => return Err(error.into()),
                },
            }
        }
        // A write that is still blocked may have added bytes, so there can be more than `written`.
        let missing = written.saturating_sub(self.end(side).received.position());
        hold(
            missing == 0,
            "all bytes that were written",
            format_args!("{missing} of them are missing"),
        )
    }

    /// Starts a call on a separate thread, so that a call that blocks by mistake does not block the
    /// check.
    fn start(&mut self, side: Side, op: CallOp) -> Verdict {
        let byte = self.end(side).sent.peek(1);
        let mut stream = self.take_stream(side)?;
        let call = Call::start(move || {
            let mut buf = [0; 8];
            let result = match op {
                CallOp::Read => stream.read(&mut buf),
                CallOp::Write => stream.write(&byte),
            };
            (stream, (result, buf))
        })?;
        self.started = Some(Started { side, op, call });
        Ok(())
    }

    /// Executes steps about a blocked call.
    fn block(&mut self, step: &Step) -> Verdict {
        match *step {
            Step::BlockedRead(side) => {
                self.start(side, CallOp::Read)?;
                self.block(&Step::StillBlocked)
            }
            Step::BlockedWrite(side) => {
                self.start(side, CallOp::Write)?;
                self.block(&Step::StillBlocked)
            }
            Step::StillBlocked => {
                let started = self.started.as_ref().ok_or_else(nothing)?;
                self.scene.asleep(&started.call)
            }
            Step::Interrupt => {
                let started = self.started.as_ref().ok_or_else(nothing)?;
                started.call.interrupt()?;
                self.scene.asleep(&started.call)
            }
            Step::Returned(want) => {
                let Started { side, op, call } = self.started.take().ok_or_else(nothing)?;
                let (stream, (got, buf)) = self.scene.returned(call)?;
                let end = self.end(side);
                end.stream = Some(stream);
                match op {
                    CallOp::Read => end.received(&buf, got, want),
                    CallOp::Write => end.wrote(got, want),
                }
            }
            _ => self.look(step),
        }
    }

    /// Executes steps that check descriptors.
    fn look(&mut self, step: &Step) -> Verdict {
        match *step {
            Step::Watch(side, interest) => {
                if let Some(watch) = self.end(side).edges(interest) {
                    watch.now()?;
                    return Ok(());
                }
                let watch = edges(&**self.stream(side)?, interest)?;
                *self.end(side).edges(interest) = Some(watch);
                Ok(())
            }
            Step::Register(side, interest) => {
                let fd = ready_fd(&**self.stream(side)?, interest)?;
                *self.end(side).edges(interest) = Some(Watch::edges(fd, interest)?);
                Ok(())
            }
            Step::Edge(side, interest) => edge(self.end(side).watch(interest)?, "at this step"),
            Step::NoEdge(side, interest) => {
                no_edge(self.end(side).watch(interest)?, "at this step")
            }
            Step::Ready(side, interest) => ready(self.stream(side)?, interest, "at this step"),
            Step::Unready(side, interest) => unready(self.stream(side)?, interest, "at this step"),
            Step::NoHangup(side) => {
                let fd = ready_fd(&**self.stream(side)?, PollInterest::Read)?;
                self.end(side).level = Some(Watch::level(fd, PollInterest::Read)?);
                Ok(())
            }
            Step::PeerGone(side) => {
                let gone = self.stream(side)?.peer_gone();
                hold(gone, "`peer_gone` to be true", "it is false")
            }
            Step::PeerAlive(side) => {
                let gone = self.stream(side)?.peer_gone();
                hold(!gone, "`peer_gone` to be false", "it is true")
            }
            _ => self.message(step),
        }
    }

    /// Executes steps about messages.
    fn message(&mut self, step: &Step) -> Verdict {
        match *step {
            Step::Send(side, len) => {
                let message = self.end(side).sent.take(len);
                Ok(send(self.stream(side)?, &message)??)
            }
            Step::SendFails(side, kind) => {
                let sent = send(self.stream(side)?, b"late")?;
                fails("a message", sent, kind)
            }
            Step::Receive(side, len) => {
                let message = self.end(side).received.take(len);
                expect(self.stream(side)?, &message)
            }
            Step::ReceiveFails(side, kind) => expect_none(self.stream(side)?, kind),
            Step::EndOfMessages(side) => {
                let got = messages_of(self.stream(side)?)?.receive_message(&mut [0; 8])?;
                hold(got == Received::End, "the end", format!("{got:?} arrived"))
            }
            _ => Err(nothing()),
        }
    }

    /// Checks that no descriptor under observation has reported a hang-up.
    fn check_hangup(&mut self) -> Verdict {
        for watch in [&mut self.near.level, &mut self.far.level]
            .into_iter()
            .flatten()
        {
            let hung_up = watch.now()?.is_some_and(PollReport::hung_up);
            let expected = "none of HUP, RDHUP and ERR to be reported";
            hold(!hung_up, expected, "one was")?;
        }
        Ok(())
    }
}

/// Makes every kind of write that transfers nothing.
fn empty_writes(stream: &mut BoxedStream) -> Verdict {
    count("an empty write", stream.write(&[]), 0)?;
    let buffers = [IoSlice::new(&[]), IoSlice::new(&[])];
    let written = stream.write_vectored(&buffers);
    count("a write of empty buffers", written, 0)?;
    count("a write of no buffers", stream.write_vectored(&[]), 0)
}

/// Makes every kind of call that transfers nothing.
fn empty_calls(source: &dyn PairSource, stream: &mut BoxedStream) -> Verdict {
    empty_writes(stream)?;
    count("an empty read", stream.read(&mut []), 0)?;
    let mut buffers = [IoSliceMut::new(&mut []), IoSliceMut::new(&mut [])];
    let read = stream.read_vectored(&mut buffers);
    count("a read into empty buffers", read, 0)?;
    count("a read into no buffers", stream.read_vectored(&mut []), 0)?;
    match source.peek(&mut **stream, &mut []) {
        Some(seen) => count("an empty peek", seen, 0),
        None => Ok(()),
    }
}
