use std::sync::Barrier;
use std::sync::atomic::{AtomicUsize, Ordering};

use proptest::prelude::*;
use tempfile::TempDir;
use tld_sys::clock::ManualClock;
use tld_wire::key::Secret;
use tld_wire::name::RegisteredIp;

use super::*;

struct Bed {
    home: TempDir,
    clock: Arc<ManualClock>,
    warnings: Arc<Mutex<Vec<String>>>,
}

impl Bed {
    fn new() -> Self {
        let home = tempfile::tempdir().unwrap();
        for folder in ["etc/shared/default", "queue/rids", "queue/diff"] {
            fs::create_dir_all(home.path().join(folder)).unwrap();
        }
        let clock = Arc::new(ManualClock::new(1_750_000_000 * 1_000_000_000, Duration::ZERO));
        Self { home, clock, warnings: Arc::default() }
    }

    fn open(&self) -> Arc<Registry> {
        let warnings = Arc::clone(&self.warnings);
        let setup = Setup {
            home: self.home.path().into(),
            clock: Arc::clone(&self.clock) as Arc<dyn Clock>,
            zone: Zone::fixed(3_600),
            warn: Arc::new(move |line| lock(&warnings).push(line.into())),
        };
        Arc::new(Registry::open(setup).unwrap())
    }

    fn text(&self, path: &str) -> String {
        fs::read_to_string(self.home.path().join(path)).unwrap_or_default()
    }

    fn put(&self, path: &str, text: &str) {
        durable::replace(&self.home.path().join(path), text.as_bytes(), 0o640).unwrap();
    }
}

fn add(registry: &Registry, name: &str, ip: &str) -> Result<Arc<Agent>, AddError> {
    let new = NewAgent::new(name, ip.parse().unwrap());
    registry.edit(move |edit| edit.add(new)).unwrap()
}

fn remove(registry: &Registry, id: u32, purge: bool) -> bool {
    registry.edit(move |edit| edit.remove(AgentId(id), purge).is_some()).unwrap()
}

#[test]
fn an_added_agent_stands_in_both_files_and_survives() {
    let bed = Bed::new();
    let agent = add(&bed.open(), "web-01", "any").unwrap();
    assert_eq!(agent.key.id, "001");
    assert_eq!(agent.key.key.expose().len(), 64);
    assert_eq!(bed.text("etc/client.keys"), format!("001 web-01 any {}\n", agent.key.key.expose()));
    assert_eq!(bed.text("queue/agents-timestamp"), "001 web-01 any 2025-06-15 16:06:40\n");
    let mode = fs::metadata(bed.home.path().join("etc/client.keys")).unwrap().mode();
    assert_eq!(mode & 0o777, 0o640);
    let again = bed.open().table().by_name("web-01").cloned().unwrap();
    assert_eq!((&again.key, again.registered), (&agent.key, agent.registered));
}

#[test]
fn ids_are_never_given_again_unless_purged() {
    let bed = Bed::new();
    let registry = bed.open();
    add(&registry, "a1", "any").unwrap();
    add(&registry, "a2", "any").unwrap();
    assert!(remove(&registry, 2, false));
    assert!(bed.text("etc/client.keys").contains("\n002 !a2 any "));
    assert_eq!(add(&bed.open(), "a2", "any").unwrap().key.id, "003");
    assert!(registry.reload().unwrap());
    assert!(remove(&registry, 3, true));
    // Keys are random digits: only a line's beginning tells.
    assert!(!bed.text("etc/client.keys").contains("\n003 "));
    assert_eq!(registry.edit(Edit::purge_removed).unwrap(), 1);
    assert_eq!(add(&registry, "a4", "any").unwrap().key.id, "002");
}

#[test]
fn agents_are_found_by_id_name_address_and_peer() {
    let bed = Bed::new();
    let registry = bed.open();
    add(&registry, "one", "10.1.2.3").unwrap();
    add(&registry, "net", "10.7.0.0/16").unwrap();
    add(&registry, "any1", "any").unwrap();
    let table = registry.table();
    let name = |agent: Option<&Arc<Agent>>| agent.map(|agent| agent.key.name.clone());
    assert_eq!(name(table.by_id(AgentId(2))).as_deref(), Some("net"));
    assert_eq!(name(table.by_source("::ffff:10.1.2.3".parse().unwrap())).as_deref(), Some("one"));
    assert_eq!(name(table.by_source("10.7.1.1".parse().unwrap())), None);
    assert_eq!(name(table.by_ip(&"10.7.0.0/16".parse().unwrap())).as_deref(), Some("net"));
    assert_eq!(name(table.by_ip(&RegisteredIp::any())), None);
    assert!(table.by_name("net").unwrap().may_speak_from("10.7.1.1".parse().unwrap()));
    let refused = |name, ip| add(&registry, name, ip).unwrap_err();
    assert_eq!(refused("two", "10.1.2.3"), AddError::DuplicateIp("10.1.2.3".parse().unwrap()));
    assert_eq!(refused("one", "any"), AddError::DuplicateName("one".into()));
}

#[test]
fn what_is_known_of_an_agent_survives_a_restart() {
    let bed = Bed::new();
    let registry = bed.open();
    let agent = add(&registry, "web", "any").unwrap();
    let known = Activity {
        state: State::Active,
        last_keep_alive: Some(registry.now()),
        version: Some("v4.14.7".into()),
        os: Some("Linux |web |6.1".into()),
        ip: Some("10.0.0.9".into()),
        merged_sum: Some("abc".into()),
        labels: vec![("site".into(), "b,\"2\"".into())],
        ..Activity::default()
    };
    agent.update(|activity| *activity = known.clone());
    assert_eq!(agent.origin().ip.as_deref(), Some("10.0.0.9"));
    registry.flush().unwrap();
    let later = bed.open();
    let table = later.table();
    let agent = table.by_name("web").unwrap();
    assert_eq!(agent.activity(), known);
    later.reset_connections();
    assert_eq!((agent.state(), agent.activity().status), (State::Disconnected, Status::ResetByManager));
}

#[test]
fn silent_agents_are_found_once() {
    let bed = Bed::new();
    let registry = bed.open();
    let agent = add(&registry, "web", "any").unwrap();
    let now = registry.now();
    agent.update(|activity| {
        activity.state = State::Active;
        activity.last_keep_alive = Some(now);
    });
    bed.clock.advance(Duration::from_secs(900));
    assert!(registry.disconnect_silent(Duration::from_secs(900)).is_empty());
    bed.clock.advance(Duration::from_secs(1));
    let silent = registry.disconnect_silent(Duration::from_secs(900));
    assert_eq!(silent.iter().map(|agent| agent.id).collect::<Vec<_>>(), [AgentId(1)]);
    assert_eq!(agent.activity().status.code(), 4);
    assert!(registry.disconnect_silent(Duration::from_secs(900)).is_empty());
}

#[test]
fn a_purged_agents_groups_do_not_fall_to_a_newcomer() {
    let bed = Bed::new();
    let registry = bed.open();
    let new =
        NewAgent { groups: vec!["web".into(), "db".into()], ..NewAgent::new("old", RegisteredIp::any()) };
    registry.edit(move |edit| edit.add(new)).unwrap().unwrap();
    assert_eq!(bed.open().table().by_name("old").unwrap().activity().groups, ["web", "db"]);
    assert!(remove(&registry, 1, true));
    add(&registry, "new", "any").unwrap();
    let later = bed.open();
    assert!(later.table().by_name("new").unwrap().activity().groups.is_empty());
}

#[test]
fn a_foreign_change_of_the_file_is_taken_over_and_unchanged_agents_stay_the_same() {
    let bed = Bed::new();
    let registry = bed.open();
    let kept = add(&registry, "kept", "any").unwrap();
    kept.update(|activity| activity.state = State::Active);
    let generation = registry.table().generation();
    assert!(!registry.reload().unwrap());
    let text = bed.text("etc/client.keys");
    bed.put("etc/client.keys", &format!("# by hand\n{text}7 other 10.0.0.1 abcd\nbroken line\n"));
    assert!(registry.reload().unwrap());
    let table = registry.table();
    assert!(table.generation() > generation);
    assert!(Arc::ptr_eq(table.by_id(AgentId(1)).unwrap(), &kept));
    assert_eq!(table.by_id(AgentId(7)).unwrap().key.id, "7");
    assert_eq!(lock(&bed.warnings).len(), 1, "the broken line is told");
    add(&registry, "next", "any").unwrap();
    let text = bed.text("etc/client.keys");
    assert!(text.starts_with("# by hand\n") && text.contains("\nbroken line\n008 next any "), "{text}");
}

#[test]
fn two_processes_share_keys_and_groups() {
    let bed = Bed::new();
    let (manager, tool) = (bed.open(), bed.open());
    add(&manager, "one", "any").unwrap();
    assert_eq!(add(&tool, "two", "any").unwrap().key.id, "002");
    assert_eq!(add(&manager, "three", "any").unwrap().key.id, "003");
    assert!(tool.reload().unwrap());
    assert!(tool.set_groups(AgentId(1), vec!["default".into()]).unwrap());
    assert!(manager.reload().unwrap());
    let agent = manager.table().by_name("one").cloned().unwrap();
    assert_eq!(agent.activity().groups, ["default"]);
    assert!(tool.set_groups(AgentId(1), vec!["web".into()]).unwrap());
    agent.update(|activity| activity.os = Some("x".into()));
    manager.flush().unwrap();
    assert!(manager.reload().unwrap());
    assert_eq!(agent.activity().groups, ["web"], "saving a state does not undo another process's grouping");
}

#[test]
fn removal_takes_counters_and_diffs_along() {
    let bed = Bed::new();
    let registry = bed.open();
    add(&registry, "web", "any").unwrap();
    bed.put("queue/rids/001", "1:2:");
    fs::create_dir(bed.home.path().join("queue/diff/web")).unwrap();
    bed.put("queue/diff/web/x", "x");
    assert!(remove(&registry, 1, false));
    assert!(!bed.home.path().join("queue/rids/001").exists());
    assert!(!bed.home.path().join("queue/diff/web").exists());
    assert!(lock(&bed.warnings).is_empty());
}

#[test]
fn concurrent_changes_are_all_kept() {
    const THREADS: usize = 32;
    let bed = Bed::new();
    let registry = bed.open();
    let (barrier, done) = (Barrier::new(THREADS), AtomicUsize::new(0));
    std::thread::scope(|scope| {
        for number in 0..THREADS {
            let (registry, barrier, done) = (&registry, &barrier, &done);
            scope.spawn(move || {
                barrier.wait();
                let agent = add(registry, &format!("agent-{number}"), "any").unwrap();
                assert!(registry.table().by_id(agent.id).is_some());
                done.fetch_add(1, Ordering::Relaxed);
            });
        }
    });
    assert_eq!(done.load(Ordering::Relaxed), THREADS);
    assert_eq!(bed.open().table().agents().len(), THREADS);
    assert!(registry.table().generation() <= THREADS as u64 + 1);
}

#[test]
fn a_change_that_cannot_be_written_is_not_seen() {
    let bed = Bed::new();
    let registry = bed.open();
    add(&registry, "one", "any").unwrap();
    let keys = bed.home.path().join("etc/client.keys");
    let text = bed.text("etc/client.keys");
    fs::remove_file(&keys).unwrap();
    fs::create_dir(&keys).unwrap();
    assert!(registry.edit(|edit| edit.add(NewAgent::new("two", RegisteredIp::any())).is_ok()).is_err());
    assert!(registry.table().by_name("two").is_none());
    fs::remove_dir(&keys).unwrap();
    bed.put("etc/client.keys", &text);
    assert_eq!(add(&registry, "three", "any").unwrap().key.id, "002");
}

#[test]
fn given_ids_and_keys_are_checked() {
    let bed = Bed::new();
    let registry = bed.open();
    let with = |id: &str, key: &str| {
        let (id, key) = (Some(id.to_owned()), Some(Secret::new(key)));
        let new = NewAgent { id, key, ..NewAgent::new(format!("n{}", key_free_name()), RegisteredIp::any()) };
        registry.edit(move |edit| edit.add(new)).unwrap().map(|agent| agent.key.id.clone())
    };
    assert_eq!(with("020", "abcd"), Ok("020".into()));
    assert_eq!(with("20", "abcd"), Err(AddError::DuplicateId("20".into())));
    assert_eq!(with("000", "abcd"), Err(AddError::Id("000".into())));
    assert_eq!(with("x", "abcd"), Err(AddError::Id("x".into())));
    assert_eq!(with("21", "a b"), Err(AddError::Key));
}

fn key_free_name() -> usize {
    static NEXT: AtomicUsize = AtomicUsize::new(10);
    NEXT.fetch_add(1, Ordering::Relaxed)
}

#[test]
fn a_damaged_database_is_set_aside() {
    let bed = Bed::new();
    add(&bed.open(), "web", "any").unwrap();
    for tail in ["-wal", "-shm"] {
        let _ = fs::remove_file(bed.home.path().join(format!("var/threatlockdown/manager/manager.db{tail}")));
    }
    bed.put("var/threatlockdown/manager/manager.db", &"no database at all ".repeat(100));
    assert!(bed.open().table().by_name("web").is_some());
    assert!(lock(&bed.warnings).iter().any(|line| line.contains("set aside")));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    #[test]
    fn any_sequence_of_changes_reads_back_from_the_files(
        steps in prop::collection::vec((0u8..3, 0u32..8, any::<bool>()), 1..20),
    ) {
        let bed = Bed::new();
        let registry = bed.open();
        let mut given = std::collections::HashSet::new();
        for (kind, number, purge) in steps {
            if kind > 0 {
                let ip = if purge { format!("10.0.0.{number}") } else { "any".into() };
                if let Ok(agent) = add(&registry, &format!("agent-{number}"), &ip) {
                    prop_assert!(given.insert(agent.id), "the id {} was given twice", agent.id);
                }
            } else {
                remove(&registry, number, false);
            }
        }
        let (kept, read) = (registry.table(), bed.open().table());
        let entries = |table: &Table| table.agents().map(|agent| agent.key.clone()).collect::<Vec<_>>();
        prop_assert_eq!(entries(&kept), entries(&read));
        for agent in kept.agents() {
            prop_assert_eq!(read.by_name(&agent.key.name).map(|agent| agent.id), Some(agent.id));
        }
    }

    #[test]
    fn no_date_file_is_fatal(text in "\\PC{0,80}") {
        let _ = dates::parse(&text, &Zone::utc());
    }
}
