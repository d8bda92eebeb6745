// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! All figures and connections to the log, when a signal asks for them.

use std::io;
use std::sync::mpsc::{Receiver, SyncSender, TrySendError, sync_channel};
use std::time::{Duration, Instant};

use tokio::runtime::Builder;

use super::guests::Guests;
use super::listing::{Connection, Listing};
use super::metrics;
use crate::program::logging::Voice;
use crate::program::thread;

/// How long the log has for one report.
const PATIENCE: Duration = Duration::from_secs(5);

/// Asks for reports, from any thread and without waiting.
#[derive(Debug)]
pub(crate) struct Reporter(SyncSender<()>);

impl Reporter {
    /// Starts the thread that writes them, which begins with `begin`.
    ///
    /// # Errors
    ///
    /// No thread can be started, or the one of `begin`.
    pub(crate) fn start(
        guests: Guests,
        log: Voice,
        begin: impl FnOnce() -> io::Result<()> + Send + 'static,
    ) -> io::Result<Self> {
        let (asks, asked) = sync_channel(1);
        thread::start("report", begin, move || run(&asked, &guests, &log))?;
        Ok(Self(asks))
    }

    /// Asks for one. While one is being written, another waits, and more are one with that.
    pub(crate) fn ask(&self) {
        match self.0.try_send(()) {
            Ok(()) | Err(TrySendError::Full(())) => {}
            Err(TrySendError::Disconnected(())) => log::warn!("reports are not written any more"),
        }
    }
}

fn run(asked: &Receiver<()>, guests: &Guests, log: &Voice) {
    while asked.recv().is_ok() {
        if let Err(error) = report(guests, log) {
            log::warn!("cannot write a report: {error}");
        }
    }
}

/// Writes one report. The first line that finds no room in time is the last.
fn report(guests: &Guests, log: &Voice) -> io::Result<()> {
    let runtime = Builder::new_current_thread().enable_time().build()?;
    let (reports, connections) =
        runtime.block_on(async { (guests.reports().await, guests.connections().await) });
    let page = metrics::text_of(reports).map_err(io::Error::other)?;
    let figures = page.lines().filter(|line| !line.starts_with('#'));
    let listing = Listing::of(&connections);
    let silent = listing.silent_guests.iter();
    let silent = silent.map(|guest| format!("guest {guest} does not answer"));
    let connections = listing.connections.iter().map(line);
    let mut lines = figures.map(str::to_owned).chain(silent).chain(connections);
    let end = Instant::now() + PATIENCE;
    let written = lines.all(|line| {
        let left = end.saturating_duration_since(Instant::now());
        log.say_in_time(&format!("report: {line}"), left)
    });
    if !written {
        log::warn!("the rest of a report is missing, standard error did not take it");
    }
    Ok(())
}

/// A connection as a line of the log.
fn line(connection: &Connection) -> String {
    let Connection {
        id,
        guest,
        host,
        initiator,
        socket_type,
        phase,
        age_ms,
        bytes_from_guest,
        bytes_to_guest,
        waiting,
        in_flight,
    } = connection;
    format!(
        "connection {id}: guest {guest}, host {host}, {socket_type}, begun by the {initiator}, {phase}, \
         {age_ms} ms old, {bytes_from_guest} bytes from the guest, {bytes_to_guest} to it, {waiting} \
         waiting, {in_flight} in flight"
    )
}
