// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! What is measured: the rows of the tables.

use crate::clock::{MILLISECOND, Nanos};
use crate::latency::Plan;
use crate::shape::Shape;

/// What a row's figures are about, and so the table that it is in.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Group {
    /// Bytes.
    Bulk,
    /// Round trips, requests and connections.
    Operations,
    /// Packets that come when they come.
    Packets,
    /// Round trips among connections that carry nothing.
    Idle,
}

/// Which way packets go.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Way {
    ToHost,
    ToGuest,
}

/// Which side begins.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Begins {
    Guest,
    Host,
}

/// What another connection carries meanwhile.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Beside {
    Nothing,
    /// Bulk to the guest.
    Bulk,
}

/// What is done.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Work {
    Bulk {
        way: Way,
        bytes: u64,
        piece: usize,
    },
    Turns {
        begins: Begins,
        count: u64,
    },
    Connects {
        begins: Begins,
        count: u64,
    },
    Packets {
        way: Way,
        plan: Plan,
    },
    /// Requests on connections of the guest, some under way on each.
    Requests {
        count: u64,
        beside: Beside,
    },
    Idle {
        connections: u32,
        turns: u64,
    },
}

/// On which device a row runs.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum On {
    /// That which the round has started.
    Shared,
    /// A new one, for a guest that is set up so, or as the others.
    Fresh(Option<Shape>),
}

/// A row.
#[derive(Clone, Debug)]
pub(crate) struct Row {
    pub(crate) name: String,
    pub(crate) work: Work,
    pub(crate) on: On,
}

impl Work {
    /// The table of such a row.
    pub(crate) fn group(self) -> Group {
        match self {
            Self::Bulk { .. } => Group::Bulk,
            Self::Turns { .. } | Self::Connects { .. } | Self::Requests { .. } => Group::Operations,
            Self::Packets { .. } => Group::Packets,
            Self::Idle { .. } => Group::Idle,
        }
    }
}

/// How much is done.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Effort {
    /// Enough for figures.
    Full,
    /// Enough to see that it works.
    Quick,
}

impl Effort {
    fn of(self, full: u64) -> u64 {
        match self {
            Self::Full => full,
            Self::Quick => (full / 50).max(1),
        }
    }
}

/// How long packets that come when they come go on.
const TIME: Nanos = 400 * MILLISECOND;

/// Every row, in the order of the tables.
pub(crate) fn all(effort: Effort) -> Vec<Row> {
    let mut rows = Vec::new();
    for way in [Way::ToHost, Way::ToGuest] {
        for piece in [65_536, 4_096, 512] {
            bulk(&mut rows, effort, way, piece, On::Shared);
        }
    }
    for begins in [Begins::Guest, Begins::Host] {
        turns(&mut rows, effort, begins, On::Shared);
    }
    for (name, beside) in [
        ("", Beside::Nothing),
        (" beside bulk to the guest", Beside::Bulk),
    ] {
        rows.push(Row {
            name: format!("requests of 1 KiB, 8 under way on each of 16{name}"),
            work: Work::Requests {
                count: effort.of(20_000),
                beside,
            },
            on: On::Shared,
        });
    }
    for (begins, name) in [(Begins::Guest, "guest"), (Begins::Host, "host")] {
        let count = effort.of(1_500);
        rows.push(Row {
            name: format!("connect and close, {name} connects"),
            work: Work::Connects { begins, count },
            on: On::Shared,
        });
    }
    for way in [Way::ToHost, Way::ToGuest] {
        for (burst, size, micros) in [
            (1, 1024, 60),
            (1, 1024, 200),
            (8, 1024, 500),
            (20, 1024, 1_000),
            (150, 4096, 5_000),
        ] {
            let plan = plan(effort, burst, size, micros * 1_000);
            packets(&mut rows, way, plan, On::Shared);
        }
    }
    other_guests(&mut rows, effort);
    for connections in [1_000, 8_000] {
        let connections = match effort {
            Effort::Full => connections,
            Effort::Quick => connections / 50,
        };
        rows.push(Row {
            name: format!("among {connections} idle connections"),
            work: Work::Idle {
                connections,
                turns: effort.of(2_000),
            },
            on: On::Fresh(None),
        });
    }
    rows
}

/// Some of the work for guests whose kernels have other habits.
fn other_guests(rows: &mut Vec<Row>, effort: Effort) {
    let [plain, recent] = [Shape::PLAIN, Shape::recent()].map(|shape| On::Fresh(Some(shape)));
    for way in [Way::ToHost, Way::ToGuest] {
        bulk(rows, effort, way, 4_096, plain);
    }
    bulk(rows, effort, Way::ToGuest, 4_096, recent);
    for guest in [plain, recent] {
        turns(rows, effort, Begins::Guest, guest);
    }
    packets(rows, Way::ToGuest, plan(effort, 8, 1024, 500_000), recent);
}

/// What tells the rows of such a guest from the others.
fn suffix(on: On) -> &'static str {
    match on {
        On::Fresh(Some(Shape::PLAIN)) => ", plain guest",
        On::Fresh(Some(_)) => ", recent guest",
        _ => "",
    }
}

fn bulk(rows: &mut Vec<Row>, effort: Effort, way: Way, piece: usize, on: On) {
    let (name, mib) = match piece {
        65_536 => ("64 KiB", 256),
        4_096 => ("4 KiB", 96),
        _ => ("512 B", 24),
    };
    rows.push(Row {
        name: format!("bulk {}, writes of {name}{}", to(way), suffix(on)),
        work: Work::Bulk {
            way,
            bytes: effort.of(mib << 20).next_multiple_of(piece as u64),
            piece,
        },
        on,
    });
}

fn turns(rows: &mut Vec<Row>, effort: Effort, begins: Begins, on: On) {
    let side = match begins {
        Begins::Guest => "guest",
        Begins::Host => "host",
    };
    let count = effort.of(5_000);
    rows.push(Row {
        name: format!("round trips of 64 B, {side} asks{}", suffix(on)),
        work: Work::Turns { begins, count },
        on,
    });
}

/// Bursts of so many packets of so many bytes, for [`TIME`].
fn plan(effort: Effort, burst: u32, size: usize, every: Nanos) -> Plan {
    let bursts = u32::try_from(effort.of(TIME / every)).unwrap_or(u32::MAX);
    Plan {
        burst,
        size,
        every,
        bursts: bursts.max(2),
    }
}

fn packets(rows: &mut Vec<Row>, way: Way, plan: Plan, on: On) {
    let (burst, kib, micros) = (plan.burst, plan.size / 1024, plan.every / 1_000);
    rows.push(Row {
        name: format!(
            "{burst} x {kib} KiB each {micros} us, {}{}",
            to(way),
            suffix(on)
        ),
        work: Work::Packets { way, plan },
        on,
    });
}

fn to(way: Way) -> &'static str {
    match way {
        Way::ToHost => "to host",
        Way::ToGuest => "to guest",
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::{Effort, all};

    #[test]
    fn no_two_rows_have_one_name() {
        for effort in [Effort::Full, Effort::Quick] {
            let rows = all(effort);
            let names: HashSet<_> = rows.iter().map(|row| &row.name).collect();
            assert_eq!(names.len(), rows.len());
        }
    }
}
