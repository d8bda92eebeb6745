// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! The program's log.
//!
//! Standard error may be a full pipe without a reader, and a device thread must never block on it.
//! Threads therefore put lines into a queue of bounded size, and one thread writes the queue to
//! standard error. A line that does not fit is dropped and counted, and the count is logged later.

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

/// How long the program waits at its end until the log is written. On a busy machine, the log
/// thread may have to wait for a processor.
const GRACE: Duration = Duration::from_secs(1);

/// The log. A separate thread writes its lines to standard error.
pub(crate) struct Logging {
    queue: Arc<Queue>,
}

impl Logging {
    /// Starts the log. It receives all log messages from now on, and the messages of panics.
    ///
    /// Without a level, `RUST_LOG` selects what is logged. The thread that writes runs `begin`
    /// first.
    ///
    /// # Errors
    ///
    /// The thread cannot be started, or `begin` fails.
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
            // Standard error may be a file that reaches the process's limit (RLIMIT_FSIZE). With
            // the signal blocked, the write fails with an error instead of killing the program.
            if let Err(error) = block_signal(Signal::XFSZ.as_raw()) {
                log::debug!("cannot block SIGXFSZ: {error:?}");
            }
            Writer::default().run(&lines)
        })?;
        builder.init();
        // The default hook would block on standard error.
        panic::set_hook(Box::new(move |info| {
            panics.push(panic_text(info).as_bytes());
        }));
        Ok(Self { queue })
    }

    /// Writes a line, whatever the log level.
    pub(crate) fn write_line(&self, line: &str) {
        self.queue.push(with_name(line).as_bytes());
    }

    /// Returns a handle for a thread that can wait until the queue has room.
    pub(crate) fn voice(&self) -> Voice {
        Voice(Arc::clone(&self.queue))
    }

    /// Waits a moment until everything is written.
    pub(crate) fn finish(self) {
        // If lines are left after that time, standard error has no reader.
        let _written = self.queue.wait_until_empty(GRACE);
    }
}

/// The log, for a thread that can wait until the queue has room.
#[derive(Debug)]
pub(crate) struct Voice(Arc<Queue>);

impl Voice {
    /// Writes a line, whatever the log level, as soon as the queue has room. Returns `false` if
    /// there is no room within `timeout`.
    pub(crate) fn write_line_within(&self, line: &str, timeout: Duration) -> bool {
        self.0.push_within(with_name(line).as_bytes(), timeout)
    }
}

/// Returns a line that begins with the program's name.
fn with_name(line: &str) -> String {
    format!("vsock-vhost-user: {line}\n")
}

/// Returns the text that the default panic hook would print.
fn panic_text(info: &PanicHookInfo<'_>) -> String {
    let thread = thread::current();
    let name = thread.name().unwrap_or("<unnamed>");
    let backtrace = Backtrace::capture();
    match backtrace.status() {
        BacktraceStatus::Captured => format!("thread '{name}' {info}\n{backtrace}\n"),
        _ => format!("thread '{name}' {info}\n"),
    }
}

/// A target for `env_logger`, which writes each line with a single call.
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
