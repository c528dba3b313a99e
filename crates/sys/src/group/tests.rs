use std::path::PathBuf;

use super::*;
use crate::child::{Spec, Stdout, run_capture, spawn};
use crate::clock::{Clock as _, SystemClock};

const LONG: Duration = Duration::from_secs(30);

/// Every kind of group that this machine has.
fn kinds() -> Vec<(&'static str, Groups)> {
    let own = |path: &str| place::read(Path::new(path)).unwrap_or_default();
    let (two, one) = place::directories(&own("/proc/self/cgroup"), &own("/proc/self/mountinfo"));
    let two = two.map(|directory| Groups::at(Place::Two { directory, controllers: false }));
    let one = one.map(|directory| Groups::at(Place::One { directory }));
    let kinds = [
        ("found", Some(Groups::find())),
        ("v2 members", two),
        ("v1", one),
        ("looked at", Some(Groups::counted())),
    ];
    kinds.into_iter().filter_map(|(name, groups)| Some((name, groups?))).collect()
}

fn bounds(processes: u64) -> Bounds {
    Bounds { processes: Some(processes), memory_bytes: None }
}

fn eventually(what: &str, holds: impl Fn() -> bool) {
    let end = SystemClock.boot() + LONG;
    while !holds() {
        assert!(SystemClock.boot() < end, "{what}");
        let _ = crate::ready::readable(&[], Duration::from_millis(10));
    }
}

fn shell(body: &str) -> Spec<'static> {
    Spec { args: vec!["-c".into(), body.into()], ..Spec::new(Path::new("/bin/sh")) }
}

/// How many sleepers with this argument live.
fn sleepers(argument: &str) -> usize {
    let wanted = format!("sleep\0{argument}\0");
    let all = processes::all();
    let command = |pid| place::read(Path::new(&format!("/proc/{pid}/cmdline")));
    all.iter().filter(|process| command(process.pid).is_some_and(|text| text == wanted)).count()
}

/// A length of sleep that no other test uses.
fn length(offset: u32) -> String {
    format!("{}.{}", 600 + offset, std::process::id())
}

#[test]
fn what_left_its_session_and_its_parent_is_killed_with_the_group() {
    for (at, (name, groups)) in kinds().into_iter().enumerate() {
        let argument = length(u32::try_from(at).unwrap());
        let group = groups.make(bounds(64));
        // Twice forked, with a session of its own; the third loses the variable too while its parent lives.
        let body = format!(
            "(setsid sleep {argument} & ) ; setsid sh -c 'sleep {argument} & sleep {argument} & wait' & sleep {argument}"
        );
        let mut child = spawn(&Spec { group: Some(&group), ..shell(&body) }).unwrap();
        eventually(&format!("{name}: started"), || sleepers(&argument) == 4);
        eventually(&format!("{name}: counted"), || group.count() >= 5);
        child.kill_group().unwrap();
        assert!(group.kill(LONG), "{name}");
        assert!(child.wait_deadline(LONG).unwrap().is_some());
        eventually(&format!("{name}: gone"), || sleepers(&argument) == 0 && group.count() == 0);
        assert_eq!(group.crowded(), None, "{name}");
    }
}

/// The test's own bound: never more than this many are started, whatever the group does.
const BOMB: u32 = 150;

#[test]
fn no_more_processes_than_the_bound_live_for_long() {
    for (at, (name, groups)) in kinds().into_iter().enumerate() {
        let argument = length(10 + u32::try_from(at).unwrap());
        let group = groups.make(bounds(20));
        let body = format!(
            "i=0; while [ $i -lt {BOMB} ]; do i=$((i+1)); (setsid sleep {argument} &) ; done; sleep {argument}"
        );
        let mut child = spawn(&Spec { group: Some(&group), ..shell(&body) }).unwrap();
        eventually(&format!("{name}: met"), || group.crowded().is_some());
        if group.was_stopped() {
            eventually(&format!("{name}: all stopped"), || sleepers(&argument) == 0 && group.count() == 0);
            assert!(group.crowded().unwrap().contains("all killed"), "{name}");
        } else {
            assert!(sleepers(&argument) <= 20 && group.count() <= 20, "{name}");
            assert!(group.crowded().unwrap().contains("held to 20 processes"), "{name}");
            assert!(group.kill(LONG));
        }
        assert!(child.wait_deadline(LONG).unwrap().is_some(), "{name}");
        eventually(&format!("{name}: gone"), || sleepers(&argument) == 0);
    }
}

#[test]
fn a_group_that_ended_leaves_no_directory_and_one_that_lives_on_is_removed_later() {
    for (name, groups) in kinds() {
        let run = |body: &str| {
            let group = groups.make(bounds(8));
            let directory = match &group.inner.kind {
                Kind::Control { directory, .. } => Some(directory.clone()),
                Kind::Marked(_) => None,
            };
            let spec = Spec { stdout: Stdout::Pipe, group: Some(&group), ..shell(body) };
            let captured = run_capture(&spec, b"", 100, LONG).unwrap();
            assert!(captured.status.unwrap().success(), "{name}");
            (directory, String::from_utf8(captured.stdout).unwrap())
        };
        let (directory, said) = run("echo done");
        assert_eq!(said, "done\n");
        let Some(directory) = directory else { continue };
        eventually(name, || {
            groups.clear_left();
            !directory.exists()
        });
        let (directory, pid) = run("sleep 600 >/dev/null 2>&1 & echo $!");
        let directory = directory.unwrap();
        assert!(directory.exists(), "{name}: somebody lives there");
        signal(pid.trim().parse().unwrap(), Signal::KILL);
        eventually(name, || {
            groups.clear_left();
            !directory.exists()
        });
    }
}

#[test]
fn a_group_of_the_kernels_that_vanished_refuses_a_start_and_a_counted_one_takes_it() {
    for (name, groups) in kinds() {
        let group = groups.make(bounds(8));
        let Kind::Control { directory, .. } = &group.inner.kind else { continue };
        std::fs::remove_dir(directory).unwrap();
        assert!(spawn(&Spec { group: Some(&group), ..shell("true") }).is_err(), "{name}");
        let group = groups.make_counted(bounds(8));
        let spec = Spec { group: Some(&group), ..shell("true") };
        assert!(run_capture(&spec, b"", 10, LONG).unwrap().status.unwrap().success());
    }
}

#[test]
fn our_place_is_found_among_the_mounts() {
    let hybrid = "31 23 0:28 / /sys/fs/cgroup rw - tmpfs tmpfs rw,mode=755\n\
        39 31 0:36 / /sys/fs/cgroup/pids rw,relatime - cgroup cgroup rw,pids\n\
        41 31 0:38 / /sys/fs/cgroup/unified rw,relatime - cgroup2 cgroup2 rw\n";
    let path = |text: &str| Some(PathBuf::from(text));
    assert_eq!(
        place::directories("8:pids:/a/b\n0::/c\n", hybrid),
        (path("/sys/fs/cgroup/unified/c"), path("/sys/fs/cgroup/pids/a/b"))
    );
    let unified = "29 23 0:26 / /sys/fs/cgroup rw,nosuid shared:4 - cgroup2 cgroup2 rw,nsdelegate\n";
    let ours = "0::/system.slice/threatlockdown-agent.service/main\n";
    assert_eq!(
        place::directories(ours, unified),
        (path("/sys/fs/cgroup/system.slice/threatlockdown-agent.service/main"), None)
    );
    let part = "30 23 0:26 /docker/x /sys/fs/cgroup ro - cgroup2 cgroup rw\n";
    assert_eq!(place::directories("0::/docker/x/y\n", part).0, path("/sys/fs/cgroup/y"));
    assert_eq!(place::directories("0::/elsewhere\n", part).0, None);
    assert_eq!(place::directories("0::/../..\n", unified).0, None);
    assert_eq!(place::directories("", ""), (None, None));
}

#[test]
fn hostile_texts_about_groups_are_no_place() {
    for text in ["\0\0", "::::", " - ", "1 2 3 4 5 - cgroup2", "0::", "9:pids", "1 - cgroup cgroup pids"] {
        let found = place::directories(text, text);
        assert_eq!(found, (None, None), "{text:?}");
    }
}

#[test]
fn groups_that_are_looked_at_together_do_not_mix() {
    let groups = Groups::counted();
    let argument = length(30);
    let made: Vec<Group> = (0..20).map(|_| groups.make(bounds(8))).collect();
    let begin =
        |group| spawn(&Spec { group: Some(group), ..shell(&format!("setsid sleep {argument} & wait")) });
    let mut children: Vec<_> = made.iter().map(|group| begin(group).unwrap()).collect();
    eventually("each has its two", || made.iter().all(|group| group.count() == 2));
    let all = |group: &Group| group.inner.members(&groups.0.census);
    let mut members: Vec<u32> = made.iter().flat_map(all).collect();
    members.sort_unstable();
    members.dedup();
    assert_eq!(members.len(), 40);
    assert!(made[0].kill(LONG));
    assert!(made[1..].iter().all(|group| group.count() == 2), "nobody else is hit");
    for (group, child) in made.iter().zip(&mut children) {
        assert!(group.kill(LONG));
        assert!(child.wait_deadline(LONG).unwrap().is_some());
    }
    eventually("all are gone", || sleepers(&argument) == 0);
}
