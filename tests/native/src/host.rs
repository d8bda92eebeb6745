// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! The host component, which runs jobs that arrive as lines of JSON. It is a thread of this
//! process, or runs in the process that embeds the device.

use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::thread;

use anyhow::{Context, Result, bail, ensure};
use serde::{Deserialize, Serialize};
use vsock_guest::device::Host;

use crate::job::{Job, Report, Task};

/// The host component's answers, one on each line.
#[derive(Debug, Deserialize, Serialize)]
enum Reply {
    /// The guest may begin.
    Ready,
    Done(Report),
    Failed(String),
}

/// The bench's end of a host component.
pub(crate) struct HostSide {
    input: Box<dyn Write>,
    output: Box<dyn BufRead>,
}

impl HostSide {
    /// Starts a host component in a thread of this process, which uses the device's sockets.
    pub(crate) fn here(host: Arc<dyn Host>) -> Result<Self> {
        let (near, far) = UnixStream::pair()?;
        let jobs = BufReader::new(far.try_clone()?);
        thread::spawn(move || serve(&*host, jobs, far));
        Self::new(near.try_clone()?, near)
    }

    /// Uses a host component that reads from `input` and writes to `output`. Waits until it is
    /// ready.
    pub(crate) fn new(input: impl Write + 'static, output: impl Read + 'static) -> Result<Self> {
        let mut side = Self {
            input: Box::new(input),
            output: Box::new(BufReader::new(output)),
        };
        side.expect_ready()?;
        Ok(side)
    }

    /// Starts a job and waits until the guest may begin.
    pub(crate) fn start(&mut self, port: u32, task: Task) -> Result<()> {
        let job = Job { port, task };
        writeln!(self.input, "{}", serde_json::to_string(&job)?)
            .context("the host component has ended")?;
        self.expect_ready()
    }

    /// Waits for the job's report.
    pub(crate) fn finish(&mut self) -> Result<Report> {
        match self.read_reply()? {
            Reply::Done(report) => Ok(report),
            reply => bail!("expected a report from the host component, found {reply:?}"),
        }
    }

    fn expect_ready(&mut self) -> Result<()> {
        match self.read_reply()? {
            Reply::Ready => Ok(()),
            reply => bail!("expected a host component that is ready, found {reply:?}"),
        }
    }

    fn read_reply(&mut self) -> Result<Reply> {
        let mut line = String::new();
        let len = self.output.read_line(&mut line)?;
        ensure!(len > 0, "the host component has ended");
        match serde_json::from_str(&line)? {
            Reply::Failed(why) => bail!("host component: {why}"),
            reply => Ok(reply),
        }
    }
}

/// Runs jobs until the input ends.
pub(crate) fn serve(host: &dyn Host, jobs: impl BufRead, mut out: impl Write + Send) -> Result<()> {
    send(&mut out, &Reply::Ready)?;
    for line in jobs.lines() {
        let job: Job = serde_json::from_str(&line?)?;
        // Each job has a thread, because some change their thread's timer slack.
        let done = thread::scope(|scope| {
            let work = || job.run(host, || send(&mut out, &Reply::Ready));
            scope.spawn(work).join()
        });
        let reply = match done {
            Ok(Ok(report)) => Reply::Done(report),
            Ok(Err(error)) => Reply::Failed(format!("{error:#}")),
            Err(_) => Reply::Failed("the job panicked".to_owned()),
        };
        send(&mut out, &reply)?;
    }
    Ok(())
}

fn send(out: &mut impl Write, reply: &Reply) -> Result<()> {
    writeln!(out, "{}", serde_json::to_string(reply)?)?;
    Ok(out.flush()?)
}
