// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! A live view of the busiest connections, redrawn every second until a signal ends it.

use std::cmp::Reverse;
use std::collections::HashMap;
use std::fmt::Write as _;
use std::io;
use std::time::{Duration, Instant};

use rustix::termios::tcgetwinsize;
use tokio::time::interval;

use super::client::Client;
use super::error::CtlError;
use super::output::print;
use super::requests::connections;
use super::tables::{amount, order, silent, table, text};
use crate::program::control::{Connection, Listing};
use crate::program::counted::counted;

const PERIOD: Duration = Duration::from_secs(1);

/// The number of connections to show if standard output is not a terminal.
const ROWS: usize = 20;

/// The number of lines above and below the connections.
const FRAME: usize = 4;

/// Draws the view until the program can no longer be reached.
pub(super) async fn run(client: &Client, is_terminal: bool) -> Result<(), CtlError> {
    let mut clock = interval(PERIOD);
    let mut before = Moment::default();
    if is_terminal {
        print("\x1b[2J")?;
    }
    loop {
        clock.tick().await;
        let listing = connections(client).await?;
        let rates = before.rates(&listing, Instant::now());
        if is_terminal {
            let size = Size::of_terminal();
            let view = size.fit(&view(&listing, &rates, size.connections()));
            // Overwrite each line in place instead of clearing the screen, which would flicker.
            let view = view.replace('\n', "\x1b[K\n");
            print(&format!("\x1b[H{view}\x1b[J"))?;
        } else {
            print(&format!("{}\n", view(&listing, &rates, ROWS)))?;
        }
    }
}

/// The size of a terminal. A longer line would wrap, and one line more would scroll.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
struct Size {
    lines: usize,
    columns: usize,
}

impl Size {
    /// Returns the size of standard output's terminal, or 80 by 24 if it is unknown.
    fn of_terminal() -> Self {
        let size = tcgetwinsize(io::stdout()).ok();
        let size = size.filter(|size| size.ws_row > 0 && size.ws_col > 0);
        size.map_or(
            Self {
                lines: 24,
                columns: 80,
            },
            |size| Self {
                lines: size.ws_row.into(),
                columns: size.ws_col.into(),
            },
        )
    }

    /// Returns the number of connections that fit.
    const fn connections(self) -> usize {
        self.lines.saturating_sub(FRAME)
    }

    /// Returns the part of a view that fits. The last line stays empty for the cursor.
    fn fit(self, view: &str) -> String {
        let lines = view.lines().take(self.lines.saturating_sub(1));
        lines
            .map(|line| {
                line.chars()
                    .take(self.columns)
                    .chain(['\n'])
                    .collect::<String>()
            })
            .collect()
    }
}

/// Bytes per second, to the host and to the guest.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
struct Rate {
    to_host: u64,
    to_guest: u64,
}

impl Rate {
    const fn sum(self) -> u64 {
        self.to_host.saturating_add(self.to_guest)
    }
}

/// The byte counts of all connections at one moment.
#[derive(Debug, Default)]
struct Moment {
    at: Option<Instant>,
    moved: HashMap<String, (u64, u64)>,
}

impl Moment {
    /// Returns the rates since the last call, in the order of the listing, and remembers the new
    /// counts. A new connection has moved all its bytes since the last call. The first call returns
    /// zeros.
    fn rates(&mut self, listing: &Listing, now: Instant) -> Vec<Rate> {
        let since = self.at.replace(now).map(|at| now - at);
        let connections = listing.connections.iter();
        let rates = connections.map(|connection| {
            let before = self.moved.get(&connection.id).copied().unwrap_or_default();
            Rate {
                to_host: rate(connection.bytes_from_guest, before.0, since),
                to_guest: rate(connection.bytes_to_guest, before.1, since),
            }
        });
        let rates = rates.collect();
        self.moved = listing.connections.iter().map(moved).collect();
        rates
    }
}

fn moved(connection: &Connection) -> (String, (u64, u64)) {
    let bytes = (connection.bytes_from_guest, connection.bytes_to_guest);
    (connection.id.clone(), bytes)
}

fn rate(bytes: u64, before: u64, since: Option<Duration>) -> u64 {
    let Some(millis @ 1..) = since.map(|since| since.as_millis()) else {
        return 0;
    };
    let rate = u128::from(bytes.saturating_sub(before)) * 1000 / millis;
    u64::try_from(rate).unwrap_or(u64::MAX)
}

/// Formats one view: a line with totals, and the `rows` busiest connections.
fn view(listing: &Listing, rates: &[Rate], rows: usize) -> String {
    let mut busiest: Vec<_> = listing.connections.iter().zip(rates).collect();
    busiest.sort_by_key(|(connection, rate)| (Reverse(rate.sum()), order(connection)));
    let sum = |of: fn(&Rate) -> u64| amount(rates.iter().map(of).fold(0, u64::saturating_add));
    let mut view = format!(
        "{}, {} bytes/s to the host, {} bytes/s to guests\n",
        counted(listing.connections.len(), "connection"),
        sum(|rate| rate.to_host),
        sum(|rate| rate.to_guest),
    );
    let head = [
        "ID",
        "GUEST",
        "HOST",
        "PHASE",
        "TO HOST/s",
        "TO GUEST/s",
        "WAITING",
        "IN FLIGHT",
    ];
    let mut table = table(&head, 4);
    for (connection, rate) in busiest.iter().take(rows) {
        table.add_row([
            connection.id.clone(),
            connection.guest.to_string(),
            connection.host.to_string(),
            connection.phase.clone(),
            amount(rate.to_host),
            amount(rate.to_guest),
            amount(connection.waiting),
            amount(connection.in_flight),
        ]);
    }
    view += &text(&table);
    let hidden = busiest.len().saturating_sub(rows);
    if hidden > 0 {
        // Writing to a string cannot fail.
        let _written = writeln!(view, "and {} not shown", counted(hidden, "connection"));
    }
    view + &silent(listing)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::program::control::Address;

    fn connection(id: &str, to_host: u64, to_guest: u64) -> Connection {
        let address = Address { cid: 3, port: 1 };
        Connection {
            id: id.to_owned(),
            guest: address,
            host: address,
            initiator: "host".to_owned(),
            socket_type: "stream".to_owned(),
            phase: "connected".to_owned(),
            age_ms: 0,
            bytes_from_guest: to_host,
            bytes_to_guest: to_guest,
            waiting: 0,
            in_flight: 0,
        }
    }

    fn listing(connections: &[(&str, u64, u64)]) -> Listing {
        Listing {
            connections: connections
                .iter()
                .map(|(id, to_host, to_guest)| connection(id, *to_host, *to_guest))
                .collect(),
            silent_guests: Vec::new(),
        }
    }

    #[test]
    fn a_rate_covers_the_bytes_since_the_last_call() {
        let mut moment = Moment::default();
        let begin = Instant::now();
        let first = listing(&[("3-1", 5000, 0)]);
        assert_eq!(moment.rates(&first, begin), [Rate::default()]);
        let next = listing(&[("3-2", 10, 0), ("3-1", 6000, 400)]);
        let rates = moment.rates(&next, begin + Duration::from_secs(2));
        let rate = |to_host, to_guest| Rate { to_host, to_guest };
        assert_eq!(rates, [rate(5, 0), rate(500, 200)]);
        // A counter that is smaller than before gives a rate of zero.
        let rates = moment.rates(&first, begin + Duration::from_secs(3));
        assert_eq!(rates, [rate(0, 0)]);
    }

    #[test]
    fn a_view_always_fits_its_terminal() {
        let listing = listing(&[("3-1", 0, 0), ("3-2", 0, 0), ("3-3", 0, 0)]);
        for lines in 1..8 {
            let size = Size { lines, columns: 40 };
            let shown = size.fit(&view(&listing, &[Rate::default(); 3], size.connections()));
            assert!(shown.lines().count() < lines, "{lines}: {shown}");
            assert!(shown.lines().all(|line| line.len() <= 40), "{shown}");
        }
    }

    #[test]
    fn equally_busy_connections_are_ordered_by_number() {
        let listing = listing(&[("3-10", 0, 0), ("3-9", 0, 0), ("3-8", 0, 0)]);
        let shown = view(&listing, &[Rate::default(); 3], 3);
        let ids: Vec<_> = shown.lines().skip(2).map(|line| &line[..4]).collect();
        assert_eq!(ids, ["3-8 ", "3-9 ", "3-10"], "{shown}");
    }

    #[test]
    fn the_busiest_connections_are_shown_and_the_others_counted() {
        let listing = listing(&[("3-1", 0, 0), ("3-2", 0, 0), ("3-3", 0, 0)]);
        let rate = |to_host| Rate {
            to_host,
            to_guest: 0,
        };
        let shown = view(&listing, &[rate(1), rate(2048), rate(0)], 2);
        let lines: Vec<_> = shown.lines().collect();
        assert_eq!(
            lines[0],
            "3 connections, 2.0K bytes/s to the host, 0 bytes/s to guests"
        );
        assert!(
            lines[2].starts_with("3-2 ") && lines[3].starts_with("3-1 "),
            "{shown}"
        );
        assert_eq!(lines[4], "and 1 connection not shown");
        assert!(lines.iter().all(|line| line.len() <= 100), "{shown}");
        let empty = view(&self::listing(&[]), &[], 2);
        assert!(empty.starts_with("0 connections, "), "{empty}");
        let one = view(&self::listing(&[("3-1", 0, 0)]), &[rate(1)], 2);
        assert!(one.starts_with("1 connection, "), "{one}");
    }
}
