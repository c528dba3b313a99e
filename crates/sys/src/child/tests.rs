use super::*;
use std::io::Write;
use std::os::unix::process::ExitStatusExt;
use std::path::PathBuf;

const LONG: Duration = Duration::from_secs(20);

fn script(dir: &Path, body: &str) -> PathBuf {
    let path = dir.join("script");
    crate::durable::replace(&path, format!("#!/bin/sh\n{body}\n").as_bytes(), 0o755).unwrap();
    path
}

fn capture(body: &str, input: &[u8], max: usize, timeout: Duration) -> Captured {
    let mut spec = Spec::new(Path::new("/bin/sh"));
    spec.args = vec!["-c".into(), body.into()];
    run_capture(&spec, input, max, timeout).unwrap()
}

#[test]
fn the_environment_holds_path_lang_and_the_given_pairs_only() {
    let mut spec = Spec::new(Path::new("/usr/bin/env"));
    spec.env = vec![("TLD_X".into(), "y".into())];
    let captured = run_capture(&spec, b"", 10_000, LONG).unwrap();
    let text = String::from_utf8(captured.stdout).unwrap();
    let mut lines: Vec<_> = text.lines().collect();
    lines.sort_unstable();
    assert_eq!(lines, ["LANG=C", "PATH=/usr/sbin:/usr/bin:/sbin:/bin", "TLD_X=y"]);
}

#[cfg(target_os = "linux")]
#[test]
fn no_descriptor_but_the_three_is_inherited() {
    let file = File::open("/dev/null").unwrap();
    let leaked = rustix::io::fcntl_dupfd_cloexec(&file, 100).unwrap();
    rustix::io::fcntl_setfd(&leaked, rustix::io::FdFlags::empty()).unwrap();
    let captured = capture("for f in /proc/$$/fd/*; do readlink $f; done", b"", 1000, LONG);
    let text = String::from_utf8(captured.stdout).unwrap();
    let devices = text.lines().filter(|target| *target == "/dev/null").count();
    assert_eq!(devices, 1, "stdin alone: {text}");
}

#[test]
fn a_child_leads_its_own_session_with_a_strict_umask_and_default_signals() {
    let captured = capture(
        "umask; ps -o sid= -p $$ 2>/dev/null || cut -d' ' -f6 /proc/$$/stat; echo $$; grep SigIgn /proc/$$/status",
        b"",
        1000,
        LONG,
    );
    let text = String::from_utf8(captured.stdout).unwrap();
    let lines: Vec<_> = text.lines().map(str::trim).collect();
    assert_eq!(lines[0], "0027");
    assert_eq!(lines[1], lines[2]);
    // The C library reserves 32 and 33 and refuses to touch them.
    let ignored = u64::from_str_radix(lines[3].trim_start_matches("SigIgn:").trim(), 16).unwrap();
    assert_eq!(ignored & !(0b11 << 31), 0, "{text}");
}

#[test]
fn limits_are_set() {
    let captured = capture("ulimit -v; ulimit -c; ulimit -n", b"", 1000, LONG);
    assert_eq!(captured.stdout, b"524288\n0\n1024\n");
}

#[test]
fn programs_that_cannot_run_are_errors_at_once() {
    let dir = tempfile::tempdir().unwrap();
    let missing = dir.path().join("missing");
    assert_eq!(spawn(&Spec::new(&missing)).unwrap_err().kind(), io::ErrorKind::NotFound);
    let plain = dir.path().join("plain");
    crate::durable::replace(&plain, b"hello", 0o644).unwrap();
    assert_eq!(spawn(&Spec::new(&plain)).unwrap_err().kind(), io::ErrorKind::PermissionDenied);
    crate::durable::replace(&plain, b"#!/no/such/interpreter\n", 0o755).unwrap();
    assert_eq!(spawn(&Spec::new(&plain)).unwrap_err().kind(), io::ErrorKind::NotFound);
    assert_eq!(spawn(&Spec::new(Path::new("sh"))).unwrap_err().kind(), io::ErrorKind::InvalidInput);
}

#[cfg(target_os = "linux")]
#[test]
fn a_file_without_an_interpreter_line_is_given_to_the_shell_with_its_arguments() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("bare");
    crate::durable::replace(&path, b"echo $0 $1", 0o755).unwrap();
    let mut spec = Spec::new(&path);
    spec.args = vec!["one".into()];
    let captured = run_capture(&spec, b"", 1000, LONG).unwrap();
    assert_eq!(String::from_utf8(captured.stdout).unwrap(), format!("{} one\n", path.display()));
}

#[cfg(target_os = "linux")]
#[test]
fn many_threads_start_children_at_once_and_none_gets_what_is_anothers() {
    let work = |n: usize| {
        for round in 0..20 {
            let missing = spawn(&Spec::new(Path::new("/nonexistent/program"))).unwrap_err();
            assert_eq!(missing.kind(), io::ErrorKind::NotFound);
            let text = format!("{n} {round}");
            let captured = capture("cat; exit 3", text.as_bytes(), 100, LONG);
            assert_eq!((captured.stdout, captured.stderr), (text.into_bytes(), Vec::new()));
            assert_eq!(captured.status.and_then(|status| status.code()), Some(3));
        }
    };
    std::thread::scope(|scope| (0..8).for_each(|n| drop(scope.spawn(move || work(n)))));
}

#[test]
fn a_relative_program_is_found_from_the_working_directory_and_told_that_name() {
    let dir = tempfile::tempdir().unwrap();
    script(dir.path(), "echo $0; pwd");
    let mut spec = Spec::new(Path::new("./script"));
    spec.cwd = Some(dir.path());
    let captured = run_capture(&spec, b"", 1000, LONG).unwrap();
    let expected = format!("./script\n{}\n", std::fs::canonicalize(dir.path()).unwrap().display());
    assert_eq!(String::from_utf8(captured.stdout).unwrap(), expected);
}

#[test]
fn a_dialogue_of_lines_works_both_ways() {
    let dir = tempfile::tempdir().unwrap();
    let path = script(dir.path(), "read a; echo \"keys $a\"; read b; echo \"got $b\" >&2; exit 3");
    let mut child = spawn(&Spec { stdin: Stdin::Pipe, stdout: Stdout::Pipe, ..Spec::new(&path) }).unwrap();
    child.write_all(b"add\n", LONG).unwrap();
    assert_eq!(child.read_line(100, LONG).unwrap(), ReadLine::Line(b"keys add".to_vec()));
    child.write_all(b"continue\n", LONG).unwrap();
    child.stdin = None;
    assert_eq!(child.wait_deadline(LONG).unwrap().unwrap().code(), Some(3));
    assert_eq!(child.stderr_tail(), b"got continue\n");
}

#[test]
fn reading_a_line_tells_silence_end_and_excess_apart() {
    let dir = tempfile::tempdir().unwrap();
    let path = script(dir.path(), "printf par; read a; echo tial; printf 12345; read b");
    let mut child = spawn(&Spec { stdin: Stdin::Pipe, stdout: Stdout::Pipe, ..Spec::new(&path) }).unwrap();
    assert_eq!(child.read_line(100, Duration::from_millis(50)).unwrap(), ReadLine::TimedOut);
    child.write_all(b"\n", LONG).unwrap();
    assert_eq!(child.read_line(100, LONG).unwrap(), ReadLine::Line(b"partial".to_vec()));
    assert_eq!(child.read_line(4, LONG).unwrap(), ReadLine::TooLong);
    child.stdin = None;
    assert_eq!(child.read_line(100, LONG).unwrap(), ReadLine::Line(b"12345".to_vec()));
    assert_eq!(child.read_line(100, LONG).unwrap(), ReadLine::Eof);
}

#[test]
fn a_bare_pipe_gives_one_line_and_leaves_the_next() {
    let (mut reader, mut writer) = io::pipe().unwrap();
    writer.write_all(b"one\ntwo").unwrap();
    assert_eq!(read_line_deadline(&mut reader, 3, LONG).unwrap(), ReadLine::Line(b"one".to_vec()));
    assert_eq!(read_line_deadline(&mut reader, 2, LONG).unwrap(), ReadLine::TooLong);
    assert_eq!(read_line_deadline(&mut reader, 2, Duration::ZERO).unwrap(), ReadLine::TimedOut);
    drop(writer);
    assert_eq!(read_line_deadline(&mut reader, 2, LONG).unwrap(), ReadLine::Eof);
}

#[test]
fn a_hung_child_is_killed_with_its_descendants() {
    // More time where the machine was too busy for it to say a word.
    let tries = [300, 1_500, 7_500].map(Duration::from_millis);
    let run = |time| capture("sleep 1000 & echo $!; wait", b"", 100, time);
    let captured = tries.into_iter().map(run).find(|captured| captured.stdout.ends_with(b"\n")).unwrap();
    assert!(captured.timed_out);
    assert_eq!(captured.status.and_then(|s| s.signal()), Some(libc::SIGKILL));
    let descendant: i32 = String::from_utf8(captured.stdout).unwrap().trim().parse().unwrap();
    let gone = (0..10_000).any(|_| {
        let stat = crate::durable::read_bounded(Path::new(&format!("/proc/{descendant}/stat")), 4096);
        let dead = stat.map_or(true, |s| String::from_utf8_lossy(&s).contains(") Z "));
        if !dead {
            std::thread::yield_now();
            let _ = ready::readable(&[], Duration::from_millis(2));
        }
        dead
    });
    assert!(gone);
}

#[test]
fn much_input_and_output_at_once_do_not_deadlock() {
    let input = vec![b'x'; 1 << 20];
    let captured = capture("cat; head -c 300000 /dev/zero >&2; printf end >&2", &input, 1 << 21, LONG);
    assert_eq!(captured.stdout.len(), input.len());
    assert_eq!(captured.stderr.len(), STDERR_TAIL);
    assert!(captured.stderr.ends_with(b"end"));
    assert!(!captured.truncated && !captured.timed_out);
}

#[test]
fn output_beyond_the_limit_is_thrown_away_and_said_so() {
    let captured = capture("echo 123456789", b"", 4, LONG);
    assert_eq!((captured.stdout.as_slice(), captured.truncated), (&b"1234"[..], true));
    assert!(captured.status.unwrap().success());
}

#[test]
fn a_child_that_ignores_its_input_is_no_error() {
    let captured = capture("exec true", &vec![b'x'; 1 << 20], 10, LONG);
    assert!(captured.status.unwrap().success());
}

#[test]
fn a_descendant_holding_the_pipes_does_not_delay_the_end() {
    let started = crate::clock::Clock::boot(&crate::clock::SystemClock);
    let captured = capture("sleep 60 & echo $!", b"", 100, LONG);
    assert!(!captured.timed_out);
    assert!(crate::clock::Clock::boot(&crate::clock::SystemClock) - started < LONG);
    let descendant = String::from_utf8(captured.stdout).unwrap().trim().parse().unwrap();
    let descendant = Pid::from_raw(descendant).unwrap();
    rustix::process::kill_process(descendant, Signal::KILL).unwrap();
}

#[test]
fn a_child_can_run_as_another_user() {
    if !rustix::process::geteuid().is_root() {
        assert!(std::env::var_os("TLD_REQUIRE_ALL").is_none(), "needs root");
        println!("skipped: needs root");
        return;
    }
    let mut spec = Spec::new(Path::new("/usr/bin/id"));
    spec.args = vec!["-u".into()];
    spec.user = Some((65534, 65534));
    assert_eq!(run_capture(&spec, b"", 100, LONG).unwrap().stdout, b"65534\n");
    spec.args = vec!["-G".into()];
    assert_eq!(run_capture(&spec, b"", 100, LONG).unwrap().stdout, b"65534\n");
}
