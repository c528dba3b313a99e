//! Tasks of the project that are more than one command: `cargo xtask <task>`. Invariant: a task that could not do what its
//! name says ends with an error, also where only a tool is missing.

#![expect(
    clippy::disallowed_methods,
    clippy::print_stdout,
    reason = "runs cargo for a person at a terminal, with that person's environment"
)]

mod cross;
mod fleet;
mod peers;
mod report;
mod sizes;
mod soak;

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result, ensure};
use clap::Parser;

#[derive(Parser)]
#[command(name = "cargo xtask", about = "Tasks of the project")]
enum Task {
    /// Run every bench and repeat its figures at the end
    Bench {
        /// Only this one (`latency`, `engine` …)
        name: Option<String>,
    },
    /// Search with libFuzzer (needs cargo-fuzz and a C++ compiler)
    Fuzz {
        /// A target; all of them in turn when left out
        target: Option<String>,
        /// Seconds for each target
        #[arg(default_value_t = 60)]
        seconds: u64,
    },
    /// Type-check the agent for Windows and macOS (needs Debian's rustc-web, cargo-web, rust-web-src and mingw)
    Cross,
    /// Replay every fuzz target for a long time, on the stable compiler
    Soak {
        /// Minutes in all
        #[arg(default_value_t = 30)]
        minutes: u64,
    },
    /// Run the service under a steady load for a long time: its memory must not grow
    Steady {
        /// Minutes
        #[arg(default_value_t = 30)]
        minutes: u64,
    },
    /// Take all figures anew and write them into docs/performance.md (some ten minutes of a quiet machine; root for the responder)
    Report {
        /// Only the parts whose title holds this text, and print them instead of writing the page
        only: Option<String>,
    },
    /// Run the crash tests of the responder as often as asked (needs root)
    Crash {
        /// How often
        #[arg(long, default_value_t = 500)]
        runs: u32,
    },
    /// Simulate thousands of agents on one manager and print what that costs
    Agents(fleet::Options),
    /// Files above the limit of lines
    Sizes,
    /// Licences, bans and sources of the dependencies (needs cargo-deny)
    Deny,
}

fn main() -> Result<()> {
    match Task::parse() {
        Task::Bench { name } => bench(name.as_deref()),
        Task::Fuzz { target, seconds } => fuzz(target.as_deref(), seconds),
        Task::Cross => cross::check(),
        Task::Soak { minutes } => soak::soak(minutes),
        Task::Steady { minutes } => soak::steady(minutes),
        Task::Report { only } => report::report(only.as_deref()),
        Task::Crash { runs } => soak::crash(runs),
        Task::Agents(options) => fleet::run(&options, root()),
        Task::Sizes => sizes::check(),
        Task::Deny => {
            installed("cargo-deny", "cargo install --locked cargo-deny")?;
            run(cargo().args(["deny", "check", "bans", "licenses", "sources"]))
        }
    }
}

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap_or(Path::new("."))
}

/// The cargo that started us, at the root of the project.
fn cargo() -> Command {
    let mut command = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    command.current_dir(root());
    command
}

fn run(command: &mut Command) -> Result<()> {
    let status = command.status().with_context(|| format!("cannot start {command:?}"))?;
    ensure!(status.success(), "{command:?} ended with {status}");
    Ok(())
}

fn installed(program: &str, cure: &str) -> Result<()> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let found = std::env::split_paths(&path).any(|folder| folder.join(program).is_file());
    ensure!(found, "`{program}` is not installed; install it with `{cure}`");
    Ok(())
}

/// The benches that the manifests name, as (package, bench).
fn benches() -> Result<Vec<(String, String)>> {
    let output = cargo().args(["metadata", "--format-version", "1", "--no-deps", "--offline"]).output()?;
    ensure!(output.status.success(), "`cargo metadata` failed");
    let data: serde_json::Value = serde_json::from_slice(&output.stdout)?;
    let text = |value: &serde_json::Value| value.as_str().unwrap_or_default().to_owned();
    let list = |value: &serde_json::Value| value.as_array().cloned().unwrap_or_default();
    let mut benches = Vec::new();
    for package in list(&data["packages"]) {
        for target in list(&package["targets"]) {
            if list(&target["kind"]).iter().any(|kind| kind == "bench") {
                benches.push((text(&package["name"]), text(&target["name"])));
            }
        }
    }
    Ok(benches)
}

fn bench(only: Option<&str>) -> Result<()> {
    let benches: Vec<_> =
        benches()?.into_iter().filter(|(_, bench)| only.is_none_or(|only| only == bench)).collect();
    ensure!(!benches.is_empty(), "no such bench");
    let mut summary = String::new();
    for (package, bench) in &benches {
        println!("== {package} {bench}");
        let output = cargo()
            .args(["bench", "--package", package, "--bench", bench])
            .stderr(std::process::Stdio::inherit())
            .output()?;
        ensure!(output.status.success(), "bench `{bench}` ended with {}", output.status);
        let said = String::from_utf8_lossy(&output.stdout);
        print!("{said}");
        summary.push_str(&format!("{package} {bench}\n"));
        summary
            .extend(said.lines().filter(|line| !line.trim().is_empty()).map(|line| format!("    {line}\n")));
    }
    println!("\n== summary\n{summary}");
    Ok(())
}

fn fuzz(only: Option<&str>, seconds: u64) -> Result<()> {
    installed("cargo-fuzz", "cargo install --locked cargo-fuzz")?;
    let folder = root().join("fuzz/libfuzzer");
    let targets: Vec<String> = names(&folder.join("fuzz_targets"))?
        .iter()
        .filter_map(|path| Some(path.file_stem()?.to_str()?.to_owned()))
        .filter(|name| only.is_none_or(|only| only == name))
        .collect();
    ensure!(!targets.is_empty(), "no such target");
    let mut failed = Vec::new();
    for target in &targets {
        println!("== {target}, {seconds} s");
        // New inputs go to the first folder; the committed seeds are only read.
        let corpus = root().join("target/fuzz/corpus").join(target);
        let found = root().join("target/fuzz").join(target);
        std::fs::create_dir_all(&corpus)?;
        std::fs::create_dir_all(&found)?;
        // Coverage flags are unstable: the stable compiler takes them when asked like this. Sanitizers would find
        // nothing here, since the rooms that are fuzzed hold no unsafe code.
        let mut command = cargo();
        command
            .current_dir(&folder)
            .env("RUSTC_BOOTSTRAP", "1")
            .args(["fuzz", "run", "--fuzz-dir", ".", "--sanitizer", "none"])
            .arg("--target-dir")
            .arg(root().join("target/libfuzzer"))
            .arg(target)
            .arg(&corpus)
            .arg(root().join("fuzz/seeds").join(target))
            .arg("--")
            .args([format!("-max_total_time={seconds}"), "-timeout=20".into(), "-max_len=16384".into()])
            .arg(format!("-artifact_prefix={}/", found.display()));
        if run(&mut command).is_err() {
            failed.push(target.as_str());
        }
    }
    ensure!(failed.is_empty(), "broken: {}; inputs are in target/fuzz/<target>/", failed.join(", "));
    Ok(())
}

/// Paths in a folder, sorted.
fn names(folder: &Path) -> Result<Vec<PathBuf>> {
    let entries = std::fs::read_dir(folder).with_context(|| format!("cannot read {}", folder.display()))?;
    let mut paths = entries.map(|entry| Ok(entry?.path())).collect::<Result<Vec<_>>>()?;
    paths.sort();
    Ok(paths)
}
