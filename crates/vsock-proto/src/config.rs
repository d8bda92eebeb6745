// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

use core::ops::Range;
use core::time::Duration;

use thiserror::Error;

/// The settings, each with its documentation and its default: fields and setters of
/// [`ConfigBuilder`], and getters of [`Config`].
macro_rules! settings {
    ($($(#[$doc:meta])* $name:ident: $type:ty = $default:expr,)*) => {
        /// Makes a [`Config`]. What is not set keeps its default.
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
                #[doc = concat!("See [`ConfigBuilder::", stringify!($name), "`].")]
                #[must_use]
                pub fn $name(&self) -> $type {
                    Clone::clone(&self.0.$name)
                }
            )*
        }
    };
}

settings! {
    /// Bytes that the guest may send on one connection before the host has taken them: 1 to 1 GiB,
    /// default 256 KiB, as much as a Linux socket has. Memory is used only for what waits.
    buf_alloc: u32 = 256 * 1024,

    /// Bytes of payload in one packet to the guest: 1 to 64 KiB, default 64 KiB.
    max_payload: u32 = 64 * 1024,

    /// Bytes of one seqpacket message, either way: at least 1, default 256 KiB. A message must fit
    /// into the receiver's buffer, or it could never arrive whole, so `buf_alloc` limits it too. A
    /// guest knows of `buf_alloc` alone: a longer message than that is an error of its call, one
    /// that only this limit forbids ends the connection.
    max_message: u32 = 256 * 1024,

    /// Empty seqpacket messages that may wait for the host on one connection: default 1,024. One
    /// more ends the connection; with 0, the first does.
    max_empty_messages: u32 = 1024,

    /// Bytes of the guest's buffer that each unacknowledged packet is taken to cost: default 1,024,
    /// well over what Linux charges; 0 leaves the number of packets unbounded.
    packet_overhead: u32 = 1024,

    /// Connections that may exist at a time: at least 1, default 16,384. Each has a descriptor:
    /// keep the limits of all devices together below the process's `RLIMIT_NOFILE`, or one guest
    /// can use up everyone's descriptors.
    ///
    /// Other guests may have begun at most half of them, rounded up, so that they cannot keep the
    /// host from reaching the guest.
    max_connections: usize = 16_384,

    /// Host clients that may be connected without having sent their command: default 1,024. With 0,
    /// only those are served that name their port out of band, as `connect_to` of `vsock-inner`
    /// does.
    ///
    /// One more closes another: the oldest of those that have said nothing; or, where those that
    /// have said a part of their command are more than half of them, the one of these that began
    /// first. A client whose command is there when it is accepted closes none. So a client is sure
    /// to be heard if it speaks before half as many others come, and is whole before half as many
    /// others begin to speak: make the number larger where clients are slow and the socket is open
    /// to a crowd.
    max_handshakes: usize = 1024,

    /// Connections of the guest that may wait for busy host components, each of which is asked for
    /// a stream up to ten times a second, and whenever another comes: default 1,024. One more is
    /// refused with an RST; with 0, all are.
    max_accepting: usize = 1024,

    /// RSTs that may be owed to packets without a connection, before no packet of the guest is
    /// taken any more: at least 1, default 1,024.
    max_resets: usize = 1024,

    /// The host ports of host-initiated connections: not empty, default 2^30 up to 2^31.
    host_ports: Range<u32> = 1 << 30..1 << 31,

    /// How long a host client may take to send its command: default 5 s. With 0, it must have sent
    /// it by the time it is accepted.
    command_timeout: Duration = Duration::from_secs(5),

    /// How long a REQUEST or a RESPONSE may wait for a buffer of the guest, which posts none while
    /// it boots: more than 0, default 3 s. It counts from the moment the packet is owed.
    deliver_timeout: Duration = Duration::from_secs(3),

    /// How long a REQUEST may wait for its answer: more than 0, default 2 s. For the guest's answer
    /// it counts from delivery of the REQUEST, for a host component's from its arrival.
    ///
    /// A host client with a time limit of its own, such as `VsockInnerConfig::connect_timeout` of
    /// `vsock-inner`, learns that the guest is silent if that is longer than this and
    /// [`deliver_timeout`](Self::deliver_timeout) together; else it gives up first.
    response_timeout: Duration = Duration::from_secs(2),

    /// How long the host may take nothing of what a guest sent before it closed: default 30 s. It
    /// counts from the last byte that the host took; what is left then is lost, and the host's
    /// stream is reset. With 0, what it has not taken by then is lost.
    linger_timeout: Duration = Duration::from_secs(30),

    /// How long a connection that the host has closed waits for the guest's RST before it sends one
    /// itself: default 8 s, as in Linux. With 0, it does not wait.
    close_timeout: Duration = Duration::from_secs(8),

    /// How long to wait before a guest is asked for credit again, and sent one packet of a stream
    /// more than it is taken to have room for, the first time: at least 1 ms, default 20 ms. The
    /// time doubles each time, up to 64 times as much.
    probe_interval: Duration = Duration::from_millis(20),
}

/// Every limit and every timeout of a device, checked.
///
/// The memory that a guest can make the host hold is bounded by
/// [`max_connections`](Self::max_connections) times [`buf_alloc`](Self::buf_alloc), and reaches
/// that only if as many host components do not read at all. A seqpacket message that waits costs
/// four bytes more, however short it is.
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
    /// Begins with the defaults.
    #[must_use]
    pub fn builder() -> ConfigBuilder {
        ConfigBuilder::default()
    }
}

/// The largest buffer that may be promised.
const MAX_BUF_ALLOC: u32 = 1 << 30;
/// The largest payload of one packet (a Linux guest sends and takes no more either).
const MAX_PAYLOAD: u32 = 64 * 1024;

impl ConfigBuilder {
    /// Checks the values.
    ///
    /// # Errors
    ///
    /// The first that is out of its range.
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
    /// See [`ConfigBuilder::response_timeout`].
    #[error("a response timeout of zero: no host client could connect")]
    ResponseTimeout,
    /// See [`ConfigBuilder::probe_interval`].
    #[error("a probe interval of {0:?} is shorter than 1 ms")]
    ProbeInterval(Duration),
}
