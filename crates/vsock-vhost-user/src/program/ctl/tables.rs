// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! The command's output, in tables of at most 100 columns.

use comfy_table::presets::NOTHING;
use comfy_table::{CellAlignment, ContentArrangement, Table};

use crate::program::capture::{CaptureStarted, CaptureStopped};
use crate::program::control::{Connection, ConnectionName, Listing};
use crate::program::counted::counted;

/// The maximum width of a line.
pub(super) const WIDTH: u16 = 100;

/// Formats the connections, ordered by guest and number.
pub(super) fn connections(listing: &Listing) -> String {
    let mut connections: Vec<&Connection> = listing.connections.iter().collect();
    connections.sort_by_key(|connection| order(connection));
    let head = [
        "ID",
        "GUEST",
        "HOST",
        "OPENED BY",
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

/// Returns the sort key of a connection: the guest's CID and the connection's number.
pub(super) fn order(connection: &Connection) -> (u64, u64) {
    let name = connection.id.parse::<ConnectionName>();
    (connection.guest.cid, name.map_or(0, |name| name.id.into()))
}

/// Formats a line for each guest whose device did not answer.
pub(super) fn silent(listing: &Listing) -> String {
    let silent = listing.silent_guests.iter();
    silent
        .map(|guest| {
            format!("no answer from guest {guest}'s device: its connections are missing\n")
        })
        .collect()
}

/// Formats the metrics of an `OpenMetrics` page: totals over all guests, then those of each guest.
pub(super) fn metrics(page: &str) -> String {
    let samples = page.lines().filter(|line| !line.starts_with('#'));
    let samples = samples.filter_map(|line| line.rsplit_once(' '));
    let (of_guests, of_all): (Vec<_>, Vec<_>) =
        samples.partition(|(name, _)| name.starts_with("vsock_guest_"));
    let mut table = table(&["METRIC", "VALUE"], 1);
    for (name, value) in of_all.into_iter().chain(of_guests) {
        table.add_row([name, value]);
    }
    text(&table)
}

/// Formats the name of a capture's file, and a line for each guest whose packets are missing.
pub(super) fn started(started: &CaptureStarted) -> String {
    let silent = started.silent_guests.iter();
    let silent = silent.map(|guest| {
        format!("no answer from guest {guest}'s device: its packets are not captured\n")
    });
    format!("{}\n", started.file) + &silent.collect::<String>()
}

/// Formats a summary of a capture that was stopped.
pub(super) fn stopped(stopped: &CaptureStopped) -> String {
    let CaptureStopped {
        file,
        packets,
        dropped,
        file_bytes,
        incomplete,
    } = stopped;
    let packets = counted(packets, "packet");
    let bytes = counted(file_bytes, "byte");
    let summary = format!("{file}: {packets}, {dropped} of them dropped, {bytes}\n");
    let incomplete = incomplete
        .iter()
        .map(|reason| format!("incomplete: {reason}\n"));
    summary + &incomplete.collect::<String>()
}

/// Returns an empty table. Its columns from index `numbers` on are right-aligned.
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

/// Returns the lines of a table, without trailing blanks.
pub(super) fn text(table: &Table) -> String {
    let lines = table.lines();
    lines.map(|line| format!("{}\n", line.trim_end())).collect()
}

/// Formats a number of bytes in at most four characters: `999`, `9.5K`, `15M`.
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

/// Formats a duration in its two largest units.
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
    fn connections_are_listed_in_order() {
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
            "no answer from guest 5's device: its connections are missing"
        );
    }

    #[test]
    fn no_line_is_wider_than_100_columns() {
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
    fn a_stopped_capture_is_summarised() {
        let capture = |packets, dropped, incomplete: Option<&str>| CaptureStopped {
            file: "/d/packets-1.pcapng".to_owned(),
            packets,
            dropped,
            file_bytes: 204,
            incomplete: incomplete.map(str::to_owned),
        };
        assert_eq!(
            stopped(&capture(1, 0, None)),
            "/d/packets-1.pcapng: 1 packet, 0 of them dropped, 204 bytes\n"
        );
        assert_eq!(
            stopped(&capture(7, 2, Some("the file is full"))),
            "/d/packets-1.pcapng: 7 packets, 2 of them dropped, 204 bytes\n\
             incomplete: the file is full\n"
        );
    }

    #[test]
    fn totals_over_all_guests_come_first() {
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
