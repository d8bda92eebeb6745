// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Reports: SIGUSR1 writes all metrics and connections to the log.

use std::io;
use std::sync::mpsc::{Receiver, SyncSender, TrySendError, sync_channel};
use std::time::{Duration, Instant};

use tokio::runtime::Builder;

use super::guests::Guests;
use super::listing::{Connection, Listing};
use super::metrics;
use crate::program::logging::Voice;
use crate::program::thread;

/// How long the log can take to accept a report.
const PATIENCE: Duration = Duration::from_secs(5);

/// A handle that requests reports, from any thread and without blocking.
#[derive(Debug)]
pub(crate) struct Reporter(SyncSender<()>);

impl Reporter {
    /// Starts the thread that writes reports. It runs `begin` first.
    ///
    /// # Errors
    ///
    /// The thread cannot be started, or `begin` fails.
    pub(crate) fn start(
        guests: Guests,
        log: Voice,
        begin: impl FnOnce() -> io::Result<()> + Send + 'static,
    ) -> io::Result<Self> {
        let (asks, asked) = sync_channel(1);
        thread::start("report", begin, move || run(&asked, &guests, &log))?;
        Ok(Self(asks))
    }

    /// Requests a report. While a report is being written, any number of requests result in one
    /// more.
    pub(crate) fn ask(&self) {
        match self.0.try_send(()) {
            Ok(()) | Err(TrySendError::Full(())) => {}
            Err(TrySendError::Disconnected(())) => {
                log::warn!("cannot write a report: the thread that writes reports has ended");
            }
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

/// Writes one report. If a line does not fit in time, the rest of the report is left out.
fn report(guests: &Guests, log: &Voice) -> io::Result<()> {
    let runtime = Builder::new_current_thread().enable_time().build()?;
    let (reports, connections) =
        runtime.block_on(async { (guests.reports().await, guests.connections().await) });
    let page = metrics::text_of(reports).map_err(io::Error::other)?;
    let figures = page.lines().filter(|line| !line.starts_with('#'));
    let listing = Listing::of(&connections);
    let silent = listing.silent_guests.iter();
    let silent = silent.map(|guest| format!("no answer from guest {guest}'s device"));
    let connections = listing.connections.iter().map(line);
    let mut lines = figures.map(str::to_owned).chain(silent).chain(connections);
    let end = Instant::now() + PATIENCE;
    let written = lines.all(|line| {
        let left = end.saturating_duration_since(Instant::now());
        log.write_line_within(&format!("report: {line}"), left)
    });
    if !written {
        log::warn!("the rest of a report was dropped, because standard error was not read");
    }
    Ok(())
}

/// Formats a connection as a line of a report.
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
        "connection {id}: guest {guest}, host {host}, {socket_type}, opened by the {initiator}, \
         {phase}, {age_ms} ms old, bytes: {bytes_from_guest} from the guest, {bytes_to_guest} to \
         the guest, {waiting} waiting, {in_flight} in flight"
    )
}
