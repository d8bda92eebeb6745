// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! The command line: its grammar and its checks, nothing else. A file for each group of options.

mod limits;
mod logging;
mod names;
mod operation;
mod routes;
mod vm;

use std::collections::BTreeSet;

use clap::Parser;
use thiserror::Error;

use self::names::SocketUse;

pub(crate) use self::limits::Limits;
pub(crate) use self::logging::LogArgs;
pub(crate) use self::operation::{OperationArgs, SandboxMode};
pub(crate) use self::vm::Vm;

/// A vsock device for virtual machines, outside of the VMM.
///
/// The VMM connects to SOCKET and shares the guest's memory. A host process reaches port P of the
/// guest by connecting to UDS_PATH and writing "CONNECT P\n"; it reads "OK <port>\n" once the guest
/// has accepted. A host process that serves port P for the guest listens on UDS_PATH
/// followed by "_P".
///
/// Messages go over SOCK_SEQPACKET sockets: to reach the guest, UDS_PATH followed by "_seqpacket",
/// where the command is the first message; to serve a port, the same name as for streams.
///
/// When the VMM goes away, the next one is served. SIGTERM, SIGINT and SIGHUP end the program and remove
/// its sockets.
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
    one: Option<Vm>,

    /// One virtual machine of several: guest-cid=N,socket=PATH,uds-path=PATH, and if it is to
    /// differ from the others buf-alloc=BYTES, queue-size=N and sealed-memory=true or false;
    /// forward=PORT=TARGET and expose=ADDRESS=PORT, each as often as needed, and no-connect=true or
    /// false
    #[arg(long = "vm", value_name = "KEY=VALUE,...", conflicts_with = "Vm")]
    many: Vec<Vm>,
    #[command(flatten)]
    pub(crate) limits: Limits,

    #[command(flatten)]
    pub(crate) operation: OperationArgs,

    #[command(flatten)]
    pub(crate) log: LogArgs,
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
    #[error("guest {0} has two targets for port {1}; give each port one")]
    SamePort(u64, u32),
}

impl Args {
    /// The virtual machines, of which no two share anything.
    pub(crate) fn vms(&self) -> Result<Vec<Vm>, ArgsError> {
        let vms: Vec<Vm> = self.one.iter().chain(&self.many).cloned().collect();
        if vms.is_empty() {
            return Err(ArgsError::NoVm);
        }
        let mut cids = BTreeSet::new();
        for vm in &vms {
            if !cids.insert(vm.guest_cid) {
                return Err(ArgsError::SameCid(vm.guest_cid));
            }
            if let Some(port) = vm.port_with_two_targets() {
                return Err(ArgsError::SamePort(vm.guest_cid, port));
            }
        }
        if let Some((other, used)) = names::collision(&vms) {
            return Err(ArgsError::SameName(other, used));
        }
        Ok(vms)
    }
}

#[cfg(test)]
mod tests {
    use ::log::LevelFilter;

    use super::vm::VmError;
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
            forward: Vec::new(),
            expose: Vec::new(),
            no_connect: false,
        }
    }

    #[test]
    fn t125_what_is_forwarded_and_exposed_is_no_socket_of_another() {
        let first = "guest-cid=3,socket={d}/a.vhost,uds-path={d}/a,expose=tcp:127.0.0.1:1000=22,forward=7=unix:{d}/c";
        for (more, what) in [
            ("forward=5=unix:{d}/a", "unix:{d}/a (forward)"),
            (
                "forward=5=unix:{link}/a.vhost",
                "unix:{link}/a.vhost (forward)",
            ),
            ("forward=5=dgram:{d}/b.vhost", "dgram:{d}/b.vhost (forward)"),
            (
                "forward=5=tcp:127.0.0.1:1000",
                "tcp:127.0.0.1:1000 (forward)",
            ),
            ("expose=unix:{d}/a_5=22", "unix:{d}/a_5 (expose)"),
            ("expose=unix:{d}/c=22", "unix:{d}/c (expose)"),
            (
                "expose=tcp:127.0.0.1:1000=22",
                "tcp:127.0.0.1:1000 (expose)",
            ),
        ] {
            let second = format!("guest-cid=4,socket={{d}}/b.vhost,uds-path={{d}}/b,{more}");
            let text = wrong(first, &second);
            assert!(text.contains(&format!("guest 4 has {what}")), "{text}");
        }
        for more in [
            "forward=5=unix:{d}/c,forward=6=dgram:{d}/a_5",
            "no-connect=true,forward=5=unix:{d}/b",
            "expose=tcp:127.0.0.1:1001=22,expose=tcp:127.0.0.1:0=1,expose=tcp:127.0.0.1:0=2",
        ] {
            let second = format!("guest-cid=4,socket={{d}}/b.vhost,uds-path={{d}}/b,{more}");
            assert_eq!(wrong(first, &second), "");
        }
    }

    #[test]
    fn a_port_has_one_target() {
        let twice = ["--forward", "7=unix:/a", "--forward", "7=unix:/b"];
        let refused = parse(&[&ONE[..], &twice].concat()).unwrap().vms();
        assert_eq!(refused, Err(ArgsError::SamePort(3, 7)));
    }

    #[test]
    fn routes_are_options_or_keys_of_a_machine() {
        let options = [
            "--forward",
            "7=dgram:/a",
            "--expose",
            "unix:/b=c=22",
            "--no-connect",
        ];
        let by_options = parse(&[&ONE[..], &options].concat())
            .unwrap()
            .vms()
            .unwrap();
        let keys = "guest-cid=3,socket=/s,uds-path=/u,forward=7=dgram:/a,expose=unix:/b=c=22,no-connect=true";
        let by_keys = parse(&["--vm", keys]).unwrap().vms().unwrap();
        assert_eq!(by_options, by_keys);
        let one = &by_keys[0];
        assert!(one.no_connect && one.forward.len() == 1 && one.expose.len() == 1);
        for with_vm in [
            &["--vm", keys, "--no-connect"][..],
            &["--vm", keys, "--forward", "7=unix:/a"],
        ] {
            assert_eq!(parse(with_vm).unwrap_err().exit_code(), 2);
        }
    }

    #[test]
    fn machines_are_listed() {
        let limits = "guest-cid=3,socket=/s,uds-path=/u,tx-buffer-size=65536,queue-size=256,sealed-memory=true";
        let limited = Vm {
            buf_alloc: Some(65_536),
            queue_size: Some(256),
            sealed_memory: Some(true),
            ..vm(3, "/s", "/u")
        };
        let (one, other) = (
            "guest-cid=3,socket=/s,uds-path=/u",
            "uds-path=/v,socket=/t,guest-cid=4",
        );
        for (args, expected) in [
            (&ONE[..], Ok(vec![vm(3, "/s", "/u")])),
            (
                &["--vm", one, "--vm", other],
                Ok(vec![vm(3, "/s", "/u"), vm(4, "/t", "/v")]),
            ),
            (&["--vm", limits], Ok(vec![limited])),
            (&[], Err(ArgsError::NoVm)),
        ] {
            assert_eq!(parse(args).unwrap().vms(), expected);
        }
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
    fn a_wrong_log_level_is_answered_with_those_that_there_are() {
        let level = |level| parse(&[&ONE[..], &["--log-level", level]].concat());
        let refused = level("loud").unwrap_err().to_string();
        let expected = "off, error, warn, info, debug, trace";
        assert!(refused.contains(expected), "{refused}");
        let level = level("Debug").unwrap().log.log_level;
        assert_eq!(level, Some(LevelFilter::Debug));
    }

    #[test]
    fn t11_two_machines_share_no_cid() {
        let vms =
            ["s", "t"].map(|name| format!("--vm=guest-cid=3,socket=/{name},uds-path=/u{name}"));
        let refused = parse(&[&vms[0], &vms[1]]).unwrap().vms();
        assert_eq!(refused, Err(ArgsError::SameCid(3)));
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
        for (socket, uds_path, what) in [
            ("{d}/b.vhost", "{d}/a_1024", "{d}/a_1024 (uds-path)"),
            ("{d}/a_5", "{d}/b", "{d}/a_5 (socket)"),
            ("{d}/a_seqpacket", "{d}/b", "{d}/a_seqpacket (socket)"),
            ("{d}/b.vhost", "{d}/a", "{d}/a (uds-path)"),
            ("{d}/.//a.vhost", "{d}/b", "{d}/.//a.vhost (socket)"),
            ("{link}/a_0", "{d}/b", "{link}/a_0 (socket)"),
            ("{d}/b_1", "{d}/b", "{d}/b_PORT (uds-path and any port)"),
        ] {
            let text = wrong(
                first,
                &format!("guest-cid=4,socket={socket},uds-path={uds_path}"),
            );
            assert!(text.contains(&format!("guest 4 has {what}")), "{text}");
            let own = what.contains("any port");
            assert!(own || text.contains("guest 3 has "), "{text}");
        }
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
        let whole = "guest-cid=3,socket=/s,uds-path=/u";
        let more = |text: &str| format!("{whole},{text}");
        let invalid = VmError::Invalid;
        let number = "a number that is not too large";
        for (text, error) in [
            ("guest-cid".to_owned(), VmError::NoValue),
            ("cid=3".to_owned(), VmError::UnknownKey),
            (more("guest-cid=4"), VmError::Twice("guest-cid")),
            (
                whole.replace("guest-cid=3,", ""),
                VmError::Missing("guest-cid"),
            ),
            (whole.replace("socket=/s,", ""), VmError::Missing("socket")),
            (
                whole.replace(",uds-path=/u", ""),
                VmError::Missing("uds-path"),
            ),
            (whole.replace('3', "x"), invalid("guest-cid", number)),
            (more("queue-size=65536"), invalid("queue-size", number)),
            (
                more("buf-alloc=1,tx-buffer-size=2"),
                VmError::Twice("buf-alloc"),
            ),
            (
                more("sealed-memory=yes"),
                invalid("sealed-memory", "true or false"),
            ),
        ] {
            assert_eq!(text.parse::<Vm>(), Err(error), "{text}");
        }
    }

    #[test]
    fn the_help_names_every_option() {
        let help = parse(&["--help"]).unwrap_err().to_string();
        let options = "guest-cid socket uds-path vm buf-alloc max-connections queue-size sealed-memory access-platform poll-us log-level forward expose no-connect socket-mode socket-group sandbox";
        for option in options.split(' ') {
            assert!(
                help.contains(&format!("--{option}")),
                "{option} is missing in\n{help}"
            );
        }
    }
}
