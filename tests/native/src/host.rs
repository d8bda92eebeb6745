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
enum Said {
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
        match self.hear()? {
            Said::Done(report) => Ok(report),
            said => bail!("expected a report from the host component, found {said:?}"),
        }
    }

    fn expect_ready(&mut self) -> Result<()> {
        match self.hear()? {
            Said::Ready => Ok(()),
            said => bail!("expected a host component that is ready, found {said:?}"),
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

/// Runs jobs until the input ends.
pub(crate) fn serve(host: &dyn Host, jobs: impl BufRead, mut out: impl Write + Send) -> Result<()> {
    say(&mut out, &Said::Ready)?;
    for line in jobs.lines() {
        let job: Job = serde_json::from_str(&line?)?;
        // Each job has a thread, because some change their thread's timer slack.
        let done = thread::scope(|scope| {
            let work = || job.run(host, || say(&mut out, &Said::Ready));
            scope.spawn(work).join()
        });
        let said = match done {
            Ok(Ok(report)) => Said::Done(report),
            Ok(Err(error)) => Said::Failed(format!("{error:#}")),
            Err(_) => Said::Failed("the job panicked".to_owned()),
        };
        say(&mut out, &said)?;
    }
    Ok(())
}

fn say(out: &mut impl Write, said: &Said) -> Result<()> {
    writeln!(out, "{}", serde_json::to_string(said)?)?;
    Ok(out.flush()?)
}
