// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! A real connection and the model, driven by the same operations on one thread.

mod polled;

use std::error::Error;
use std::fmt;
use std::io::{self, ErrorKind, IoSlice, IoSliceMut, Read, Write};
use std::time::Duration;

use self::polled::Polled;
use crate::model::{Direction, End, Model, Outcome};
use crate::pattern::Pattern;
use crate::poll::{Interest, Stopwatch};
use crate::source::{Mode, PairSource, Room, Stream};
use crate::strategy::{Action, Op};

/// Where the connection did something else than the model.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Mismatch(String);

impl fmt::Display for Mismatch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl Error for Mismatch {}

impl From<io::Error> for Mismatch {
    fn from(error: io::Error) -> Self {
        Self(format!("a call failed that must succeed: {error:?}"))
    }
}

fn agree<T: PartialEq + fmt::Debug>(
    what: impl fmt::Display,
    got: &T,
    want: &T,
) -> Result<(), Mismatch> {
    if got == want {
        return Ok(());
    }
    Err(Mismatch(format!(
        "{what}: {got:?}, and by the model {want:?}"
    )))
}

/// What the test knows of one end.
struct Local {
    stream: Stream,
    mode: Mode,
    read_timeout: Option<Duration>,
    write_timeout: Option<Duration>,
    sent: Pattern,
}

/// A connection and its model.
pub struct Lockstep<'a> {
    source: &'a dyn PairSource,
    model: Model,
    locals: [Option<Local>; 2],
    polled: Polled,
}

impl fmt::Debug for Lockstep<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Lockstep")
            .field("model", &self.model)
            .finish_non_exhaustive()
    }
}

/// How a call ends that makes no progress at once.
enum Wait {
    /// It returns `WouldBlock`.
    Never,
    /// It returns `TimedOut`, and not before.
    Until(Duration),
    /// It does not return.
    ForEver,
}

impl Wait {
    fn of(mode: Mode, timeout: Option<Duration>) -> Self {
        match (mode, timeout) {
            (Mode::Nonblocking, _) => Self::Never,
            (Mode::Blocking, Some(timeout)) if timeout < Duration::MAX => Self::Until(timeout),
            (Mode::Blocking, _) => Self::ForEver,
        }
    }
}

impl<'a> Lockstep<'a> {
    /// A new pair of `source`, and a model of it.
    ///
    /// # Errors
    ///
    /// Those of [`PairSource::pair`]; `Unsupported` if the capacity is not promised.
    pub fn new(source: &'a dyn PairSource) -> io::Result<Self> {
        let (application, device) = source.pair()?;
        let (application_mode, device_mode) = source.modes();
        let (to_device, to_application) = source.room();
        let local = |stream, mode, start| {
            let sent = Pattern::starting_at(start);
            Some(Local {
                stream,
                mode,
                read_timeout: None,
                write_timeout: None,
                sent,
            })
        };
        Ok(Self {
            source,
            model: Model::new(capacity(to_device)?, capacity(to_application)?)
                .of_halves(source.halves()),
            locals: [
                local(application, application_mode, 0),
                local(device, device_mode, 1000),
            ],
            polled: Polled::default(),
        })
    }

    /// Does one operation and compares: what it returned, and every descriptor that was taken.
    ///
    /// An operation at an end that was dropped is left out, and so is one that would wait for ever.
    ///
    /// # Errors
    ///
    /// What differs.
    pub fn step(&mut self, op: &Op) -> Result<(), Mismatch> {
        let before = self.polled.expected(&self.model);
        let Some(mut local) = self.locals[op.end as usize].take() else {
            return Ok(());
        };
        let done = self.act(&mut local, op);
        let is_last = op.action.is_last();
        if is_last {
            self.polled.forget(op.end);
        }
        match op.action {
            Action::Drop => {
                drop(local);
                self.model.drop_end(op.end);
            }
            Action::Abort => {
                local.stream.abort();
                self.model.abort_end(op.end);
            }
            _ => self.locals[op.end as usize] = Some(local),
        }
        done?;
        let dropped = is_last.then_some(op.end);
        self.polled.check(&self.model, &before, dropped)?;
        self.check_counts()
    }

    fn check_counts(&mut self) -> Result<(), Mismatch> {
        for end in End::BOTH {
            let Some(local) = &self.locals[end as usize] else {
                continue;
            };
            let gone = self.model.peer_gone(end);
            agree(
                format!("peer_gone of {end:?}"),
                &local.stream.peer_gone(),
                &gone,
            )?;
            let Some((incoming, outgoing)) = self.source.queued(&*local.stream) else {
                continue;
            };
            let want = self.model.incoming(end).queued() as u64;
            agree(format!("bytes queued for {end:?}"), &incoming, &want)?;
            if !gone {
                let want = self.model.outgoing(end).queued() as u64;
                agree(format!("bytes queued by {end:?}"), &outgoing, &want)?;
            }
        }
        Ok(())
    }

    fn act(&mut self, local: &mut Local, op: &Op) -> Result<(), Mismatch> {
        let source = self.source;
        match &op.action {
            Action::Read(len) => self.read(local, op, &[*len], false, |stream, bufs| {
                stream.read(&mut bufs[0])
            }),
            Action::ReadVectored(lens) => self.read(local, op, lens, false, |stream, bufs| {
                let mut slices: Vec<_> = bufs.iter_mut().map(|buf| IoSliceMut::new(buf)).collect();
                stream.read_vectored(&mut slices)
            }),
            Action::Peek(len) => self.read(local, op, &[*len], true, |stream, bufs| {
                let seen = source.peek(&mut **stream, &mut bufs[0]);
                seen.unwrap_or_else(|| Err(ErrorKind::Unsupported.into()))
            }),
            Action::Write(len) => {
                self.write(local, op, &[*len], |stream, bufs| stream.write(&bufs[0]))
            }
            Action::WriteVectored(lens) => self.write(local, op, lens, |stream, bufs| {
                let slices: Vec<_> = bufs.iter().map(|buf| IoSlice::new(buf)).collect();
                stream.write_vectored(&slices)
            }),
            Action::SetNonblocking(nonblocking) => {
                local.stream.set_nonblocking(*nonblocking)?;
                local.mode = if *nonblocking {
                    Mode::Nonblocking
                } else {
                    Mode::Blocking
                };
                Ok(())
            }
            Action::SetReadTimeout(timeout) => {
                let set = local.stream.set_read_timeout(*timeout);
                set_timeout(op, set, &mut local.read_timeout, *timeout)
            }
            Action::SetWriteTimeout(timeout) => {
                let set = local.stream.set_write_timeout(*timeout);
                set_timeout(op, set, &mut local.write_timeout, *timeout)
            }
            Action::Shutdown(how) => {
                local.stream.shutdown(*how)?;
                self.model.shutdown(op.end, *how);
                Ok(())
            }
            Action::TakeFd(interest) => {
                let fd = match interest {
                    Interest::Read => local.stream.as_raw_fd(),
                    Interest::Write => local.stream.write_ready_fd()?,
                };
                Ok(self.polled.take(op.end, *interest, fd)?)
            }
            Action::Drop | Action::Abort => Ok(()),
        }
    }

    fn read(
        &mut self,
        local: &mut Local,
        op: &Op,
        lens: &[usize],
        peek: bool,
        call: impl FnOnce(&mut Stream, &mut [Vec<u8>]) -> io::Result<usize>,
    ) -> Result<(), Mismatch> {
        if peek && self.source.peek(&mut *local.stream, &mut []).is_none() {
            return Ok(());
        }
        let direction = self.model.incoming(op.end);
        let len = lens.iter().sum();
        let mut want = if peek {
            direction.peek(len)
        } else {
            direction.read(len)
        };
        let mut least = Duration::ZERO;
        if want == Err(ErrorKind::WouldBlock) {
            match Wait::of(local.mode, local.read_timeout) {
                Wait::Never => {}
                Wait::Until(timeout) => (want, least) = (Err(ErrorKind::TimedOut), timeout),
                Wait::ForEver => return Ok(()),
            }
        }
        let mut bufs: Vec<_> = lens.iter().map(|len| vec![0; *len]).collect();
        let watch = Stopwatch::start();
        let got = call(&mut local.stream, &mut bufs);
        not_early(op, watch.elapsed(), least)?;
        let mut bytes = bufs.concat();
        let got = got.map_err(|error| error.kind()).map(|len| {
            bytes.truncate(len);
            bytes
        });
        let len = |outcome: &Outcome<Vec<u8>>| outcome.as_ref().map(Vec::len).map_err(|kind| *kind);
        agree(format!("{op:?} returned"), &len(&got), &len(&want))?;
        agree(
            format!("the bytes of {op:?} are the next ones"),
            &(got == want),
            &true,
        )
    }

    fn write(
        &mut self,
        local: &mut Local,
        op: &Op,
        lens: &[usize],
        call: impl FnOnce(&mut Stream, &[Vec<u8>]) -> io::Result<usize>,
    ) -> Result<(), Mismatch> {
        let len = lens.iter().sum();
        let mut bytes = local.sent.peek(len);
        let direction = self.model.outgoing(op.end);
        let waits = must_wait(direction, &bytes);
        let (want, least) = match Wait::of(local.mode, local.write_timeout) {
            Wait::ForEver if waits => return Ok(()),
            Wait::Until(timeout) if waits => (direction.write_until_timeout(&bytes), timeout),
            _ => (direction.write(&bytes), Duration::ZERO),
        };
        let mut bufs = Vec::new();
        for len in lens {
            let rest = bytes.split_off(*len);
            bufs.push(std::mem::replace(&mut bytes, rest));
        }
        let watch = Stopwatch::start();
        let got = call(&mut local.stream, &bufs).map_err(|error| error.kind());
        not_early(op, watch.elapsed(), least)?;
        local.sent.advance(got.unwrap_or(0));
        agree(format!("{op:?} returned"), &got, &want)
    }
}

/// Whether a blocking write cannot take all at once.
fn must_wait(direction: &Direction, bytes: &[u8]) -> bool {
    match direction.clone().write(bytes) {
        Ok(len) => len < bytes.len(),
        Err(kind) => kind == ErrorKind::WouldBlock,
    }
}

fn set_timeout(
    op: &Op,
    set: io::Result<()>,
    known: &mut Option<Duration>,
    timeout: Option<Duration>,
) -> Result<(), Mismatch> {
    let refused = timeout == Some(Duration::ZERO);
    if !refused {
        *known = timeout;
    }
    let want = if refused {
        Err(ErrorKind::InvalidInput)
    } else {
        Ok(())
    };
    agree(
        format!("{op:?} returned"),
        &set.map_err(|error| error.kind()),
        &want,
    )
}

fn not_early(op: &Op, took: Duration, least: Duration) -> Result<(), Mismatch> {
    agree(
        format!("{op:?} gave up after {took:?} with a timeout of {least:?}"),
        &(took < least),
        &false,
    )
}

fn capacity(room: Room) -> io::Result<Option<usize>> {
    match room {
        Room::Bytes(capacity) => Ok(Some(capacity)),
        Room::Unbounded => Ok(None),
        Room::Unknown => Err(ErrorKind::Unsupported.into()),
    }
}
