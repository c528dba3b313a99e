//! Files as they behave in the field: appearing late, rotated, cut, half written.

use std::time::Duration;

use crate::common::{Home, PATIENCE, block, eventually};
use tld_pattern::{Expression, Kind};
use tld_sys::clock::Deadline;

#[test]
fn what_was_there_before_the_first_start_is_not_read_and_what_comes_is() {
    let home = Home::new();
    home.append("a.log", b"old\n");
    let running = home.start(&[block("a.log", "syslog")]);
    home.append("a.log", b"new\n");
    let event = running.next();
    assert_eq!(event.text, b"new");
    assert_eq!(&*event.location, home.path("a.log").as_os_str().as_encoded_bytes());
    assert_eq!(event.queue, b'1');
}

#[test]
fn a_line_is_not_consumed_before_its_newline() {
    let home = Home::new();
    home.append("a.log", b"old\nhalf ");
    let running = home.start(&[block("a.log", "syslog")]);
    home.append("a.log", b"a ");
    assert!(running.quiet());
    home.append("a.log", b"line\n");
    assert_eq!(running.line(), "half a line");
}

#[test]
fn a_file_and_its_directories_may_appear_later() {
    let home = Home::new();
    let running = home.start(&[block("x/y/a.log", "syslog")]);
    std::fs::create_dir_all(home.path("x/y")).unwrap();
    home.append("x/y/a.log", b"first\nsecond\n");
    assert_eq!(running.lines(2), ["first", "second"]);
    home.append("x/y/a.log", b"third\n");
    assert_eq!(running.line(), "third");
}

#[test]
fn a_file_that_appears_in_a_known_directory_is_read_without_waiting_for_the_slow_look() {
    // The look comes every second. A machine that is busy with other things may spoil a round, but not all of them.
    let quick = (0..5).any(|_| {
        let home = Home::new();
        let running = home.start(&[block("a.log", "syslog")]);
        std::thread::sleep(Duration::from_millis(50));
        let half_a_look = Deadline::after(Duration::from_millis(500));
        home.append("a.log", b"first\n");
        assert_eq!(running.line(), "first");
        !half_a_look.passed()
    });
    assert!(quick);
}

#[test]
fn a_rename_is_reported_and_the_old_file_read_to_its_end() {
    let home = Home::new();
    home.append("a.log", b"");
    let running = home.start(&[block("a.log", "syslog")]);
    home.append("a.log", b"one\n");
    assert_eq!(running.line(), "one");
    std::fs::rename(home.path("a.log"), home.path("a.log.1")).unwrap();
    home.append("a.log.1", b"two\n");
    home.append("a.log", b"three\n");
    assert_eq!(running.line(), "two");
    let told = running.next();
    assert_eq!(*told.location, *b"logcollector");
    let text = format!("ossec: File rotated (inode changed): '{}'.", home.path("a.log").display());
    assert_eq!(told.text, text.into_bytes());
    assert_eq!(running.line(), "three");
    // A writer that was not told yet.
    home.append("a.log.1", b"late\n");
    assert_eq!(running.line(), "late");
}

#[test]
fn a_truncated_file_is_reported_and_read_from_its_beginning() {
    let home = Home::new();
    home.append("a.log", b"before\n");
    let running = home.start(&[block("a.log", "syslog")]);
    home.append("a.log", b"one\n");
    assert_eq!(running.line(), "one");
    crate::common::create(&home.path("a.log"));
    let text = format!("ossec: File size reduced (inode remained): '{}'.", home.path("a.log").display());
    assert_eq!(running.line(), text);
    home.append("a.log", b"two\n");
    assert_eq!(running.line(), "two");
}

#[test]
fn a_file_refilled_beyond_its_old_size_is_recognised_by_its_beginning() {
    let home = Home::new();
    home.append("a.log", b"abc\n");
    let running = home.start(&[block("a.log", "syslog")]);
    home.append("a.log", b"one\n");
    assert_eq!(running.line(), "one");
    running.stop();
    crate::common::create(&home.path("a.log"));
    home.append("a.log", b"a completely different and longer line\n");
    let running = home.start(&[block("a.log", "syslog")]);
    assert_eq!(running.line(), "a completely different and longer line");
}

#[test]
fn a_restart_goes_on_where_the_stop_was_also_over_a_rotation() {
    let home = Home::new();
    home.append("a.log", b"old\n");
    let blocks = [block("a.log", "syslog")];
    let running = home.start(&blocks);
    home.append("a.log", b"one\nhalf");
    assert_eq!(running.line(), "one");
    assert!(running.stop().is_empty());
    home.append("a.log", b" line\n");
    std::fs::rename(home.path("a.log"), home.path("a.log-2026")).unwrap();
    home.append("a.log", b"new file\n");
    let running = home.start(&blocks);
    assert_eq!(running.lines(2), ["half line", "new file"]);
    assert!(running.stop().is_empty());
    let running = home.start(&blocks);
    assert!(running.quiet());
}

#[test]
fn two_rotations_during_a_restart_lose_nothing() {
    let home = Home::new();
    home.append("a.log", b"old\n");
    home.append("a.log.7", b"long past\n");
    let blocks = [block("a.log", "syslog")];
    let running = home.start(&blocks);
    home.append("a.log", b"one\n");
    assert_eq!(running.line(), "one");
    running.stop();
    for name in ["a.log.1", "a.log.2"] {
        home.append("a.log", format!("before {name}\n").as_bytes());
        std::fs::rename(home.path("a.log"), home.path(name)).unwrap();
        std::thread::sleep(Duration::from_millis(20));
    }
    home.append("a.log", b"now\n");
    home.append("a.log.errors", b"another log\n");
    let running = home.start(&blocks);
    assert_eq!(running.lines(3), ["before a.log.1", "before a.log.2", "now"]);
    assert!(running.quiet());
}

#[test]
fn more_backlog_than_max_size_is_passed_over() {
    let home = Home::new();
    let mut source = block("a.log", "syslog");
    source.max_size = 100;
    home.append("a.log", b"old\n");
    let blocks = [source];
    home.start(&blocks).stop();
    home.append("a.log", &b"0123456789\n".repeat(20));
    let running = home.start(&blocks);
    home.append("a.log", b"new\n");
    assert_eq!(running.line(), "new");
}

#[test]
fn a_position_that_was_only_saved_while_running_still_loses_nothing() {
    let home = Home::new();
    home.append("a.log", b"old\n");
    let blocks = [block("a.log", "syslog")];
    let running = home.start(&blocks);
    home.append("a.log", b"one\n");
    assert_eq!(running.line(), "one");
    let offset = |text: &str| text.contains("\"offset\":8");
    eventually(
        || "the position is saved".to_owned(),
        || std::fs::read_to_string(home.state()).is_ok_and(|text| offset(&text)),
    );
    let saved = std::fs::read(home.state()).unwrap();
    home.append("a.log", b"two\n");
    assert_eq!(running.line(), "two");
    running.stop();
    // As after SIGKILL: the state of a second ago.
    tld_sys::durable::replace(&home.state(), &saved, 0o640).unwrap();
    let running = home.start(&blocks);
    assert_eq!(running.line(), "two");
}

#[test]
fn wildcards_find_files_that_come_later_and_leave_out_excluded_ones() {
    let home = Home::new();
    home.append("a.log", b"old\n");
    let mut source = block("*.log", "syslog");
    source.exclude = vec![home.path("no*.log").display().to_string()];
    let running = home.start(&[source, block("a.log", "syslog")]);
    home.append("a.log", b"a\n");
    assert_eq!(running.line(), "a");
    home.append("no.log", b"x\n");
    home.append("b.log", b"b\n");
    assert_eq!(running.line(), "b");
    assert!(running.quiet());
}

#[test]
fn a_rotated_file_that_the_wildcard_also_matches_is_not_read_twice() {
    let home = Home::new();
    home.append("a.log", b"");
    let running = home.start(&[block("a.log*", "syslog")]);
    home.append("a.log", b"one\n");
    assert_eq!(running.line(), "one");
    std::fs::rename(home.path("a.log"), home.path("a.log.1")).unwrap();
    std::thread::sleep(Duration::from_millis(1200));
    home.append("a.log", b"two\n");
    home.append("a.log.1", b"late\n");
    let mut lines = running.lines(2);
    lines.sort();
    assert_eq!(lines, ["late", "two"]);
    std::thread::sleep(Duration::from_millis(1200));
    let rest = running.stop();
    assert!(rest.iter().all(|event| &*event.location == b"logcollector"), "{rest:?}");
}

#[test]
fn long_lines_are_cut_and_lines_with_nul_are_dropped_and_counted() {
    let home = Home::new();
    home.append("a.log", b"");
    let running = home.start(&[block("a.log", "syslog")]);
    let mut text = vec![b'x'; 200_000];
    text.extend_from_slice(b"\nnul \0 here\nend\n");
    home.append("a.log", &text);
    assert_eq!(running.next().text, vec![b'x'; 65_279]);
    assert_eq!(running.line(), "end");
    assert_eq!(running.collector.counts().nul_lines, 1);
    let told =
        format!("`{}`: 1 line(s) left out because of a NUL byte in them", home.path("a.log").display());
    home.wait_for(&told);
}

#[test]
fn a_cr_before_the_newline_belongs_to_the_lines_end() {
    let home = Home::new();
    home.append("a.log", b"");
    let running = home.start(&[block("a.log", "syslog")]);
    home.append("a.log", b"from 192.0.2.1\r\nwhole\r");
    assert_eq!(running.line(), "from 192.0.2.1");
    home.append("a.log", b"\ntwo\r\r\n");
    assert_eq!(running.lines(2), ["whole", "two\r"]);
}

#[test]
fn ignore_and_restrict_hold_messages_back() {
    let home = Home::new();
    home.append("a.log", b"");
    let mut source = block("a.log", "syslog");
    source.ignore = vec![Expression::compile(Kind::Pcre2, b"^noise").unwrap()];
    source.restrict = vec![Expression::compile(Kind::Pcre2, b"sshd|sudo").unwrap()];
    let running = home.start(&[source]);
    home.append("a.log", b"noise sshd\ncron\nsudo x\n");
    assert_eq!(running.line(), "sudo x");
    assert_eq!(running.collector.counts().filtered, 2);
}

#[test]
fn a_message_gets_the_form_that_the_block_wants() {
    let home = Home::new();
    home.append("a.log", b"");
    let mut source = block("a.log", "syslog");
    source.ignore = vec![Expression::compile(Kind::Pcre2, b"^web").unwrap()];
    source.out_format = vec![(None, "web: $(log)".to_owned())];
    let mut elsewhere = block("b.log", "syslog");
    elsewhere.target = vec!["siem".to_owned()];
    let running = home.start(&[source, elsewhere]);
    home.append("a.log", b"web ignored\nhello $(log)\n");
    assert_eq!(running.line(), "web: hello $(log)");
    home.wait_for("outputs other than `agent` are not built");
}

#[test]
fn json_is_filtered_by_its_raw_line_and_labelled() {
    let home = Home::new();
    home.append("a.json", b"");
    let mut source = block("a.json", "json");
    source.ignore = vec![Expression::compile(Kind::Pcre2, b"\"skip\" ").unwrap()];
    source.labels = vec![("env".to_owned(), "prod".to_owned())];
    let running = home.start(&[source]);
    home.append("a.json", b"{\"skip\" : 1}\nno json\n{\"a\" : 1}\n");
    assert_eq!(running.line(), r#"{"a":1,"env":"prod"}"#);
}

#[test]
fn an_unfinished_message_of_several_lines_is_read_again_after_a_restart() {
    let home = Home::new();
    home.append("a.log", b"");
    let blocks = [block("a.log", "multi-line:2")];
    let running = home.start(&blocks);
    home.append("a.log", b"1\n2\n3\n");
    assert_eq!(running.line(), "1 2");
    running.stop();
    let running = home.start(&blocks);
    home.append("a.log", b"4\n");
    assert_eq!(running.line(), "3 4");
}

#[test]
fn audit_records_go_out_after_a_short_silence() {
    let home = Home::new();
    home.append("a.log", b"");
    let running = home.start(&[block("a.log", "audit")]);
    // In one write: the silence between two is as long as the machine is busy.
    home.append("a.log", b"type=A msg=audit(1:2): x\ntype=B msg=audit(1:2): y\n");
    assert_eq!(running.line(), "type=A msg=audit(1:2): x type=B msg=audit(1:2): y");
}

#[test]
fn a_reader_waits_for_a_slow_pipeline_and_a_stop_does_not_wait_for_it() {
    let home = Home::new();
    home.append("a.log", b"");
    let blocks = [block("a.log", "syslog")];
    let running = home.start_with(&blocks, 4);
    let text: String = (0..5000).map(|number| format!("{number}\n")).collect();
    home.append("a.log", text.as_bytes());
    for number in 0..100 {
        assert_eq!(running.line(), number.to_string());
        std::thread::sleep(Duration::from_micros(200));
    }
    // The channel is full and nobody takes: what had been taken by it is not repeated, the rest is not lost.
    let rest = running.stop();
    let mut seen: Vec<String> =
        rest.into_iter().map(|event| String::from_utf8(event.text).unwrap()).collect();
    let running = home.start_with(&blocks, 4);
    seen.extend(running.lines(4900 - seen.len()));
    let wanted: Vec<String> = (100..5000).map(|number| number.to_string()).collect();
    assert_eq!(seen, wanted);
}

#[test]
fn unknown_formats_and_missing_paths_are_reported_and_the_rest_is_read() {
    let home = Home::new();
    home.append("a.log", b"");
    let running =
        home.start(&[block("Security", "eventchannel"), block("", "syslog"), block("a.log", "syslog")]);
    home.append("a.log", b"x\n");
    assert_eq!(running.line(), "x");
    home.wait_for("ossec.conf:1: log format `eventchannel` is not supported");
    home.wait_for("names no file");
}

#[test]
fn a_pipe_or_directory_in_place_of_a_file_stops_nothing() {
    let home = Home::new();
    std::fs::create_dir(home.path("dir.log")).unwrap();
    let pipe = home.path("pipe.log");
    rustix::fs::mknodat(rustix::fs::CWD, &pipe, rustix::fs::FileType::Fifo, 0o600.into(), 0).unwrap();
    home.append("a.log", b"");
    let running = home.start(&[block("*.log", "syslog")]);
    home.append("a.log", b"x\n");
    assert_eq!(running.line(), "x");
}

#[test]
fn commands_run_at_once_and_again() {
    let home = Home::new();
    let mut each = block("", "command");
    each.command = Some("printf 'a\\nb\\n'".to_owned());
    each.alias = Some("ab".to_owned());
    each.frequency = Duration::from_secs(1);
    let running = home.start(&[each]);
    let first = running.next();
    assert_eq!(first.text, b"ossec: output: 'ab': a");
    assert_eq!(*first.location, *b"ab");
    assert_eq!(running.lines(2), ["ossec: output: 'ab': b", "ossec: output: 'ab': a"]);
}

#[test]
fn commands_never_run_as_root() {
    let home = Home::new();
    let mut who = block("", "full_command");
    who.command = Some("id -u".to_owned());
    let running = home.start(&[who]);
    let text = String::from_utf8(running.next().text.clone()).unwrap();
    let id: u32 = text.lines().last().unwrap().parse().unwrap();
    assert_ne!(id, 0, "{text}");
}

#[test]
fn a_hung_command_does_not_hinder_the_stop() {
    let home = Home::new();
    let mut hung = block("", "full_command");
    hung.command = Some("echo x; sleep 1000".to_owned());
    let running = home.start(&[hung]);
    std::thread::sleep(Duration::from_millis(300));
    // It would hold us for a minute.
    let begun = Deadline::after(PATIENCE);
    running.stop();
    assert!(!begun.passed());
}

/// Without the rights that let root read every file. They belong to the thread and to those that it starts.
fn without_privilege(work: impl FnOnce() + Send + 'static) {
    use rustix::thread::{CapabilitySet, capabilities, set_capabilities};
    let run = || {
        let mut sets = capabilities(None).unwrap();
        sets.effective.remove(CapabilitySet::DAC_OVERRIDE | CapabilitySet::DAC_READ_SEARCH);
        set_capabilities(None, sets).unwrap();
        work();
    };
    std::thread::spawn(run).join().unwrap();
}

#[test]
fn a_file_that_may_not_be_read_is_told_once_and_read_from_its_end_once_it_may() {
    use std::fs::{Permissions, set_permissions};
    use std::os::unix::fs::PermissionsExt;
    without_privilege(|| {
        let home = Home::new();
        home.append("a.log", b"of yesterday\n");
        let may = |mode| set_permissions(home.path("a.log"), Permissions::from_mode(mode)).unwrap();
        may(0o000);
        let running = home.start(&[block("a.log", "syslog")]);
        home.wait_for("Permission denied");
        // Longer than the collector waits before it tries again.
        std::thread::sleep(Duration::from_millis(2500));
        assert_eq!(home.logged().matches("cannot read").count(), 1, "{}", home.logged());
        may(0o600);
        home.wait_for("can be read now");
        home.append("a.log", b"of today\n");
        assert_eq!(running.line(), "of today");
        running.stop();
    });
}
