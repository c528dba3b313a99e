use super::*;

fn mode_of(path: &Path) -> u32 {
    std::fs::metadata(path).unwrap().mode() & 0o7777
}

fn names(dir: &Path) -> Vec<String> {
    let mut names: Vec<_> =
        std::fs::read_dir(dir).unwrap().map(|e| e.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

#[test]
fn a_replacement_has_the_new_bytes_the_exact_mode_and_leaves_no_temporary_file() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("state");
    replace(&path, b"one", 0o664).unwrap();
    replace(&path, b"two", 0o666).unwrap();
    assert_eq!(read_bounded(&path, 10).unwrap(), b"two");
    assert_eq!(mode_of(&path), 0o666);
    assert_eq!(names(dir.path()), ["state"]);
}

#[test]
fn a_failed_replacement_leaves_the_old_file_and_no_temporary_file() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("state");
    std::fs::create_dir(&path).unwrap();
    assert!(replace(&path, b"x", 0o600).is_err());
    assert_eq!(names(dir.path()), ["state"]);
}

#[test]
fn a_path_without_a_file_name_is_refused() {
    assert_eq!(replace(Path::new("/"), b"x", 0o600).unwrap_err().kind(), io::ErrorKind::InvalidInput);
}

#[test]
fn a_keeping_replacement_keeps_owner_mode_and_the_link_that_names_the_file() {
    let dir = tempfile::tempdir().unwrap();
    let (real, link) = (dir.path().join("real"), dir.path().join("link"));
    replace(&real, b"one", 0o640).unwrap();
    if rustix::process::geteuid().is_root() {
        std::os::unix::fs::chown(&real, Some(1234), Some(4321)).unwrap();
    }
    let before = std::fs::metadata(&real).unwrap();
    std::os::unix::fs::symlink("real", &link).unwrap();
    replace_keeping(&link, b"two").unwrap();
    let after = std::fs::metadata(&real).unwrap();
    assert_eq!(read_bounded(&real, 10).unwrap(), b"two");
    assert!(std::fs::symlink_metadata(&link).unwrap().is_symlink());
    assert_eq!((before.uid(), before.gid(), before.mode()), (after.uid(), after.gid(), after.mode()));
}

#[test]
fn a_keeping_replacement_makes_a_missing_file_readable_for_all() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("hosts.deny");
    replace_keeping(&path, b"x").unwrap();
    assert_eq!(mode_of(&path), 0o644);
}

#[test]
fn an_appended_line_ends_with_one_newline_and_a_new_file_has_the_mode() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("log");
    append_line(&path, b"one", 0o660).unwrap();
    append_line(&path, b"two\n", 0o600).unwrap();
    assert_eq!(read_bounded(&path, 100).unwrap(), b"one\ntwo\n");
    assert_eq!(mode_of(&path), 0o660);
}

#[test]
fn appending_refuses_links_and_pipes() {
    let dir = tempfile::tempdir().unwrap();
    let (link, fifo) = (dir.path().join("link"), dir.path().join("fifo"));
    std::os::unix::fs::symlink("target", &link).unwrap();
    assert!(append_line(&link, b"x", 0o600).is_err());
    rustix::fs::mkfifoat(rustix::fs::CWD, &fifo, rustix::fs::Mode::RUSR | rustix::fs::Mode::WUSR).unwrap();
    assert!(append_line(&fifo, b"x", 0o600).is_err());
    assert_eq!(names(dir.path()), ["fifo", "link"]);
}

#[test]
fn lines_of_many_writers_stay_whole() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("log");
    std::thread::scope(|scope| {
        for writer in 0..4_u8 {
            let path = &path;
            scope.spawn(move || {
                for _ in 0..200 {
                    append_line(path, &[b'a' + writer; 300], 0o600).unwrap();
                }
            });
        }
    });
    let bytes = read_bounded(&path, 1 << 20).unwrap();
    let lines: Vec<_> = bytes.split(|b| *b == b'\n').filter(|l| !l.is_empty()).collect();
    assert_eq!(lines.len(), 800);
    assert!(lines.iter().all(|l| l.len() == 300 && l.iter().all(|b| *b == l[0])));
}

#[test]
fn directories_are_made_with_parents_and_existing_ones_left_alone() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("a/b");
    create_dirs(&path, 0o770).unwrap();
    assert_eq!((mode_of(&dir.path().join("a")), mode_of(&path)), (0o770, 0o770));
    create_dirs(&path, 0o700).unwrap();
    assert_eq!(mode_of(&path), 0o770);
    replace(&dir.path().join("file"), b"", 0o600).unwrap();
    assert!(create_dirs(&dir.path().join("file"), 0o700).is_err());
}

#[test]
fn a_lock_excludes_others_until_it_is_dropped() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("lock");
    let held = lock_exclusive(&path).unwrap();
    assert!(try_lock(&path).unwrap().is_none());
    drop(held);
    assert!(try_lock(&path).unwrap().is_some());
}

#[test]
fn a_bounded_read_takes_the_limit_and_refuses_one_byte_more() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("f");
    replace(&path, b"12345", 0o600).unwrap();
    assert_eq!(read_bounded(&path, 5).unwrap(), b"12345");
    assert_eq!(read_bounded(&path, 4).unwrap_err().kind(), io::ErrorKind::FileTooLarge);
}

#[test]
fn what_another_changed_meanwhile_is_not_replaced() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("list");
    replace(&path, b"before", 0o640).unwrap();
    let changed = || {
        replace(&path, b"theirs", 0o640).unwrap();
        false
    };
    assert!(!replace_keeping_if(&path, b"ours", changed).unwrap());
    assert_eq!(read_bounded(&path, 100).unwrap(), b"theirs");
    assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 1, "nothing is left lying about");
    assert!(replace_keeping_if(&path, b"ours", || true).unwrap());
    assert_eq!(read_bounded(&path, 100).unwrap(), b"ours");
}
