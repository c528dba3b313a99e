//! Type-checks the agent for systems that we cannot run. The standard library is built from the source of Debian's compiler,
//! because the compiler of the project comes without the libraries of other targets.

use std::path::Path;
use std::process::Command;

use anyhow::{Context as _, Result, ensure};

use crate::root;

/// Debian's compiler, whose source package puts `library/` where `-Zbuild-std` looks for it.
const CARGO: &str = "/usr/bin/cargo";
const TARGETS: &[&str] = &["x86_64-pc-windows-gnu", "x86_64-apple-darwin"];
const CURE: &str =
    "apt-get install --no-install-recommends rustc-web cargo-web rust-web-src gcc-mingw-w64-x86-64";

/// Checks both targets and tells all that fail.
pub(crate) fn check() -> Result<()> {
    ensure!(Path::new(CARGO).is_file(), "no {CARGO}; install it with `{CURE}`");
    let compiler = stand_in()?;
    let mut failed = Vec::new();
    for target in TARGETS {
        println!("== {target}");
        let mut command = Command::new(CARGO);
        command
            .current_dir(root())
            .env("PATH", "/usr/bin:/bin")
            .env("RUSTC_BOOTSTRAP", "1")
            .env_remove("RUSTC")
            .env_remove("RUSTUP_TOOLCHAIN")
            .env_remove("CARGO")
            .args([
                "check",
                "-Zbuild-std=std,panic_abort,panic_unwind",
                "--target",
                target,
                "--package",
                "tld-agent",
            ])
            .args(["--target-dir", "target/cross"]);
        if target.ends_with("darwin") {
            // C parts would want Apple's compiler; a check links nothing, so that empty objects do.
            command.env("CC_x86_64_apple_darwin", &compiler).env("AR_x86_64_apple_darwin", "true");
        }
        let status = command.status().with_context(|| format!("cannot start {CARGO}"))?;
        if !status.success() {
            failed.push(*target);
        }
    }
    ensure!(failed.is_empty(), "does not compile for {}", failed.join(", "));
    Ok(())
}

/// A C compiler that answers questions and otherwise leaves an empty object.
fn stand_in() -> Result<std::path::PathBuf> {
    use std::os::unix::fs::PermissionsExt as _;
    const SCRIPT: &str = "#!/bin/sh
for word in \"$@\"; do case $word in -E|--version|-v|-print*) exec gcc \"$@\" ;; esac; done
last=
for word in \"$@\"; do [ \"$last\" = -o ] && : >\"$word\"; last=$word; done
";
    let folder = root().join("target/cross");
    std::fs::create_dir_all(&folder)?;
    let path = folder.join("cc-stand-in");
    std::fs::write(&path, SCRIPT)?;
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755))?;
    Ok(path)
}
