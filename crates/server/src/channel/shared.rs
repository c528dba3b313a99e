//! Shared configuration for agents: one bundle for each group and each combination of groups in use, built from
//! `etc/shared` whenever files there change.
//!
//! A thread of its own reads and builds; everybody else only takes the bundle of now. What agents cannot receive (binary
//! files, links) is left out with a warning, and an `agent.conf` that is no XML leaves the one before it in place.
//! Invariant: a bundle is replaced as a whole, in memory and on disk.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use tld_sys::durable;
use tld_wire::key::md5_text;
use tld_wire::merged::{self, BUNDLE_LIMIT, Entry, FILES_LIMIT};
use tld_xml::Source;

use crate::log::Log;
use crate::registry::Registry;

/// The group of agents that are in no other.
pub(super) const DEFAULT_GROUP: &str = "default";
const BUNDLE: &str = "merged.mg";
const RESPONSES: &str = "ar.conf";
const AGENT_CONF: &str = "agent.conf";
/// Folders in folders of a group that are looked into.
const DEPTH: u32 = 8;

/// A bundle as agents get it.
#[derive(Debug)]
pub(super) struct Bundle {
    pub(super) bytes: Vec<u8>,
    pub(super) md5: String,
}

/// The bundles of now.
#[derive(Debug, Default)]
struct Bundles {
    groups: HashMap<String, Arc<Bundle>>,
    /// By the comma list of their groups.
    combined: HashMap<String, Arc<Bundle>>,
}

#[derive(Debug, Default)]
pub(super) struct Shared(RwLock<Arc<Bundles>>);

impl Shared {
    /// The bundle for an agent in those groups; none if there is none yet.
    pub(super) fn of(&self, groups: &[String]) -> Option<Arc<Bundle>> {
        let now = Arc::clone(&self.0.read().unwrap_or_else(PoisonError::into_inner));
        match groups {
            [] => now.groups.get(DEFAULT_GROUP).cloned(),
            [one] => now.groups.get(one).cloned(),
            several => now.combined.get(&several.join(",")).cloned(),
        }
    }

    fn publish(&self, bundles: Bundles) {
        *self.0.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(bundles);
    }
}

/// What tells one state of a file from another without reading it.
type Stamp = (u64, u64, i64, i64);
type Stamps = BTreeMap<PathBuf, Stamp>;
/// Relative names with contents.
type Files = Vec<(String, Vec<u8>)>;

/// The builder, with what it saw last.
#[derive(Debug)]
pub(super) struct Builder {
    home: PathBuf,
    log: Log,
    seen: Stamps,
    combinations: BTreeSet<Vec<String>>,
    groups: BTreeMap<String, Files>,
    told: BTreeSet<String>,
}

/// Looks for changes every `period` until the sender is gone, at once when something is sent.
pub(super) fn keep(
    shared: &Shared,
    mut builder: Builder,
    registry: &Registry,
    period: Duration,
    asked: &Receiver<()>,
) {
    loop {
        builder.look(shared, registry);
        if matches!(asked.recv_timeout(period), Err(RecvTimeoutError::Disconnected)) {
            return;
        }
    }
}

impl Builder {
    pub(super) fn new(home: PathBuf, log: Log) -> Self {
        Self {
            home,
            log,
            seen: Stamps::new(),
            combinations: BTreeSet::new(),
            groups: BTreeMap::new(),
            told: BTreeSet::new(),
        }
    }

    /// Builds anew what changed.
    pub(super) fn look(&mut self, shared: &Shared, registry: &Registry) {
        let groups = registry.groups();
        let combinations = combinations(registry);
        let stamps = self.stamps(&groups);
        if stamps == self.seen && combinations == self.combinations && !self.seen.is_empty() {
            return;
        }
        self.told.clear();
        let mut bundles = Bundles::default();
        let responses =
            durable::read_bounded(&self.home.join("etc/shared").join(RESPONSES), BUNDLE_LIMIT).ok();
        let mut contents = BTreeMap::new();
        for group in &groups {
            let mut files = self.read(group, &stamps);
            self.keep_good_conf(group, &mut files);
            let path = self.home.join("etc/shared").join(group).join(BUNDLE);
            if let Some(bundle) = self.bundle(group, responses.as_deref(), &files, &path) {
                bundles.groups.insert(group.clone(), bundle);
            }
            contents.insert(group.clone(), files);
        }
        for list in &combinations {
            let mut parts = Vec::new();
            for group in list {
                parts.extend(contents.get(group).map(|files| (group.as_str(), entries(files))));
            }
            let files = merged::combine(&parts);
            let names: Vec<_> = list.iter().map(String::as_str).collect();
            let head = merged::multigroup(&names);
            let path = self.home.join("var/multigroups").join(&head).join(BUNDLE);
            if let Some(bundle) = self.bundle(&head, responses.as_deref(), &files, &path) {
                bundles.combined.insert(list.join(","), bundle);
            }
        }
        shared.publish(bundles);
        (self.groups, self.seen, self.combinations) = (contents, stamps, combinations);
    }

    fn tell(&mut self, text: &str) {
        if self.told.insert(text.to_owned()) {
            self.log.warning(text);
        }
    }

    fn stamps(&mut self, groups: &[String]) -> Stamps {
        let mut stamps = Stamps::new();
        let shared = self.home.join("etc/shared");
        if let Ok(file) = fs::symlink_metadata(shared.join(RESPONSES)) {
            stamps.insert(shared.join(RESPONSES), stamp(&file));
        }
        for group in groups {
            // The folder itself, so that an empty group is one that was seen.
            let folder = shared.join(group);
            stamps.insert(folder.clone(), (0, 0, 0, 0));
            self.walk(&folder, DEPTH, &mut stamps);
        }
        stamps
    }

    fn walk(&mut self, folder: &Path, depth: u32, stamps: &mut Stamps) {
        for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
            let path = entry.path();
            let Ok(file) = entry.metadata() else { continue };
            if stamps.len() >= FILES_LIMIT * 2 {
                return;
            }
            if file.is_dir() && depth > 0 {
                self.walk(&path, depth - 1, stamps);
            } else if file.is_file() {
                let name = entry.file_name();
                if name != BUNDLE && !name.as_encoded_bytes().starts_with(b".") {
                    stamps.insert(path, stamp(&file));
                }
            } else if !file.is_dir() {
                // A link could lead every agent to a file of this host.
                self.tell(&format!("`{}` is no regular file and is not shared", path.display()));
            }
        }
    }

    /// A group's files, as far as agents can receive them, by name.
    fn read(&mut self, group: &str, stamps: &Stamps) -> Files {
        let folder = self.home.join("etc/shared").join(group);
        let mut files = Files::new();
        let mut size = 0;
        for path in stamps.keys().filter(|path| **path != folder) {
            let Ok(relative) = path.strip_prefix(&folder) else { continue };
            let name = relative.to_str().filter(|name| merged::is_safe_name(name));
            let Some(name) = name.filter(|name| *name != RESPONSES) else {
                self.tell(&format!("`{}` cannot be shared under its name", path.display()));
                continue;
            };
            match durable::read_bounded(path, BUNDLE_LIMIT) {
                Ok(content) if content.contains(&0) => {
                    self.tell(&format!("`{}` is not shared: agents receive text only", path.display()));
                }
                Ok(content) if size + content.len() > BUNDLE_LIMIT / 2 => {
                    self.tell(&format!("`{}` is not shared: its group is too large", path.display()));
                }
                Ok(content) => {
                    size += content.len();
                    files.push((name.to_owned(), content));
                }
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(error) => self.tell(&format!("`{}` is not shared: {error}", path.display())),
            }
        }
        files
    }

    /// An `agent.conf` that agents could not read is replaced by the one before it.
    fn keep_good_conf(&mut self, group: &str, files: &mut Files) {
        let Some(at) = files.iter().position(|(name, _)| name == AGENT_CONF) else { return };
        let name = format!("etc/shared/{group}/{AGENT_CONF}");
        let Err(fault) = tld_xml::parse(&Source::new(name.as_str(), files[at].1.clone())) else { return };
        self.log.error(&format!("agents keep the former `{name}`: {}", fault.render(false).trim_end()));
        match self.former_conf(group) {
            Some(former) => files[at].1 = former,
            None => {
                files.remove(at);
            }
        }
    }

    fn former_conf(&self, group: &str) -> Option<Vec<u8>> {
        let conf =
            |files: &Files| files.iter().find(|(name, _)| name == AGENT_CONF).map(|(_, text)| text.clone());
        if let Some(files) = self.groups.get(group) {
            return conf(files);
        }
        let path = self.home.join("etc/shared").join(group).join(BUNDLE);
        let bytes = durable::read_bounded(&path, BUNDLE_LIMIT).ok()?;
        let files = merged::parse(&bytes).ok()?;
        files.iter().find(|file| file.name == AGENT_CONF).map(|file| file.content.to_vec())
    }

    fn bundle(
        &mut self,
        head: &str,
        responses: Option<&[u8]>,
        files: &Files,
        path: &Path,
    ) -> Option<Arc<Bundle>> {
        let mut all: Vec<_> =
            responses.map(|content| Entry { name: RESPONSES, content }).into_iter().collect();
        all.extend(entries(files));
        let bytes = match merged::build(head, &all) {
            Ok(bytes) => bytes,
            Err(error) => {
                self.tell(&format!("group `{head}` cannot be shared: {error}"));
                return None;
            }
        };
        // On disk it is for other tools and for the next start.
        if durable::read_bounded(path, BUNDLE_LIMIT).ok().as_ref() != Some(&bytes) {
            let folder = path.parent().unwrap_or(path);
            let written =
                durable::create_dirs(folder, 0o770).and_then(|()| durable::replace(path, &bytes, 0o640));
            if let Err(error) = written {
                self.tell(&format!("cannot write `{}`: {error}", path.display()));
            }
        }
        let md5 = md5_text(&bytes);
        Some(Arc::new(Bundle { bytes, md5 }))
    }
}

fn stamp(file: &fs::Metadata) -> Stamp {
    (file.ino(), file.len(), file.mtime(), file.mtime_nsec())
}

fn entries(files: &Files) -> Vec<Entry<'_>> {
    files.iter().map(|(name, content)| Entry { name, content }).collect()
}

/// The lists of several groups that agents are in.
fn combinations(registry: &Registry) -> BTreeSet<Vec<String>> {
    let lists = registry.table();
    lists.agents().map(|agent| agent.groups()).filter(|groups| groups.len() > 1).collect()
}

#[cfg(test)]
mod tests;
