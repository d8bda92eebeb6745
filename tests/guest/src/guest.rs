// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! The host's end of the guest program: sends it jobs over a serial port and collects the answers.
//!
//! A job is a line of JSON with a number. Jobs run concurrently in the guest, so a thread reads the
//! answers and passes each to the caller that waits for its number.

use std::collections::HashMap;
use std::fs;
use std::io::{BufRead, BufReader, ErrorKind, Write};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::Duration;

use anyhow::{Context, bail};
use vsock_guest_program::job::{
    Answer, Content, Failure, Group, GuestSocket, Job, Line, Moved, Options, Request,
};

use crate::child::wait_until;
use crate::device::LIMIT;

/// The host's CID.
pub(crate) const HOST: u32 = 2;

type Waiting = Arc<Mutex<Table>>;

#[derive(Debug, Default)]
struct Table {
    next: u64,
    /// `None` once the guest has ended.
    jobs: Option<HashMap<u64, Sender<Result<Answer, Failure>>>>,
}

/// A guest, through its second serial port.
#[derive(Debug)]
pub(crate) struct Guest {
    port: Arc<Mutex<UnixStream>>,
    waiting: Waiting,
    hellos: Receiver<String>,
}

/// A job that the guest has not answered yet.
#[derive(Debug)]
pub(crate) struct Pending {
    answer: Receiver<Result<Answer, Failure>>,
    what: String,
}

/// A socket that accepts the connection of one of QEMU's character devices.
#[derive(Debug)]
pub(crate) struct Control(UnixListener);

impl Control {
    /// Listens on a path. Replaces the socket of an earlier QEMU.
    pub(crate) fn new(path: &Path) -> anyhow::Result<Self> {
        fs::remove_file(path).ok();
        let listener = UnixListener::bind(path)
            .with_context(|| format!("cannot listen on {}", path.display()))?;
        listener.set_nonblocking(true)?;
        Ok(Self(listener))
    }

    /// Waits for QEMU to connect, or for `ended` to report that it has exited.
    pub(crate) fn accept(&self, ended: impl Fn() -> bool) -> anyhow::Result<UnixStream> {
        let port = wait_until(LIMIT, || match self.0.accept() {
            Ok((port, _)) => Ok(Some(port)),
            Err(error) if error.kind() == ErrorKind::WouldBlock && !ended() => Ok(None),
            Err(error) => Err(error.into()),
        })?;
        let port = port.context("QEMU does not connect")?;
        port.set_nonblocking(false)?;
        Ok(port)
    }
}

/// Passes on the guest's answers until the port closes.
fn listen(input: BufReader<UnixStream>, waiting: &Waiting, hellos: &Sender<String>) {
    for line in input.lines() {
        let Ok(line) = line else { break };
        // The firmware and the kernel do not use the port, but a reboot can cut a line short.
        match serde_json::from_str::<Line>(&line) {
            Ok(Line::Hello { release }) => {
                // A hello means that the guest has booted: older jobs will never be answered.
                table(waiting).jobs = Some(HashMap::new());
                hellos.send(release).ok();
            }
            Ok(Line::Answer { id, result }) => {
                let asker = table(waiting)
                    .jobs
                    .as_mut()
                    .and_then(|jobs| jobs.remove(&id));
                if let Some(asker) = asker {
                    asker.send(result).ok();
                }
            }
            Err(_) => {}
        }
    }
    table(waiting).jobs = None;
}

fn table(waiting: &Waiting) -> MutexGuard<'_, Table> {
    waiting.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Guest {
    /// Opens the host's end of the guest's second serial port.
    pub(crate) fn new(port: UnixStream) -> anyhow::Result<Self> {
        let input = BufReader::new(port.try_clone()?);
        let table = Table {
            next: 0,
            jobs: Some(HashMap::new()),
        };
        let waiting = Arc::new(Mutex::new(table));
        let (said, hellos) = channel();
        let table = Arc::clone(&waiting);
        thread::spawn(move || listen(input, &table, &said));
        Ok(Self {
            port: Arc::new(Mutex::new(port)),
            waiting,
            hellos,
        })
    }

    /// Waits until the guest has booted. Returns its kernel's release.
    pub(crate) fn hello(&self, limit: Duration) -> anyhow::Result<String> {
        self.hellos
            .recv_timeout(limit)
            .context("the guest does not boot")
    }

    /// Starts a job.
    pub(crate) fn start(&self, job: Job) -> anyhow::Result<Pending> {
        let what = format!("{job:?}");
        let (asker, answer) = channel();
        // Register the job before sending it, because its answer can arrive immediately.
        let id = {
            let mut table = table(&self.waiting);
            table.next += 1;
            let id = table.next;
            let jobs = table.jobs.as_mut().context("the guest has ended")?;
            jobs.insert(id, asker);
            id
        };
        let mut text = serde_json::to_vec(&Request { id, job })?;
        text.push(b'\n');
        self.port
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .write_all(&text)
            .context("the guest has ended")?;
        Ok(Pending { answer, what })
    }

    /// Runs a job and waits for its answer.
    pub(crate) fn run(&self, job: Job) -> anyhow::Result<Answer> {
        self.start(job)?.wait()
    }

    pub(crate) fn connect(&self, port: u32) -> anyhow::Result<GuestSocket> {
        self.connect_with(port, Options::default())
    }

    pub(crate) fn connect_with(&self, port: u32, options: Options) -> anyhow::Result<GuestSocket> {
        self.connect_to(HOST, port, options)
    }

    pub(crate) fn connect_to(
        &self,
        cid: u32,
        port: u32,
        options: Options,
    ) -> anyhow::Result<GuestSocket> {
        self.start(Job::Connect { cid, port, options })?.opened()
    }

    pub(crate) fn listen(&self, port: u32) -> anyhow::Result<GuestSocket> {
        self.listen_with(port, Options::default())
    }

    pub(crate) fn listen_with(&self, port: u32, options: Options) -> anyhow::Result<GuestSocket> {
        self.start(Job::Listen { port, options })?.opened()
    }

    pub(crate) fn accept(&self, listener: GuestSocket) -> anyhow::Result<GuestSocket> {
        self.start(Job::Accept(listener.socket))?.opened()
    }

    pub(crate) fn send(
        &self,
        from: GuestSocket,
        content: impl Into<Content>,
    ) -> anyhow::Result<Pending> {
        let (socket, content) = (from.socket, content.into());
        self.start(Job::Send { socket, content })
    }

    pub(crate) fn receive(
        &self,
        at: GuestSocket,
        content: impl Into<Content>,
    ) -> anyhow::Result<Pending> {
        self.receive_woken_at(at, content, None)
    }

    /// Like [`receive`](Self::receive), but the guest program is not woken before `lowat` bytes
    /// have arrived.
    pub(crate) fn receive_woken_at(
        &self,
        at: GuestSocket,
        content: impl Into<Content>,
        lowat: Option<u32>,
    ) -> anyhow::Result<Pending> {
        let (socket, content) = (at.socket, content.into());
        self.start(Job::Receive {
            socket,
            content,
            lowat,
        })
    }

    /// Returns how many bytes this socket's running job has moved.
    pub(crate) fn progress(&self, of: GuestSocket) -> anyhow::Result<u64> {
        Ok(self.start(Job::Progress(of.socket))?.moved()?.count)
    }

    /// Unbinds the driver from the device and binds it again.
    pub(crate) fn rebind(&self) -> anyhow::Result<()> {
        self.run(Job::Rebind).map(drop)
    }

    /// Waits until the driver has a device.
    pub(crate) fn wait_for_device(&self) -> anyhow::Result<()> {
        self.run(Job::HasDevice).map(drop)
    }

    pub(crate) fn finish(&self, socket: GuestSocket) -> anyhow::Result<()> {
        self.run(Job::Finish(socket.socket)).map(drop)
    }

    pub(crate) fn close(&self, socket: GuestSocket) -> anyhow::Result<()> {
        let (first, count) = (socket.socket, 1);
        self.close_all(Group { first, count })
    }

    pub(crate) fn close_all(&self, group: Group) -> anyhow::Result<()> {
        self.run(Job::Close(group)).map(drop)
    }
}

impl Pending {
    pub(crate) fn wait(self) -> anyhow::Result<Answer> {
        self.wait_for(LIMIT)
    }

    pub(crate) fn wait_for(self, limit: Duration) -> anyhow::Result<Answer> {
        match self.answer.recv_timeout(limit) {
            Ok(Ok(answer)) => Ok(answer),
            Ok(Err(failure)) => {
                Err(anyhow::Error::new(failure).context(format!("in the guest, {}", self.what)))
            }
            Err(_) => bail!("no answer from the guest within {limit:?}: {}", self.what),
        }
    }

    pub(crate) fn moved(self) -> anyhow::Result<Moved> {
        self.moved_within(LIMIT)
    }

    pub(crate) fn moved_within(self, limit: Duration) -> anyhow::Result<Moved> {
        match self.wait_for(limit)? {
            Answer::Moved(moved) => Ok(moved),
            other => bail!("the guest answered {other:?}"),
        }
    }

    pub(crate) fn opened(self) -> anyhow::Result<GuestSocket> {
        match self.wait()? {
            Answer::Opened(socket) => Ok(socket),
            other => bail!("the guest answered {other:?}"),
        }
    }

    pub(crate) fn group(self, limit: Duration) -> anyhow::Result<Group> {
        match self.wait_for(limit)? {
            Answer::Group(group) => Ok(group),
            other => bail!("the guest answered {other:?}"),
        }
    }
}
