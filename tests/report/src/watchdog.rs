// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Ends a bench that hangs, which a person cannot tell from one that takes long.

use std::process;
use std::sync::mpsc::{RecvTimeoutError, Sender, channel};
use std::thread;
use std::time::Duration;

/// Longer than any run that makes progress takes.
const LONGEST_SILENCE: Duration = Duration::from_secs(90);
/// The exit code of a bench that hangs.
const STUCK: i32 = 3;

/// Ends the process with a message if no run is reported for too long.
#[derive(Debug)]
pub struct Watchdog(Sender<String>);

impl Watchdog {
    /// Starts watching.
    #[must_use]
    pub fn start() -> Self {
        let (reports, watched) = channel::<String>();
        thread::spawn(move || {
            let mut doing = String::from("the start");
            loop {
                match watched.recv_timeout(LONGEST_SILENCE) {
                    Ok(next) => doing = next,
                    Err(RecvTimeoutError::Disconnected) => return,
                    Err(RecvTimeoutError::Timeout) => bark(&doing),
                }
            }
        });
        Self(reports)
    }

    /// Reports the run that begins.
    pub fn doing(&self, what: String) {
        drop(self.0.send(what)); // fails only while the process ends
    }
}

#[expect(clippy::print_stderr, reason = "the last words of the process")]
#[expect(clippy::exit, reason = "the stuck threads cannot be joined")]
fn bark(doing: &str) {
    let seconds = LONGEST_SILENCE.as_secs();
    eprintln!("the bench has not ended after {seconds} s: {doing}");
    process::exit(STUCK);
}
