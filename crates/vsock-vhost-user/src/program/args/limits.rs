// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Options for the limits and timeouts of a device: the settings of [`Config`].

use std::ops::Range;
use std::time::Duration;

use clap::Args as ClapArgs;
use vsock_vhost_user::{Config, ConfigError};

use super::units::{UnitError, duration, number, size};

const NONE: Duration = Duration::ZERO;
const SHORTEST: Duration = Duration::from_micros(1);
const MILLISECOND: Duration = Duration::from_millis(1);

/// Defines an option for each setting. An option has the name of its setter in the builder.
macro_rules! limits {
    ($($(#[$meta:meta])* $name:ident: $type:ty,)*) => {
        /// Limits and timeouts, as given.
        #[derive(Clone, Debug, Default, Eq, PartialEq, ClapArgs)]
        #[command(next_help_heading = "Limits and timeouts (for all guests, or keys of --vm)")]
        pub(crate) struct Limits {
            $(
                $(#[$meta])*
                #[arg(long)]
                $name: Option<$type>,
            )*
        }

        impl Limits {
            /// Fills in the options that are missing here from `others`.
            pub(super) fn or(self, others: &Self) -> Self {
                Self {
                    $($name: self.$name.or_else(|| others.$name.clone()),)*
                }
            }

            /// Returns the settings, with defaults for the options that are missing. The default
            /// for the length of a message is `buf_alloc`: a longer one could never be assembled.
            pub(super) fn config(&self) -> Result<Config, ConfigError> {
                let mut builder = Config::builder();
                let default = Config::default().buf_alloc();
                builder = builder.max_message(self.buf_alloc.unwrap_or(default));
                $(
                    if let Some(value) = self.$name.clone() {
                        builder = builder.$name(value);
                    }
                )*
                builder.build()
            }
        }
    };
}

limits! {
    /// The bytes that a guest may send on a connection before the host process reads them [default:
    /// 256KiB]
    #[arg(visible_alias = "tx-buffer-size", value_name = "SIZE", value_parser = size(1..=1 << 30))]
    buf_alloc: u32,

    /// The maximum payload of a packet to the guest [default: 64KiB]
    #[arg(value_name = "SIZE", value_parser = size(1..=64 << 10))]
    max_payload: u32,

    /// The maximum length of a message in either direction; --buf-alloc limits it too [default: as
    /// --buf-alloc]
    #[arg(value_name = "SIZE", value_parser = size(1..=u32::MAX))]
    max_message: u32,

    /// The empty messages that can wait for the host process on a connection [default: 1024]
    #[arg(value_name = "N", value_parser = number::<u32>(0..=u32::MAX))]
    max_empty_messages: u32,

    /// The guest memory that each packet is assumed to need in addition to its payload; 0 does not
    /// limit the number of packets [default: 1KiB]
    #[arg(value_name = "SIZE", value_parser = size(0..=u32::MAX))]
    packet_overhead: u32,

    /// The maximum number of a guest's connections, whichever side opened them; other guests can
    /// open half of them [default: 16384]
    #[arg(value_name = "N", value_parser = number::<usize>(1..=u32::MAX))]
    max_connections: usize,

    /// The maximum number of a guest's host clients that have not sent CONNECT; another client
    /// displaces one of them [default: 1024]
    #[arg(value_name = "N", value_parser = number::<usize>(0..=u32::MAX))]
    max_handshakes: usize,

    /// The maximum number of a guest's connections that wait for host processes with a full backlog
    /// [default: 1024]
    #[arg(value_name = "N", value_parser = number::<usize>(0..=u32::MAX))]
    max_accepting: usize,

    /// The resets that can wait for the guest to provide buffers; at this number, the device stops
    /// reading the guest's packets [default: 1024]
    #[arg(value_name = "N", value_parser = number::<usize>(1..=u32::MAX))]
    max_resets: usize,

    /// The host ports for connections that host processes open [default: 1073741824-2147483647]
    #[arg(value_name = "FIRST-LAST", value_parser = ports)]
    host_ports: Range<u32>,

    /// How long a host client can take to send CONNECT; 0s accepts only clients that have already
    /// sent it [default: 5s]
    #[arg(value_name = "TIME", value_parser = duration(NONE))]
    command_timeout: Duration,

    /// How long a connection waits for a booting guest to provide a buffer [default: 3s]
    #[arg(value_name = "TIME", value_parser = duration(SHORTEST))]
    deliver_timeout: Duration,

    /// How long a connection waits for the guest or a host process to answer [default: 2s]
    #[arg(value_name = "TIME", value_parser = duration(SHORTEST))]
    response_timeout: Duration,

    /// How long a host process can go without reading after the guest has closed the connection;
    /// after that the unread bytes are lost [default: 30s]
    #[arg(value_name = "TIME", value_parser = duration(NONE))]
    linger_timeout: Duration,

    /// How long a connection closed by the host waits for the guest to close it too [default: 8s]
    #[arg(value_name = "TIME", value_parser = duration(NONE))]
    close_timeout: Duration,

    /// The first pause before asking a guest for credit again; it doubles each time, up to 64 times
    /// this length [default: 20ms]
    #[arg(value_name = "TIME", value_parser = duration(MILLISECOND))]
    probe_interval: Duration,
}

/// Parses `FIRST-LAST`, which includes both ports.
fn ports(text: &str) -> Result<Range<u32>, UnitError> {
    let port = number::<u32>(0..=u32::MAX - 1);
    let (first, last) = text.split_once('-').ok_or(UnitError::Ports)?;
    let (first, last) = (port(first), port(last));
    match (first, last) {
        (Ok(first), Ok(last)) if first <= last => Ok(first..last + 1),
        _ => Err(UnitError::Ports),
    }
}

#[cfg(test)]
mod tests {
    use clap::{Args as _, Command};

    use super::*;

    /// Parses these options.
    fn limits(options: &[String]) -> Result<Limits, clap::Error> {
        let command = Limits::augment_args(Command::new("limits").no_binary_name(true));
        let matches = command.try_get_matches_from(options)?;
        <Limits as clap::FromArgMatches>::from_arg_matches(&matches)
    }

    #[test]
    fn the_help_has_the_defaults() {
        let command = Limits::augment_args(Command::new("limits"));
        let default = |help: String| {
            let (_, default) = help.split_once("[default: ").expect("a default");
            default
                .trim_end_matches(']')
                .replace("as --buf-alloc", "256KiB")
        };
        let options: Vec<_> = command
            .get_arguments()
            .map(|arg| {
                let help = default(arg.get_help().expect("a help").to_string());
                format!("--{}={help}", arg.get_long().expect("an option"))
            })
            .collect();
        assert_eq!(options.len(), 16);
        let given = limits(&options).unwrap();
        assert_eq!(given.config(), Ok(Config::default()), "{options:?}");
    }

    #[test]
    fn each_option_sets_its_limit() {
        let lists = [
            "--buf-alloc=1M --max-payload=4K --max-message=2K --max-empty-messages=5",
            "--packet-overhead=0 --max-connections=6 --max-handshakes=7 --max-accepting=8",
            "--max-resets=9 --host-ports=5-5 --command-timeout=0s --deliver-timeout=1us",
            "--response-timeout=10ms --linger-timeout=11s --close-timeout=12min",
            "--probe-interval=1h",
        ];
        let options: Vec<_> = lists.join(" ").split(' ').map(str::to_owned).collect();
        let expected = Config::builder()
            .buf_alloc(1 << 20)
            .max_payload(4096)
            .max_message(2048)
            .max_empty_messages(5)
            .packet_overhead(0)
            .max_connections(6)
            .max_handshakes(7)
            .max_accepting(8)
            .max_resets(9)
            .host_ports(5..6)
            .command_timeout(NONE)
            .deliver_timeout(SHORTEST)
            .response_timeout(Duration::from_millis(10))
            .linger_timeout(Duration::from_secs(11))
            .close_timeout(Duration::from_secs(720))
            .probe_interval(Duration::from_secs(3600));
        assert_eq!(limits(&options).unwrap().config(), expected.build());
    }

    #[test]
    fn every_accepted_value_can_be_built() {
        let edges = "--buf-alloc=1 --buf-alloc=1G --max-payload=1 --max-payload=64K \
             --max-message=1 --max-connections=1 --max-connections=4294967295 --max-handshakes=0 \
             --max-accepting=0 --max-resets=1 --host-ports=0-4294967294 --deliver-timeout=1us \
             --response-timeout=1us --probe-interval=1ms --linger-timeout=5000000h \
             --packet-overhead=4294967295";
        for option in edges.split_whitespace() {
            let limits = limits(&[option.to_owned()]).unwrap();
            assert!(limits.config().is_ok(), "{option}");
        }
        let beyond = "--buf-alloc=0 --buf-alloc=1025M --max-payload=0 --max-payload=65K \
             --max-message=0 --max-connections=0 --max-resets=0 --host-ports=5-4 \
             --host-ports=0-4294967295 --host-ports=7 --deliver-timeout=0s --response-timeout=0s \
             --probe-interval=999us";
        for option in beyond.split_whitespace() {
            let refused = limits(&[option.to_owned()]).unwrap_err().to_string();
            let name = option.split('=').next().unwrap();
            assert!(refused.contains(name), "{refused}");
            assert!(refused.contains("expected"), "{refused}");
        }
    }

    #[test]
    fn a_guests_own_limits_override_those_for_all() {
        let one = limits(&["--buf-alloc=1".to_owned()]).unwrap();
        let all = ["--buf-alloc=2".to_owned(), "--max-resets=3".to_owned()];
        let config = one.or(&limits(&all).unwrap()).config().unwrap();
        assert_eq!((config.buf_alloc(), config.max_resets()), (1, 3));
    }
}
