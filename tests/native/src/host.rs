// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! The host component, which does jobs that it is given as lines of JSON: a thread of this process,
//! or one of the process that embeds the device.

use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::thread;

use anyhow::{Context, Result, bail, ensure};
use serde::{Deserialize, Serialize};
use vsock_guest::device::Host;

use crate::job::{Job, Report, Task};

/// What the host component answers, a line each.
#[derive(Debug, Deserialize, Serialize)]
enum Said {
    /// The guest may begin.
    Ready,
    Done(Report),
    Failed(String),
}

/// The end of the host component that gives the jobs.
pub(crate) struct HostSide {
    input: Box<dyn Write>,
    output: Box<dyn BufRead>,
}

impl HostSide {
    /// Of a thread here, which reaches the device by sockets.
    pub(crate) fn here(host: Arc<dyn Host>) -> Result<Self> {
        let (near, far) = UnixStream::pair()?;
        let jobs = BufReader::new(far.try_clone()?);
        thread::spawn(move || serve(&*host, jobs, far));
        Self::new(near.try_clone()?, near)
    }

    /// Of what reads from `input` and writes to `output`; returns when that is ready.
    pub(crate) fn new(input: impl Write + 'static, output: impl Read + 'static) -> Result<Self> {
        let mut side = Self {
            input: Box::new(input),
            output: Box::new(BufReader::new(output)),
        };
        side.expect_ready()?;
        Ok(side)
    }

    /// Starts a job, and waits until the guest may begin.
    pub(crate) fn start(&mut self, port: u32, task: Task) -> Result<()> {
        let job = Job { port, task };
        writeln!(self.input, "{}", serde_json::to_string(&job)?)
            .context("the host component has ended")?;
        self.expect_ready()
    }

    /// Waits for the end of the job.
    pub(crate) fn finish(&mut self) -> Result<Report> {
        match self.hear()? {
            Said::Done(report) => Ok(report),
            said => bail!("expected the report of a host component, heard {said:?}"),
        }
    }

    fn expect_ready(&mut self) -> Result<()> {
        match self.hear()? {
            Said::Ready => Ok(()),
            said => bail!("expected a host component that is ready, heard {said:?}"),
        }
    }

    fn hear(&mut self) -> Result<Said> {
        let mut line = String::new();
        let len = self.output.read_line(&mut line)?;
        ensure!(len > 0, "the host component has ended");
        match serde_json::from_str(&line)? {
            Said::Failed(why) => bail!("host component: {why}"),
            said => Ok(said),
        }
    }
}

/// The other end: does jobs until there are no more.
pub(crate) fn serve(host: &dyn Host, jobs: impl BufRead, mut out: impl Write + Send) -> Result<()> {
    say(&mut out, &Said::Ready)?;
    for line in jobs.lines() {
        let job: Job = serde_json::from_str(&line?)?;
        // A thread of its own, whose timer slack is its own.
        let done = thread::scope(|scope| {
            let work = || job.run(host, || say(&mut out, &Said::Ready));
            scope.spawn(work).join()
        });
        let said = match done {
            Ok(Ok(report)) => Said::Done(report),
            Ok(Err(error)) => Said::Failed(format!("{error:#}")),
            Err(_) => Said::Failed("it panicked".to_owned()),
        };
        say(&mut out, &said)?;
    }
    Ok(())
}

fn say(out: &mut impl Write, said: &Said) -> Result<()> {
    writeln!(out, "{}", serde_json::to_string(said)?)?;
    Ok(out.flush()?)
}
