// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Random operations of tasks at both ends of a connection, compared with the reference model.
//!
//! Each operation runs as a separate task, which owns the half until it completes. Where the model
//! would block, the task must sleep. After each step, exactly those tasks must have been woken that
//! the model allows to continue.

use std::io::{self, ErrorKind, IoSlice};
use std::net::Shutdown;

use proptest::proptest;
use proptest::test_runner::TestCaseError;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::task::{JoinHandle, spawn, yield_now};
use vsock_compliance::{ConnectionEnd, Ends};
use vsock_muxer_harness::model::{Model, ModelResult};
use vsock_muxer_harness::strategy::{EndAction, PairStep, steps};
use vsock_tokio::{AsyncStream, OwnedReadHalf, OwnedWriteHalf};

use crate::streams::{pair_of, pattern};
use crate::{one_thread, soon};

/// A half, or the task that owns it, with its requested operation.
enum Half<H, Q, A> {
    Idle(H),
    Busy(JoinHandle<(H, io::Result<A>)>, Q),
    Gone,
}

impl<H, Q, A> Half<H, Q, A> {
    /// Takes the half out, unless a task owns it.
    fn idle(&mut self) -> Option<H> {
        match std::mem::replace(self, Self::Gone) {
            Self::Idle(half) => Some(half),
            busy => {
                *self = busy;
                None
            }
        }
    }

    /// Compares a task with the model. Returns whether it has completed.
    async fn check(
        &mut self,
        model: impl FnOnce(&Q) -> ModelResult<A>,
    ) -> Result<bool, TestCaseError>
    where
        A: PartialEq + std::fmt::Debug,
    {
        let Self::Busy(task, question) = self else {
            return Ok(false);
        };
        let expected = model(question);
        if expected == Err(ErrorKind::WouldBlock) {
            return Ok(false);
        }
        if !task.is_finished() {
            let text = format!("a task sleeps where the model says {expected:?}");
            return Err(TestCaseError::fail(text));
        }
        let (half, answer) = task.await.unwrap();
        *self = Self::Idle(half);
        let answer = answer.map_err(|error| error.kind());
        if answer != expected {
            let text = format!("a task returned {answer:?}, the model {expected:?}");
            return Err(TestCaseError::fail(text));
        }
        Ok(true)
    }

    /// Whether a task sleeps, or none exists.
    fn is_at_rest(&self) -> bool {
        !matches!(self, Self::Busy(task, _) if task.is_finished())
    }

    fn drop_it(&mut self) {
        if let Self::Busy(task, _) = self {
            task.abort(); // in the middle of its operation
        }
        *self = Self::Gone;
    }
}

struct End {
    reader: Half<OwnedReadHalf, usize, Vec<u8>>,
    writer: Half<OwnedWriteHalf, Vec<u8>, usize>,
}

impl End {
    fn new(stream: AsyncStream) -> Self {
        let (reader, writer) = stream.into_split();
        let (reader, writer) = (Half::Idle(reader), Half::Idle(writer));
        Self { reader, writer }
    }

    fn read(&mut self, len: usize) {
        let Some(mut half) = self.reader.idle() else {
            return;
        };
        let reading = spawn(async move {
            let mut buf = vec![0; len];
            let read = half.read(&mut buf).await;
            let bytes = read.map(|read| buf[..read].to_vec());
            (half, bytes)
        });
        self.reader = Half::Busy(reading, len);
    }

    fn write(&mut self, lens: &[usize]) {
        let Some(mut half) = self.writer.idle() else {
            return;
        };
        let bytes = pattern(lens.iter().sum());
        let (all, lens) = (bytes.clone(), lens.to_vec());
        let writing = spawn(async move {
            let mut rest = all.as_slice();
            let pieces = lens.iter().map(|len| {
                let (piece, more) = rest.split_at(*len);
                rest = more;
                IoSlice::new(piece)
            });
            let pieces: Vec<_> = pieces.collect();
            let written = match pieces.as_slice() {
                [one] => half.write(one).await,
                several => half.write_vectored(several).await,
            };
            (half, written)
        });
        self.writer = Half::Busy(writing, bytes);
    }

    /// Shuts writing down, unless a task is using it. Returns whether it did.
    async fn shut_down(&mut self) -> bool {
        let Half::Idle(half) = &mut self.writer else {
            return false;
        };
        half.shutdown().await.unwrap();
        true
    }
}

struct Machine {
    ends: [End; 2],
    model: Model,
}

impl Machine {
    fn new(capacity: usize) -> Self {
        let (near, far) = pair_of(capacity);
        Self {
            ends: [End::new(near), End::new(far)],
            model: Model::new(Some(capacity), Some(capacity)).ends(Ends::Halves),
        }
    }

    async fn step(&mut self, step: &PairStep) -> Result<(), TestCaseError> {
        let end = &mut self.ends[usize::from(step.end == ConnectionEnd::Device)];
        match &step.action {
            EndAction::Read(len) | EndAction::Peek(len) => end.read(*len),
            EndAction::ReadVectored(lens) => end.read(lens.iter().sum()),
            EndAction::Write(len) => end.write(&[*len]),
            EndAction::WriteVectored(lens) => end.write(lens),
            EndAction::Shutdown(Shutdown::Write | Shutdown::Both) if end.shut_down().await => {
                self.model.shutdown(step.end, Shutdown::Write);
            }
            EndAction::Drop => {
                end.reader.drop_it();
                end.writer.drop_it();
                yield_now().await;
                self.model.drop_end(step.end);
            }
            _ => {}
        }
        self.settle().await
    }

    /// Lets every task, and the model, continue as far as possible.
    async fn settle(&mut self) -> Result<(), TestCaseError> {
        for _ in 0..8 {
            yield_now().await;
        }
        loop {
            let mut moved = false;
            for (end, name) in self.ends.iter_mut().zip(ConnectionEnd::BOTH) {
                let outgoing = self.model.outgoing(name);
                moved |= end.writer.check(|bytes| outgoing.write(bytes)).await?;
                let incoming = self.model.incoming(name);
                moved |= end.reader.check(|len| incoming.read(*len)).await?;
            }
            if !moved {
                break;
            }
        }
        let at_rest = |end: &End| end.reader.is_at_rest() && end.writer.is_at_rest();
        if !self.ends.iter().all(at_rest) {
            return Err(TestCaseError::fail(
                "a task continued where the model blocks",
            ));
        }
        Ok(())
    }
}

fn drive(capacity: usize, steps: &[PairStep]) -> Result<(), TestCaseError> {
    one_thread().block_on(soon(async {
        let mut machine = Machine::new(capacity);
        for (at, step) in steps.iter().enumerate() {
            let done = machine.step(step).await;
            done.map_err(|why| TestCaseError::fail(format!("at step {at}: {why}")))?;
        }
        Ok(())
    }))
}

proptest! {
    #[test]
    fn tasks_with_a_capacity_of_three_bytes_follow_the_model(list in steps(3, 100)) {
        drive(3, &list)?;
    }

    #[test]
    fn tasks_with_a_capacity_of_a_hundred_bytes_follow_the_model(list in steps(100, 100)) {
        drive(100, &list)?;
    }

    #[test]
    fn tasks_with_a_capacity_beyond_a_block_follow_the_model(list in steps(20_000, 80)) {
        drive(20_000, &list)?;
    }
}
