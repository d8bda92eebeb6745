// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! The figures as `OpenMetrics` text. Each is there twice: `vsock_guest_NAME` has the guest's CID
//! as a label, `vsock_NAME` is the sum over all guests.

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

/// Values by their labels.
#[derive(Debug, Default)]
struct Samples(BTreeMap<Labels, u64>);

impl Samples {
    fn add(&mut self, value: impl TryInto<u64>) {
        self.insert(Vec::new(), value);
    }

    fn add_by(&mut self, label: &'static str, of: impl Into<String>, value: impl TryInto<u64>) {
        self.insert(vec![(label, of.into())], value);
    }

    /// Adds a count of each queue.
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

/// What a figure is of.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Measure {
    Number,
    Bytes,
}

/// One figure.
#[derive(Clone, Copy)]
struct Figure {
    name: &'static str,
    help: &'static str,
    measure: Measure,
    metric_type: MetricType,
    /// Adds its values of one guest.
    read: fn(&DeviceReport, &mut Samples),
}

const fn counter(
    name: &'static str,
    help: &'static str,
    read: fn(&DeviceReport, &mut Samples),
) -> Figure {
    Figure {
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
) -> Figure {
    Figure {
        metric_type: MetricType::Gauge,
        ..counter(name, help, read)
    }
}

const FROM: &str = "from_guest";
const TO: &str = "to_guest";

/// What there is at the moment.
const GAUGES: [Figure; 6] = [
    gauge(
        "driver_active",
        "Guests whose driver is served",
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
        "Connections of the guest that wait for a busy host component",
        |report, out| out.add(report.gauges.accepting),
    ),
    gauge(
        "resets_owed",
        "RSTs without a connection that wait for buffers of the guest",
        |report, out| out.add(report.gauges.resets_owed),
    ),
    gauge(
        "queue_depth",
        "Chains that the driver has made available and the device has not taken",
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

/// What has happened to connections.
const CONNECTIONS: [Figure; 6] = [
    counter(
        "connections_begun",
        "Connections that were begun, refused ones among them",
        |report, out| {
            let counts = report.connections;
            out.add_by("initiator", "guest", counts.guest_initiated);
            out.add_by("initiator", "host", counts.host_initiated);
        },
    ),
    counter(
        "connections_ended",
        "Connections that have ended, by way",
        |report, out| {
            for (ending, count) in report.connections.endings.iter() {
                out.add_by("ending", snake_case(&format!("{ending:?}")), count);
            }
        },
    ),
    counter(
        "refused",
        "Clients and connections that were refused, by reason",
        |report, out| {
            for reason in RefusalReason::ALL {
                out.add_by("reason", reason.name(), report.connections.refused(reason));
            }
        },
    ),
    counter(
        "accept_failures",
        "Clients that could not be accepted",
        |report, out| {
            out.add(report.connections.accept_failures);
        },
    ),
    counter(
        "credit_stalls",
        "How often a connection had to stop because the guest's buffer was full",
        |report, out| out.add(report.connections.credit_stalls),
    ),
    counter(
        "host_stalls",
        "How often a host component took less than the guest had sent",
        |report, out| out.add(report.connections.host_stalls),
    ),
];

/// What has been moved.
const TRAFFIC: [Figure; 6] = [
    Figure {
        measure: Measure::Bytes,
        ..counter(
            "payload",
            "Bytes of payload that were moved",
            |report, out| {
                out.add_by("direction", FROM, report.connections.bytes_from_guest);
                out.add_by("direction", TO, report.connections.bytes_to_guest);
            },
        )
    },
    counter("packets", "Packets that were moved", |report, out| {
        out.add_by("direction", FROM, report.connections.packets_from_guest);
        out.add_by("direction", TO, report.connections.packets_to_guest);
    }),
    counter(
        "credit_updates",
        "Packets that only told of credit",
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
        "Packets of the guest that were dropped, by reason",
        |report, out| {
            out.add_by("reason", "malformed", report.queues.malformed_packets);
            out.add_by("reason", "rejected", report.connections.packets_rejected);
            out.add_by("reason", "unmatched", report.connections.packets_unmatched);
        },
    ),
    counter(
        "unusable_buffers",
        "Buffers of the guest that could not be used",
        |report, out| {
            out.add(report.queues.unusable_buffers);
        },
    ),
    counter(
        "transport_resets",
        "Transport resets that the guest was told of",
        |report, out| {
            out.add(report.queues.transport_resets);
        },
    ),
];

/// What guest and device have told each other.
const NOTIFICATIONS: [Figure; 4] = [
    counter(
        "chains_used",
        "Chains that were given back to the driver",
        |report, out| out.add_by_queue(report, |counts| counts.chains_used),
    ),
    counter(
        "notifications_sent",
        "Notifications of the guest",
        |report, out| out.add_by_queue(report, |counts| counts.notifications_sent),
    ),
    counter(
        "notifications_spared",
        "Chains that were given back without a notification of their own",
        |report, out| out.add_by_queue(report, |counts| counts.notifications_spared),
    ),
    counter(
        "kicks",
        "Notifications from the guest that woke its device",
        |report, out| {
            out.add(report.kicks);
        },
    ),
];

/// The answers of the guests' devices, as a scrape finds them.
#[derive(Debug)]
struct Scrape(Answers<DeviceReport>);

impl Scrape {
    /// A figure, summed up or by guest.
    fn encode_figure(
        &self,
        encoder: &mut DescriptorEncoder<'_>,
        figure: &Figure,
        scope: Scope,
    ) -> fmt::Result {
        let mut samples = Samples::default();
        for (guest, answer) in &self.0 {
            let Ok(report) = answer else { continue };
            let mut of_guest = Samples::default();
            (figure.read)(report, &mut of_guest);
            for (mut labels, value) in of_guest.0 {
                if scope == Scope::Guest {
                    labels.insert(0, ("guest", u64::from(*guest).to_string()));
                }
                samples.insert(labels, value);
            }
        }
        let name = scope.name(figure.name);
        let unit = (figure.measure == Measure::Bytes).then_some(Unit::Bytes);
        let (help, metric_type) = (figure.help, figure.metric_type);
        let mut metric = encoder.encode_descriptor(&name, help, unit.as_ref(), metric_type)?;
        // Without labels there is one value, which is no family.
        if let Some(value) = samples.0.get(&Vec::new()) {
            return encode_value(metric, metric_type, *value);
        }
        for (labels, value) in &samples.0 {
            encode_value(metric.encode_family(labels)?, metric_type, *value)?;
        }
        Ok(())
    }

    /// Which devices have answered: of the others, all figures are missing.
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

/// Whose figures they are.
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
        for figure in GAUGES
            .iter()
            .chain(&CONNECTIONS)
            .chain(&TRAFFIC)
            .chain(&NOTIFICATIONS)
        {
            for scope in [Scope::All, Scope::Guest] {
                self.encode_figure(&mut encoder, figure, scope)?;
            }
        }
        Ok(())
    }
}

/// The text of a scrape.
pub(super) fn text_of(answers: Answers<DeviceReport>) -> Result<String, fmt::Error> {
    let mut registry = Registry::with_prefix("vsock");
    registry.register_collector(Box::new(Scrape(answers)));
    let mut page = String::new();
    text::encode(&mut page, &registry)?;
    Ok(page)
}
