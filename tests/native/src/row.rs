// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! The rows: what is measured.

use crate::clock::MILLISECOND;
use crate::latency::Plan;
use crate::shape::Shape;

/// The end of a connection that sends, asks or connects.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum End {
    Guest,
    Host,
}

/// A workload.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Work {
    Bulk {
        from: End,
        bytes: u64,
        piece: usize,
    },
    Turns {
        from: End,
        count: u64,
    },
    Connects {
        from: End,
        count: u64,
    },
    /// Paced packets.
    Packets {
        from: End,
        plan: Plan,
    },
    /// Requests on connections from the guest, several in flight on each, optionally with a bulk
    /// transfer to the guest at the same time.
    Requests {
        count: u64,
        beside_bulk: bool,
    },
    /// Round trips on one of many open connections, the others of which are idle.
    Idle {
        connections: u32,
        turns: u64,
    },
}

/// A workload and the guest that it runs on.
#[derive(Clone, Debug)]
pub(crate) struct Row {
    pub(crate) name: String,
    pub(crate) work: Work,
    pub(crate) guest: Shape,
}

impl Row {
    fn new(name: String, work: Work) -> Self {
        Self {
            name,
            work,
            guest: Shape::USUAL,
        }
    }

    /// The same row on a guest whose kernel behaves differently.
    fn with(mut self, (name, guest): (&str, Shape)) -> Self {
        self.name += &format!(", {name} guest");
        Self { guest, ..self }
    }

    /// Returns whether the row runs on the round's shared device rather than on its own.
    pub(crate) fn is_on_shared_device(&self) -> bool {
        self.guest == Shape::USUAL && !matches!(self.work, Work::Idle { .. })
    }
}

/// How long paced packets are sent, in microseconds.
const TIME: u32 = 400_000;
const ENDS: [End; 2] = [End::Guest, End::Host];
const PLAIN: (&str, Shape) = ("plain", Shape::PLAIN);
const RECENT: (&str, Shape) = ("recent", Shape::RECENT);

/// Returns every row in the order of the tables, with one `share`th of the work.
pub(crate) fn all(share: u32) -> Vec<Row> {
    let mut rows = Vec::new();
    for from in ENDS {
        rows.extend([65_536, 4_096, 512].map(|piece| bulk(share, from, piece)));
    }
    rows.extend(ENDS.map(|from| turns(share, from)));
    rows.extend([false, true].map(|beside_bulk| requests(share, beside_bulk)));
    rows.extend(ENDS.map(|from| {
        let count = part(1_500, share);
        let name = format!("connect and close, {} connects", name(from));
        Row::new(name, Work::Connects { from, count })
    }));
    let bursts = [
        (1, 1, 60),
        (1, 1, 200),
        (8, 1, 500),
        (20, 1, 1_000),
        (150, 4, 5_000),
    ];
    for from in ENDS {
        rows.extend(bursts.map(|burst| packets(share, from, burst)));
    }
    rows.extend(ENDS.map(|from| bulk(share, from, 4_096).with(PLAIN)));
    rows.push(bulk(share, End::Host, 4_096).with(RECENT));
    rows.extend([PLAIN, RECENT].map(|guest| turns(share, End::Guest).with(guest)));
    rows.push(packets(share, End::Host, bursts[2]).with(RECENT));
    rows.extend([1_000, 8_000].map(|connections| {
        let (connections, turns) = (connections / share, part(2_000, share));
        let name = format!("among {connections} idle connections");
        Row::new(name, Work::Idle { connections, turns })
    }));
    rows
}

fn part(whole: u64, share: u32) -> u64 {
    (whole / u64::from(share)).max(1)
}

fn bulk(share: u32, from: End, piece: usize) -> Row {
    let (size, mib) = match piece {
        65_536 => ("64 KiB", 256),
        4_096 => ("4 KiB", 96),
        _ => ("512 B", 24),
    };
    let bytes = part(mib << 20, share).next_multiple_of(piece as u64);
    let name = format!("bulk {}, writes of {size}", way(from));
    Row::new(name, Work::Bulk { from, bytes, piece })
}

fn turns(share: u32, from: End) -> Row {
    let count = part(5_000, share);
    let name = format!("round trips of 64 B, {} asks", name(from));
    Row::new(name, Work::Turns { from, count })
}

fn requests(share: u32, beside_bulk: bool) -> Row {
    let count = part(20_000, share);
    let mut name = "requests of 1 KiB, 8 in flight on each of 16".to_owned();
    if beside_bulk {
        name += " during bulk to guest";
    }
    Row::new(name, Work::Requests { count, beside_bulk })
}

/// Bursts of `burst` packets of `kib` KiB, one every `micros` microseconds, for [`TIME`].
fn packets(share: u32, from: End, (burst, kib, micros): (u32, usize, u32)) -> Row {
    let plan = Plan {
        burst,
        size: kib * 1024,
        every: u64::from(micros) * MILLISECOND / 1_000,
        bursts: (TIME / micros / share).max(2),
    };
    let name = format!("{burst} x {kib} KiB every {micros} us, {}", way(from));
    Row::new(name, Work::Packets { from, plan })
}

fn name(end: End) -> &'static str {
    match end {
        End::Guest => "guest",
        End::Host => "host",
    }
}

fn way(from: End) -> &'static str {
    match from {
        End::Guest => "to host",
        End::Host => "to guest",
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::all;

    #[test]
    fn row_names_are_unique() {
        for share in [1, 50] {
            let rows = all(share);
            let names: HashSet<_> = rows.iter().map(|row| &row.name).collect();
            assert_eq!(names.len(), rows.len());
        }
    }
}
