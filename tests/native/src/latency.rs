// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! The latency of each packet, and of each burst of packets.

use std::io;

use anyhow::{Result, ensure};
use serde::{Deserialize, Serialize};

use crate::clock::{self, MILLISECOND, Nanos};
use crate::pattern::Pattern;

/// A summary of many durations, in nanoseconds.
#[derive(Clone, Copy, Debug, Deserialize, PartialEq, Serialize)]
pub(crate) struct Latency {
    pub(crate) median: Nanos,
    pub(crate) p99: Nanos,
    pub(crate) most: Nanos,
    /// The share of durations over a millisecond.
    pub(crate) slow: f64,
}

impl Latency {
    /// Summarises durations. Returns `None` if there are none.
    pub(crate) fn of(mut durations: Vec<Nanos>) -> Option<Self> {
        durations.sort_unstable();
        let most = *durations.last()?;
        let at = |percent| durations[durations.len() * percent / 100];
        let fast = durations.partition_point(|duration| *duration <= MILLISECOND);
        Some(Self {
            median: at(50),
            p99: at(99),
            most,
            slow: (durations.len() - fast) as f64 / durations.len() as f64,
        })
    }
}

/// A schedule of packets.
#[derive(Clone, Copy, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub(crate) struct Plan {
    /// Packets that are sent immediately after each other.
    pub(crate) burst: u32,
    /// The size of a packet.
    pub(crate) size: usize,
    /// The time from the start of one burst to the start of the next.
    pub(crate) every: Nanos,
    pub(crate) bursts: u32,
}

/// The size of a packet's stamp: the time of sending, and the packet's number.
const STAMP: usize = 16;

impl Plan {
    /// Returns the number of packets.
    pub(crate) fn packets(self) -> u64 {
        u64::from(self.burst) * u64::from(self.bursts)
    }

    /// Returns when a packet is due.
    pub(crate) fn due(self, number: u64, began: Nanos) -> Nanos {
        began + number / u64::from(self.burst) * self.every
    }

    /// Writes a packet's stamp into it.
    pub(crate) fn stamp(packet: &mut [u8], number: u64) -> io::Result<()> {
        for (field, value) in packet.chunks_exact_mut(8).zip([clock::now()?, number]) {
            field.copy_from_slice(&value.to_le_bytes());
        }
        Ok(())
    }
}

/// The packets that have arrived.
pub(crate) struct Collection {
    plan: Plan,
    pattern: Pattern,
    packets: Vec<Nanos>,
    bursts: Vec<Nanos>,
    /// When the first packet of the current burst was sent.
    burst: Nanos,
}

/// The latencies of a run.
#[derive(Clone, Copy, Debug, Default, Deserialize, PartialEq, Serialize)]
pub(crate) struct Latencies {
    /// Single packets, from the start of the sending call to the end of the receiving call.
    pub(crate) packets: Option<Latency>,
    /// Whole bursts, from the first packet's sending to the last one's arrival.
    pub(crate) bursts: Option<Latency>,
}

impl Collection {
    pub(crate) fn new(plan: Plan) -> Self {
        Self {
            plan,
            pattern: Pattern::new(),
            packets: Vec::new(),
            bursts: Vec::new(),
            burst: 0,
        }
    }

    /// Returns whether all packets have arrived.
    pub(crate) fn is_complete(&self) -> bool {
        self.packets.len() as u64 == self.plan.packets()
    }

    /// Adds the next packet, which must be whole.
    pub(crate) fn add(&mut self, packet: &[u8]) -> Result<()> {
        let now = clock::now()?;
        let field = |at: usize| packet[at..at + 8].try_into().map(u64::from_le_bytes);
        let (sent, number) = (field(0)?, field(8)?);
        let expected = self.packets.len() as u64;
        ensure!(
            number == expected && packet.len() == self.plan.size,
            "expected packet {expected}, found packet {number}"
        );
        self.pattern.check(STAMP as u64, &packet[STAMP..])?;
        self.packets.push(now.saturating_sub(sent));
        let burst = u64::from(self.plan.burst);
        if number % burst == 0 {
            self.burst = sent;
        }
        if (number + 1) % burst == 0 {
            self.bursts.push(now.saturating_sub(self.burst));
        }
        Ok(())
    }

    pub(crate) fn latencies(self) -> Latencies {
        Latencies {
            packets: Latency::of(self.packets),
            bursts: Latency::of(self.bursts),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{Collection, Latency, Plan};
    use crate::clock::MILLISECOND;
    use crate::pattern::Pattern;

    #[test]
    fn percentiles_are_of_the_sorted_durations() {
        let durations: Vec<u64> = (1..=200).rev().map(|n| n * MILLISECOND / 100).collect();
        let latency = Latency::of(durations).unwrap();
        assert_eq!(latency.median, MILLISECOND / 100 * 101);
        assert_eq!(latency.p99, MILLISECOND / 100 * 199);
        assert_eq!(latency.most, 2 * MILLISECOND);
        assert_eq!(latency.slow, 0.5);
        assert_eq!(Latency::of(Vec::new()), None);
    }

    #[test]
    fn a_packet_that_is_missing_or_changed_is_detected() {
        let plan = Plan {
            burst: 2,
            size: 100,
            every: 0,
            bursts: 2,
        };
        let mut packet = Pattern::new().at(0, 100).to_vec();
        let mut collection = Collection::new(plan);
        for number in 0..2 {
            Plan::stamp(&mut packet, number).unwrap();
            collection.add(&packet).unwrap();
        }
        assert!(!collection.is_complete());
        Plan::stamp(&mut packet, 3).unwrap();
        assert!(collection.add(&packet).is_err(), "packet 2 is missing");
        Plan::stamp(&mut packet, 2).unwrap();
        packet[99] ^= 1;
        assert!(collection.add(&packet).is_err(), "a byte is wrong");
        packet[99] ^= 1;
        collection.add(&packet).unwrap();
        Plan::stamp(&mut packet, 3).unwrap();
        collection.add(&packet).unwrap();
        assert!(collection.is_complete());
        assert_eq!((collection.packets.len(), collection.bursts.len()), (4, 2));
        // The burst's latency is counted from its first packet, and is below a minute.
        assert!(collection.bursts[1] > collection.packets[3]);
        assert!(collection.bursts[1] < 60_000 * MILLISECOND);
    }
}
