// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! A short run of every row on the library: it works, however fast that is.

use std::fs;
use std::process::Command;

use anyhow::ensure;

/// Runs the bench with a guest that is set up so, and tells what it has kept and said.
fn run(shape: &[&str]) -> anyhow::Result<(serde_json::Value, String)> {
    let out = tempfile::tempdir()?;
    let output = Command::new(env!("CARGO_BIN_EXE_vsock-native"))
        .args(["--quick", "--devices", "library", "--out"])
        .arg(out.path())
        .args(shape)
        .output()?;
    let said = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "{said}");
    ensure!(out.path().join("bulk.svg").exists(), "there is no chart");
    let json = fs::read(out.path().join("native.json"))?;
    let text = String::from_utf8(output.stdout)?;
    Ok((serde_json::from_slice(&json)?, text))
}

#[test]
fn every_row_is_measured() {
    let (results, text) = run(&[]).unwrap();
    let cells = results["cells"].as_array().unwrap();
    assert_eq!(cells.len(), 30);
    let (mut kicks, mut interrupts) = (0.0, 0.0);
    for cell in cells {
        let (row, sample) = (cell["row"].as_str().unwrap(), &cell["samples"][0]);
        assert!(text.contains(row), "{row} is not in a table");
        for figure in ["units", "seconds"] {
            let value = sample[figure].as_f64();
            assert!(value.is_some_and(|value| value > 0.0), "{row}: {sample}");
        }
        kicks += sample["kicks"].as_f64().unwrap();
        interrupts += sample["interrupts"].as_f64().unwrap();
        assert_eq!(
            sample["latencies"]["packets"].is_null(),
            row.starts_with("bulk") || row.starts_with("connect"),
            "{row}: {sample}"
        );
    }
    assert!(kicks > 0.0 && interrupts > 0.0, "{kicks} {interrupts}");
}

#[test]
fn every_kind_of_guest_is_served() {
    for notifications in ["event-idx", "flags"] {
        for chains in ["indirect", "direct"] {
            for (size, buffer, updates) in
                [("128", "4140", "little-room"), ("256", "3776", "all-read")]
            {
                let rows = "bulk,round trips";
                let shape = [
                    ["--notifications", notifications],
                    ["--chains", chains],
                    ["--queue-size", size],
                    ["--rx-buffer", buffer],
                    ["--credit-updates", updates],
                    ["--rows", rows],
                ];
                run(shape.as_flattened()).unwrap();
            }
        }
    }
}
