// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! `ssh` into the guest: Debian's client reaches Debian's sshd by each documented way.

use std::io::{BufRead, BufReader, Read, Write};
use std::path::Path;
use std::process::{Command, Stdio};

use anyhow::{Context, ensure};

use super::{Outcome, Test};
use crate::device::{Ends, Kind};
use crate::machine::Machine;
use crate::sshd::{PORT, Ssh};
use crate::tool::Missing;

pub(super) const TESTS: &[Test] =
    &[Test::new("ssh_reaches_the_guest_in_three_ways", reaches).within(300)];

/// Bytes in each direction.
const LEN: usize = 8 << 20;

fn reaches(machine: &mut Machine) -> anyhow::Result<Outcome> {
    let (Kind::Ours, Ends::Unix(uds)) = (machine.kind(), machine.device().ends()) else {
        return Ok(Outcome::NotOffered(
            "the device has no hybrid sockets of ours",
        ));
    };
    let program = machine.program().context("the device is a program")?;
    let directory = tempfile::tempdir()?;
    let ssh = match Ssh::prepare(directory.path()) {
        Ok(ssh) => ssh,
        Err(error) if error.is::<Missing>() => {
            eprintln!("ssh: {error:#}");
            return Ok(Outcome::NotOffered(
                "Debian's packages cannot be downloaded",
            ));
        }
        Err(error) => return Err(error),
    };
    machine.kill_guest();
    let initramfs = ssh.initramfs(machine.initramfs())?;
    machine.set_initramfs(initramfs);

    // The client starts before the guest boots.
    let connect = format!("{} connect {} {PORT}", program.display(), uds.display());
    let waiting = format!("{connect} --wait 2min");
    let mut early = ssh.client(&waiting, &[], &["root@guest", "echo early; exit 7"]);
    let early = early.stdout(Stdio::piped()).spawn()?;
    machine.boot()?;
    Ssh::serve(machine)?;
    let early = early.wait_with_output()?;
    ensure!(early.stdout == b"early\n", "{early:?}");
    ensure!(early.status.code() == Some(7), "{early:?}");

    let own = |words: &[&str]| ssh.client(&connect, &[], words);
    both_ways(own).context("by connect")?;
    // Use %n, the name as given: ssh converts %h, which systemd's own configuration uses, to lower
    // case.
    let proxy = format!("{} %n %p", ssh.systemd_proxy());
    let host = format!("root@vsock-mux{}", uds.display());
    let systemd = |words: &[&str]| {
        let words: Vec<_> = words
            .iter()
            .map(|word| word.replace("root@guest", &host))
            .collect();
        let words: Vec<_> = words.iter().map(String::as_str).collect();
        ssh.client(
            &proxy,
            &["-o", "ProxyUseFdpass=yes", "-o", "CheckHostIP=no"],
            &words,
        )
    };
    both_ways(systemd).context("by systemd's vsock-mux")?;
    by_hand(ssh.socat(), &uds).context("by socat")?;
    Ok(Outcome::Passed)
}

/// Checks a command's exit code and output, and sends a file each way.
fn both_ways(client: impl Fn(&[&str]) -> Command) -> anyhow::Result<()> {
    let output = client(&["root@guest", "echo out; echo err >&2; exit 42"]).output()?;
    ensure!(output.status.code() == Some(42), "{output:?}");
    ensure!(output.stdout == b"out\n", "{output:?}");
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    ensure!(said.contains("err\n"), "{output:?}");

    let pattern = |at: usize| {
        let [a, b, c, ..] = at.to_le_bytes();
        a ^ b ^ c
    };
    let bytes: Vec<u8> = (0..LEN).map(pattern).collect();
    let mut child = client(&["root@guest", "cat"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()?;
    let mut input = child.stdin.take().context("standard input is a pipe")?;
    let sent = bytes.clone();
    let sender = std::thread::spawn(move || input.write_all(&sent));
    let output = child.wait_with_output()?;
    sender.join().ok().context("the sender panicked")??;
    ensure!(output.status.success(), "{}", output.status);
    ensure!(
        output.stdout == bytes,
        "{} bytes came back",
        output.stdout.len()
    );
    Ok(())
}

/// Sends `CONNECT` as a person would type it, and checks sshd's first line after the answer.
fn by_hand(mut socat: Command, uds: &Path) -> anyhow::Result<()> {
    let mut child = socat
        .arg("-")
        .arg(format!("UNIX-CONNECT:{}", uds.display()))
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()?;
    let mut input = child.stdin.take().context("standard input is a pipe")?;
    input.write_all(format!("CONNECT {PORT}\n").as_bytes())?;
    let mut output = BufReader::new(child.stdout.take().context("standard output is a pipe")?);
    let mut lines = [String::new(), String::new()];
    for line in &mut lines {
        output.read_line(line)?;
    }
    ensure!(lines[0].starts_with("OK "), "{lines:?}");
    ensure!(lines[1].starts_with("SSH-2.0-OpenSSH"), "{lines:?}");
    drop(input);
    output.read_to_end(&mut Vec::new())?;
    child.wait()?;
    Ok(())
}
