// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! The metrics as `OpenMetrics` text. Each metric appears twice: `vsock_guest_NAME` has the guest's
//! CID as a label, and `vsock_NAME` is the total over all guests.

use std::collections::BTreeMap;
use std::fmt;

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric, MetricEncoder, text};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::metrics::gauge::ConstGauge;
use prometheus_client::registry::{Registry, Unit};
use vsock_vhost_user::{DeviceReport, QueueCounters, RefusalReason};

use super::guests::Answers;
use super::listing::snake_case;

/// The type of what [`text_of`] returns.
pub(super) const CONTENT_TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

type Labels = Vec<(&'static str, String)>;

/// The values of a metric, by label.
#[derive(Debug, Default)]
struct Samples(BTreeMap<Labels, u64>);

impl Samples {
    fn add(&mut self, value: impl TryInto<u64>) {
        self.insert(Vec::new(), value);
    }

    fn add_by(&mut self, label: &'static str, of: impl Into<String>, value: impl TryInto<u64>) {
        self.insert(vec![(label, of.into())], value);
    }

    /// Adds a counter of each queue.
    fn add_by_queue(&mut self, report: &DeviceReport, of: fn(&QueueCounters) -> u64) {
        let queues = &report.queues;
        self.add_by("queue", "rx", of(&queues.rx));
        self.add_by("queue", "tx", of(&queues.tx));
        self.add_by("queue", "event", of(&queues.event));
    }

    fn insert(&mut self, labels: Labels, value: impl TryInto<u64>) {
        let sum = self.0.entry(labels).or_default();
        *sum = sum.saturating_add(value.try_into().unwrap_or(u64::MAX));
    }
}

/// The unit of a metric.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Measure {
    Number,
    Bytes,
}

/// The definition of a metric.
#[derive(Clone, Copy)]
struct Metric {
    name: &'static str,
    help: &'static str,
    measure: Measure,
    metric_type: MetricType,
    /// Adds the values for one guest.
    read: fn(&DeviceReport, &mut Samples),
}

const fn counter(
    name: &'static str,
    help: &'static str,
    read: fn(&DeviceReport, &mut Samples),
) -> Metric {
    Metric {
        name,
        help,
        measure: Measure::Number,
        metric_type: MetricType::Counter,
        read,
    }
}

const fn gauge(
    name: &'static str,
    help: &'static str,
    read: fn(&DeviceReport, &mut Samples),
) -> Metric {
    Metric {
        metric_type: MetricType::Gauge,
        ..counter(name, help, read)
    }
}

const FROM: &str = "from_guest";
const TO: &str = "to_guest";

/// Current values.
const GAUGES: [Metric; 6] = [
    gauge(
        "driver_active",
        "Guests whose driver is active",
        |report, out| {
            out.add(u64::from(report.is_active));
        },
    ),
    gauge("connections", "Connections, in any phase", |report, out| {
        out.add(report.gauges.connections);
    }),
    gauge(
        "handshakes",
        "Host clients that have not sent their command",
        |report, out| out.add(report.gauges.handshakes),
    ),
    gauge(
        "accepting",
        "Connections of the guest that wait for a host listener with a full backlog",
        |report, out| out.add(report.gauges.accepting),
    ),
    gauge(
        "resets_owed",
        "Resets that belong to no connection and wait for the guest to provide buffers",
        |report, out| out.add(report.gauges.resets_owed),
    ),
    gauge(
        "queue_depth",
        "Descriptor chains that the driver made available and the device has not taken",
        |report, out| {
            let depths = report.depths;
            for (queue, depth) in [
                ("rx", depths.rx),
                ("tx", depths.tx),
                ("event", depths.event),
            ] {
                if let Some(depth) = depth {
                    out.add_by("queue", queue, depth);
                }
            }
        },
    ),
];

/// Events in the lives of connections.
const CONNECTIONS: [Metric; 7] = [
    counter(
        "connections_begun",
        "Connection attempts, including refused ones, by the side that made them",
        |report, out| {
            let counts = report.connections;
            out.add_by("initiator", "guest", counts.guest_initiated);
            out.add_by("initiator", "host", counts.host_initiated);
        },
    ),
    counter(
        "connections_ended",
        "Connections that ended, by the way they ended",
        |report, out| {
            for (ending, count) in report.connections.endings.iter() {
                out.add_by("ending", snake_case(&format!("{ending:?}")), count);
            }
        },
    ),
    counter(
        "refused",
        "Refused clients and connections, by reason",
        |report, out| {
            for reason in RefusalReason::ALL {
                out.add_by("reason", reason.name(), report.connections.refused(reason));
            }
        },
    ),
    counter(
        "accept_failures",
        "Host clients that could not be accepted",
        |report, out| {
            out.add(report.connections.accept_failures);
        },
    ),
    counter(
        "watch_failures",
        "Streams that the kernel had no room to watch, and that were tried again",
        |report, out| out.add(report.connections.watch_failures),
    ),
    counter(
        "credit_stalls",
        "Times that a connection stopped because the guest's buffer was full",
        |report, out| out.add(report.connections.credit_stalls),
    ),
    counter(
        "host_stalls",
        "Times that the host took fewer bytes than the guest had sent",
        |report, out| out.add(report.connections.host_stalls),
    ),
];

/// Traffic.
const TRAFFIC: [Metric; 6] = [
    Metric {
        measure: Measure::Bytes,
        ..counter("payload", "Payload bytes transferred", |report, out| {
            out.add_by("direction", FROM, report.connections.bytes_from_guest);
            out.add_by("direction", TO, report.connections.bytes_to_guest);
        })
    },
    counter("packets", "Packets transferred", |report, out| {
        out.add_by("direction", FROM, report.connections.packets_from_guest);
        out.add_by("direction", TO, report.connections.packets_to_guest);
    }),
    counter(
        "credit_updates",
        "Packets that only carried a credit update",
        |report, out| {
            out.add_by(
                "direction",
                FROM,
                report.connections.credit_updates_from_guest,
            );
            out.add_by("direction", TO, report.connections.credit_updates_to_guest);
        },
    ),
    counter(
        "packets_dropped",
        "Packets from the guest that were dropped, by reason",
        |report, out| {
            out.add_by("reason", "malformed", report.queues.malformed_packets);
            out.add_by("reason", "rejected", report.connections.packets_rejected);
            out.add_by("reason", "unmatched", report.connections.packets_unmatched);
        },
    ),
    counter(
        "unusable_buffers",
        "Buffers from the guest that could not be used",
        |report, out| {
            out.add(report.queues.unusable_buffers);
        },
    ),
    counter(
        "transport_resets",
        "Transport reset events sent to the guest",
        |report, out| {
            out.add(report.queues.transport_resets);
        },
    ),
];

/// Notifications between guest and device.
const NOTIFICATIONS: [Metric; 4] = [
    counter(
        "chains_used",
        "Descriptor chains returned to the driver",
        |report, out| out.add_by_queue(report, |counts| counts.chains_used),
    ),
    counter(
        "notifications_sent",
        "Interrupts sent to the guest",
        |report, out| out.add_by_queue(report, |counts| counts.notifications_sent),
    ),
    counter(
        "notifications_spared",
        "Descriptor chains returned without a separate interrupt",
        |report, out| out.add_by_queue(report, |counts| counts.notifications_spared),
    ),
    counter(
        "kicks",
        "Kicks by the guest that woke its device",
        |report, out| {
            out.add(report.kicks);
        },
    ),
];

/// The answers of all devices to one scrape.
#[derive(Debug)]
struct Scrape(Answers<DeviceReport>);

impl Scrape {
    /// Encodes a metric, as a total or by guest.
    fn encode_metric(
        &self,
        encoder: &mut DescriptorEncoder<'_>,
        metric: &Metric,
        scope: Scope,
    ) -> fmt::Result {
        let mut samples = Samples::default();
        // Totals add up samples with the same labels. With the guest's CID as a further label, the
        // samples of different guests stay apart.
        for (guest, answer) in &self.0 {
            let Ok(report) = answer else { continue };
            let mut of_guest = Samples::default();
            (metric.read)(report, &mut of_guest);
            for (mut labels, value) in of_guest.0 {
                if scope == Scope::Guest {
                    labels.insert(0, ("guest", u64::from(*guest).to_string()));
                }
                samples.insert(labels, value);
            }
        }
        let name = scope.name(metric.name);
        let unit = (metric.measure == Measure::Bytes).then_some(Unit::Bytes);
        let (help, metric_type) = (metric.help, metric.metric_type);
        let mut encoder = encoder.encode_descriptor(&name, help, unit.as_ref(), metric_type)?;
        // A metric without labels has a single value and must not be encoded as a family.
        if let Some(value) = samples.0.get(&Vec::new()) {
            return encode_value(encoder, metric_type, *value);
        }
        for (labels, value) in &samples.0 {
            encode_value(encoder.encode_family(labels)?, metric_type, *value)?;
        }
        Ok(())
    }

    /// Encodes which devices answered. The other metrics are missing for devices that did not.
    fn encode_responding(&self, encoder: &mut DescriptorEncoder<'_>) -> fmt::Result {
        let name = Scope::Guest.name("responding");
        let help = "Whether the guest's device answered in time";
        let mut metric = encoder.encode_descriptor(&name, help, None, MetricType::Gauge)?;
        for (guest, answer) in &self.0 {
            let labels = [("guest", u64::from(*guest).to_string())];
            let value = u64::from(answer.is_ok());
            encode_value(metric.encode_family(&labels)?, MetricType::Gauge, value)?;
        }
        Ok(())
    }
}

/// The guests that a metric covers: all together, or each one.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Scope {
    All,
    Guest,
}

impl Scope {
    fn name(self, name: &str) -> String {
        match self {
            Self::All => name.to_owned(),
            Self::Guest => format!("guest_{name}"),
        }
    }
}

fn encode_value(encoder: MetricEncoder<'_>, metric_type: MetricType, value: u64) -> fmt::Result {
    match metric_type {
        MetricType::Counter => ConstCounter::new(value).encode(encoder),
        _ => ConstGauge::new(value).encode(encoder),
    }
}

impl Collector for Scrape {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        self.encode_responding(&mut encoder)?;
        for metric in GAUGES
            .iter()
            .chain(&CONNECTIONS)
            .chain(&TRAFFIC)
            .chain(&NOTIFICATIONS)
        {
            for scope in [Scope::All, Scope::Guest] {
                self.encode_metric(&mut encoder, metric, scope)?;
            }
        }
        Ok(())
    }
}

/// Returns the `OpenMetrics` text for these answers.
pub(super) fn text_of(answers: Answers<DeviceReport>) -> Result<String, fmt::Error> {
    let mut registry = Registry::with_prefix("vsock");
    registry.register_collector(Box::new(Scrape(answers)));
    let mut page = String::new();
    text::encode(&mut page, &registry)?;
    Ok(page)
}
