// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! The host component: a thread of this process, or one of the process that embeds the device.

use std::io::{self, BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::sync::Arc;
use std::sync::mpsc;
use std::thread::{self, JoinHandle};

use anyhow::{Context, Result, anyhow, bail, ensure};
use serde::{Deserialize, Serialize};
use vsock_guest::device::in_process::InProcess;
use vsock_guest::device::{Device, Host};

use crate::job::{Job, Report};

/// What the process with the device says, a line each.
#[derive(Debug, Deserialize, Serialize)]
enum Said {
    /// The guest may begin.
    Ready,
    Done(Report),
    Failed(String),
}

/// The side of the host.
pub(crate) enum HostSide {
    /// A thread here, which reaches the device by sockets.
    Here(Arc<dyn Host>),
    /// A thread there, which has streams that never leave its process.
    There(Embedder),
}

/// A job that is under way.
pub(crate) enum Running<'a> {
    Here(JoinHandle<Result<Report>>),
    There(&'a mut Embedder),
}

impl HostSide {
    /// Starts a job, and waits until the guest may begin.
    pub(crate) fn start(&mut self, job: Job) -> Result<Running<'_>> {
        match self {
            Self::Here(host) => {
                let host = Arc::clone(host);
                let (tell, told) = mpsc::channel();
                let thread = thread::spawn(move || job.run(&*host, || Ok(tell.send(())?)));
                if told.recv().is_err() {
                    Running::Here(thread).finish()?;
                    bail!("the host component has ended");
                }
                Ok(Running::Here(thread))
            }
            Self::There(embedder) => {
                embedder.say(job)?;
                match embedder.hear()? {
                    Said::Ready => Ok(Running::There(embedder)),
                    Said::Done(_) => bail!("the host component has ended"),
                    Said::Failed(why) => bail!("host component: {why}"),
                }
            }
        }
    }
}

impl Running<'_> {
    /// Waits for its end.
    pub(crate) fn finish(self) -> Result<Report> {
        match self {
            Self::Here(thread) => thread
                .join()
                .map_err(|_| anyhow!("the host component panicked"))?
                .context("host component"),
            Self::There(embedder) => match embedder.hear()? {
                Said::Done(report) => Ok(report),
                Said::Ready => bail!("the host component is ready twice"),
                Said::Failed(why) => bail!("host component: {why}"),
            },
        }
    }
}

/// A process that embeds the device and a host component.
pub(crate) struct Embedder {
    process: Child,
    input: ChildStdin,
    output: BufReader<ChildStdout>,
}

impl Embedder {
    /// Starts this program anew, to serve `cid` in `directory`; returns when its socket is there.
    pub(crate) fn start(
        program: &Path,
        words: &[String],
        cid: u32,
        directory: &Path,
    ) -> Result<Self> {
        let mut process = Command::new(program)
            .args(["--serve", &cid.to_string()])
            .arg("--directory")
            .arg(directory)
            .args(words)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .with_context(|| format!("cannot start {}", program.display()))?;
        let pipes = process.stdin.take().zip(process.stdout.take());
        let (input, output) = pipes.context("a process without pipes")?;
        let output = BufReader::new(output);
        let mut embedder = Self {
            process,
            input,
            output,
        };
        match embedder.hear()? {
            Said::Ready => Ok(embedder),
            said => bail!("expected a device that is ready, heard {said:?}"),
        }
    }

    /// The number of the process.
    pub(crate) fn id(&self) -> u32 {
        self.process.id()
    }

    fn say(&mut self, job: Job) -> Result<()> {
        writeln!(self.input, "{}", serde_json::to_string(&job)?)
            .context("the process with the device has ended")
    }

    fn hear(&mut self) -> Result<Said> {
        let mut line = String::new();
        let len = self.output.read_line(&mut line)?;
        ensure!(len > 0, "the process with the device has ended");
        Ok(serde_json::from_str(&line)?)
    }
}

impl Drop for Embedder {
    fn drop(&mut self) {
        // It may have ended by itself.
        self.process.kill().ok();
        self.process.wait().ok();
    }
}

/// The other end of [`Embedder`]: does jobs until its input ends.
pub(crate) fn serve(cid: u32, directory: &Path, poll_us: Option<u32>) -> Result<()> {
    ensure!(
        poll_us.is_none(),
        "this library has no setting for --poll-us; choose other devices"
    );
    let device = InProcess::start(cid, directory)?;
    let host = device.host();
    say(&Said::Ready)?;
    for line in io::stdin().lines() {
        let job: Job = serde_json::from_str(&line?)?;
        // A thread of its own, whose timer slack is its own.
        let done = thread::scope(|scope| {
            let work = || job.run(&*host, || say(&Said::Ready));
            scope.spawn(work).join()
        });
        say(&match done {
            Ok(Ok(report)) => Said::Done(report),
            Ok(Err(error)) => Said::Failed(format!("{error:#}")),
            Err(_) => Said::Failed("it panicked".to_owned()),
        })?;
    }
    Ok(())
}

fn say(said: &Said) -> Result<()> {
    let mut out = io::stdout().lock();
    writeln!(out, "{}", serde_json::to_string(said)?)?;
    Ok(out.flush()?)
}
