//! Takes every figure of `docs/performance.md` anew. The page has a part between two marks that this task writes; everything
//! else on it is written by hand and stays. Invariant: a figure on the page was printed by a program of the same run.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context as _, Result, bail, ensure};

use crate::{cargo, peers, root};

const PAGE: &str = "docs/performance.md";
const BEGIN: &str = "<!-- written by `cargo xtask report`: begin -->";
const END: &str = "<!-- written by `cargo xtask report`: end -->";
/// The last second of generated logs, 2026-11-22T21:00:00Z.
const LAST: &str = "1795381200";
/// Runs of each command; the median counts.
const RUNS: usize = 5;

/// Measures everything and writes the page.
pub(crate) fn report() -> Result<()> {
    let page = root().join(PAGE);
    let text = std::fs::read_to_string(&page).with_context(|| format!("cannot read {PAGE}"))?;
    ensure!(text.contains(BEGIN) && text.contains(END), "{PAGE} lacks the marks `{BEGIN}` and `{END}`");
    let shared = std::env::var_os("TLD_SHARED").map_or_else(|| root().join("../shared"), PathBuf::from);
    ensure!(shared.join("bench").is_dir(), "no generators below {}; set TLD_SHARED", shared.display());
    let folder = root().join("target/report");
    std::fs::create_dir_all(&folder)?;

    let mut out = String::new();
    writeln!(out, "{}\n", machine()?)?;
    bench(&mut out, "Whole analysis, one thread", "tld-rules", "engine")?;
    bench(&mut out, "Stages", "tld-rules", "stages")?;
    threads(&mut out, &shared, &folder)?;
    bench(&mut out, "From the line to the block in the kernel", "tld-cli", "latency")?;
    peers::measure(&mut out, &shared, &folder)?;
    writeln!(out, "Load average at the end: {}.", load())?;

    std::fs::write(&page, replaced(&text, &out).context("the marks stand in the wrong order")?)?;
    println!("wrote {}", page.display());
    Ok(())
}

/// The page with new text between the marks.
fn replaced(page: &str, text: &str) -> Option<String> {
    let (head, rest) = page.split_once(BEGIN)?;
    let (_, tail) = rest.split_once(END)?;
    Some(format!("{head}{BEGIN}\n{text}{END}{tail}"))
}

/// Where and when this was measured.
fn machine() -> Result<String> {
    let cpu = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let model = cpu.lines().find_map(|line| line.strip_prefix("model name")).unwrap_or(": unknown");
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    Ok(format!(
        "Taken {} at commit {} on {cores} cores of {}, Linux {}, {}; load average at the start: {}.",
        said("date", &["-u", "+%F %H:%M UTC"])?,
        said("git", &["rev-parse", "--short", "HEAD"])?,
        model.trim_start_matches(['\t', ':', ' ']),
        said("uname", &["-r"])?,
        said("rustc", &["--version"])?,
        load()
    ))
}

fn load() -> String {
    let text = std::fs::read_to_string("/proc/loadavg").unwrap_or_default();
    text.split(' ').take(3).collect::<Vec<_>>().join(" ")
}

fn said(program: &str, arguments: &[&str]) -> Result<String> {
    let output = Command::new(program).args(arguments).current_dir(root()).output();
    let output = output.with_context(|| format!("cannot start {program}"))?;
    Ok(String::from_utf8_lossy(&output.stdout).trim().to_owned())
}

/// A bench's own words.
fn bench(out: &mut String, title: &str, package: &str, bench: &str) -> Result<()> {
    println!("== {package} {bench}");
    let arguments = ["bench", "--package", package, "--bench", bench];
    let output = cargo().args(arguments).stderr(Stdio::inherit()).output()?;
    ensure!(output.status.success(), "bench `{bench}` ended with {}", output.status);
    let said = String::from_utf8_lossy(&output.stdout);
    print!("{said}");
    writeln!(
        out,
        "### {title}\n`cargo bench -p {package} --bench {bench}`\n\n```text\n{}\n```\n",
        said.trim_end()
    )?;
    Ok(())
}

/// Generates a log once.
pub(crate) fn generated(
    shared: &Path,
    folder: &Path,
    name: &str,
    generator: &str,
    more: &[&str],
) -> Result<PathBuf> {
    let log = folder.join(format!("{name}.log"));
    if !log.is_file() {
        let status = Command::new("python3")
            .arg(shared.join("bench").join(generator))
            .args(["--span", "600", "--seed", "1", "--end", LAST])
            .args(more)
            .arg("--out")
            .arg(&log)
            .arg("--truth")
            .arg(folder.join(format!("{name}.json")))
            .env("TZ", "UTC")
            .status()
            .context("cannot start python3")?;
        ensure!(status.success(), "{generator} ended with {status}");
    }
    Ok(log)
}

/// One run of `simulate`, in seconds.
struct Run {
    cpu: f64,
    wall: f64,
    lines: f64,
    peak: f64,
    remembered: u64,
    alerts: u64,
}

/// One thread against two, in turns, so that both meet the same neighbours on the machine.
fn threads(out: &mut String, shared: &Path, folder: &Path) -> Result<()> {
    let built = cargo().args(["build", "--release", "--package", "tld-cli"]).status()?;
    ensure!(built.success(), "the release build failed");
    let many = ["--lines", "1000000", "--attackers", "1000", "--light", "2000"];
    let logs = [
        ("sshd", generated(shared, folder, "a1m", "gen_authlog.py", &many)?),
        ("web", generated(shared, folder, "w200k", "gen_weblog.py", &["--lines", "200000"])?),
    ];
    let home = shared.join("conformance/home");
    writeln!(
        out,
        "### One thread and two\n`threatlockdown simulate --threads N`, from the file to the summary, {RUNS} runs of each in turns, medians. *Overhead* is"
    )?;
    writeln!(
        out,
        "the processor time of two threads over that of one; it is what bounds the gain where the clock is shared with others.\n"
    )?;
    writeln!(
        out,
        "| log | ruleset | lines per CPU second, one thread | lines per second on the clock, one | two | gain | overhead | peak memory | remembered | alerts |"
    )?;
    writeln!(out, "|---|---|---|---|---|---|---|---|---|---|")?;
    for (name, log) in &logs {
        for (ruleset, home) in [("existing", Some(&home)), ("shipped", None)] {
            println!("== simulate {name} {ruleset}");
            let (mut one, mut two) = (Vec::new(), Vec::new());
            for _ in 0..RUNS {
                one.push(simulate(log, home, 1)?);
                two.push(simulate(log, home, 2)?);
            }
            ensure!(
                one.iter().chain(&two).all(|run| run.alerts == one[0].alerts),
                "the number of alerts differs between one thread and two"
            );
            let lines = one[0].lines;
            let (slow, quick) = (median(&one, |run| run.wall), median(&two, |run| run.wall));
            let (single, double) = (median(&one, |run| run.cpu), median(&two, |run| run.cpu));
            writeln!(
                out,
                "| {name} | {ruleset} | {:.0} | {:.0} | {:.0} | {:.2} | {:.2} | {:.0} MB | {} | {} |",
                lines / single,
                lines / slow,
                lines / quick,
                slow / quick,
                double / single,
                median(&one, |run| run.peak) / 1e6,
                one[0].remembered,
                one[0].alerts,
            )?;
        }
    }
    writeln!(out)?;
    Ok(())
}

fn simulate(log: &Path, home: Option<&PathBuf>, threads: u32) -> Result<Run> {
    let mut command = Command::new(root().join("target/release/threatlockdown"));
    command.args(["simulate", "--summary", "json", "--threads", &threads.to_string(), "--log"]).arg(log);
    if let Some(home) = home {
        command.arg("--home").arg(home);
    }
    let output = command.env("TZ", "UTC").output().context("cannot start threatlockdown")?;
    if !output.status.success() {
        bail!("simulate failed: {}", String::from_utf8_lossy(&output.stderr));
    }
    let summary: serde_json::Value = serde_json::from_slice(&output.stdout)?;
    let number = |part: &str, name: &str| summary[part][name].as_f64().unwrap_or(0.0);
    Ok(Run {
        cpu: number("cost", "cpu_seconds"),
        wall: number("cost", "wall_seconds"),
        lines: number("input", "lines"),
        peak: number("cost", "peak_memory_bytes"),
        remembered: summary["cost"]["remembered_events"].as_u64().unwrap_or(0),
        alerts: summary["alerts"]["total"].as_u64().unwrap_or(0),
    })
}

fn median(runs: &[Run], of: fn(&Run) -> f64) -> f64 {
    let mut values: Vec<f64> = runs.iter().map(of).collect();
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or(f64::NAN)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_stands_between_the_marks_is_replaced() {
        let page = format!("by hand\n{BEGIN}\nold\n{END}\nsteps\n");
        assert_eq!(replaced(&page, "new\n"), Some(format!("by hand\n{BEGIN}\nnew\n{END}\nsteps\n")));
        assert_eq!(replaced("no marks", "new"), None);
    }
}
