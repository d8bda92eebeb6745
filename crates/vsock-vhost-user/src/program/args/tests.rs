// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Tests of command lines and configuration files: the virtual machines and errors they result in.

use std::ffi::OsString;
use std::io::Write;
use std::os::unix::ffi::OsStringExt;

use log::LevelFilter;
use proptest::collection::vec;
use proptest::prelude::{Strategy, any, prop_assert, prop_assert_eq, prop_oneof, proptest};
use proptest::sample::select;
use tempfile::{NamedTempFile, TempDir};
use vsock_vhost_user::Config;

use super::device::DeviceArgs;
use super::passing::PassingArgs;
use super::vm::KeysError;
use super::*;
use crate::program::error::with_causes;

const ONE: [&str; 6] = ["--guest-cid", "3", "--socket", "/s", "--uds-path", "/u"];

fn parse(args: &[&str]) -> Result<Args, clap::Error> {
    Args::try_parse_from([&["vsock-vhost-user"], args].concat())
}

/// Parses a command line; returns its virtual machines or the error's text.
fn vms(args: &[&str]) -> Result<Vec<Vm>, String> {
    let parsed = parse(args).map_err(|error| error.to_string())?;
    parsed.vms().map_err(|error| with_causes(&error))
}

fn vm(guest_cid: u64, socket: &str, uds_path: &str) -> Vm {
    Vm {
        guest_cid,
        socket: socket.into(),
        fd: None,
        uds_path: uds_path.into(),
        groups: Vec::new(),
        forward: Vec::new(),
        expose: Vec::new(),
        no_connect: false,
        config: Config::default(),
        device: DeviceArgs::default(),
        passing: PassingArgs::default(),
    }
}

#[test]
fn passed_descriptors_are_allowed_by_option_and_need_the_uds_socket() {
    let vm = |cid: u32, more: &str| {
        format!("--vm=guest-cid={cid},socket=/s{cid},uds-path=/u{cid}{more}")
    };
    let allowed = |args: &[&str]| {
        let vms = vms(args)?;
        Ok(vms.iter().map(|vm| vm.passing.is_allowed()).collect())
    };
    let (plain, on) = (vm(3, ""), vm(4, ",pass-fd=true"));
    let off = vm(5, ",pass-fd=false,no-connect=true");
    assert_eq!(allowed(&ONE), Ok(vec![false]));
    let all = [&ONE[..], &["--pass-fd"]].concat();
    assert_eq!(allowed(&all), Ok(vec![true]));
    assert_eq!(allowed(&[&plain, &on]), Ok(vec![false, true]));
    assert_eq!(allowed(&[&plain, &off, "--pass-fd"]), Ok(vec![true, false]));
    let nowhere = vm(6, ",no-connect=true");
    let refused: Result<Vec<bool>, String> = allowed(&[&nowhere, "--pass-fd"]);
    let refused = refused.unwrap_err();
    assert!(refused.contains("guest 6: pass-fd needs"), "{refused}");
}

#[test]
fn t125_forwarded_and_exposed_addresses_differ_from_all_other_sockets() {
    let first = "guest-cid=3,socket={d}/a.vhost,uds-path={d}/a,expose=tcp:127.0.0.1:1000=22,\
                 forward=7=unix:{d}/c";
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
        assert!(text.contains(&format!("guest 4 uses {what}")), "{text}");
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
    let refused = vms(&[&ONE[..], &twice].concat()).unwrap_err();
    assert!(
        refused.contains("guest 3: port 7 is forwarded to two targets"),
        "{refused}"
    );
}

#[test]
fn routes_can_be_options_or_keys() {
    let options = [
        "--forward",
        "7=dgram:/a",
        "--expose",
        "unix:/b=c=22",
        "--no-connect",
    ];
    let by_options = vms(&[&ONE[..], &options].concat()).unwrap();
    let keys =
        "guest-cid=3,socket=/s,uds-path=/u,forward=7=dgram:/a,expose=unix:/b=c=22,no-connect=true";
    let by_keys = vms(&["--vm", keys]).unwrap();
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
fn options_and_keys_describe_virtual_machines() {
    let limits =
        "guest-cid=3,socket=/s,uds-path=/u,tx-buffer-size=65536,queue-size=256,sealed-memory=true";
    let limited = Vm {
        config: Config::builder()
            .buf_alloc(65_536)
            .max_message(65_536)
            .build()
            .unwrap(),
        device: DeviceArgs {
            queue_size: Some(256),
            sealed_memory: Some(true),
            ..DeviceArgs::default()
        },
        ..vm(3, "/s", "/u")
    };
    let (one, other) = (
        "guest-cid=3,socket=/s,uds-path=/u",
        "uds-path=/v,socket=/t,guest-cid=4",
    );
    for (args, expected) in [
        (&ONE[..], vec![vm(3, "/s", "/u")]),
        (&ONE[2..], vec![vm(3, "/s", "/u")]),
        (
            &["--vm", one, "--vm", other],
            vec![vm(3, "/s", "/u"), vm(4, "/t", "/v")],
        ),
        (&["--vm", limits], vec![limited]),
    ] {
        assert_eq!(vms(args), Ok(expected));
    }
}

#[test]
fn common_settings_apply_to_virtual_machines_without_their_own() {
    let listed = [
        "--sealed-memory",
        "--max-resets=7",
        "--queue-size=256",
        "--vm=socket=/s,uds-path=/u,sealed-memory=false,max-resets=8,queue-size=512",
        "--vm=guest-cid=4,socket=/t,uds-path=/v",
    ];
    let said: Vec<_> = vms(&listed)
        .unwrap()
        .into_iter()
        .map(|vm| {
            let (resets, device) = (vm.config.max_resets(), vm.device);
            (resets, device.sealed_memory, device.queue_size)
        })
        .collect();
    let expected = [(8, Some(false), Some(512)), (7, Some(true), Some(256))];
    assert_eq!(said, expected);
}

#[test]
fn contradictory_or_incomplete_arguments_are_refused() {
    let vm = ["--vm", "guest-cid=4,socket=/t,uds-path=/v"];
    for (args, expected) in [
        (&[][..], "no virtual machine: give --socket and --uds-path"),
        (&ONE[..4], "guest 3: uds-path is missing"),
        (&ONE[..2], "guest 3: socket is missing"),
        (&[&ONE[..], &vm].concat(), "cannot be used with"),
        (
            &[&ONE[..2], &["--config=/f"]].concat(),
            "cannot be used with",
        ),
        (&[&vm[..], &["--config=/f"]].concat(), "cannot be used with"),
        (
            &["--config=/nowhere/f"],
            "--config /nowhere/f: cannot read the file; expected YAML: No such",
        ),
        (&["--check", "generate", "/d"], "generate"),
        (&["--socket=/s", "--socket-path=/s"], "multiple times"),
    ] {
        let refused = vms(args).unwrap_err();
        assert!(refused.contains(expected), "{args:?}: {refused}");
    }
}

#[test]
fn the_error_for_an_unknown_log_level_lists_the_levels() {
    let level = |level| parse(&[&ONE[..], &["--log-level", level]].concat());
    let refused = level("loud").unwrap_err().to_string();
    let expected = "off, error, warn, info, debug, trace";
    assert!(refused.contains(expected), "{refused}");
    let level = level("Debug").unwrap().log.log_level;
    assert_eq!(level, Some(LevelFilter::Debug));
}

#[test]
fn t11_two_virtual_machines_cannot_share_a_cid() {
    let listed =
        ["s", "t"].map(|name| format!("--vm=guest-cid=3,socket=/{name},uds-path=/u{name}"));
    let refused = vms(&[&listed[0], &listed[1]]).unwrap_err();
    assert!(refused.contains("guest CID 3"), "{refused}");
}

/// Returns the error for two virtual machines, or "" if there is none. `{d}` stands for their
/// directory, and `{link}` for a symbolic link to it.
fn wrong(first: &str, second: &str) -> String {
    let dir = TempDir::new().unwrap();
    let link = dir.path().join("link");
    std::os::unix::fs::symlink(dir.path(), &link).unwrap();
    let vm = |text: &str| {
        let text = text.replace("{d}", &dir.path().display().to_string());
        format!(
            "--vm={}",
            text.replace("{link}", &link.display().to_string())
        )
    };
    let text = vms(&[&vm(first), &vm(second)]).err().unwrap_or_default();
    let text = text.replace(&link.display().to_string(), "{link}");
    text.replace(&dir.path().display().to_string(), "{d}")
}

#[test]
fn t125_two_virtual_machines_cannot_share_a_socket() {
    let first = "guest-cid=3,socket={d}/a.vhost,uds-path={d}/a";
    for (socket, uds_path, what) in [
        ("{d}/b.vhost", "{d}/a_1024", "{d}/a_1024 (uds-path)"),
        ("{d}/a_5", "{d}/b", "{d}/a_5 (socket)"),
        ("{d}/a_seqpacket", "{d}/b", "{d}/a_seqpacket (socket)"),
        ("{d}/b.vhost", "{d}/a", "{d}/a (uds-path)"),
        ("{d}/.//a.vhost", "{d}/b", "{d}/.//a.vhost (socket)"),
        ("{link}/a_0", "{d}/b", "{link}/a_0 (socket)"),
        ("{d}/b_1", "{d}/b", "{d}/b_PORT (uds-path with a port)"),
    ] {
        let text = wrong(
            first,
            &format!("guest-cid=4,socket={socket},uds-path={uds_path}"),
        );
        assert!(text.contains(&format!("guest 4 uses {what}")), "{text}");
        let own = what.contains("with a port");
        assert!(own || text.contains("guest 3 uses "), "{text}");
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
fn the_error_for_invalid_keys_says_what_was_expected() {
    for (keys, expected) in [
        ("guest-cid", "found \"guest-cid\""),
        ("", "expected KEY=VALUE"),
        ("socket=/s,", "expected KEY=VALUE"),
        (
            "cid=3",
            "unknown key \"cid\": expected one of guest-cid, socket, fd, uds-path,",
        ),
        ("=3", "unknown key \"\""),
        ("-=3", "unknown key \"-\""),
        ("help=1", "unknown key \"help\""),
        (
            "socket=/s,socket=/t",
            "'--socket <PATH>' cannot be used multiple times",
        ),
        (
            "buf-alloc=1,tx_buffer_size=2",
            "'--buf-alloc <SIZE>' cannot be used multiple times",
        ),
        (
            "guest-cid=x",
            "'--guest-cid <N>': expected a number from 3 to 4294967294",
        ),
        ("guest-cid=2", "expected a number from 3 to 4294967294"),
        (
            "queue-size=65536",
            "'--queue-size <N>': expected a power of two",
        ),
        ("sealed-memory=yes", "[possible values: true, false]"),
        ("socket=", "a value is required for '--socket <PATH>'"),
        (
            "groups=a++b",
            "a value is required for '--groups <NAME+NAME>'",
        ),
        ("forward=5", "expected PORT=TARGET"),
        ("command-timeout=5", "such as 500ms, 5s"),
    ] {
        let refused = VmArgs::of_keys(keys).unwrap_err().to_string();
        assert!(refused.contains(expected), "{keys}: {refused}");
        assert!(
            !refused.contains('\n') && !refused.contains("--help"),
            "{refused}"
        );
        let refused = parse(&["--vm", keys]).unwrap_err();
        assert_eq!(refused.exit_code(), 2, "{keys}");
    }
    let unknown = VmArgs::of_keys("socket_=/s").unwrap_err();
    assert_eq!(unknown, KeysError::UnknownKey("socket_".to_owned()));
}

#[test]
fn t125_the_control_socket_differs_from_the_sockets_of_virtual_machines() {
    for (path, with) in [
        ("/s", "guest 3 uses /s (socket)"),
        ("/u", "guest 3 uses /u (uds-path)"),
        ("/u_7", "guest 3 uses /u_PORT (uds-path with a port)"),
        (
            "/./u_seqpacket",
            "guest 3 uses /u_seqpacket (uds-path, for messages)",
        ),
    ] {
        let text = vms(&[&ONE[..], &["--control", path]].concat()).unwrap_err();
        let expected = format!("{with}, and the program uses {path} (control): two sockets");
        assert!(text.starts_with(&expected), "{text}");
    }
    vms(&[&ONE[..], &["--control", "/control"]].concat()).unwrap();
    let long = format!("/{}", "x".repeat(107));
    let text = vms(&[&ONE[..], &["--control", &long]].concat()).unwrap_err();
    let expected = "(control): a socket path can have at most 107 bytes and this one has 108; \
                    use a shorter path";
    assert!(text.ends_with(expected), "{text}");
}

#[test]
fn ctl_checks_its_arguments_first() {
    for args in [
        &["ctl"][..],
        &["ctl", "/c"],
        &["ctl", "/c", "close"],
        &["ctl", "/c", "close", "17"],
        &["ctl", "/c", "connections", "more"],
    ] {
        assert_eq!(parse(args).unwrap_err().exit_code(), 2, "{args:?}");
    }
    let close = parse(&["ctl", "/c", "close", "3-17"]).unwrap();
    assert!(matches!(close.command, Some(Command::Ctl(_))));
}

#[test]
fn the_help_names_every_option() {
    let help = parse(&["--help"]).unwrap_err().to_string();
    let options = "guest-cid socket socket-path uds-path groups vm config check buf-alloc \
                   max-connections queue-size sealed-memory access-platform poll-us log-level \
                   control capture forward expose no-connect pass-fd socket-mode socket-group \
                   sandbox";
    for option in options.split(' ') {
        assert!(
            help.contains(&format!("--{option}")),
            "{option} is missing in\n{help}"
        );
    }
    // Options that are always refused are hidden.
    assert!(!help.contains("--forward-cid"), "{help}");
}

#[test]
fn the_help_is_wrapped_at_100_columns() {
    for command in [&[][..], &["connect"], &["ctl"], &["generate"]] {
        let help = parse(&[command, &["--help"]].concat()).unwrap_err();
        let help = help.to_string();
        let longest = help.lines().map(|line| line.chars().count()).max();
        assert!(longest.is_some_and(|longest| longest <= 100), "{help}");
    }
}

/// Generates a word of a command line: an option's name, a plausible value, or arbitrary bytes.
fn word() -> impl Strategy<Value = OsString> {
    let names = "--vm --config --check --guest-cid --guest_cid --socket --socket-path --uds-path \
                 --groups --forward --expose --no-connect --pass-fd --forward-cid \
                 --forward-listen --buf-alloc --tx-buffer-size --queue-size --sealed-memory \
                 --host-ports --command-timeout \
                 --probe-interval --max-connections --log-level --socket-mode \
                 --socket-group --sandbox -h -V -- generate /d";
    let values = "guest-cid=3,socket=/s,uds_path=/u guest_cid 3 4294967295 -1 \
                  18446744073709551616 /s 1KiB 9999999999999G 5s 5000000000000h 5=unix:/p \
                  unix:/p=5 tcp:[::1]:1=2 a+b + = , ,, == true no 0-1 1-0 - groups=+ \
                  forward=1=dgram:/x socket=,uds-path=";
    let list = |words: &'static str| select(words.split_whitespace().collect::<Vec<_>>());
    prop_oneof![
        list(names).prop_map(OsString::from),
        list(values).prop_map(OsString::from),
        (list(names), list(values)).prop_map(|(name, value)| format!("{name}={value}").into()),
        (list(names), ".*").prop_map(|(name, value)| format!("{name}={value}").into()),
        vec(any::<u8>(), 0..20).prop_map(OsString::from_vec),
    ]
}

proptest! {
    #[test]
    fn no_command_line_panics(words in vec(word(), 0..8)) {
        let program = OsString::from("vsock-vhost-user");
        match Args::try_parse_from(std::iter::once(program).chain(words)) {
            Ok(args) if args.config.is_none() => drop(args.vms()),
            Ok(_) => {}
            Err(error) => {
                let is_refused = error.exit_code() == 2;
                prop_assert_eq!(is_refused, error.use_stderr());
                prop_assert!(!error.to_string().is_empty());
            }
        }
    }

    #[test]
    fn no_keys_panic(text in "[a-z_=,+:/0-9. -]{0,40}|.*") {
        drop(VmArgs::of_keys(&text));
        drop(VmArgs::of_keys(&format!("socket=/s,uds-path=/u,{text}")));
    }

    #[test]
    fn no_file_panics(bytes in prop_oneof![
        vec(any::<u8>(), 0..100),
        "[a-z:\n \\[\\]{},&*?|>'\"~#%!-]{0,100}".prop_map(String::into_bytes),
        "vms:\n- [a-z_]{0,9}: [a-z0-9:\n \\[\\]{},-]{0,100}".prop_map(String::into_bytes),
    ]) {
        let mut file = NamedTempFile::new().unwrap();
        file.write_all(&bytes).unwrap();
        drop(file::read(file.path()));
    }
}
