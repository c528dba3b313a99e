use tempfile::TempDir;
use tld_model::Zone;
use tld_sys::clock::{Clock, SystemClock};
use tld_wire::name::RegisteredIp;

use super::*;
use crate::registry::{NewAgent, Setup};

struct Bed {
    home: TempDir,
    registry: Registry,
    builder: Builder,
    shared: Shared,
}

impl Bed {
    fn new() -> Self {
        let home = tempfile::tempdir().unwrap();
        let clock: Arc<dyn Clock> = Arc::new(SystemClock);
        let log = Log::new(home.path().join("ossec.log"), Arc::clone(&clock), Zone::utc(), false);
        fs::create_dir_all(home.path().join("etc/shared/default")).unwrap();
        let setup = Setup { home: home.path().into(), clock, zone: Zone::utc(), warn: Arc::new(|_| {}) };
        let registry = Registry::open(setup).unwrap();
        let builder = Builder::new(home.path().into(), log);
        Self { home, registry, builder, shared: Shared::default() }
    }

    fn put(&self, path: &str, text: &[u8]) {
        let path = self.home.path().join("etc/shared").join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        durable::replace(&path, text, 0o640).unwrap();
    }

    fn look(&mut self) {
        self.builder.look(&self.shared, &self.registry);
    }

    fn of(&self, groups: &[&str]) -> String {
        let groups: Vec<_> = groups.iter().map(|group| (*group).to_owned()).collect();
        let text = |bundle: Arc<Bundle>| String::from_utf8(bundle.bytes.clone()).unwrap();
        self.shared.of(&groups).map_or_else(String::new, text)
    }

    fn log(&self) -> String {
        fs::read_to_string(self.home.path().join("ossec.log")).unwrap_or_default()
    }
}

#[test]
fn a_groups_files_follow_ar_conf_and_a_change_is_noticed() {
    let mut bed = Bed::new();
    bed.look();
    assert_eq!(bed.of(&[]), "#default\n");
    bed.put("ar.conf", b"a0 - b - 0\n");
    bed.put("default/agent.conf", b"<agent_config/>\n");
    bed.put("default/lists/bad", b"1:2\n");
    bed.look();
    let text = "#default\n!11 ar.conf\na0 - b - 0\n!16 agent.conf\n<agent_config/>\n!4 lists/bad\n1:2\n";
    assert_eq!(bed.of(&["default"]), text);
    assert_eq!(fs::read_to_string(bed.home.path().join("etc/shared/default/merged.mg")).unwrap(), text);
    let bundle = bed.shared.of(&[]).unwrap();
    bed.look();
    assert!(Arc::ptr_eq(&bundle, &bed.shared.of(&[]).unwrap()), "nothing changed, nothing was built");
}

#[test]
fn several_groups_are_combined_and_written_under_their_hash() {
    let mut bed = Bed::new();
    bed.put("a/agent.conf", b"<agent_config>1</agent_config>\n");
    bed.put("b/agent.conf", b"<agent_config>2</agent_config>\n");
    bed.put("b/list", b"b");
    bed.put("a/list", b"a");
    bed.registry
        .edit(|edit| {
            let agent = NewAgent::new("web-01", RegisteredIp::any());
            edit.add(NewAgent { groups: vec!["a".into(), "b".into()], ..agent }).map(|_| ())
        })
        .unwrap()
        .unwrap();
    bed.look();
    let head = merged::multigroup(&["a", "b"]);
    let text = bed.of(&["a", "b"]);
    assert!(text.starts_with(&format!("#{head}\n")), "{text}");
    assert!(text.contains("1</agent_config>") && text.contains("2</agent_config>"));
    assert!(text.ends_with("!1 list\nb"), "{text}");
    assert!(bed.home.path().join("var/multigroups").join(head).join("merged.mg").exists());
    assert_eq!(bed.of(&["b", "a"]), "", "another order is another list, and nobody has it");
}

#[test]
fn what_agents_cannot_take_is_left_out_and_told() {
    let mut bed = Bed::new();
    bed.put("default/binary", b"a\0b");
    bed.put("default/fine", b"ok");
    std::os::unix::fs::symlink("/etc/passwd", bed.home.path().join("etc/shared/default/link")).unwrap();
    bed.look();
    assert_eq!(bed.of(&[]), "#default\n!2 fine\nok");
    assert!(bed.log().contains("binary` is not shared") && bed.log().contains("link` is no regular file"));
}

#[test]
fn a_broken_agent_conf_leaves_the_former_one_in_force_over_a_restart_too() {
    let mut bed = Bed::new();
    bed.put("default/agent.conf", b"<agent_config>good</agent_config>\n");
    bed.look();
    bed.put("default/agent.conf", b"<agent_config>half");
    bed.put("default/list", b"new");
    bed.look();
    assert!(bed.of(&[]).contains(">good<") && bed.of(&[]).contains("!3 list\nnew"));
    bed.builder = Builder::new(bed.home.path().into(), bed.builder.log.clone());
    bed.look();
    assert!(bed.of(&[]).contains(">good<"));
    assert!(bed.log().contains("agents keep the former `etc/shared/default/agent.conf`"));
}
