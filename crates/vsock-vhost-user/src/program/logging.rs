// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! The program's log. A thread that logs never waits for standard error, which may be a pipe that
//! is full and that no one reads: a thread of its own writes, and what finds no room meanwhile is
//! lost and counted.

mod queue;
mod writer;

use std::backtrace::{Backtrace, BacktraceStatus};
use std::io::{self, Write};
use std::panic::{self, PanicHookInfo};
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use env_logger::{Builder, Env, Target};
use log::LevelFilter;
use rustix::process::Signal;
use vmm_sys_util::signal::block_signal;

use queue::Queue;
use writer::Writer;

/// How long the end of the program waits until what was logged is written.
const GRACE: Duration = Duration::from_millis(200);

/// The way to standard error.
pub(crate) struct Logging {
    queue: Arc<Queue>,
}

impl Logging {
    /// Takes what is logged from now on, and what panics say. `RUST_LOG` says what to log, unless
    /// there is a level. The thread that writes begins with `begin`.
    ///
    /// # Errors
    ///
    /// No thread can be started, or the one of `begin`.
    pub(crate) fn start(
        level: Option<LevelFilter>,
        begin: impl FnOnce() -> io::Result<()> + Send + 'static,
    ) -> io::Result<Self> {
        let queue = Arc::new(Queue::new());
        let mut builder = Builder::from_env(Env::default().default_filter_or("info"));
        if let Some(level) = level {
            builder.filter_level(level);
        }
        builder.target(Target::Pipe(Box::new(Lines(Arc::clone(&queue)))));
        let (lines, panics) = (Arc::clone(&queue), Arc::clone(&queue));
        super::thread::start("log", begin, move || {
            // Standard error may be a file that reaches the limit of the process (RLIMIT_FSIZE):
            // that is an error of the call then.
            if let Err(error) = block_signal(Signal::XFSZ.as_raw()) {
                log::debug!("SIGXFSZ is not blocked: {error:?}");
            }
            Writer::default().run(&lines)
        })?;
        builder.init();
        // The usual hook would wait for standard error.
        panic::set_hook(Box::new(move |info| {
            panics.push(panic_text(info).as_bytes());
        }));
        Ok(Self { queue })
    }

    /// Says a line, whatever is to be logged.
    pub(crate) fn say(&self, line: &str) {
        self.queue.push(format!("{line}\n").as_bytes());
    }

    /// For another thread, which may wait until the log has room.
    pub(crate) fn voice(&self) -> Voice {
        Voice(Arc::clone(&self.queue))
    }

    /// Waits a moment until everything is written.
    pub(crate) fn finish(self) {
        // What is not written by then has no reader.
        let _written = self.queue.wait_until_empty(GRACE);
    }
}

/// The way to standard error for a thread that may wait for it.
#[derive(Debug)]
pub(crate) struct Voice(Arc<Queue>);

impl Voice {
    /// Says a line, whatever is to be logged, when there is room for it; waits for that, but not
    /// for longer than this. Returns whether there was.
    pub(crate) fn say_in_time(&self, line: &str, timeout: Duration) -> bool {
        let line = format!("vsock-vhost-user: {line}\n");
        self.0.push_in_time(line.as_bytes(), timeout)
    }
}

/// What the usual hook says.
fn panic_text(info: &PanicHookInfo<'_>) -> String {
    let thread = thread::current();
    let name = thread.name().unwrap_or("<unnamed>");
    let backtrace = Backtrace::capture();
    match backtrace.status() {
        BacktraceStatus::Captured => format!("thread '{name}' {info}\n{backtrace}\n"),
        _ => format!("thread '{name}' {info}\n"),
    }
}

/// Lines of `env_logger`, which writes each with one call.
struct Lines(Arc<Queue>);

impl Write for Lines {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        self.0.push(line);
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
