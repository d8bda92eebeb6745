// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! A real connection and the model, driven with the same operations on one thread.

mod mismatch;
mod polled;

use std::fmt;
use std::io::{self, ErrorKind, IoSlice, IoSliceMut, Read, Write};
use std::time::Duration;

use vsock_compliance::pattern::Pattern;
use vsock_compliance::poll::{PollInterest, Stopwatch};
use vsock_compliance::{
    BoxedStream, CapacityPromise, ConnectionEnd, Mode, PairSource, QueuedBytes,
};

pub use self::mismatch::Mismatch;
use self::mismatch::agree;
use self::polled::Polled;
use crate::model::{Direction, Model, ModelResult, index};
use crate::strategy::{EndAction, PairStep};

/// The state of one end, as far as the test knows it.
struct Local {
    stream: BoxedStream,
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

/// Whether a read removes the bytes that it returns.
#[derive(Clone, Copy, Eq, PartialEq)]
enum Taking {
    Consume,
    Peek,
}

/// How a call ends that cannot make progress.
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
    /// Creates a new pair of `source`, and a model of it.
    ///
    /// # Errors
    ///
    /// As for [`PairSource::pair`], and `Unsupported` if the capacity is not promised.
    pub fn new(source: &'a dyn PairSource) -> io::Result<Self> {
        let (application, device) = source.pair()?;
        let local = |stream, end, start| {
            Some(Local {
                stream,
                mode: source.initial_mode(end),
                read_timeout: None,
                write_timeout: None,
                sent: Pattern::starting_at(start),
            })
        };
        let [to_device, to_application] =
            ConnectionEnd::BOTH.map(|writer| capacity(source.capacity(writer)));
        Ok(Self {
            source,
            model: Model::new(to_device?, to_application?).ends(source.ends()),
            locals: [
                local(application, ConnectionEnd::Application, 0),
                local(device, ConnectionEnd::Device, 1000),
            ],
            polled: Polled::default(),
        })
    }

    /// Executes one operation and compares its result, the readiness of every descriptor that was
    /// obtained, and whether waiting tasks were woken.
    ///
    /// An operation at an end that was dropped is skipped, and so is one that would block
    /// indefinitely.
    ///
    /// # Errors
    ///
    /// Returns the first difference.
    pub fn step(&mut self, step: &PairStep) -> Result<(), Mismatch> {
        let before = self.polled.expected(&self.model);
        let Some(mut local) = self.locals[index(step.end)].take() else {
            return Ok(());
        };
        let done = self.act(&mut local, step);
        let is_last = step.action.is_last();
        if is_last {
            self.polled.forget(step.end);
        }
        match step.action {
            EndAction::Drop => {
                drop(local);
                self.model.drop_end(step.end);
            }
            EndAction::Abort => {
                local.stream.abort();
                self.model.abort_end(step.end);
            }
            _ => self.locals[index(step.end)] = Some(local),
        }
        done?;
        let dropped = is_last.then_some(step.end);
        self.polled.check(&self.model, &before, dropped)?;
        self.check_tasks()?;
        self.check_counts()
    }

    /// Checks that a waiting task was woken if and only if it need not wait any longer.
    fn check_tasks(&self) -> Result<(), Mismatch> {
        for end in ConnectionEnd::BOTH {
            let local = self.locals[index(end)].as_ref();
            let Some(woken) = local.and_then(|local| self.source.woken(&*local.stream)) else {
                continue;
            };
            if let Some(woken) = woken.reading {
                let what = format!("whether the reading task of {end:?} was woken");
                agree(what, &woken, &self.model.is_readable(end))?;
            }
            if let Some(woken) = woken.writing {
                let what = format!("whether the writing task of {end:?} was woken");
                agree(what, &woken, &self.model.is_writable(end))?;
            }
        }
        Ok(())
    }

    fn check_counts(&mut self) -> Result<(), Mismatch> {
        for end in ConnectionEnd::BOTH {
            let Some(local) = &self.locals[index(end)] else {
                continue;
            };
            let gone = self.model.peer_gone(end);
            agree(
                format!("peer_gone of {end:?}"),
                &local.stream.peer_gone(),
                &gone,
            )?;
            let Some(QueuedBytes { incoming, outgoing }) = self.source.queued(&*local.stream)
            else {
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

    fn act(&mut self, local: &mut Local, step: &PairStep) -> Result<(), Mismatch> {
        let source = self.source;
        match &step.action {
            EndAction::Read(len) => {
                self.read(local, step, &[*len], Taking::Consume, |stream, bufs| {
                    stream.read(&mut bufs[0])
                })
            }
            EndAction::ReadVectored(lens) => {
                self.read(local, step, lens, Taking::Consume, |stream, bufs| {
                    let mut slices: Vec<_> =
                        bufs.iter_mut().map(|buf| IoSliceMut::new(buf)).collect();
                    stream.read_vectored(&mut slices)
                })
            }
            EndAction::Peek(len) => {
                self.read(local, step, &[*len], Taking::Peek, |stream, bufs| {
                    let seen = source.peek(&mut **stream, &mut bufs[0]);
                    seen.unwrap_or_else(|| Err(ErrorKind::Unsupported.into()))
                })
            }
            EndAction::Write(len) => {
                self.write(local, step, &[*len], |stream, bufs| stream.write(&bufs[0]))
            }
            EndAction::WriteVectored(lens) => self.write(local, step, lens, |stream, bufs| {
                let slices: Vec<_> = bufs.iter().map(|buf| IoSlice::new(buf)).collect();
                stream.write_vectored(&slices)
            }),
            EndAction::SetMode(mode) => {
                local.stream.set_nonblocking(mode.is_nonblocking())?;
                local.mode = *mode;
                Ok(())
            }
            EndAction::SetReadTimeout(timeout) => {
                let set = local.stream.set_read_timeout(*timeout);
                set_timeout(step, set, &mut local.read_timeout, *timeout)
            }
            EndAction::SetWriteTimeout(timeout) => {
                let set = local.stream.set_write_timeout(*timeout);
                set_timeout(step, set, &mut local.write_timeout, *timeout)
            }
            EndAction::Shutdown(how) => {
                local.stream.shutdown(*how)?;
                self.model.shutdown(step.end, *how);
                Ok(())
            }
            EndAction::TakeFd(interest) => {
                let fd = match interest {
                    PollInterest::Read => local.stream.as_raw_fd(),
                    PollInterest::Write => local.stream.write_ready_fd()?,
                };
                Ok(self.polled.take(step.end, *interest, fd)?)
            }
            EndAction::Drop | EndAction::Abort => Ok(()),
        }
    }

    fn read(
        &mut self,
        local: &mut Local,
        step: &PairStep,
        lens: &[usize],
        taking: Taking,
        call: impl FnOnce(&mut BoxedStream, &mut [Vec<u8>]) -> io::Result<usize>,
    ) -> Result<(), Mismatch> {
        if taking == Taking::Peek && self.source.peek(&mut *local.stream, &mut []).is_none() {
            return Ok(());
        }
        let direction = self.model.incoming(step.end);
        let len = lens.iter().sum();
        let mut want = match taking {
            Taking::Peek => direction.peek(len),
            Taking::Consume => direction.read(len),
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
        not_early(step, watch.elapsed(), least)?;
        let mut bytes = bufs.concat();
        let got = got.map_err(|error| error.kind()).map(|len| {
            bytes.truncate(len);
            bytes
        });
        let len =
            |outcome: &ModelResult<Vec<u8>>| outcome.as_ref().map(Vec::len).map_err(|kind| *kind);
        agree(format!("{step:?} returned"), &len(&got), &len(&want))?;
        agree(
            format!("whether the bytes of {step:?} are the next ones"),
            &(got == want),
            &true,
        )
    }

    fn write(
        &mut self,
        local: &mut Local,
        step: &PairStep,
        lens: &[usize],
        call: impl FnOnce(&mut BoxedStream, &[Vec<u8>]) -> io::Result<usize>,
    ) -> Result<(), Mismatch> {
        let len = lens.iter().sum();
        let mut bytes = local.sent.peek(len);
        let direction = self.model.outgoing(step.end);
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
        not_early(step, watch.elapsed(), least)?;
        local.sent.advance(got.unwrap_or(0));
        agree(format!("{step:?} returned"), &got, &want)
    }
}

/// Returns whether a blocking write cannot transfer everything immediately.
fn must_wait(direction: &Direction, bytes: &[u8]) -> bool {
    match direction.clone().write(bytes) {
        Ok(len) => len < bytes.len(),
        Err(kind) => kind == ErrorKind::WouldBlock,
    }
}

fn set_timeout(
    step: &PairStep,
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
        format!("{step:?} returned"),
        &set.map_err(|error| error.kind()),
        &want,
    )
}

fn not_early(step: &PairStep, took: Duration, least: Duration) -> Result<(), Mismatch> {
    agree(
        format!("whether {step:?} returned early, after {took:?} with a timeout of {least:?}"),
        &(took < least),
        &false,
    )
}

fn capacity(promise: CapacityPromise) -> io::Result<Option<usize>> {
    match promise {
        CapacityPromise::Bytes(capacity) => Ok(Some(capacity)),
        CapacityPromise::Unbounded => Ok(None),
        CapacityPromise::Unknown => Err(ErrorKind::Unsupported.into()),
    }
}
