// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! The first program of the test guest. It loads the driver's modules, then runs the jobs that
//! arrive over the second serial port, each in a separate thread.

use std::fs::File;
use std::io::{BufRead, BufReader, Write};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::Instant;

use anyhow::Context;
use nix::sys::reboot::{RebootMode, reboot};

use crate::job::{Answer, Failure, Job, Line, Request};
use crate::sockets::Sockets;
use crate::{boot, driver, kexec, many, moving, network, program, serve, sockets};

/// Runs until the guest reboots.
///
/// # Errors
///
/// Fails if the guest cannot be set up, or if its second serial port ends.
pub fn run() -> anyhow::Result<()> {
    let result = work();
    if let Err(error) = &result {
        eprintln!("guest program: {error:#}");
    }
    // The kernel panics when init ends, which the console shows.
    result
}

fn work() -> anyhow::Result<()> {
    boot::mount_all()?;
    boot::load_modules()?;
    boot::raise_descriptor_limit()?;
    let port = boot::open_control()?;
    let input = BufReader::new(port.try_clone()?);
    let output = Output(Arc::new(Mutex::new(port)));
    let hello = Line::Hello {
        release: boot::release()?,
    };
    output.say(&hello);
    let sockets = Arc::new(Sockets::default());
    for line in input.lines() {
        let line = line.context("cannot read the serial port")?;
        match serde_json::from_str::<Request>(&line) {
            Ok(request) => start(request, &sockets, &output)?,
            Err(error) => eprintln!("guest program: {line}: {error}"),
        }
    }
    anyhow::bail!("the serial port has ended")
}

/// Runs a job in a separate thread.
fn start(request: Request, sockets: &Arc<Sockets>, output: &Output) -> anyhow::Result<()> {
    if let Job::Reboot = request.job {
        reboot(RebootMode::RB_AUTOBOOT).context("cannot reboot")?;
    }
    let (sockets, output) = (Arc::clone(sockets), output.clone());
    let work = move || {
        let start = Instant::now();
        let result = perform(&sockets, request.job).map_err(|error| Failure {
            text: format!("{error:#}"),
            errno: error
                .downcast_ref::<std::io::Error>()
                .and_then(std::io::Error::raw_os_error),
            nanos: nanos_since(start),
        });
        let id = request.id;
        output.say(&Line::Answer { id, result });
    };
    let builder = thread::Builder::new().stack_size(256 * 1024);
    builder.spawn(work).context("cannot start a thread")?;
    Ok(())
}

fn perform(sockets: &Sockets, job: Job) -> anyhow::Result<Answer> {
    match job {
        Job::Listen { port, options } => sockets.listen(port, options),
        Job::Accept(listener) => sockets.accept(listener),
        Job::Connect { cid, port, options } => sockets.connect(cid, port, options),
        Job::ConnectMany { cid, port, count } => many::connect(sockets, cid, port, count),
        Job::AcceptMany { listener, count } => many::accept(sockets, listener, count),
        Job::EchoEach(group) => many::echo_each(sockets, group),
        Job::AnswerEach(group) => many::answer_each(sockets, group),
        Job::Send { socket, content } => moving::send(&*sockets.entry(socket)?, &content),
        Job::Receive {
            socket,
            content,
            lowat,
        } => moving::receive(&*sockets.entry(socket)?, &content, lowat),
        Job::Progress(socket) => Ok(sockets.entry(socket)?.progress()),
        Job::Echo(socket) => moving::echo(&*sockets.entry(socket)?),
        Job::Serve(listener) => serve::run(&*sockets.entry(listener)?),
        Job::PingPong {
            socket,
            size,
            count,
            window,
        } => moving::ping_pong(&*sockets.entry(socket)?, size, count, window),
        Job::Storm {
            cid,
            port,
            count,
            bytes,
        } => many::storm(cid, port, count, bytes),
        Job::Finish(socket) => sockets.finish(socket),
        Job::Close(group) => sockets.close(group),
        Job::Freed(port) => sockets::wait_until_free(port),
        Job::Rebind => driver::rebind(),
        Job::HasDevice => driver::wait_for_device(),
        Job::Kexec => match kexec::start()? {},
        Job::Run { program, arguments } => program::run(&program, &arguments),
        Job::SetAddress(address) => network::set_address(address),
        Job::Listened(port) => network::wait_for_listener(port),
        Job::Reboot => Ok(Answer::Done),
    }
}

/// The direction of the serial port to the host.
#[derive(Clone)]
struct Output(Arc<Mutex<File>>);

impl Output {
    fn say(&self, line: &Line) {
        let mut port = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let said = serde_json::to_vec(line)
            .map_err(std::io::Error::from)
            .and_then(|mut text| {
                text.push(b'\n');
                port.write_all(&text)
            });
        if let Err(error) = said {
            eprintln!("guest program: cannot write to the serial port: {error}");
        }
    }
}

fn nanos_since(start: Instant) -> u64 {
    u64::try_from(start.elapsed().as_nanos()).unwrap_or(u64::MAX)
}
