// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Which figures the tables show.

use crate::aims::{self, AimOf};
use crate::latency::Latency;
use crate::results::{Figure, Sample};
use crate::row::Work;

const MIB: f64 = 1_048_576.0;
const GIB: f64 = 1_073_741_824.0;

/// A column of a table. A column that is compared has one with ratios next to it.
#[derive(Clone, Copy)]
pub(super) enum Column {
    Plain(&'static str, Figure),
    Compared(&'static str, Figure, AimOf),
}

use Column::{Compared, Plain};

/// A table.
pub(super) struct Sheet {
    pub(super) title: &'static str,
    /// Whether it contains the rows of some work.
    pub(super) holds: fn(&Work) -> bool,
    pub(super) columns: &'static [Column],
}

pub(super) const RATE: Figure = |it| Some(it.units / it.seconds);
pub(super) const CPU: Figure = |it| Some(it.device.cpu / it.units);
pub(super) const IDLE_CORE: Figure = |it| Some(it.idle_core? * 100.0);
pub(super) const P50: Figure = |it| micros(it, |latency| latency.median);
pub(super) const P99: Figure = |it| micros(it, |latency| latency.p99);
const BURST_P50: Figure = |it| Some(it.latencies.bursts?.median as f64 / 1e3);
const BURST_P99: Figure = |it| Some(it.latencies.bursts?.p99 as f64 / 1e3);
const CPU_EACH: Figure = |it| Some(it.device.cpu * 1e6 / it.units);
const KICKS: Column = Plain("kicks\neach", |it| Some(it.kicks / it.units));
const INTERRUPTS: Column = Plain("interrupts\neach", |it| Some(it.interrupts / it.units));
const SWITCHES: Column = Plain("switches\neach", |it| Some(it.device.switches / it.units));

fn micros(sample: &Sample, figure: fn(Latency) -> u64) -> Option<f64> {
    Some(figure(sample.latencies.packets?) as f64 / 1e3)
}

/// Returns the latencies that count for some work. The window of vhost-device-vsock is smaller, so
/// its long bursts wait in the guest, where single packets are not measured yet: there the whole
/// burst counts.
pub(super) fn latency_of(work: Work) -> (Figure, Figure) {
    match work {
        Work::Packets { plan, .. } if plan.burst > 100 => (BURST_P50, BURST_P99),
        _ => (P50, P99),
    }
}

fn is_operation(work: &Work) -> bool {
    use Work::{Connects, Requests, Turns};
    matches!(work, Turns { .. } | Requests { .. } | Connects { .. })
}

fn is_bulk(work: &Work) -> bool {
    matches!(work, Work::Bulk { .. })
}

fn is_packets(work: &Work) -> bool {
    matches!(work, Work::Packets { .. })
}

pub(super) const SHEETS: [Sheet; 6] = [
    Sheet {
        title: "Bulk",
        holds: is_bulk,
        columns: &[
            Compared("MB/s", |it| Some(it.units / it.seconds / 1e6), aims::rate),
            Compared(
                "CPU\ns/GiB",
                |it| Some(it.device.cpu * GIB / it.units),
                aims::cpu,
            ),
            Plain("kicks\n/MiB", |it| Some(it.kicks * MIB / it.units)),
            Plain("int.\n/MiB", |it| Some(it.interrupts * MIB / it.units)),
            Plain("switches\n/MiB", |it| {
                Some(it.device.switches * MIB / it.units)
            }),
        ],
    },
    Sheet {
        title: "Round trips, requests and connections: rates and latencies",
        holds: is_operation,
        columns: &[
            Compared("per\nsecond", RATE, aims::rate),
            Plain("p50\nus", P50),
            Compared("p99\nus", P99, aims::p99),
            Plain("bulk\nMB/s", |it| Some(it.beside? / it.seconds / 1e6)),
        ],
    },
    Sheet {
        title: "Round trips, requests and connections: costs",
        holds: is_operation,
        columns: &[
            Compared("CPU\nus each", CPU_EACH, aims::cpu),
            KICKS,
            INTERRUPTS,
            SWITCHES,
        ],
    },
    Sheet {
        title: "Packets and bursts at fixed times: latencies",
        holds: is_packets,
        columns: &[
            Compared("p50\nus", P50, aims::p50),
            Compared("p99\nus", P99, aims::p99),
            Plain("> 1 ms\n%", |it| Some(it.latencies.packets?.slow * 100.0)),
            Plain("burst\np50", BURST_P50),
            Plain("burst\np99", BURST_P99),
        ],
    },
    Sheet {
        title: "Packets and bursts at fixed times: costs",
        holds: is_packets,
        columns: &[
            Compared("CPU\nus each", CPU_EACH, aims::cpu),
            KICKS,
            INTERRUPTS,
            SWITCHES,
            Plain("longest\nus", |it| micros(it, |latency| latency.most)),
        ],
    },
    Sheet {
        title: "Idle connections, and round trips of 64 B among them",
        holds: |work| matches!(work, Work::Idle { .. }),
        columns: &[
            Plain("% of a core\nwhile idle", IDLE_CORE),
            Compared("trips per\nsecond", RATE, aims::rate),
            Compared("CPU\nus each", CPU_EACH, aims::cpu),
        ],
    },
];
