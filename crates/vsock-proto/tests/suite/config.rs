// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

use std::time::Duration;

use vsock_proto::{Config, ConfigError};

#[test]
fn defaults_are_what_the_documentation_says() {
    let config = Config::default();
    assert_eq!(config, Config::builder().build().unwrap());
    assert_eq!(config.buf_alloc(), 256 * 1024);
    assert_eq!(config.max_payload(), 64 * 1024);
    assert_eq!(config.max_message(), 256 * 1024);
    assert_eq!(config.max_empty_messages(), 1024);
    assert_eq!(config.packet_overhead(), 1024);
    assert_eq!(config.max_connections(), 16_384);
    assert_eq!(config.max_handshakes(), 1024);
    assert_eq!(config.max_accepting(), 1024);
    assert_eq!(config.max_resets(), 1024);
    assert_eq!(config.host_ports(), 1 << 30..1 << 31);
    assert_eq!(config.command_timeout(), Duration::from_secs(5));
    assert_eq!(config.deliver_timeout(), Duration::from_secs(3));
    assert_eq!(config.connect_timeout(), Duration::from_secs(2));
    assert_eq!(config.linger_timeout(), Duration::from_secs(30));
    assert_eq!(config.close_timeout(), Duration::from_secs(8));
    assert_eq!(config.probe_interval(), Duration::from_millis(20));
}

#[test]
fn values_are_taken_as_they_are_set() {
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
        .connect_timeout(second * 13)
        .linger_timeout(second * 14)
        .close_timeout(second * 15)
        .probe_interval(second * 16)
        .build()
        .unwrap();
    assert_eq!(config.buf_alloc(), 1);
    assert_eq!(config.max_payload(), 2);
    assert_eq!(config.max_message(), 1, "a message must fit the buffer");
    assert_eq!(config.max_empty_messages(), 4);
    assert_eq!(config.packet_overhead(), 5);
    assert_eq!(config.max_connections(), 6);
    assert_eq!(config.max_handshakes(), 7);
    assert_eq!(config.max_accepting(), 17);
    assert_eq!(config.max_resets(), 8);
    assert_eq!(config.host_ports(), 9..10);
    assert_eq!(config.command_timeout(), second * 11);
    assert_eq!(config.deliver_timeout(), second * 12);
    assert_eq!(config.connect_timeout(), second * 13);
    assert_eq!(config.linger_timeout(), second * 14);
    assert_eq!(config.close_timeout(), second * 15);
    assert_eq!(config.probe_interval(), second * 16);
}

#[test]
fn values_out_of_range_are_refused() {
    let new = Config::builder;
    let micro = Duration::from_micros(1);
    let empty = 5..5;
    let cases = [
        (new().buf_alloc(0), ConfigError::BufAlloc(0)),
        (
            new().buf_alloc((1 << 30) + 1),
            ConfigError::BufAlloc((1 << 30) + 1),
        ),
        (new().max_payload(0), ConfigError::MaxPayload(0)),
        (new().max_payload(65_537), ConfigError::MaxPayload(65_537)),
        (new().max_message(0), ConfigError::MaxMessage),
        (new().max_connections(0), ConfigError::MaxConnections(0)),
        (
            new().max_connections(1 << 32),
            ConfigError::MaxConnections(1 << 32),
        ),
        (new().max_resets(0), ConfigError::MaxResets),
        (
            new().host_ports(empty.clone()),
            ConfigError::HostPorts(empty),
        ),
        (
            new().probe_interval(micro),
            ConfigError::ProbeInterval(micro),
        ),
        (
            new().deliver_timeout(Duration::ZERO),
            ConfigError::DeliverTimeout,
        ),
        (
            new().connect_timeout(Duration::ZERO),
            ConfigError::ConnectTimeout,
        ),
    ];
    for (builder, error) in cases {
        assert_eq!(builder.build(), Err(error));
    }
}
