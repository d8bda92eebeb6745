// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! How much a guest and host processes may use, and how long they may take: the settings of
//! [`Config`].

use std::ops::Range;
use std::time::Duration;

use clap::Args as ClapArgs;
use vsock_vhost_user::{Config, ConfigError};

use super::units::{UnitError, duration, number, size};

const NONE: Duration = Duration::ZERO;
const SHORTEST: Duration = Duration::from_micros(1);
const MILLISECOND: Duration = Duration::from_millis(1);

/// The settings that are options: each has the name of its setter.
macro_rules! limits {
    ($($(#[$meta:meta])* $name:ident: $type:ty,)*) => {
        /// Those that were given.
        #[derive(Clone, Debug, Default, Eq, PartialEq, ClapArgs)]
        #[command(next_help_heading = "Limits and timeouts, for all guests or as a key of one")]
        pub(crate) struct Limits {
            $(
                $(#[$meta])*
                #[arg(long)]
                $name: Option<$type>,
            )*
        }

        impl Limits {
            /// These, and those of `others` that are not among them.
            pub(super) fn or(self, others: &Self) -> Self {
                Self {
                    $($name: self.$name.or_else(|| others.$name.clone()),)*
                }
            }

            /// The settings; what is not given has its default, and a message may be as long as
            /// what a guest may have under way.
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
    /// Bytes that a guest may send on one connection before the host process has read them
    /// [default: 256KiB]
    #[arg(visible_alias = "tx-buffer-size", value_name = "SIZE", value_parser = size(1..=1 << 30))]
    buf_alloc: u32,

    /// Bytes of one packet to the guest [default: 64KiB]
    #[arg(value_name = "SIZE", value_parser = size(1..=64 << 10))]
    max_payload: u32,

    /// Bytes of one message, either way; --buf-alloc limits it too [default: as --buf-alloc]
    #[arg(value_name = "SIZE", value_parser = size(1..=u32::MAX))]
    max_message: u32,

    /// Empty messages that may wait for the host process on one connection [default: 1024]
    #[arg(value_name = "N", value_parser = number::<u32>(0..=u32::MAX))]
    max_empty_messages: u32,

    /// Bytes that each packet is taken to cost the guest besides its payload; 0 leaves the number
    /// of packets without a limit [default: 1KiB]
    #[arg(value_name = "SIZE", value_parser = size(0..=u32::MAX))]
    packet_overhead: u32,

    /// Connections that one guest may have at a time, both ways together; other guests may begin
    /// half of them [default: 16384]
    #[arg(value_name = "N", value_parser = number::<usize>(1..=u32::MAX))]
    max_connections: usize,

    /// Host clients of one guest that may be connected without having sent CONNECT; one more closes
    /// another [default: 1024]
    #[arg(value_name = "N", value_parser = number::<usize>(0..=u32::MAX))]
    max_handshakes: usize,

    /// Connections of one guest that may wait for host processes whose backlog is full [default:
    /// 1024]
    #[arg(value_name = "N", value_parser = number::<usize>(0..=u32::MAX))]
    max_accepting: usize,

    /// RSTs that may wait for a buffer of the guest before none of its packets is taken any more
    /// [default: 1024]
    #[arg(value_name = "N", value_parser = number::<usize>(1..=u32::MAX))]
    max_resets: usize,

    /// The host ports of connections that host processes begin [default: 1073741824-2147483647]
    #[arg(value_name = "FIRST-LAST", value_parser = ports)]
    host_ports: Range<u32>,

    /// How long a host client may take to send CONNECT; with 0s, it must have sent it when it is
    /// accepted [default: 5s]
    #[arg(value_name = "TIME", value_parser = duration(NONE))]
    command_timeout: Duration,

    /// How long a connection may wait for a buffer of a guest that is booting [default: 3s]
    #[arg(value_name = "TIME", value_parser = duration(SHORTEST))]
    deliver_timeout: Duration,

    /// How long a connection may wait for the answer of the guest, or of a host process [default:
    /// 2s]
    #[arg(value_name = "TIME", value_parser = duration(SHORTEST))]
    response_timeout: Duration,

    /// How long a host process may read nothing of what a guest sent before it closed; then the
    /// rest is lost [default: 30s]
    #[arg(value_name = "TIME", value_parser = duration(NONE))]
    linger_timeout: Duration,

    /// How long a connection that the host has closed waits for the guest to close it [default: 8s]
    #[arg(value_name = "TIME", value_parser = duration(NONE))]
    close_timeout: Duration,

    /// How long to wait before a guest without credit is asked for it again; it doubles each time,
    /// up to 64 times as much [default: 20ms]
    #[arg(value_name = "TIME", value_parser = duration(MILLISECOND))]
    probe_interval: Duration,
}

/// The ports from the first to the last.
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

    /// The limits of these options.
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
    fn what_the_options_let_through_can_be_built() {
        let edges = "--buf-alloc=1 --buf-alloc=1G --max-payload=1 --max-payload=64K --max-message=1 \
             --max-connections=1 --max-connections=4294967295 --max-handshakes=0 --max-accepting=0 \
             --max-resets=1 --host-ports=0-4294967294 --deliver-timeout=1us --response-timeout=1us \
             --probe-interval=1ms --linger-timeout=5000000h --packet-overhead=4294967295";
        for option in edges.split_whitespace() {
            let limits = limits(&[option.to_owned()]).unwrap();
            assert!(limits.config().is_ok(), "{option}");
        }
        let beyond = "--buf-alloc=0 --buf-alloc=1025M --max-payload=0 --max-payload=65K --max-message=0 \
             --max-connections=0 --max-resets=0 --host-ports=5-4 --host-ports=0-4294967295 \
             --host-ports=7 --deliver-timeout=0s --response-timeout=0s --probe-interval=999us";
        for option in beyond.split_whitespace() {
            let refused = limits(&[option.to_owned()]).unwrap_err().to_string();
            let name = option.split('=').next().unwrap();
            assert!(refused.contains(name), "{refused}");
            assert!(refused.contains("expected"), "{refused}");
        }
    }

    #[test]
    fn what_one_guest_has_goes_before_what_all_have() {
        let one = limits(&["--buf-alloc=1".to_owned()]).unwrap();
        let all = ["--buf-alloc=2".to_owned(), "--max-resets=3".to_owned()];
        let config = one.or(&limits(&all).unwrap()).config().unwrap();
        assert_eq!((config.buf_alloc(), config.max_resets()), (1, 3));
    }
}
