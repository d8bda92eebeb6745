// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

use core::ops::Range;
use core::time::Duration;

use thiserror::Error;

/// Every limit and every timeout of a device, checked.
///
/// The memory that a guest can make the host hold is bounded by
/// [`max_connections`](Self::max_connections) times [`buf_alloc`](Self::buf_alloc), and reaches
/// that only if as many host components do not read at all. A seqpacket message that waits costs four
/// bytes more, however short it is.
///
/// ```
/// use vsock_proto::{Config, ConfigError};
///
/// let config = Config::builder().buf_alloc(64 * 1024).build()?;
/// assert_eq!(config.buf_alloc(), 65_536);
/// assert!(Config::builder().buf_alloc(0).build().is_err());
/// # Ok::<(), ConfigError>(())
/// ```
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Config {
    values: ConfigBuilder,
}

impl Config {
    /// Begins with the defaults.
    #[must_use]
    pub fn builder() -> ConfigBuilder {
        ConfigBuilder::default()
    }

    /// Bytes that the guest may send on one connection before the host has taken them.
    #[must_use]
    pub const fn buf_alloc(&self) -> u32 {
        self.values.buf_alloc
    }

    /// Bytes of payload in one packet to the guest.
    #[must_use]
    pub const fn max_payload(&self) -> u32 {
        self.values.max_payload
    }

    /// Bytes of one seqpacket message, either way; never more than [`buf_alloc`](Self::buf_alloc).
    #[must_use]
    pub fn max_message(&self) -> u32 {
        self.values.max_message.min(self.values.buf_alloc)
    }

    /// Empty seqpacket messages that may wait for the host on one connection.
    #[must_use]
    pub const fn max_empty_messages(&self) -> u32 {
        self.values.max_empty_messages
    }

    /// Bytes of the guest's buffer that each unacknowledged packet is taken to cost.
    #[must_use]
    pub const fn packet_overhead(&self) -> u32 {
        self.values.packet_overhead
    }

    /// Connections that may exist at a time, each with a descriptor: it should stay below the
    /// process's limit of descriptors (`RLIMIT_NOFILE`).
    #[must_use]
    pub const fn max_connections(&self) -> usize {
        self.values.max_connections
    }

    /// Host clients that may be connected without having sent their command.
    #[must_use]
    pub const fn max_handshakes(&self) -> usize {
        self.values.max_handshakes
    }

    /// Connections of the guest that may wait for a busy host component.
    #[must_use]
    pub const fn max_accepting(&self) -> usize {
        self.values.max_accepting
    }

    /// RSTs that may be owed to packets without a connection.
    #[must_use]
    pub const fn max_resets(&self) -> usize {
        self.values.max_resets
    }

    /// The host ports of host-initiated connections.
    #[must_use]
    pub const fn host_ports(&self) -> &Range<u32> {
        &self.values.host_ports
    }

    /// How long a host client may take to send its command.
    #[must_use]
    pub const fn command_timeout(&self) -> Duration {
        self.values.command_timeout
    }

    /// How long a REQUEST or a RESPONSE may wait for a buffer of the guest.
    #[must_use]
    pub const fn deliver_timeout(&self) -> Duration {
        self.values.deliver_timeout
    }

    /// How long a REQUEST may wait for its answer, be it the guest's or a host component's.
    #[must_use]
    pub const fn connect_timeout(&self) -> Duration {
        self.values.connect_timeout
    }

    /// How long the host may take nothing of what a guest sent before it closed.
    #[must_use]
    pub const fn linger_timeout(&self) -> Duration {
        self.values.linger_timeout
    }

    /// How long a connection that the host has closed waits for the guest's RST.
    #[must_use]
    pub const fn close_timeout(&self) -> Duration {
        self.values.close_timeout
    }

    /// How long to wait before a guest is asked for credit again, the first time.
    #[must_use]
    pub const fn probe_interval(&self) -> Duration {
        self.values.probe_interval
    }
}

/// Makes a [`Config`]. What is not set keeps its default.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct ConfigBuilder {
    buf_alloc: u32,
    max_payload: u32,
    max_message: u32,
    max_empty_messages: u32,
    packet_overhead: u32,
    max_connections: usize,
    max_handshakes: usize,
    max_accepting: usize,
    max_resets: usize,
    host_ports: Range<u32>,
    command_timeout: Duration,
    deliver_timeout: Duration,
    connect_timeout: Duration,
    linger_timeout: Duration,
    close_timeout: Duration,
    probe_interval: Duration,
}

impl Default for ConfigBuilder {
    fn default() -> Self {
        Self {
            buf_alloc: 256 * 1024,
            max_payload: 64 * 1024,
            max_message: 256 * 1024,
            max_empty_messages: 1024,
            packet_overhead: 1024,
            max_connections: 16_384,
            max_handshakes: 1024,
            max_accepting: 1024,
            max_resets: 1024,
            host_ports: 1 << 30..1 << 31,
            command_timeout: Duration::from_secs(5),
            deliver_timeout: Duration::from_secs(3),
            connect_timeout: Duration::from_secs(2),
            linger_timeout: Duration::from_secs(30),
            close_timeout: Duration::from_secs(8),
            probe_interval: Duration::from_millis(20),
        }
    }
}

/// The largest buffer that may be promised.
const MAX_BUF_ALLOC: u32 = 1 << 30;
/// The largest payload of one packet (a Linux guest sends and takes no more either).
const MAX_PAYLOAD: u32 = 64 * 1024;

impl ConfigBuilder {
    /// Bytes that the guest may send on one connection before the host has taken them: 1 to 1 GiB,
    /// default 256 KiB, as much as a Linux socket has. Memory is used only for what waits.
    #[must_use]
    pub fn buf_alloc(mut self, bytes: u32) -> Self {
        self.buf_alloc = bytes;
        self
    }

    /// Bytes of payload in one packet to the guest: 1 to 64 KiB, default 64 KiB.
    #[must_use]
    pub fn max_payload(mut self, bytes: u32) -> Self {
        self.max_payload = bytes;
        self
    }

    /// Bytes of one seqpacket message, either way: at least 1, default 256 KiB. A message must fit
    /// into the receiver's buffer, or it could never arrive whole, so `buf_alloc` limits it too. A
    /// guest knows of `buf_alloc` alone: a longer message than that is an error of its call, one that
    /// only this limit forbids ends the connection.
    #[must_use]
    pub fn max_message(mut self, bytes: u32) -> Self {
        self.max_message = bytes;
        self
    }

    /// Empty seqpacket messages that may wait for the host on one connection: default 1,024. One more
    /// ends the connection; with 0, the first does.
    #[must_use]
    pub fn max_empty_messages(mut self, messages: u32) -> Self {
        self.max_empty_messages = messages;
        self
    }

    /// Bytes of the guest's buffer that each unacknowledged packet is taken to cost: default 1,024,
    /// well over what Linux charges; 0 leaves the number of packets unbounded.
    #[must_use]
    pub fn packet_overhead(mut self, bytes: u32) -> Self {
        self.packet_overhead = bytes;
        self
    }

    /// Connections that may exist at a time: at least 1, default 16,384. Each has a descriptor: keep
    /// the limits of all devices together below the process's `RLIMIT_NOFILE`, or one guest can use up
    /// the descriptors of everybody.
    #[must_use]
    pub fn max_connections(mut self, connections: usize) -> Self {
        self.max_connections = connections;
        self
    }

    /// Host clients that may be connected without having sent their command: default 1,024. With 0,
    /// only those are served that name their port beside the bytes, as `connect_to` of `vsock-inner` does.
    ///
    /// One more closes another: the oldest of those that have said nothing; or, where those that have
    /// said a part of their command are more than half of them, the one of these that began first. A
    /// client whose command is there when it is accepted closes none. So a client is sure to be heard if it
    /// speaks before half as many others come, and is whole before half as many others begin to speak:
    /// make the number larger where clients are slow and the socket is open to a crowd.
    #[must_use]
    pub fn max_handshakes(mut self, clients: usize) -> Self {
        self.max_handshakes = clients;
        self
    }

    /// Connections of the guest that may wait for busy host components, each of which is asked for a
    /// stream up to ten times a second, and whenever another comes: default 1,024. One more is refused with
    /// an RST; with 0, all are.
    #[must_use]
    pub fn max_accepting(mut self, connections: usize) -> Self {
        self.max_accepting = connections;
        self
    }

    /// RSTs that may be owed to packets without a connection, before no packet of the guest is
    /// taken any more: at least 1, default 1,024.
    #[must_use]
    pub fn max_resets(mut self, resets: usize) -> Self {
        self.max_resets = resets;
        self
    }

    /// The host ports of host-initiated connections: not empty, default 2^30 up to 2^31.
    #[must_use]
    pub fn host_ports(mut self, ports: Range<u32>) -> Self {
        self.host_ports = ports;
        self
    }

    /// How long a host client may take to send its command: default 5 s. With 0, it must have sent it
    /// by the time it is accepted.
    #[must_use]
    pub fn command_timeout(mut self, timeout: Duration) -> Self {
        self.command_timeout = timeout;
        self
    }

    /// How long a REQUEST or a RESPONSE may wait for a buffer of the guest, which posts none while
    /// it boots: more than 0, default 3 s. It counts from the moment the packet is owed.
    #[must_use]
    pub fn deliver_timeout(mut self, timeout: Duration) -> Self {
        self.deliver_timeout = timeout;
        self
    }

    /// How long a REQUEST may wait for its answer: more than 0, default 2 s. For the guest's answer it
    /// counts from delivery of the REQUEST, for a host component's from its arrival.
    ///
    /// A host client with a time limit of its own, such as `VsockInnerConfig::connect_timeout` of
    /// `vsock-inner`, learns that the guest is silent if that is longer than this and
    /// [`deliver_timeout`](Self::deliver_timeout) together; else it gives up first.
    #[must_use]
    pub fn connect_timeout(mut self, timeout: Duration) -> Self {
        self.connect_timeout = timeout;
        self
    }

    /// How long the host may take nothing of what a guest sent before it closed: default 30 s. It
    /// counts from the last byte that the host took; what is left then is lost, and the host's
    /// stream is reset. With 0, what it has not taken by then is lost.
    #[must_use]
    pub fn linger_timeout(mut self, timeout: Duration) -> Self {
        self.linger_timeout = timeout;
        self
    }

    /// How long a connection that the host has closed waits for the guest's RST before it sends one
    /// itself: default 8 s, as in Linux. With 0, it does not wait.
    #[must_use]
    pub fn close_timeout(mut self, timeout: Duration) -> Self {
        self.close_timeout = timeout;
        self
    }

    /// How long to wait before a guest is asked for credit again, and sent one packet of a stream more
    /// than it is taken to have room for, the first time: at least 1 ms, default 20 ms. The time doubles
    /// each time, up to 64 times as much.
    #[must_use]
    pub fn probe_interval(mut self, interval: Duration) -> Self {
        self.probe_interval = interval;
        self
    }

    /// Checks the values.
    ///
    /// # Errors
    ///
    /// The first that is out of its range.
    pub fn build(self) -> Result<Config, ConfigError> {
        if !(1..=MAX_BUF_ALLOC).contains(&self.buf_alloc) {
            return Err(ConfigError::BufAlloc(self.buf_alloc));
        }
        if !(1..=MAX_PAYLOAD).contains(&self.max_payload) {
            return Err(ConfigError::MaxPayload(self.max_payload));
        }
        if self.max_message == 0 {
            return Err(ConfigError::MaxMessage);
        }
        if self.max_connections == 0 || self.max_connections > u32::MAX as usize {
            return Err(ConfigError::MaxConnections(self.max_connections));
        }
        if self.max_resets == 0 {
            return Err(ConfigError::MaxResets);
        }
        if self.host_ports.is_empty() {
            return Err(ConfigError::HostPorts(self.host_ports));
        }
        if self.deliver_timeout.is_zero() {
            return Err(ConfigError::DeliverTimeout);
        }
        if self.connect_timeout.is_zero() {
            return Err(ConfigError::ConnectTimeout);
        }
        if self.probe_interval < Duration::from_millis(1) {
            return Err(ConfigError::ProbeInterval(self.probe_interval));
        }
        Ok(Config { values: self })
    }
}

/// A value that is out of its range.
#[derive(Clone, Debug, Eq, Error, PartialEq)]
#[non_exhaustive]
pub enum ConfigError {
    /// See [`ConfigBuilder::buf_alloc`].
    #[error("a receive buffer of {0} bytes is not within 1 byte to 1 GiB")]
    BufAlloc(u32),
    /// See [`ConfigBuilder::max_payload`].
    #[error("a payload of {0} bytes is not within 1 byte to 64 KiB")]
    MaxPayload(u32),
    /// See [`ConfigBuilder::max_message`].
    #[error("messages must be allowed to have at least one byte")]
    MaxMessage,
    /// See [`ConfigBuilder::max_connections`].
    #[error("a limit of {0} connections is not within 1 to 2^32 - 1")]
    MaxConnections(usize),
    /// See [`ConfigBuilder::max_resets`].
    #[error("at least one RST must be allowed to wait")]
    MaxResets,
    /// See [`ConfigBuilder::host_ports`].
    #[error("the range of host ports {0:?} is empty")]
    HostPorts(Range<u32>),
    /// See [`ConfigBuilder::deliver_timeout`].
    #[error("a deliver timeout of zero: no host client could connect")]
    DeliverTimeout,
    /// See [`ConfigBuilder::connect_timeout`].
    #[error("a connect timeout of zero: no host client could connect")]
    ConnectTimeout,
    /// See [`ConfigBuilder::probe_interval`].
    #[error("a probe interval of {0:?} is shorter than 1 ms")]
    ProbeInterval(Duration),
}
