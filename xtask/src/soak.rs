//! Long runs of tests that the gate keeps short. Invariant: they are the same tests.

use anyhow::{Result, ensure};

use crate::{cargo, run};

/// Replays the fuzz targets side by side for the given time.
pub(crate) fn soak(minutes: u64) -> Result<()> {
    let seconds = minutes.saturating_mul(60);
    run(cargo()
        .args([
            "test",
            "--package",
            "tld-fuzz",
            "--test",
            "replay",
            "--",
            "--nocapture",
            "--test-threads",
            "32",
        ])
        .env("TLD_FUZZ_SECONDS", seconds.to_string()))
}

/// Runs the service under a steady load for the given time.
pub(crate) fn steady(minutes: u64) -> Result<()> {
    let seconds = minutes.saturating_mul(60);
    run(cargo()
        .args(["test", "--package", "tld-cli", "--test", "soak", "--", "--nocapture"])
        .env("TLD_SOAK_SECONDS", seconds.to_string()))
}

/// Runs the responder's crash test so many times.
pub(crate) fn crash(runs: u32) -> Result<()> {
    let output =
        cargo().args(["test", "--package", "tld-respond", "--test", "crash_matrix", "--no-run"]).output()?;
    let said = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "the crash test does not build:\n{said}");
    run(cargo()
        .args(["test", "--package", "tld-respond", "--test", "crash_matrix", "--", "--nocapture"])
        .env("TLD_REQUIRE_ALL", "1")
        .env("TLD_CRASH_RUNS", runs.to_string()))
}
