// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Runs every row briefly on the library, to check that it works.

use std::fs;
use std::process::Command;

use serde_json::Value;

#[test]
fn every_row_is_measured() {
    let out = tempfile::tempdir().unwrap();
    let output = Command::new(env!("CARGO_BIN_EXE_vsock-native"))
        .args(["--quick", "--devices", "library", "--poll-us", "5", "--out"])
        .arg(out.path())
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{said}");
    assert!(
        out.path().join("bench-device-bulk.svg").exists(),
        "the chart was not written"
    );
    let text = String::from_utf8(output.stdout).unwrap();
    let json = fs::read(out.path().join("native.json")).unwrap();
    let results: Value = serde_json::from_slice(&json).unwrap();
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
