// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! What the command shows, in tables of at most 100 columns.

use comfy_table::presets::NOTHING;
use comfy_table::{CellAlignment, ContentArrangement, Table};

use crate::program::capture::{CaptureStarted, CaptureStopped};
use crate::program::control::{Connection, Listing};

/// The widest line.
pub(super) const WIDTH: u16 = 100;

/// The connections, in the order of their numbers.
pub(super) fn connections(listing: &Listing) -> String {
    let mut connections: Vec<&Connection> = listing.connections.iter().collect();
    connections.sort_by_key(|connection| order(connection));
    let head = [
        "ID",
        "GUEST",
        "HOST",
        "BEGUN BY",
        "TYPE",
        "PHASE",
        "AGE",
        "TO HOST",
        "TO GUEST",
        "WAITING",
        "IN FLIGHT",
    ];
    let mut table = table(&head, 6);
    for connection in connections {
        table.add_row([
            connection.id.clone(),
            connection.guest.to_string(),
            connection.host.to_string(),
            connection.initiator.clone(),
            connection.socket_type.clone(),
            connection.phase.clone(),
            age(connection.age_ms),
            amount(connection.bytes_from_guest),
            amount(connection.bytes_to_guest),
            amount(connection.waiting),
            amount(connection.in_flight),
        ]);
    }
    text(&table) + &silent(listing)
}

/// The guest's CID and the number of the connection.
fn order(connection: &Connection) -> (u64, u64) {
    let number = connection.id.split_once('-').map(|(_, number)| number);
    let number = number.and_then(|number| number.parse().ok());
    (connection.guest.cid, number.unwrap_or(0))
}

/// A line for each guest that is missing.
pub(super) fn silent(listing: &Listing) -> String {
    let silent = listing.silent_guests.iter();
    silent
        .map(|guest| format!("guest {guest} does not answer: its connections are missing\n"))
        .collect()
}

/// The figures of an `OpenMetrics` page: those of all guests, then those of each.
pub(super) fn metrics(page: &str) -> String {
    let samples = page.lines().filter(|line| !line.starts_with('#'));
    let samples = samples.filter_map(|line| line.rsplit_once(' '));
    let (of_guests, of_all): (Vec<_>, Vec<_>) =
        samples.partition(|(name, _)| name.starts_with("vsock_guest_"));
    let mut table = table(&["FIGURE", "VALUE"], 1);
    for (name, value) in of_all.into_iter().chain(of_guests) {
        table.add_row([name, value]);
    }
    text(&table)
}

/// The name of the file that a capture goes to, and a line for each guest that is missing.
pub(super) fn started(started: &CaptureStarted) -> String {
    let silent = started.silent_guests.iter();
    let silent = silent
        .map(|guest| format!("guest {guest} does not answer: its packets are not captured\n"));
    format!("{}\n", started.file) + &silent.collect::<String>()
}

/// What is in the file of a capture, and what is not.
pub(super) fn stopped(stopped: &CaptureStopped) -> String {
    let CaptureStopped {
        file,
        packets,
        dropped,
        file_bytes,
        incomplete,
    } = stopped;
    let counted = format!(
        "{file}: {packets} packets, {dropped} of them not in the file, {file_bytes} bytes\n"
    );
    let incomplete = incomplete
        .iter()
        .map(|why| format!("not complete: {why}\n"));
    counted + &incomplete.collect::<String>()
}

/// An empty table, whose columns from `numbers` on are aligned to the right.
pub(super) fn table(head: &[&str], numbers: usize) -> Table {
    let mut table = Table::new();
    table
        .load_preset(NOTHING)
        .set_content_arrangement(ContentArrangement::Dynamic)
        .set_width(WIDTH)
        .set_header(head);
    for (index, column) in table.column_iter_mut().enumerate() {
        column.set_padding((0, 1));
        if index >= numbers {
            column.set_cell_alignment(CellAlignment::Right);
        }
    }
    table
}

/// The lines of a table, without blanks at their ends.
pub(super) fn text(table: &Table) -> String {
    let lines = table.lines();
    lines.map(|line| format!("{}\n", line.trim_end())).collect()
}

/// Bytes, in three digits or four.
pub(super) fn amount(bytes: u64) -> String {
    const UNITS: [&str; 6] = ["K", "M", "G", "T", "P", "E"];
    if bytes < 1000 {
        return bytes.to_string();
    }
    let (mut whole, mut rest) = (bytes, 0);
    for unit in UNITS {
        rest = whole % 1024 * 10 / 1024;
        whole /= 1024;
        if whole < 10 {
            return format!("{whole}.{rest}{unit}");
        }
        if whole < 1000 {
            return format!("{whole}{unit}");
        }
    }
    format!("{whole}.{rest}E")
}

/// A time in its two largest units.
fn age(milliseconds: u64) -> String {
    let seconds = milliseconds / 1000;
    let (minutes, hours, days) = (seconds / 60, seconds / 3600, seconds / 86_400);
    match (days, hours, minutes) {
        (0, 0, 0) => format!("{seconds}s"),
        (0, 0, _) => format!("{minutes}m{:02}s", seconds % 60),
        (0, ..) => format!("{hours}h{:02}m", minutes % 60),
        _ => format!("{days}d{:02}h", hours % 24),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::program::control::Address;

    fn connection(id: &str, cid: u64, largest: bool) -> Connection {
        let number = |small| if largest { u64::MAX } else { small };
        Connection {
            id: id.to_owned(),
            guest: Address {
                cid,
                port: if largest { u32::MAX } else { 1024 },
            },
            host: Address {
                cid: if largest { u64::from(u32::MAX) } else { 2 },
                port: 1 << 30,
            },
            initiator: "guest".to_owned(),
            socket_type: "seqpacket".to_owned(),
            phase: "responding".to_owned(),
            age_ms: number(185_000),
            bytes_from_guest: number(1023),
            bytes_to_guest: number(1536),
            waiting: number(0),
            in_flight: number(300),
        }
    }

    fn listing(connections: Vec<Connection>) -> Listing {
        Listing {
            connections,
            silent_guests: vec![5],
        }
    }

    #[test]
    fn a_table_has_a_line_for_each_connection_in_order() {
        let shown = connections(&listing(vec![
            connection("4-1", 4, false),
            connection("3-10", 3, false),
            connection("3-9", 3, false),
        ]));
        let lines: Vec<_> = shown.lines().collect();
        assert_eq!(lines.len(), 5, "{shown}");
        assert!(lines[0].starts_with("ID"), "{shown}");
        let ids = lines[1..4]
            .iter()
            .map(|line| line.split_whitespace().next().unwrap());
        assert!(ids.eq(["3-9", "3-10", "4-1"]), "{shown}");
        let cells: Vec<_> = lines[1].split_whitespace().collect();
        let expected = [
            "3-9",
            "3:1024",
            "2:1073741824",
            "guest",
            "seqpacket",
            "responding",
            "3m05s",
            "0.9K",
            "1.5K",
            "0",
            "300",
        ];
        assert_eq!(cells, expected, "{shown}");
        assert_eq!(
            lines[4],
            "guest 5 does not answer: its connections are missing"
        );
    }

    #[test]
    fn no_line_is_wider_than_100_columns_whatever_is_in_it() {
        let id = format!("{}-{}", u32::MAX, u64::MAX);
        let shown = connections(&listing(vec![connection(&id, u64::from(u32::MAX), true)]));
        let long = format!(
            "vsock_guest_{}{{guest=\"3\"}} {}\n",
            "x".repeat(200),
            u64::MAX
        );
        for line in shown.lines().chain(metrics(&long).lines()) {
            assert!(line.chars().count() <= WIDTH.into(), "{line}");
        }
    }

    #[test]
    fn figures_of_all_guests_come_first() {
        let page = "# HELP a b\nvsock_guest_a{guest=\"3\"} 1\nvsock_a 2\n# EOF\n";
        let shown = metrics(page);
        let lines: Vec<Vec<_>> = shown
            .lines()
            .map(|line| line.split_whitespace().collect())
            .collect();
        assert_eq!(
            lines[1..],
            [["vsock_a", "2"], ["vsock_guest_a{guest=\"3\"}", "1"]]
        );
    }

    #[test]
    fn amounts_and_ages_are_short() {
        for (bytes, text) in [
            (999, "999"),
            (1000, "0.9K"),
            (10 * 1024, "10K"),
            (1_048_575, "0.9M"),
            (u64::MAX, "15E"),
        ] {
            let shown = amount(bytes);
            assert!(shown.len() <= 4, "{shown}");
            assert_eq!(shown, text, "{bytes}");
        }
        for (seconds, text) in [
            (59, "59s"),
            (60, "1m00s"),
            (7260, "2h01m"),
            (90_000, "1d01h"),
        ] {
            assert_eq!(age(seconds * 1000), text);
        }
    }
}
