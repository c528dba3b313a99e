//! Operators' files through the whole responder: real processes, no privilege.

#![expect(clippy::unwrap_used, reason = "a test program reports by failing")]

use std::path::Path;
use std::sync::mpsc::{Receiver, channel};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tld_model::{
    Contract, Order, OrderId, OrderOptions, Outcome, OutcomeKind, RawJson, Target, Timestamp, Timings, Zone,
};
use tld_respond::{Limits, LogFn, Mode, Responder, RevertSelector, Setup};
use tld_sys::clock::{Clock as _, SystemClock};

const LONG: Duration = Duration::from_secs(30);

struct Home {
    directory: tempfile::TempDir,
    said: Arc<Mutex<Vec<String>>>,
}

impl Home {
    fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        for path in ["active-response/bin", "logs"] {
            std::fs::create_dir_all(directory.path().join(path)).unwrap();
        }
        Self { directory, said: Arc::default() }
    }

    fn path(&self) -> &Path {
        self.directory.path()
    }

    fn script(&self, name: &str, mode: u32, body: &str) {
        let path = self.path().join("active-response/bin").join(name);
        tld_sys::durable::replace(&path, format!("#!/bin/bash\n{body}\n").as_bytes(), mode).unwrap();
    }

    fn setup(&self) -> Setup {
        let said = Arc::clone(&self.said);
        let log: LogFn = Arc::new(move |line: &str| said.lock().unwrap().push(line.into()));
        let mut setup = Setup::new(self.path().into(), Arc::new(SystemClock), log);
        setup.mode = Mode::DryRun("not root".into());
        setup.zone = Zone::utc();
        setup.limits = Limits {
            key_line: Duration::from_secs(20),
            total: Duration::from_secs(60),
            stdin_grace: Duration::from_millis(300),
            ..Limits::default()
        };
        setup
    }

    fn start(&self) -> (Responder, Receiver<Outcome>) {
        self.start_with(self.setup())
    }

    /// With little time for a file to say its keys.
    fn start_impatient(&self, key_line: Duration) -> (Responder, Receiver<Outcome>) {
        let mut setup = self.setup();
        setup.limits.key_line = key_line;
        self.start_with(setup)
    }

    fn start_with(&self, setup: Setup) -> (Responder, Receiver<Outcome>) {
        let (sender, outcomes) = channel();
        (Responder::start(setup, sender).unwrap(), outcomes)
    }

    fn read(&self, name: &str) -> String {
        std::fs::read_to_string(self.path().join(name)).unwrap_or_default()
    }
}

fn order(id: &str, executable: &str, timeout: u64) -> Order {
    let alert = r#"{"rule":{"level":10,"id":"100200"},"data":{"srcip":"203.0.113.7","dstuser":"bob"}}"#;
    Order {
        id: OrderId(id.into()),
        response: format!("{executable}{timeout}"),
        executable: executable.into(),
        timeout_secs: timeout,
        extra_args: vec!["-x".into()],
        node: "node01".into(),
        alert: RawJson::from(serde_json::value::RawValue::from_string(alert.into()).unwrap()),
        alert_id: "1.2".into(),
        rule: None,
        target: Target::Address("203.0.113.7".parse().unwrap()),
        created: Timestamp::from_nanos(SystemClock.wall_nanos()),
        timings: Timings::default(),
        options: OrderOptions::default(),
    }
}

fn next(outcomes: &Receiver<Outcome>) -> Outcome {
    outcomes.recv_timeout(LONG).expect("an outcome")
}

fn eventually(what: &str, holds: impl Fn() -> bool) {
    let end = SystemClock.boot() + LONG;
    while !holds() {
        assert!(SystemClock.boot() < end, "not within {LONG:?}: {what}");
        std::thread::sleep(Duration::from_millis(10));
    }
}

fn message(verb: &str, file: &str) -> String {
    format!(
        r#"{{"version":1,"origin":{{"name":"node01","module":"wazuh-execd"}},"command":"{verb}","parameters":{{"extra_args":["-x"],"alert":{{"rule":{{"level":10,"id":"100200"}},"data":{{"srcip":"203.0.113.7","dstuser":"bob"}}}},"program":"active-response/bin/{file}"}}}}"#
    ) + "\n"
}

/// Speaks the whole dialogue and notes every line it gets, its name and its directory.
const STATEFUL: &str = r#"
read -r line; printf '%s\n' "$line" >> got
case "$line" in
*'"command":"add"'*)
  printf '%s\n' '{"version":1,"origin":{"name":"custom","module":"active-response"},"command":"check_keys","parameters":{"keys":["203.0.113.7","bob"]}}'
  read -r answer; printf '%s\n' "$answer" >> got
  case "$answer" in *'"command":"continue"'*) echo "$0" >> acted;; esac;;
*) echo "$0" >> undone;;
esac"#;

#[test]
fn a_stateful_file_is_added_extended_and_deleted() {
    let home = Home::new();
    home.script("custom.sh", 0o750, STATEFUL);
    let (responder, outcomes) = home.start();
    // Long enough for what follows on a busy machine.
    responder.submit(order("a", "custom", 5)).unwrap();
    let told = next(&outcomes);
    assert_eq!((told.kind, told.evidence.exit_status), (OutcomeKind::Applied, Some(0)), "{}", told.detail);
    assert_eq!(told.program, "active-response/bin/custom.sh");
    assert_eq!(responder.active()[0].key, "custom.sh-203.0.113.7-bob");
    responder.submit(order("b", "custom", 1)).unwrap();
    assert_eq!(next(&outcomes).kind, OutcomeKind::AlreadyActive);
    let told = next(&outcomes);
    assert_eq!((told.kind, told.order.0.as_str()), (OutcomeKind::Reverted, "a"));
    let expected: String =
        ["add", "continue", "add", "abort", "delete"].iter().map(|verb| message(verb, "custom.sh")).collect();
    assert_eq!(home.read("got"), expected);
    assert_eq!(home.read("acted"), "active-response/bin/custom.sh\n");
    assert_eq!(home.read("undone"), "active-response/bin/custom.sh\n");
    responder.stop();
}

#[test]
fn a_silent_file_is_stateless_whatever_the_timeout() {
    let home = Home::new();
    home.script("mark", 0o750, "touch marked");
    let (responder, outcomes) = home.start();
    responder.submit(order("a", "mark", 600)).unwrap();
    let told = next(&outcomes);
    assert_eq!((told.kind, told.until), (OutcomeKind::Applied, None), "{}", told.detail);
    assert!(home.path().join("marked").exists());
    assert!(responder.active().is_empty());
    responder.stop();
}

#[test]
fn a_file_that_never_answers_is_killed_with_its_children() {
    let home = Home::new();
    home.script("hang", 0o750, "sleep 300 & echo $! > child; wait");
    let (responder, outcomes) = home.start_impatient(Duration::from_secs(3));
    responder.submit(order("a", "hang", 600)).unwrap();
    let told = next(&outcomes);
    assert_eq!(told.kind, OutcomeKind::TimedOut, "{}", told.detail);
    let child = home.read("child").trim().to_owned();
    assert!(!child.is_empty(), "it had its time");
    eventually("its child is killed, perhaps not yet reaped by whoever inherited it", || {
        let state = std::fs::read_to_string(format!("/proc/{child}/stat")).unwrap_or_default();
        state.is_empty() || state.contains(") Z ")
    });
    responder.stop();
}

#[test]
fn a_stateless_file_may_read_its_input_to_the_end() {
    let home = Home::new();
    home.script("reader", 0o750, "cat > got");
    let (responder, outcomes) = home.start_impatient(Duration::from_secs(1));
    responder.submit(order("a", "reader", 0)).unwrap();
    assert_eq!(next(&outcomes).kind, OutcomeKind::Applied);
    assert_eq!(home.read("got"), message("add", "reader"));
    responder.submit(order("b", "reader", 600)).unwrap();
    let told = next(&outcomes);
    assert_eq!(told.kind, OutcomeKind::TimedOut);
    assert!(told.detail.contains("one line of its input"), "{}", told.detail);
    responder.stop();
}

#[test]
fn a_failing_file_is_told_with_its_last_words_and_logged() {
    let home = Home::new();
    home.script("fail", 0o750, "read -r line; echo first >&2; printf 'no \\033[31mroute\\n' >&2; exit 3");
    let (responder, outcomes) = home.start();
    responder.submit(order("a", "fail", 0)).unwrap();
    let told = next(&outcomes);
    assert_eq!((told.kind, told.evidence.exit_status), (OutcomeKind::Failed, Some(3)));
    assert!(told.evidence.stderr.unwrap().starts_with("first\n"));
    responder.stop();
    let log = home.read("logs/active-responses.log");
    assert!(log.ends_with(" active-response/bin/fail: exit status 3: no \\x1b[31mroute\n"), "{log}");
}

#[test]
fn a_failed_stateful_file_is_cleaned_up_once_and_its_key_is_free_again() {
    let home = Home::new();
    home.script("half", 0o750, &STATEFUL.replace("esac;;\n*)", "esac; exit 1;;\n*)"));
    let (responder, outcomes) = home.start();
    responder.submit(order("a", "half", 600)).unwrap();
    assert_eq!(next(&outcomes).kind, OutcomeKind::Failed);
    responder.submit(order("b", "half", 600)).unwrap();
    assert_eq!(next(&outcomes).kind, OutcomeKind::Failed);
    responder.stop();
    assert_eq!(home.read("undone").lines().count(), 2);
    assert!(tld_respond::journal::list(home.path(), 0).unwrap().is_empty());
}

#[test]
fn unfit_files_are_refused_with_the_command_that_mends_them() {
    let home = Home::new();
    home.script("plain", 0o640, "true");
    home.script("open", 0o777, "true");
    home.script("target", 0o750, "true");
    std::os::unix::fs::symlink("target", home.path().join("active-response/bin/link")).unwrap();
    let (responder, outcomes) = home.start();
    for (name, says) in [("plain", "chmod 750"), ("open", "chmod 750"), ("link", "symbolic link")] {
        responder.submit(order(name, name, 0)).unwrap();
        let told = next(&outcomes);
        assert_eq!(told.kind, OutcomeKind::Refused, "{name}");
        assert!(told.detail.contains(says), "{}", told.detail);
    }
    responder.submit(order("none", "absent", 0)).unwrap();
    assert_eq!(next(&outcomes).kind, OutcomeKind::NotFound);
    responder.stop();
}

#[test]
fn a_guarded_key_is_answered_with_abort() {
    let home = Home::new();
    home.script("custom", 0o750, STATEFUL);
    let mut setup = home.setup();
    setup.protected = vec!["203.0.113.0/24".parse().unwrap()];
    let (responder, outcomes) = home.start_with(setup);
    responder.submit(order("a", "custom", 600)).unwrap();
    let told = next(&outcomes);
    assert_eq!(told.kind, OutcomeKind::Refused);
    assert!(told.detail.contains("protected by the configuration"), "{}", told.detail);
    assert!(!home.path().join("acted").exists());
    responder.stop();
}

#[test]
fn hanging_files_delay_nobody() {
    let home = Home::new();
    home.script("hang", 0o750, "sleep 300");
    home.script("quick", 0o750, "exit 0");
    let mut setup = home.setup();
    setup.limits.key_line = Duration::from_secs(60);
    setup.limits.total = Duration::from_secs(60);
    let stragglers = Stragglers(home.path());
    let (responder, outcomes) = home.start_with(setup);
    for n in 0..1_000 {
        let name = if n % 20 == 0 { "hang" } else { "quick" };
        responder.submit(order(&format!("{name}{n}"), name, 600)).unwrap();
    }
    for _ in 0..950 {
        let told = outcomes.recv_timeout(Duration::from_secs(60)).expect("none waits for a hanging one");
        assert_eq!(told.kind, OutcomeKind::Applied, "{}", told.detail);
    }
    drop(stragglers);
    responder.stop();
}

/// Ends what still runs in a home, also when a test fails.
struct Stragglers<'h>(&'h Path);

impl Drop for Stragglers<'_> {
    fn drop(&mut self) {
        for process in hanging(self.0) {
            let pid = rustix::process::Pid::from_raw(process).unwrap();
            let _ = rustix::process::kill_process_group(pid, rustix::process::Signal::KILL);
        }
    }
}

/// Our own children that still run in this home.
fn hanging(home: &Path) -> Vec<i32> {
    let every = std::fs::read_dir("/proc").unwrap().flatten();
    let pids = every.filter_map(|entry| entry.file_name().to_str()?.parse::<i32>().ok());
    let ours = |pid: &i32| {
        std::fs::read_link(format!("/proc/{pid}/cwd")).is_ok_and(|cwd| cwd == home)
            && rustix::process::getpgid(rustix::process::Pid::from_raw(*pid))
                .is_ok_and(|group| group.as_raw_nonzero().get() == *pid)
    };
    pids.filter(ours).collect()
}

#[test]
fn a_restart_in_the_same_boot_runs_nothing_and_another_boot_undoes_and_adds() {
    let home = Home::new();
    home.script("custom", 0o750, STATEFUL);
    let (responder, outcomes) = home.start();
    responder.submit(order("a", "custom", 600)).unwrap();
    assert_eq!(next(&outcomes).kind, OutcomeKind::Applied);
    responder.stop();
    let (responder, _outcomes) = home.start();
    assert_eq!(responder.active().len(), 1);
    responder.stop();
    assert_eq!(home.read("got").lines().count(), 2);
    let mut setup = home.setup();
    setup.boot_id = Some("another".into());
    let (responder, outcomes) = home.start_with(setup);
    eventually("it is undone and added again", || home.read("acted").lines().count() == 2);
    responder.revert(RevertSelector::All);
    assert_eq!(next(&outcomes).kind, OutcomeKind::Reverted);
    responder.stop();
    let verbs: Vec<String> = home.read("got").lines().map(verb).collect();
    assert_eq!(verbs, ["add", "continue", "delete", "add", "continue", "delete"]);
}

#[test]
fn a_file_that_is_undone_at_the_next_start_does_not_outlive_the_stop_and_another_may() {
    let home = Home::new();
    home.script("slow", 0o750, "read -r line; echo $$ > $(basename $0).pid; exec sleep 300");
    home.script("restarts", 0o750, "read -r line; echo $$ > $(basename $0).pid; exec sleep 300");
    let (responder, _outcomes) = home.start();
    responder.submit(order("a", "slow", 600)).unwrap();
    responder.submit(order("b", "restarts", 0)).unwrap();
    let lives = |name: &str| {
        let pid = home.read(&format!("{name}.pid")).trim().to_owned();
        let state = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
        !pid.is_empty() && !state.is_empty() && !state.contains(") Z ")
    };
    eventually("both run", || lives("slow") && lives("restarts"));
    responder.stop();
    eventually("the one is ended", || !lives("slow"));
    assert!(lives("restarts"));
    let pid = home.read("restarts.pid").trim().parse().unwrap();
    let _ = rustix::process::kill_process(
        rustix::process::Pid::from_raw(pid).unwrap(),
        rustix::process::Signal::KILL,
    );
}

fn verb(line: &str) -> String {
    let message: serde_json::Value = serde_json::from_str(line).unwrap();
    message["command"].as_str().unwrap().into()
}

#[test]
fn orders_and_outcomes_cross_the_socket() {
    use tld_respond::carrier::{Carrier as _, socket};
    let home = Home::new();
    home.script("mark", 0o750, "touch marked");
    let (responder, inner) = home.start();
    let (near, far) = socket::pair().unwrap();
    let log: LogFn = Arc::new(|_| {});
    let responder = Arc::new(responder);
    let [reader, _writer] = socket::serve(far, Arc::clone(&responder), inner, Arc::clone(&log)).unwrap();
    let (sender, outcomes) = channel();
    let carrier = socket::SocketCarrier::new(near, sender, log).unwrap();
    carrier.deliver(&order("a", "mark", 0)).unwrap();
    carrier.deliver(&order("a", "mark", 0)).unwrap();
    assert_eq!(next(&outcomes).kind, OutcomeKind::Applied);
    drop(carrier);
    drop(reader);
}

fn spoken_to(contract: Contract, id: &str, executable: &str, timeout: u64) -> Order {
    let mut order = order(id, executable, timeout);
    order.options.contract = contract;
    order
}

#[test]
fn a_file_from_before_4_2_is_called_with_words_and_undone_with_the_same_words() {
    let home = Home::new();
    home.script("old.sh", 0o750, r#"printf '%s|' "$@" >> got; cat >> got; echo >> got"#);
    let (responder, outcomes) = home.start();
    responder.submit(spoken_to(Contract::Argv, "a", "old", 5)).unwrap();
    let told = next(&outcomes);
    assert_eq!(told.kind, OutcomeKind::Applied, "{}", told.detail);
    assert_eq!(responder.active()[0].key, "old.sh-bob-203.0.113.7");
    responder.submit(spoken_to(Contract::Argv, "b", "old", 1)).unwrap();
    assert_eq!(next(&outcomes).kind, OutcomeKind::AlreadyActive);
    assert_eq!(next(&outcomes).kind, OutcomeKind::Reverted);
    let words = "bob|203.0.113.7|1.2|100200|-|-|-x|";
    assert_eq!(home.read("got"), format!("add|{words}\ndelete|{words}\n"), "once each, with an empty input");
    responder.stop();
}

#[test]
fn a_guarded_address_keeps_a_file_from_before_4_2_from_being_started() {
    let home = Home::new();
    home.script("old", 0o750, "touch ran");
    let mut setup = home.setup();
    setup.protected = vec!["203.0.113.7".parse().unwrap()];
    let (responder, outcomes) = home.start_with(setup);
    for timeout in [0, 600] {
        responder.submit(spoken_to(Contract::Argv, &timeout.to_string(), "old", timeout)).unwrap();
        let told = next(&outcomes);
        assert_eq!(told.kind, OutcomeKind::Refused, "{}", told.detail);
    }
    assert!(!home.path().join("ran").exists());
    responder.stop();
}

#[test]
fn a_file_for_5_x_is_enabled_and_disabled() {
    let home = Home::new();
    let body = STATEFUL.replace(r#""command":"add""#, r#""command":"enable""#);
    home.script("new", 0o750, &body);
    let (responder, outcomes) = home.start();
    responder.submit(spoken_to(Contract::Five, "a", "new", 1)).unwrap();
    let told = next(&outcomes);
    assert_eq!(told.kind, OutcomeKind::Applied, "{}", told.detail);
    assert_eq!(next(&outcomes).kind, OutcomeKind::Reverted);
    let verbs: Vec<String> = home.read("got").lines().map(verb).collect();
    assert_eq!(verbs, ["enable", "continue", "disable"]);
    let first: serde_json::Value = serde_json::from_str(home.read("got").lines().next().unwrap()).unwrap();
    assert_eq!(first["source"]["ip"], "203.0.113.7");
    assert_eq!(first["wazuh"]["active_response"]["stateful_timeout"], 1);
    responder.stop();
}

fn mode(path: &Path, mode: u32) {
    use std::os::unix::fs::PermissionsExt as _;
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).unwrap();
}

#[test]
fn a_file_below_a_directory_that_others_may_write_is_refused_with_the_command_that_mends_it() {
    let home = Home::new();
    home.script("mark", 0o750, "touch marked");
    let (responder, outcomes) = home.start();
    for (n, below) in ["active-response/bin", "active-response", ""].into_iter().enumerate() {
        let directory = home.path().join(below);
        for (bits, kind) in
            [(0o770, OutcomeKind::Refused), (0o757, OutcomeKind::Refused), (0o750, OutcomeKind::Applied)]
        {
            mode(&directory, bits);
            responder.submit(order(&format!("{n}-{bits}"), "mark", 0)).unwrap();
            let told = next(&outcomes);
            assert_eq!(told.kind, kind, "{below} {bits:o}: {}", told.detail);
            if kind == OutcomeKind::Refused {
                let says =
                    format!("run `chmod go-w {}`", directory.display().to_string().trim_end_matches('/'));
                assert!(told.detail.contains(&says), "{}", told.detail);
            }
        }
    }
    responder.stop();
}

#[test]
fn a_directory_on_the_way_that_is_a_link_is_refused() {
    let home = Home::new();
    home.script("mark", 0o750, "touch marked");
    std::fs::rename(home.path().join("active-response"), home.path().join("elsewhere")).unwrap();
    std::os::unix::fs::symlink("elsewhere", home.path().join("active-response")).unwrap();
    let (responder, outcomes) = home.start();
    responder.submit(order("a", "mark", 0)).unwrap();
    let told = next(&outcomes);
    assert_eq!(told.kind, OutcomeKind::Refused, "{}", told.detail);
    responder.stop();
}

#[test]
fn a_binary_is_run_under_the_contracts_name_from_the_home() {
    let home = Home::new();
    let file = home.path().join("active-response/bin/shell");
    std::fs::copy("/bin/bash", &file).unwrap();
    mode(&file, 0o750);
    let (responder, outcomes) = home.start();
    // A shell without arguments takes the line that it is sent for a command, and reports it under its own name.
    responder.submit(order("a", "shell", 0)).unwrap();
    let told = next(&outcomes);
    assert_eq!((told.kind, told.evidence.exit_status), (OutcomeKind::Failed, Some(127)), "{}", told.detail);
    let said = told.evidence.stderr.unwrap();
    assert!(said.starts_with("active-response/bin/shell: "), "{said}");
    responder.stop();
}

#[test]
fn a_file_is_bound_in_memory_and_in_what_it_says() {
    let home = Home::new();
    home.script("big", 0o750, r#"x=$(head -c 300000000 /dev/zero | tr '\0' a) && echo "${#x}" > grown"#);
    home.script("loud", 0o750, "exec yes");
    let mut setup = home.setup();
    setup.limits.memory = 64 << 20;
    let (responder, outcomes) = home.start_with(setup);
    responder.submit(order("a", "big", 0)).unwrap();
    let told = next(&outcomes);
    assert_eq!(told.kind, OutcomeKind::Failed, "{}", told.detail);
    assert!(!home.path().join("grown").exists());
    responder.submit(order("b", "loud", 0)).unwrap();
    let told = next(&outcomes);
    assert_eq!(
        (told.kind, told.evidence.exit_status),
        (OutcomeKind::Failed, Some(128 + 13)),
        "{}",
        told.detail
    );
    responder.stop();
}

/// Living processes whose command line is this, words joined by blanks.
fn running(command: &str) -> usize {
    let every = std::fs::read_dir("/proc").unwrap().flatten();
    let lines = every.filter_map(|entry| std::fs::read(entry.path().join("cmdline")).ok());
    let texts = lines.map(|line| String::from_utf8_lossy(&line).trim_end_matches('\0').replace('\0', " "));
    texts.filter(|text| text == command).count()
}

#[test]
fn a_file_has_no_more_processes_than_it_may_and_its_outcome_says_so() {
    let home = Home::new();
    // The test's own bound is a hundred, and they end by themselves.
    let length = format!("61.{}", std::process::id());
    home.script(
        "many",
        0o750,
        // Unlike `bash`, which tries again for half a minute, this shell gives up.
        &format!(
            "exec sh -c 'i=0; while [ $i -lt 100 ]; do i=$((i+1)); (setsid sleep {length} &); done; exit 3'"
        ),
    );
    let mut setup = home.setup();
    setup.limits.total = Duration::from_secs(60);
    setup.limits.processes = 16;
    let (responder, outcomes) = home.start_with(setup);
    responder.submit(order("a", "many", 0)).unwrap();
    let told = outcomes.recv_timeout(Duration::from_secs(60)).unwrap();
    assert_eq!(told.kind, OutcomeKind::Failed, "{}", told.detail);
    assert!(
        told.detail.contains("16 (`execd") || told.detail.contains("16 processes (`execd"),
        "{}",
        told.detail
    );
    let sleeps = format!("sleep {length}");
    eventually("bounded", || running(&sleeps) <= 16);
    responder.stop();
    for process in std::fs::read_dir("/proc").unwrap().flatten() {
        let line = std::fs::read(process.path().join("cmdline")).unwrap_or_default();
        if line == format!("sleep\0{length}\0").as_bytes() {
            let pid = process.file_name().to_str().and_then(|text| text.parse().ok());
            let pid = pid.and_then(rustix::process::Pid::from_raw).unwrap();
            let _ = rustix::process::kill_process(pid, rustix::process::Signal::KILL);
        }
    }
}

#[test]
fn a_file_that_takes_too_long_ends_with_all_that_it_started() {
    let home = Home::new();
    let length = format!("62.{}", std::process::id());
    home.script(
        "daemon",
        0o750,
        &format!(
            "(setsid sleep {length} &); (setsid sh -c 'sleep {length} & wait' &); touch begun; sleep {length}"
        ),
    );
    let mut setup = home.setup();
    setup.limits.total = Duration::from_secs(2);
    let (responder, outcomes) = home.start_with(setup);
    responder.submit(order("a", "daemon", 0)).unwrap();
    let sleeps = format!("sleep {length}");
    let told = next(&outcomes);
    assert_eq!(told.kind, OutcomeKind::TimedOut, "{}", told.detail);
    assert!(home.path().join("begun").exists());
    eventually("all of it gone", || running(&sleeps) == 0);
    responder.stop();
}
