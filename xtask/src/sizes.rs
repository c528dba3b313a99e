//! Files above the limit of lines. The test `house` of the command room holds the same limit in the gate.

use std::path::Path;

use anyhow::{Result, ensure};

use crate::{names, root};

/// Lines of one file.
const LIMIT: usize = 800;
/// Generated or plain tables, where splitting would only scatter data.
const TABLES: &[&str] = &["crates/rules/src/alert/mitre_table.rs"];

/// Fails when a source file is longer than it may be, and shows the longest ones.
pub(crate) fn check() -> Result<()> {
    let mut sizes = Vec::new();
    for folder in ["crates", "fuzz", "xtask"] {
        measure(&root().join(folder), &mut sizes)?;
    }
    sizes.sort();
    for (lines, path) in sizes.iter().rev().take(10) {
        println!("{lines:>5} {path}");
    }
    let long: Vec<_> =
        sizes.iter().filter(|(lines, _)| *lines > LIMIT).map(|(_, path)| path.as_str()).collect();
    ensure!(long.is_empty(), "above {LIMIT} lines: {}", long.join(", "));
    Ok(())
}

fn measure(folder: &Path, sizes: &mut Vec<(usize, String)>) -> Result<()> {
    for path in names(folder)? {
        if path.is_dir() {
            if path.file_name().is_none_or(|name| name != "target") {
                measure(&path, sizes)?;
            }
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            let shown = path.strip_prefix(root())?.display().to_string();
            if !TABLES.contains(&shown.as_str()) {
                sizes.push((std::fs::read_to_string(&path)?.lines().count(), shown));
            }
        }
    }
    Ok(())
}
