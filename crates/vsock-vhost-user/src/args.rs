// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! The command line: its grammar and its checks, nothing else.

use std::collections::BTreeSet;
use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;

use clap::builder::{PossibleValuesParser, TypedValueParser};
use clap::{Args as ClapArgs, Parser};
use log::LevelFilter;
use thiserror::Error;

use crate::names::SocketNames;

/// A vsock device for virtual machines, outside of the VMM.
///
/// The VMM connects to SOCKET and shares the guest's memory. A host process reaches port P of the
/// guest by connecting to UDS_PATH and writing "CONNECT P\n"; it reads "OK <port>\n" once the guest
/// has accepted. A host process that serves port P for the guest listens on UDS_PATH with "_P" behind
/// it.
///
/// Messages go over SOCK_SEQPACKET sockets: to reach the guest, UDS_PATH with "_seqpacket" behind it,
/// where the command is the first message; to serve a port, the same name as for streams.
///
/// When the VMM goes away, the next one is served. SIGTERM and SIGINT end the program and remove its
/// sockets.
#[expect(clippy::doc_markdown, reason = "the text of --help")]
#[derive(Debug, Parser)]
#[command(
    name = "vsock-vhost-user",
    version,
    after_help = "\
QEMU, with the guest's memory shared:
  -object memory-backend-memfd,id=mem,size=512M,share=on -machine q35,memory-backend=mem \\
  -chardev socket,id=vsock,path=SOCKET -device vhost-user-vsock-pci,chardev=vsock

Exit codes: 0 ended by a signal, 1 failed, 2 wrong arguments."
)]
pub(crate) struct Args {
    #[command(flatten)]
    one: Option<One>,

    /// One virtual machine of several: guest-cid=N,socket=PATH,uds-path=PATH, and if it is to differ
    /// from the others buf-alloc=BYTES, queue-size=N and sealed-memory=true or false
    #[arg(long = "vm", value_name = "KEY=VALUE,...", conflicts_with = "One")]
    many: Vec<Vm>,

    /// Bytes that a guest may send on one connection before the host process has read them
    #[arg(
        long,
        visible_alias = "tx-buffer-size",
        value_name = "BYTES",
        default_value_t = 256 * 1024
    )]
    pub(crate) buf_alloc: u32,

    /// Connections that one guest may have at a time, both ways together
    #[arg(long, value_name = "N", default_value_t = 16_384)]
    pub(crate) max_connections: usize,

    /// The longest queue that a VMM may set up, a power of two
    #[arg(long, value_name = "N", default_value_t = 1024)]
    pub(crate) queue_size: u16,

    /// Serve no VMM whose memory may shrink while it is used, which would kill this program: QEMU's
    /// must have seal=on
    #[arg(long)]
    pub(crate) sealed_memory: bool,

    /// Microseconds for which a guest's thread looks for more after it has moved something, before it sleeps;
    /// 0 turns it off
    #[arg(long, value_name = "N", default_value_t = 20)]
    pub(crate) poll_us: u32,

    /// What to write to standard error: off, error, warn, info, debug, trace. Without it, RUST_LOG
    /// says, and otherwise it is info
    #[arg(long, value_name = "LEVEL", value_parser = level(), ignore_case = true, hide_possible_values = true)]
    pub(crate) log_level: Option<LevelFilter>,
}

#[derive(Clone, Debug, ClapArgs)]
#[group(requires_all = ["guest_cid", "socket", "uds_path"], multiple = true)]
struct One {
    /// The guest's CID, from 3
    #[arg(long, value_name = "N", required = false)]
    guest_cid: u64,

    /// Where to listen for the VMM
    #[arg(long, value_name = "PATH", required = false)]
    socket: PathBuf,

    /// Where to listen for host processes that want to reach the guest
    #[arg(long, value_name = "PATH", required = false)]
    uds_path: PathBuf,
}

/// One virtual machine.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) struct Vm {
    pub(crate) guest_cid: u64,
    pub(crate) socket: PathBuf,
    pub(crate) uds_path: PathBuf,
    /// Instead of what the program's options say for all.
    pub(crate) buf_alloc: Option<u32>,
    pub(crate) queue_size: Option<u16>,
    pub(crate) sealed_memory: Option<bool>,
}

/// What is wrong with the value of `--vm`.
#[derive(Clone, Debug, Eq, Error, PartialEq)]
pub(crate) enum VmError {
    #[error("a part is no KEY=VALUE")]
    NoValue,
    #[error(
        "unknown key; there are guest-cid, socket, uds-path, buf-alloc (or tx-buffer-size), queue-size and \
         sealed-memory"
    )]
    UnknownKey,
    #[error("{0} is given twice")]
    Twice(&'static str),
    #[error("{0} is missing")]
    Missing(&'static str),
    #[error("{0} is no number, or too large")]
    NoNumber(&'static str),
    #[error("{0} is neither true nor false")]
    NoTruth(&'static str),
}

/// What is wrong with the arguments as a whole.
#[derive(Clone, Debug, Eq, Error, PartialEq)]
pub(crate) enum ArgsError {
    #[error("no virtual machine: give --guest-cid, --socket and --uds-path, or --vm")]
    NoVm,
    #[error("two virtual machines have the guest CID {0}; each needs its own")]
    SameCid(u64),
    #[error("{0}, and {1}: one name for two sockets; give one of them another name or directory")]
    SameName(SocketUse, SocketUse),
}

impl FromStr for Vm {
    type Err = VmError;

    fn from_str(text: &str) -> Result<Self, VmError> {
        let (mut guest_cid, mut socket, mut uds_path) = (None, None, None);
        let (mut buf_alloc, mut queue_size, mut sealed) = (None, None, None);
        for part in text.split(',') {
            let (key, value) = part.split_once('=').ok_or(VmError::NoValue)?;
            let (name, slot) = match key {
                "guest-cid" => ("guest-cid", &mut guest_cid),
                "socket" => ("socket", &mut socket),
                "uds-path" => ("uds-path", &mut uds_path),
                "buf-alloc" | "tx-buffer-size" => ("buf-alloc", &mut buf_alloc),
                "queue-size" => ("queue-size", &mut queue_size),
                "sealed-memory" => ("sealed-memory", &mut sealed),
                _ => return Err(VmError::UnknownKey),
            };
            if slot.replace(value).is_some() {
                return Err(VmError::Twice(name));
            }
        }
        let guest_cid = guest_cid.ok_or(VmError::Missing("guest-cid"))?;
        Ok(Self {
            guest_cid: number("guest-cid", guest_cid)?,
            socket: socket.ok_or(VmError::Missing("socket"))?.into(),
            uds_path: uds_path.ok_or(VmError::Missing("uds-path"))?.into(),
            buf_alloc: buf_alloc
                .map(|text| number("buf-alloc", text))
                .transpose()?,
            queue_size: queue_size
                .map(|text| number("queue-size", text))
                .transpose()?,
            sealed_memory: sealed
                .map(|text| text.parse().map_err(|_| VmError::NoTruth("sealed-memory")))
                .transpose()?,
        })
    }
}

/// A socket that a virtual machine needs for itself.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) struct SocketUse {
    cid: u64,
    path: PathBuf,
    what: &'static str,
}

impl fmt::Display for SocketUse {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { cid, path, what } = self;
        write!(f, "guest {cid} has {} ({what})", path.display())
    }
}

impl Vm {
    fn sockets(&self) -> [(SocketNames, SocketUse); 4] {
        let with = |suffix: &str| {
            let mut path = self.uds_path.clone().into_os_string();
            path.push(suffix);
            PathBuf::from(path)
        };
        let used = |path: PathBuf, what| SocketUse {
            cid: self.guest_cid,
            path,
            what,
        };
        let one = |path: PathBuf, what| (SocketNames::one(&path), used(path, what));
        [
            one(self.socket.clone(), "socket"),
            one(self.uds_path.clone(), "uds-path"),
            one(with("_seqpacket"), "uds-path, for messages"),
            (
                SocketNames::each_port(&self.uds_path),
                used(with("_PORT"), "uds-path and any port"),
            ),
        ]
    }
}

fn number<N: FromStr>(key: &'static str, text: &str) -> Result<N, VmError> {
    text.parse().map_err(|_| VmError::NoNumber(key))
}

/// The levels by name, so that a wrong one is answered with those that there are.
fn level() -> impl TypedValueParser<Value = LevelFilter> {
    let names = ["off", "error", "warn", "info", "debug", "trace"];
    PossibleValuesParser::new(names).try_map(|name| name.parse::<LevelFilter>())
}

impl Args {
    /// The virtual machines, of which no two share anything.
    pub(crate) fn vms(&self) -> Result<Vec<Vm>, ArgsError> {
        let one = self.one.iter().map(|one| Vm {
            guest_cid: one.guest_cid,
            socket: one.socket.clone(),
            uds_path: one.uds_path.clone(),
            buf_alloc: None,
            queue_size: None,
            sealed_memory: None,
        });
        let vms: Vec<Vm> = one.chain(self.many.iter().cloned()).collect();
        if vms.is_empty() {
            return Err(ArgsError::NoVm);
        }
        let mut cids = BTreeSet::new();
        for vm in &vms {
            if !cids.insert(vm.guest_cid) {
                return Err(ArgsError::SameCid(vm.guest_cid));
            }
        }
        let sockets: Vec<_> = vms.iter().flat_map(Vm::sockets).collect();
        for (at, (names, used)) in sockets.iter().enumerate() {
            let mut before = sockets[..at].iter();
            if let Some((_, other)) = before.find(|(other, _)| other.overlaps(names)) {
                return Err(ArgsError::SameName(other.clone(), used.clone()));
            }
        }
        Ok(vms)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ONE: [&str; 6] = ["--guest-cid", "3", "--socket", "/s", "--uds-path", "/u"];

    fn parse(args: &[&str]) -> Result<Args, clap::Error> {
        Args::try_parse_from([&["vsock-vhost-user"], args].concat())
    }

    fn vm(guest_cid: u64, socket: &str, uds_path: &str) -> Vm {
        Vm {
            guest_cid,
            socket: socket.into(),
            uds_path: uds_path.into(),
            buf_alloc: None,
            queue_size: None,
            sealed_memory: None,
        }
    }

    #[test]
    fn one_machine_has_options_of_its_own() {
        assert_eq!(parse(&ONE).unwrap().vms(), Ok(vec![vm(3, "/s", "/u")]));
    }

    #[test]
    fn a_part_of_the_options_is_refused() {
        let vm = ["--vm", "guest-cid=4,socket=/t,uds-path=/v"];
        for args in [&ONE[..4], &[&ONE[..], &vm].concat()] {
            let refused = parse(args).unwrap_err();
            assert_eq!(refused.exit_code(), 2, "{args:?}");
        }
    }

    #[test]
    fn several_machines_are_listed() {
        let args = parse(&[
            "--vm",
            "guest-cid=3,socket=/s,uds-path=/u",
            "--vm",
            "uds-path=/v,socket=/t,guest-cid=4",
        ]);
        let vms = args.unwrap().vms();
        assert_eq!(vms, Ok(vec![vm(3, "/s", "/u"), vm(4, "/t", "/v")]));
    }

    #[test]
    fn a_machine_may_have_limits_of_its_own() {
        let text = "guest-cid=3,socket=/s,uds-path=/u,tx-buffer-size=65536,queue-size=256,sealed-memory=true";
        let expected = Vm {
            buf_alloc: Some(65_536),
            queue_size: Some(256),
            sealed_memory: Some(true),
            ..vm(3, "/s", "/u")
        };
        assert_eq!(text.parse(), Ok(expected));
    }

    #[test]
    fn a_wrong_log_level_is_answered_with_those_that_there_are() {
        let refused = parse(&[&ONE[..], &["--log-level", "loud"]].concat()).unwrap_err();
        assert!(
            refused
                .to_string()
                .contains("off, error, warn, info, debug, trace"),
            "{refused}"
        );
        let args = parse(&[&ONE[..], &["--log-level", "Debug"]].concat()).unwrap();
        assert_eq!(args.log_level, Some(LevelFilter::Debug));
    }

    #[test]
    fn no_machine_is_an_error() {
        assert_eq!(parse(&[]).unwrap().vms(), Err(ArgsError::NoVm));
    }

    #[test]
    fn t11_two_machines_share_no_cid_and_no_path() {
        let both = |second: &str| {
            parse(&["--vm", "guest-cid=3,socket=/s,uds-path=/u", "--vm", second])
                .unwrap()
                .vms()
        };
        let cid = both("guest-cid=3,socket=/t,uds-path=/v");
        assert_eq!(cid, Err(ArgsError::SameCid(3)));
    }

    /// What is wrong with two machines, whose directories are `{d}`, and `{link}` for another way there.
    fn wrong(first: &str, second: &str) -> String {
        let dir = tempfile::TempDir::new().unwrap();
        let link = dir.path().join("link");
        std::os::unix::fs::symlink(dir.path(), &link).unwrap();
        let vm = |text: &str| {
            let text = text.replace("{d}", &dir.path().display().to_string());
            format!(
                "--vm={}",
                text.replace("{link}", &link.display().to_string())
            )
        };
        let vms = parse(&[&vm(first), &vm(second)]).unwrap().vms();
        let text = vms.err().map_or(String::new(), |error| error.to_string());
        let text = text.replace(&link.display().to_string(), "{link}");
        text.replace(&dir.path().display().to_string(), "{d}")
    }

    #[test]
    fn t125_no_socket_of_a_machine_is_one_of_another() {
        let first = "guest-cid=3,socket={d}/a.vhost,uds-path={d}/a";
        for (second, what) in [
            (
                "socket={d}/b.vhost,uds-path={d}/a_1024",
                "has {d}/a_1024 (uds-path)",
            ),
            ("socket={d}/a_5,uds-path={d}/b", "has {d}/a_5 (socket)"),
            (
                "socket={d}/a_seqpacket,uds-path={d}/b",
                "has {d}/a_seqpacket (socket)",
            ),
            ("socket={d}/b.vhost,uds-path={d}/a", "has {d}/a (uds-path)"),
            (
                "socket={d}/.//a.vhost,uds-path={d}/b",
                "has {d}/.//a.vhost (socket)",
            ),
            (
                "socket={link}/a_0,uds-path={d}/b",
                "has {link}/a_0 (socket)",
            ),
        ] {
            let text = wrong(first, &format!("guest-cid=4,{second}"));
            assert!(text.contains(&format!("guest 4 {what}")), "{text}");
            assert!(text.contains("guest 3 has "), "{text}");
        }
        let own = wrong(first, "guest-cid=4,socket={d}/b_1,uds-path={d}/b");
        assert!(
            own.contains("guest 4 has {d}/b_PORT (uds-path and any port)"),
            "{own}"
        );
        for second in [
            "socket={d}/a_01024,uds-path={d}/b",
            "socket={d}/a_4294967296,uds-path={d}/b",
            "socket={d}/aa_5,uds-path={d}/a_",
        ] {
            assert_eq!(wrong(first, &format!("guest-cid=4,{second}")), "");
        }
    }

    #[test]
    fn what_is_wrong_with_a_machine_is_said() {
        let errors = [
            ("guest-cid", VmError::NoValue),
            ("cid=3", VmError::UnknownKey),
            ("guest-cid=3,guest-cid=4", VmError::Twice("guest-cid")),
            ("socket=/s,uds-path=/u", VmError::Missing("guest-cid")),
            ("guest-cid=3,uds-path=/u", VmError::Missing("socket")),
            ("guest-cid=3,socket=/s", VmError::Missing("uds-path")),
            (
                "guest-cid=x,socket=/s,uds-path=/u",
                VmError::NoNumber("guest-cid"),
            ),
            (
                "guest-cid=3,socket=/s,uds-path=/u,queue-size=65536",
                VmError::NoNumber("queue-size"),
            ),
            ("buf-alloc=1,tx-buffer-size=2", VmError::Twice("buf-alloc")),
            (
                "guest-cid=3,socket=/s,uds-path=/u,sealed-memory=yes",
                VmError::NoTruth("sealed-memory"),
            ),
        ];
        for (text, error) in errors {
            assert_eq!(text.parse::<Vm>(), Err(error), "{text}");
        }
    }

    #[test]
    fn the_help_names_every_option() {
        let help = parse(&["--help"]).unwrap_err().to_string();
        for option in [
            "--guest-cid",
            "--socket",
            "--uds-path",
            "--vm",
            "--buf-alloc",
            "--max-connections",
            "--queue-size",
            "--sealed-memory",
            "--poll-us",
            "--log-level",
        ] {
            assert!(help.contains(option), "{option} is missing in\n{help}");
        }
    }
}
