// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

use std::ops::Range;
use std::time::Duration;

use vsock_proto::{Config, ConfigError};

/// Returns all settings, in three groups.
fn settings(config: &Config) -> ([u64; 9], Range<u32>, [Duration; 6]) {
    let numbers = [
        config.buf_alloc().into(),
        config.max_payload().into(),
        config.max_message().into(),
        config.max_empty_messages().into(),
        config.packet_overhead().into(),
        config.max_connections() as u64,
        config.max_handshakes() as u64,
        config.max_accepting() as u64,
        config.max_resets() as u64,
    ];
    let times = [
        config.command_timeout(),
        config.deliver_timeout(),
        config.response_timeout(),
        config.linger_timeout(),
        config.close_timeout(),
        config.probe_interval(),
    ];
    (numbers, config.host_ports(), times)
}

#[test]
fn defaults_match_the_documentation() {
    let config = Config::default();
    assert_eq!(config, Config::builder().build().unwrap());
    const KIB: u64 = 1024;
    let bytes = [256 * KIB, 64 * KIB, 256 * KIB].as_slice();
    let counts = [1024, KIB, 16_384, 1024, 1024, 1024].as_slice();
    let numbers = [bytes, counts].concat().try_into().unwrap();
    let times = [5000, 3000, 2000, 30_000, 8000, 20].map(Duration::from_millis);
    assert_eq!(settings(&config), (numbers, 1 << 30..1 << 31, times));
}

#[test]
fn setters_set_their_values() {
    let second = Duration::from_secs(1);
    let config = Config::builder()
        .buf_alloc(1)
        .max_payload(2)
        .max_message(3)
        .max_empty_messages(4)
        .packet_overhead(5)
        .max_connections(6)
        .max_handshakes(7)
        .max_accepting(17)
        .max_resets(8)
        .host_ports(9..10)
        .command_timeout(second * 11)
        .deliver_timeout(second * 12)
        .response_timeout(second * 13)
        .linger_timeout(second * 14)
        .close_timeout(second * 15)
        .probe_interval(second * 16)
        .build()
        .unwrap();
    // A message must fit into the buffer.
    let numbers = [1, 2, 1, 4, 5, 6, 7, 17, 8];
    let times = [11, 12, 13, 14, 15, 16].map(Duration::from_secs);
    assert_eq!(settings(&config), (numbers, 9..10, times));
}

#[test]
fn values_out_of_range_are_refused() {
    let new = Config::builder;
    let micro = Duration::from_micros(1);
    let empty = 5..5;
    #[rustfmt::skip]
    let cases = [
        (new().buf_alloc(0), ConfigError::BufAlloc(0)),
        (new().buf_alloc((1 << 30) + 1), ConfigError::BufAlloc((1 << 30) + 1)),
        (new().max_payload(0), ConfigError::MaxPayload(0)),
        (new().max_payload(65_537), ConfigError::MaxPayload(65_537)),
        (new().max_message(0), ConfigError::MaxMessage),
        (new().max_connections(0), ConfigError::MaxConnections(0)),
        (new().max_connections(1 << 32), ConfigError::MaxConnections(1 << 32)),
        (new().max_resets(0), ConfigError::MaxResets),
        (new().host_ports(empty.clone()), ConfigError::HostPorts(empty)),
        (new().probe_interval(micro), ConfigError::ProbeInterval(micro)),
        (new().deliver_timeout(Duration::ZERO), ConfigError::DeliverTimeout),
        (new().response_timeout(Duration::ZERO), ConfigError::ResponseTimeout),
    ];
    for (builder, error) in cases {
        assert_eq!(builder.build(), Err(error));
    }
}
