//! Where the kernel lets us make control groups.
//!
//! Invariant: only directories below the group that this process is in already are written to, or below the one that the
//! service manager delegated to it; no process but a new one is ever moved.

use std::path::{Path, PathBuf};

use super::{Bounds, Kind, PREFIX};

/// A directory in which groups can be made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Place {
    /// Version 2; with the controllers for number and memory, or only as a list of members.
    Two { directory: PathBuf, controllers: bool },
    /// The `pids` hierarchy of version 1.
    One { directory: PathBuf },
    /// None.
    None,
}

impl Place {
    /// Makes a group; `None` where that cannot be done.
    pub(super) fn make(&self, name: &str, bounds: Bounds) -> Option<Kind> {
        let (above, counts) = match self {
            Self::Two { directory, controllers } => (directory, *controllers),
            Self::One { directory } => (directory, true),
            Self::None => return None,
        };
        let directory = above.join(name);
        std::fs::create_dir(&directory).ok()?;
        let mut bounded = counts;
        if let Some(most) = bounds.processes.filter(|_| counts) {
            bounded = write(&directory.join("pids.max"), &most.to_string());
        }
        if let Some(bytes) =
            bounds.memory_bytes.filter(|_| matches!(self, Self::Two { controllers: true, .. }))
        {
            // One process too many for memory ends the whole, else half of it would go on.
            let _ = write(&directory.join("memory.oom.group"), "1");
            let _ = write(&directory.join("memory.max"), &bytes.to_string());
        }
        Some(Kind::Control { directory, bounded })
    }
}

/// The best place there is.
pub(super) fn find() -> Place {
    let own = |path| read(Path::new(path)).unwrap_or_default();
    let (two, one) = directories(&own("/proc/self/cgroup"), &own("/proc/self/mountinfo"));
    let counted = two.as_deref().and_then(with_controllers);
    let place = counted.map(|directory| Place::Two { directory, controllers: true });
    place
        .or_else(|| one.filter(|directory| usable(directory)).map(|directory| Place::One { directory }))
        .or_else(|| {
            let directory = two.filter(|directory| usable(directory))?;
            Some(Place::Two { directory, controllers: false })
        })
        .unwrap_or(Place::None)
}

/// Where below `own` or beside it groups get the controllers for number.
fn with_controllers(own: &Path) -> Option<PathBuf> {
    let has = |directory: &Path| {
        let text = read(&directory.join("cgroup.subtree_control")).unwrap_or_default();
        text.split_ascii_whitespace().any(|controller| controller == "pids")
    };
    // As `Delegate=` and `DelegateSubgroup=` make it: we are in a leaf, and what is around it is ours. Where a process is
    // in the delegated group itself it must stay so, else the service manager could not start us again beside what a
    // file left behind.
    let around = own.parent().filter(|parent| delegated(parent) && usable(parent));
    if let Some(around) = around {
        let _ = write(&around.join("cgroup.subtree_control"), "+memory");
        if has(around) || write(&around.join("cgroup.subtree_control"), "+pids") {
            return Some(around.to_owned());
        }
    }
    // The root of all groups may hold processes and groups.
    (has(own) && usable(own)).then(|| own.to_owned())
}

/// Whether the service manager says that this group is its service's.
fn delegated(directory: &Path) -> bool {
    ["user.delegate", "trusted.delegate"].iter().any(|name| {
        let mut value = [0_u8; 8];
        rustix::fs::getxattr(directory, *name, &mut value)
            .is_ok_and(|length| value.get(..length) == Some(b"1"))
    })
}

/// Whether groups can be made here: told by making one.
fn usable(directory: &Path) -> bool {
    let probe = directory.join(format!("{PREFIX}{}-probe", std::process::id()));
    let made = std::fs::create_dir(&probe).is_ok();
    made && std::fs::remove_dir(&probe).is_ok()
}

/// The directories of our own group: in version 2, and in the `pids` hierarchy of version 1.
pub(super) fn directories(groups: &str, mounts: &str) -> (Option<PathBuf>, Option<PathBuf>) {
    let group = |wanted: fn(&str, &str) -> bool| {
        groups.lines().find_map(|line| {
            let mut parts = line.splitn(3, ':');
            let (number, controllers, path) = (parts.next()?, parts.next()?, parts.next()?);
            wanted(number, controllers).then_some(path)
        })
    };
    let two = group(|number, controllers| number == "0" && controllers.is_empty());
    let one = group(|_, controllers| controllers.split(',').any(|controller| controller == "pids"));
    let place = |path: Option<&str>, kind: &str, option: &str| {
        let path = path.filter(|path| !path.split('/').any(|part| part == ".."))?;
        mounts.lines().find_map(|line| {
            let (before, after) = line.split_once(" - ")?;
            let mut fields = before.split(' ').skip(3);
            let (root, point) = (fields.next()?, fields.next()?);
            let mut about = after.split(' ');
            let named = about.next()? == kind;
            let options = about.nth(1).unwrap_or_default();
            let fits = named && (option.is_empty() || options.split(',').any(|one| one == option));
            // A bind mount shows a part of the hierarchy.
            let below = path.strip_prefix(root.trim_end_matches('/')).filter(|_| fits)?;
            // Blanks are written as octal numbers; such a mount point is nowhere in practice.
            (!point.contains('\\')).then(|| Path::new(point).join(below.trim_start_matches('/')))
        })
    };
    (place(two, "cgroup2", ""), place(one, "cgroup", "pids"))
}

/// Removes empty groups of processes that are gone.
pub(super) fn sweep(place: &Place) {
    let (Place::Two { directory, .. } | Place::One { directory }) = place else { return };
    for entry in std::fs::read_dir(directory).into_iter().flatten().flatten() {
        let name = entry.file_name();
        let maker =
            name.to_str().and_then(|name| name.strip_prefix(PREFIX)?.split('-').next()?.parse::<u32>().ok());
        if maker.is_some_and(|pid| !Path::new(&format!("/proc/{pid}")).exists()) {
            let _ = std::fs::remove_dir(entry.path());
        }
    }
}

pub(super) fn read(path: &Path) -> Option<String> {
    let bytes = crate::durable::read_bounded(path, MOST).ok()?;
    Some(String::from_utf8_lossy(&bytes).into_owned())
}

/// One write, as the files of the kernel want it.
pub(super) fn write(path: &Path, text: &str) -> bool {
    use std::io::Write as _;
    let file = std::fs::File::options().write(true).open(path);
    file.and_then(|mut file| file.write_all(text.as_bytes())).is_ok()
}

const MOST: usize = 4 << 20;
