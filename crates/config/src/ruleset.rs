//! `<ruleset>`, and the decoder, rule and list files that it names.
//!
//! Files are sorted by base name whatever their directory, because existing rule sets rely on that order.
//! Every read has a limit; what cannot be read is a warning, as the contract has it.

use std::collections::HashSet;
use std::path::Path;

use tld_pattern::{Expression, Kind};
use tld_xml::{Diagnostic, Element, Severity, Source};

use crate::load::read_file;
use crate::reader::Reader;

const CHILDREN: &[&str] = &[
    "decoder_dir",
    "rule_dir",
    "decoder_include",
    "rule_include",
    "decoder_exclude",
    "rule_exclude",
    "list",
];
const DEFAULT_PATTERN: &str = ".xml$";
const FILE_LIMIT: u64 = 16 * 1024 * 1024;
const LIST_LIMIT: u64 = 128 * 1024 * 1024;
const MAX_FILES: usize = 20_000;

/// `<ruleset>` as written; paths are relative to the home.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct RulesetPaths {
    /// Directories of decoder files.
    pub decoder_dirs: Vec<RulesetDir>,
    /// Directories of rule files.
    pub rule_dirs: Vec<RulesetDir>,
    /// Single decoder files.
    pub decoder_includes: Vec<String>,
    /// Single rule files.
    pub rule_includes: Vec<String>,
    /// Decoder files that are left out: full or bare names.
    pub decoder_excludes: Vec<String>,
    /// Rule files that are left out: full or bare names.
    pub rule_excludes: Vec<String>,
    /// Lists.
    pub lists: Vec<String>,
}

/// One directory of a rule set.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RulesetDir {
    /// Path.
    pub path: String,
    /// What `path/name` must match; none takes every file.
    pub pattern: Option<String>,
}

/// The files of a rule set, in the order they are loaded.
#[derive(Debug, Clone, Default)]
pub struct RulesetTexts {
    /// Decoder files.
    pub decoders: Vec<Source>,
    /// Rule files.
    pub rules: Vec<Source>,
    /// Lists; a list's name is its path exactly as configured.
    pub lists: Vec<Source>,
}

/// Reads one `<ruleset>`; everything in it adds to what came before.
pub(crate) fn read(reader: &mut Reader<'_>, section: &Element, paths: &mut RulesetPaths) {
    for child in &section.children {
        if !CHILDREN.contains(&child.name.as_str()) {
            reader.unknown(child, "ruleset", CHILDREN);
            continue;
        }
        let Some(text) = reader.text(child) else {
            reader.invalid(child, "give a path");
            continue;
        };
        match child.name.as_str() {
            "decoder_dir" => paths.decoder_dirs.extend(dir(reader, child, text)),
            "rule_dir" => paths.rule_dirs.extend(dir(reader, child, text)),
            "decoder_include" => paths.decoder_includes.push(text),
            "rule_include" => paths.rule_includes.push(text),
            "decoder_exclude" => paths.decoder_excludes.push(text),
            "rule_exclude" => paths.rule_excludes.push(text),
            _ => paths.lists.push(text),
        }
    }
}

fn dir(reader: &mut Reader<'_>, child: &Element, path: String) -> Option<RulesetDir> {
    let attribute = child.attribute("pattern");
    let pattern = match attribute {
        Some(attribute) => Some(attribute.text().into_owned()),
        None => child.attributes.is_empty().then(|| DEFAULT_PATTERN.to_owned()),
    };
    if let (Some(text), Some(attribute)) = (&pattern, attribute)
        && let Err(error) = Expression::compile(Kind::OsRegex, text.as_bytes())
    {
        reader.error(Some(1235), attribute.value_span, error.to_string(), "the pattern cannot be compiled");
        return None;
    }
    Some(RulesetDir { path, pattern })
}

/// A directory that a start will make, relative to the home, with the names and texts of the files that it will put there.
#[derive(Debug, Clone, Copy)]
pub struct Supplied {
    /// The directory.
    pub directory: &'static str,
    /// Its files.
    pub files: &'static [(&'static str, &'static [u8])],
}

/// A home, and what a start will add to it.
#[derive(Clone, Copy)]
struct Tree<'a> {
    home: &'a Path,
    supplied: &'a [Supplied],
}

impl Tree<'_> {
    /// What a start will put into a directory that is not there yet.
    fn supplied(&self, directory: &str) -> Option<&'static [(&'static str, &'static [u8])]> {
        let directory = directory.trim_end_matches('/');
        let known = self.supplied.iter().find(|known| known.directory == directory)?;
        (!self.home.join(directory).exists()).then_some(known.files)
    }

    fn text(&self, name: &str) -> Option<&'static [u8]> {
        let (directory, file) = name.rsplit_once('/')?;
        let files = self.supplied(directory)?;
        files.iter().find(|(name, _)| *name == file).map(|(_, text)| *text)
    }
}

/// Reads the files that the paths name: decoders and rules sorted by base name, lists as configured. What is `supplied`
/// counts as if it were there.
pub fn read_ruleset(
    home: &Path,
    paths: &RulesetPaths,
    supplied: &[Supplied],
) -> (RulesetTexts, Vec<Diagnostic>) {
    let home = Tree { home, supplied };
    let mut diagnostics = Vec::new();
    let decoders = Selection {
        dirs: &paths.decoder_dirs,
        includes: &paths.decoder_includes,
        excludes: &paths.decoder_excludes,
        default: "ruleset/decoders",
    };
    let rules = Selection {
        dirs: &paths.rule_dirs,
        includes: &paths.rule_includes,
        excludes: &paths.rule_excludes,
        default: "ruleset/rules",
    };
    let mut seen = HashSet::new();
    let lists = paths.lists.iter().filter(|list| seen.insert(list.as_str())).cloned().collect();
    let texts = RulesetTexts {
        decoders: sources(home, decoders.files(home, &mut diagnostics), FILE_LIMIT, &mut diagnostics),
        rules: sources(home, rules.files(home, &mut diagnostics), FILE_LIMIT, &mut diagnostics),
        lists: sources(home, lists, LIST_LIMIT, &mut diagnostics),
    };
    (texts, diagnostics)
}

struct Selection<'a> {
    dirs: &'a [RulesetDir],
    includes: &'a [String],
    excludes: &'a [String],
    default: &'static str,
}

impl Selection<'_> {
    /// Names relative to the home, in loading order.
    fn files(&self, home: Tree<'_>, diagnostics: &mut Vec<Diagnostic>) -> Vec<String> {
        let mut files: Vec<String> = Vec::new();
        for include in self.includes {
            let full =
                if include.contains('/') { include.clone() } else { format!("{}/{include}", self.default) };
            if !files.contains(&full) {
                files.push(full);
            }
        }
        let included: HashSet<String> = files.iter().map(|f| base(f).to_owned()).collect();
        let mut taken: HashSet<String> = files.iter().cloned().collect();
        let fallback =
            [RulesetDir { path: self.default.to_owned(), pattern: Some(DEFAULT_PATTERN.to_owned()) }];
        let dirs = if self.dirs.is_empty() { &fallback } else { self.dirs };
        for dir in dirs {
            for name in names(home, dir, diagnostics) {
                let full = format!("{}/{name}", dir.path.trim_end_matches('/'));
                let excluded = self.excludes.iter().any(|e| *e == full || *e == name);
                if !excluded && !included.contains(&name) && taken.insert(full.clone()) {
                    files.push(full);
                }
            }
        }
        files.sort_by(|a, b| base(a).as_bytes().cmp(base(b).as_bytes()));
        files
    }
}

/// The matching files of one directory, sorted so that equal base names keep a steady order.
fn names(home: Tree<'_>, dir: &RulesetDir, diagnostics: &mut Vec<Diagnostic>) -> Vec<String> {
    let pattern = dir.pattern.as_ref().map(|p| Expression::compile(Kind::OsRegex, p.as_bytes()));
    let pattern = match pattern.transpose() {
        Ok(pattern) => pattern,
        Err(error) => {
            diagnostics.push(unreadable(&dir.path, &error.to_string()));
            return Vec::new();
        }
    };
    let there = match (home.supplied(&dir.path), std::fs::read_dir(home.home.join(&dir.path))) {
        (Some(files), _) => files.iter().map(|(name, _)| (*name).to_owned()).collect(),
        (None, Ok(entries)) => files(entries),
        (None, Err(error)) => {
            diagnostics.push(unreadable(&dir.path, &error.to_string()));
            return Vec::new();
        }
    };
    let mut names = Vec::new();
    for name in there {
        let full = format!("{}/{name}", dir.path.trim_end_matches('/'));
        let fits = match &pattern {
            Some(pattern) => pattern.is_match(full.as_bytes()),
            None => true,
        };
        if fits {
            names.push(name);
        }
    }
    names.sort();
    names
}

fn files(entries: std::fs::ReadDir) -> Vec<String> {
    let is_file = |path: &Path| std::fs::metadata(path).is_ok_and(|m| m.is_file());
    let files = entries.take(MAX_FILES).flatten().filter(|entry| is_file(&entry.path()));
    files.filter_map(|entry| entry.file_name().into_string().ok()).collect()
}

fn sources(home: Tree<'_>, files: Vec<String>, limit: u64, diagnostics: &mut Vec<Diagnostic>) -> Vec<Source> {
    let mut sources = Vec::with_capacity(files.len());
    for name in files {
        if let Some(text) = home.text(&name) {
            sources.push(Source::new(name, text));
            continue;
        }
        match read_file(&home.home.join(&name), limit) {
            Ok(text) => sources.push(Source::new(name, text)),
            Err(error) => diagnostics.push(unreadable(&name, &error.to_string())),
        }
    }
    sources
}

fn unreadable(name: &str, error: &str) -> Diagnostic {
    Diagnostic::bare(Severity::Warning, name, format!("cannot be read: {error}"))
        .with_code(1103)
        .with_help("what it defines is missing")
}

fn base(path: &str) -> &str {
    path.rsplit('/').next().unwrap_or(path)
}
