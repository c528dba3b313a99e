//! Takes every figure of `docs/performance.md` anew. The page has a part between two marks that this task writes; everything
//! else on it is written by hand and stays. Invariant: a figure on the page was printed by a program of the same run.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Instant;

use anyhow::{Context as _, Result, bail, ensure};

use crate::{cargo, peers, root, run};

const PAGE: &str = "docs/performance.md";
const BEGIN: &str = "<!-- written by `cargo xtask report`: begin -->";
const END: &str = "<!-- written by `cargo xtask report`: end -->";
/// The last second of generated logs, 2026-11-22T21:00:00Z.
const LAST: &str = "1795381200";
/// Runs of each command in turns; the best counts, since neighbours on the machine only ever add.
const RUNS: usize = 9;
/// Blocks of the responder's bench; its own default, a million, takes an hour.
const BLOCKS: &str = "10000";
/// Benches of the page by package.
const BENCHES: &[(&str, &[&str])] =
    &[("tld-rules", &["engine", "stages"]), ("tld-cli", &["latency"]), ("tld-respond", &["scale"])];

/// Measures everything and writes the page. What cannot be taken here is named there, and the rest is taken all the same.
pub(crate) fn report(only: Option<&str>) -> Result<()> {
    let begin = Instant::now();
    let page = root().join(PAGE);
    let text = std::fs::read_to_string(&page).with_context(|| format!("cannot read {PAGE}"))?;
    ensure!(text.contains(BEGIN) && text.contains(END), "{PAGE} lacks the marks `{BEGIN}` and `{END}`");
    let shared = std::env::var_os("TLD_SHARED").map_or_else(|| root().join("../shared"), PathBuf::from);
    ensure!(shared.join("bench").is_dir(), "no generators below {}; set TLD_SHARED", shared.display());
    let folder = root().join("target/report");
    std::fs::create_dir_all(&folder)?;
    if only.is_none() {
        build()?;
    }
    println!("== built after {:.0} s", begin.elapsed().as_secs_f64());

    let mut out = String::new();
    writeln!(out, "{}\n", machine()?)?;
    type Take<'a> = Box<dyn FnOnce(&mut String) -> Result<()> + 'a>;
    let parts: [(&str, Take<'_>); 6] = [
        ("One thread and two", Box::new(|out| threads(out, &shared, &folder))),
        ("Whole analysis, one thread", Box::new(|out| bench(out, "tld-rules", "engine", &[]))),
        ("Stages", Box::new(|out| bench(out, "tld-rules", "stages", &["--sample-count", "25"]))),
        ("From the line to the block in the kernel", Box::new(|out| bench(out, "tld-cli", "latency", &[]))),
        ("The responder with 10,000 blocks", Box::new(|out| bench(out, "tld-respond", "scale", &[]))),
        ("Peers on this machine", Box::new(|out| peers::measure(out, &shared, &folder))),
    ];
    for (title, take) in parts {
        if only.is_none_or(|only| title.to_lowercase().contains(&only.to_lowercase())) {
            part(&mut out, title, take)?;
        }
    }
    if only.is_some() {
        println!("{out}");
        return Ok(());
    }
    writeln!(
        out,
        "Load average at the end: {}. All of it took {:.0} minutes.",
        load(),
        begin.elapsed().as_secs_f64() / 60.0
    )?;

    std::fs::write(&page, replaced(&text, &out).context("the marks stand in the wrong order")?)?;
    println!("wrote {}", page.display());
    Ok(())
}

/// One part of the page; why it is missing, if it could not be taken.
fn part(out: &mut String, title: &str, take: impl FnOnce(&mut String) -> Result<()>) -> Result<()> {
    let begin = Instant::now();
    let mut taken = String::new();
    writeln!(out, "### {title}")?;
    match take(&mut taken) {
        Ok(()) => out.push_str(&taken),
        Err(error) => {
            println!("not taken: {error:#}");
            writeln!(out, "Not taken: {error:#}.\n")?;
        }
    }
    println!("== {title}: {:.0} s", begin.elapsed().as_secs_f64());
    Ok(())
}

/// Everything that will run, so that no compiler runs beside a measurement.
fn build() -> Result<()> {
    run(cargo().args(["build", "--release", "--package", "tld-cli"]))?;
    for (package, benches) in BENCHES {
        let named = benches.iter().flat_map(|bench| ["--bench", bench]);
        run(cargo().args(["bench", "--no-run", "--package", package]).args(named))?;
    }
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
fn bench(out: &mut String, package: &str, bench: &str, more: &[&str]) -> Result<()> {
    let mut command = cargo();
    command.args(["bench", "--package", package, "--bench", bench, "--"]).args(more);
    command.env("TLD_SCALE", BLOCKS).env("NO_COLOR", "1").stderr(Stdio::inherit());
    let output = command.output()?;
    let said = String::from_utf8_lossy(&output.stdout);
    print!("{said}");
    ensure!(output.status.success(), "bench `{bench}` ended with {}", output.status);
    let lines: Vec<_> = said.trim_matches('\n').lines().map(str::trim_end).collect();
    writeln!(out, "`cargo bench -p {package} --bench {bench}`\n\n```text\n{}\n```\n", lines.join("\n"))?;
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
    let many = ["--lines", "300000", "--attackers", "1000", "--light", "2000"];
    let logs = [
        ("sshd", generated(shared, folder, "a300k", "gen_authlog.py", &many)?),
        ("web", generated(shared, folder, "w200k", "gen_weblog.py", &["--lines", "200000"])?),
    ];
    let home = shared.join("conformance/home");
    writeln!(
        out,
        "`threatlockdown simulate --threads N`, from the file to the summary without loading the rules, {RUNS} runs of each in turns, the best\n\
         of each. *Overhead* is the processor time of two threads over that of one.\n"
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
            let (slow, quick) = (best(&one, |run| run.wall), best(&two, |run| run.wall));
            let (single, double) = (best(&one, |run| run.cpu), best(&two, |run| run.cpu));
            writeln!(
                out,
                "| {name} | {ruleset} | {:.0} | {:.0} | {:.0} | {:.2} | {:.2} | {:.0} MB | {} | {} |",
                lines / single,
                lines / slow,
                lines / quick,
                slow / quick,
                double / single,
                best(&two, |run| run.peak) / 1e6,
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

fn best(runs: &[Run], of: fn(&Run) -> f64) -> f64 {
    runs.iter().map(of).fold(f64::INFINITY, f64::min)
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
