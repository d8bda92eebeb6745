// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

use core::ops::Range;
use core::time::Duration;

use thiserror::Error;

/// Defines each setting once, with its documentation and default, as a field and a setter of
/// [`ConfigBuilder`] and as a getter of [`Config`].
macro_rules! settings {
    ($($(#[$doc:meta])* $name:ident: $type:ty = $default:expr,)*) => {
        /// Builds a [`Config`]. A setting that is not set keeps its default.
        #[derive(Clone, Debug, Eq, PartialEq)]
        pub struct ConfigBuilder {
            $($name: $type,)*
        }

        impl Default for ConfigBuilder {
            fn default() -> Self {
                Self {
                    $($name: $default,)*
                }
            }
        }

        impl ConfigBuilder {
            $(
                $(#[$doc])*
                #[must_use]
                pub fn $name(mut self, value: $type) -> Self {
                    self.$name = value;
                    self
                }
            )*
        }

        impl Config {
            $(
                #[doc = concat!("Returns [`ConfigBuilder::", stringify!($name), "`].")]
                #[must_use]
                pub fn $name(&self) -> $type {
                    Clone::clone(&self.0.$name)
                }
            )*
        }
    };
}

settings! {
    /// Sets the receive buffer of a connection: how many bytes the guest may send before the host
    /// has read them.
    ///
    /// Range: 1 byte to 1 GiB. Default: 256 KiB, the default of a Linux socket. Memory is allocated
    /// only for bytes that wait.
    buf_alloc: u32 = 256 * 1024,

    /// Sets the maximum payload of one packet to the guest, in bytes.
    ///
    /// Range: 1 byte to 64 KiB. Default: 64 KiB.
    max_payload: u32 = 64 * 1024,

    /// Sets the maximum length of a seqpacket message in either direction, in bytes.
    ///
    /// Range: at least 1. Default: 256 KiB.
    ///
    /// A message must fit into the receiver's buffer as a whole, so the effective limit is never
    /// above [`buf_alloc`](Self::buf_alloc). The guest learns only `buf_alloc`: if a guest program
    /// sends a message longer than that, its own call fails, whereas a message that exceeds only
    /// this limit ends the connection.
    max_message: u32 = 256 * 1024,

    /// Sets how many empty seqpacket messages may wait for the host on one connection.
    ///
    /// Default: 1,024. One more ends the connection; with 0, the first one does.
    max_empty_messages: u32 = 1024,

    /// Sets the assumed cost of each unacknowledged packet in the guest's buffer, in bytes.
    ///
    /// Default: 1,024, well above what Linux charges. With 0, the number of packets is not bounded.
    packet_overhead: u32 = 1024,

    /// Sets how many connections may exist at a time.
    ///
    /// Range: at least 1. Default: 16,384.
    ///
    /// Each connection has a descriptor. Keep the limits of all devices of a process together below
    /// its `RLIMIT_NOFILE`; otherwise, one guest can use up the descriptors of all others.
    ///
    /// Siblings may begin at most half of these connections, rounded up, so that they cannot
    /// prevent the host from reaching the guest.
    max_connections: usize = 16_384,

    /// Sets how many host clients may be connected without having sent a complete command.
    ///
    /// Default: 1,024. With 0, the device serves only clients that pass the port out of band, as
    /// `connect_to` of `vsock-inner` does.
    ///
    /// When another client arrives at this limit, an existing one is closed to make room: the
    /// oldest of those that have sent nothing, or, if more than half of them have sent part of a
    /// command, the one of these that started first. A client whose command is already available
    /// when it is accepted closes none.
    ///
    /// A client is therefore certain to be served if it starts to send before half as many others
    /// connect, and finishes before half as many others start to send. Raise the limit if clients
    /// are slow and many users can open the socket.
    max_handshakes: usize = 1024,

    /// Sets how many connections of the guest may wait for busy host components.
    ///
    /// Default: 1,024. A connection above the limit is refused with an RST; with 0, all of them
    /// are.
    ///
    /// The device asks a busy backend for a stream up to ten times a second, and whenever another
    /// connection arrives.
    max_accepting: usize = 1024,

    /// Sets how many RSTs may be pending for packets that belong to no connection.
    ///
    /// Range: at least 1. Default: 1,024. At the limit, the device takes no more packets from the
    /// guest until it has sent one.
    max_resets: usize = 1024,

    /// Sets the host ports of host-initiated connections.
    ///
    /// Range: not empty. Default: 2^30 to 2^31 - 1.
    host_ports: Range<u32> = 1 << 30..1 << 31,

    /// Sets how long a host client may take to send its command.
    ///
    /// Default: 5 s. With 0, the command must be available when the client is accepted.
    command_timeout: Duration = Duration::from_secs(5),

    /// Sets how long a REQUEST or a RESPONSE may wait for a buffer of the guest, which provides
    /// none while it boots.
    ///
    /// Range: more than 0. Default: 3 s. The time starts when the packet becomes pending.
    deliver_timeout: Duration = Duration::from_secs(3),

    /// Sets how long a REQUEST may wait for its answer.
    ///
    /// Range: more than 0. Default: 2 s. The time starts when the guest receives the REQUEST, or,
    /// for a connection of the guest, when its REQUEST arrives.
    ///
    /// A host client with its own timeout, such as `VsockInnerConfig::connect_timeout` of
    /// `vsock-inner`, learns that the guest does not answer only if that timeout is longer than
    /// this one and [`deliver_timeout`](Self::deliver_timeout) together. Otherwise, its own timeout
    /// expires first.
    response_timeout: Duration = Duration::from_secs(2),

    /// Sets how long the host may go without reading what the guest sent before it closed.
    ///
    /// Default: 30 s. The time starts again whenever the host reads. When it expires, the remaining
    /// bytes are lost and the host's stream is reset. With 0, any bytes that the host does not
    /// accept immediately are lost.
    linger_timeout: Duration = Duration::from_secs(30),

    /// Sets how long a connection that the host has closed waits for the guest's RST before the
    /// device sends one itself.
    ///
    /// Default: 8 s, as in Linux. With 0, it does not wait.
    close_timeout: Duration = Duration::from_secs(8),

    /// Sets the first interval after which a guest that gives no credit is asked again.
    ///
    /// Range: at least 1 ms. Default: 20 ms. The interval doubles each time, up to 64 times this
    /// value.
    ///
    /// On a stream, one packet more than the guest is assumed to have room for is sent each time as
    /// well.
    probe_interval: Duration = Duration::from_millis(20),
}

/// The limits and timeouts of a device, checked for validity.
///
/// [`max_connections`](Self::max_connections) times [`buf_alloc`](Self::buf_alloc) bounds the
/// memory that a guest can make the host allocate. Usage reaches this bound only if that many host
/// components do not read at all. Each waiting seqpacket message needs four more bytes, whatever
/// its length.
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
pub struct Config(ConfigBuilder);

impl Config {
    /// Returns a builder with the default settings.
    #[must_use]
    pub fn builder() -> ConfigBuilder {
        ConfigBuilder::default()
    }
}

/// The largest `buf_alloc`.
const MAX_BUF_ALLOC: u32 = 1 << 30;
/// The largest payload of one packet. A Linux guest neither sends nor accepts a larger one.
const MAX_PAYLOAD: u32 = 64 * 1024;

impl ConfigBuilder {
    /// Checks the settings and builds the configuration.
    ///
    /// # Errors
    ///
    /// Returns the first setting that is out of range.
    pub fn build(mut self) -> Result<Config, ConfigError> {
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
        if self.response_timeout.is_zero() {
            return Err(ConfigError::ResponseTimeout);
        }
        if self.probe_interval < Duration::from_millis(1) {
            return Err(ConfigError::ProbeInterval(self.probe_interval));
        }
        self.max_message = self.max_message.min(self.buf_alloc);
        Ok(Config(self))
    }
}

/// A setting that is out of range.
#[derive(Clone, Debug, Eq, Error, PartialEq)]
#[non_exhaustive]
pub enum ConfigError {
    /// See [`ConfigBuilder::buf_alloc`].
    #[error("invalid receive buffer of {0} bytes: expected 1 byte to 1 GiB")]
    BufAlloc(u32),
    /// See [`ConfigBuilder::max_payload`].
    #[error("invalid maximum payload of {0} bytes: expected 1 byte to 64 KiB")]
    MaxPayload(u32),
    /// See [`ConfigBuilder::max_message`].
    #[error("invalid maximum message length of 0 bytes: expected at least 1")]
    MaxMessage,
    /// See [`ConfigBuilder::max_connections`].
    #[error("invalid limit of {0} connections: expected 1 to 2^32 - 1")]
    MaxConnections(usize),
    /// See [`ConfigBuilder::max_resets`].
    #[error("invalid limit of 0 pending RSTs: expected at least 1")]
    MaxResets,
    /// See [`ConfigBuilder::host_ports`].
    #[error("invalid range of host ports {0:?}: expected at least one port")]
    HostPorts(Range<u32>),
    /// See [`ConfigBuilder::deliver_timeout`].
    #[error("invalid deliver timeout of 0: expected more than 0")]
    DeliverTimeout,
    /// See [`ConfigBuilder::response_timeout`].
    #[error("invalid response timeout of 0: expected more than 0")]
    ResponseTimeout,
    /// See [`ConfigBuilder::probe_interval`].
    #[error("invalid probe interval of {0:?}: expected at least 1 ms")]
    ProbeInterval(Duration),
}
