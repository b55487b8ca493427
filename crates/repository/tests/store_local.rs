//! The local store on real file systems: killed writers, many writers, a full one, a read-only one, one without rights.

#![allow(clippy::unwrap_used, clippy::print_stdout, reason = "test helpers, which clippy does not take for tests")]

use std::{
    collections::BTreeMap,
    fs,
    io::{BufRead as _, BufReader, Write as _},
    os::unix::fs::{PermissionsExt as _, symlink},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::Arc,
    thread,
    time::{Duration, Instant},
};

use repository::store::{LocalStore, MAX_OBJECT_BYTES, ObjectName, Put, Store, StoreErrorKind, probe};

/// Where a child of these tests writes; it is set only for children.
const CHILD: &str = "OXPECKER_TEST_STORE_CHILD";

fn name(text: &str) -> ObjectName {
    ObjectName::new(text).unwrap()
}

/// Bytes that say whether they are whole.
fn whole(tag: &str, len: usize) -> Vec<u8> {
    let mut bytes = blake3::hash(tag.as_bytes()).as_bytes().repeat(len.div_ceil(32));
    bytes.truncate(len);
    let sum = *blake3::hash(&bytes).as_bytes();
    [bytes, sum.to_vec()].concat()
}

fn is_whole(bytes: &[u8]) -> bool {
    bytes.split_last_chunk::<32>().is_some_and(|(bytes, sum)| blake3::hash(bytes).as_bytes() == sum)
}

fn listed(store: &dyn Store, prefix: &str) -> BTreeMap<String, u64> {
    let mut all = BTreeMap::new();
    store.list(prefix, &mut |name, size| assert!(all.insert(name.to_string(), size).is_none())).unwrap();
    all
}

fn temporary_files(dir: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            found.extend(temporary_files(&path));
        } else if path.file_name().unwrap().to_str().unwrap().starts_with(".tmp-") {
            found.push(path);
        }
    }
    found
}

/// A process of this test binary that runs `test` with `directory`.
fn child(test: &str, directory: &Path) -> Command {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command
        .args(["--exact", test, "--nocapture"])
        .env(CHILD, directory)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::null());
    command
}

/// A child: nothing on its own.
#[test]
fn child_writes_until_it_is_killed() {
    let Some(dir) = std::env::var_os(CHILD) else { return };
    let store = LocalStore::open(Path::new(&dir)).unwrap();
    let me = std::process::id();
    for k in 0..1_000_000 {
        // Also new directories, and names that another child may take first.
        let name = name(&if k % 3 == 0 { format!("shared/{k}") } else { format!("own/{me}/{}/{k}", k / 20) });
        let put = store.put_if_absent(&name, &whole(&format!("{me} {k}"), 1000 * (k % 300))).unwrap();
        let mut out = std::io::stdout().lock();
        writeln!(out, "put {} {name} .", if put == Put::Created { "created" } else { "exists" }).unwrap();
        out.flush().unwrap();
    }
}

fn kill(child: &mut Child) {
    child.kill().unwrap();
    child.wait().unwrap();
}

#[test]
fn killed_writers_leave_whole_objects() {
    let dir = tempfile::tempdir().unwrap();
    let mut created = BTreeMap::new();
    for round in 0..30_u64 {
        let start = || child("child_writes_until_it_is_killed", dir.path()).spawn().unwrap();
        let mut children: Vec<_> = (0..2).map(|_| start()).collect();
        let outputs: Vec<_> = children.iter_mut().map(|child| BufReader::new(child.stdout.take().unwrap())).collect();
        let mut lines: Vec<_> = outputs.into_iter().map(|output| output.lines()).collect();
        // Killed at another place in each round, but never before it has written something.
        let mut told: Vec<Vec<String>> = Vec::new();
        for lines in &mut lines {
            let puts = lines.map_while(Result::ok).filter(|line| line.starts_with("put "));
            told.push(puts.take(4 + usize::try_from(round).unwrap() % 7).collect());
        }
        thread::sleep(Duration::from_micros(round * 997 % 5000));
        children.iter_mut().for_each(kill);
        for ((child, lines), mut told) in children.iter().zip(lines).zip(told) {
            told.extend(lines.map_while(Result::ok));
            for line in told {
                // The test harness prints too, and the last line may be torn.
                if let Some(name) = line.strip_prefix("put created ").and_then(|line| line.strip_suffix(" .")) {
                    let other = created.insert(name.to_owned(), child.id());
                    assert_eq!(other, None, "{name} was created twice");
                }
            }
        }
    }
    assert!(created.len() >= 60, "only {} objects in all rounds", created.len());

    let store = LocalStore::open(dir.path()).unwrap();
    let all = listed(&store, "");
    for (object, size) in &all {
        let bytes = store.get(&name(object)).unwrap();
        assert_eq!(bytes.len() as u64, *size);
        assert!(is_whole(&bytes), "{object} is torn");
    }
    for (object, pid) in &created {
        let k: usize = object.rsplit('/').next().unwrap().parse().unwrap();
        let expected = whole(&format!("{pid} {k}"), 1000 * (k % 300));
        assert_eq!(store.get(&name(object)).unwrap(), expected, "{object} is not its creator's");
    }
    let left = temporary_files(dir.path()).len() as u64;
    let cleaned = store.clean_leftovers().unwrap();
    assert_eq!((cleaned.removed, cleaned.kept), (left, 0));
    assert_eq!(temporary_files(dir.path()), Vec::<PathBuf>::new());
    assert_eq!(listed(&store, ""), all);
}

#[test]
fn cleaning_beside_live_writers_harms_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let store = Arc::new(LocalStore::open(dir.path()).unwrap());
    let until = Instant::now() + Duration::from_millis(1500);
    thread::scope(|scope| {
        for t in 0..3 {
            let store = Arc::clone(&store);
            scope.spawn(move || {
                for k in 0.. {
                    if Instant::now() > until {
                        break;
                    }
                    let put =
                        store.put_if_absent(&name(&format!("d/{t}-{k}")), &whole(&format!("{t}{k}"), 50_000)).unwrap();
                    assert_eq!(put, Put::Created);
                }
            });
        }
        while Instant::now() < until {
            store.clean_leftovers().unwrap();
        }
    });
    let all = listed(&*store, "d/");
    assert!(all.len() > 10);
    assert!(all.keys().all(|object| is_whole(&store.get(&name(object)).unwrap())));
    assert_eq!(temporary_files(dir.path()), Vec::<PathBuf>::new());
}

#[test]
fn of_many_writers_one_creates() {
    let dir = tempfile::tempdir().unwrap();
    for round in 0..50 {
        let object = name(&format!("log/{round}"));
        let created: Vec<_> = thread::scope(|scope| {
            let writers: Vec<_> = (0..8_u8)
                .map(|t| {
                    let object = &object;
                    // A value of its own each, as in several processes.
                    let store = LocalStore::open(dir.path()).unwrap();
                    scope.spawn(move || (store.put_if_absent(object, &[t; 100]).unwrap() == Put::Created).then_some(t))
                })
                .collect();
            writers.into_iter().filter_map(|writer| writer.join().unwrap()).collect()
        });
        assert_eq!(created.len(), 1, "{created:?}");
        assert_eq!(LocalStore::open(dir.path()).unwrap().get(&object).unwrap(), [created[0]; 100]);
    }
}

#[test]
fn an_object_can_be_read_in_parts_and_removed() {
    let dir = tempfile::tempdir().unwrap();
    let store = LocalStore::create(&dir.path().join("a/b/c")).unwrap();
    probe(&store).unwrap();
    let object = name("packs/0a/x.y");
    assert!(store.get(&object).unwrap_err().is_not_found());
    assert!(store.get_range(&object, 0, 1).unwrap_err().is_not_found());
    assert_eq!(store.size(&object).unwrap(), None);
    store.delete(&object).unwrap();
    assert_eq!(store.put_if_absent(&object, b"0123456789").unwrap(), Put::Created);
    assert_eq!(store.put_if_absent(&object, b"other").unwrap(), Put::Exists);
    assert_eq!(store.get(&object).unwrap(), b"0123456789");
    assert_eq!(store.get_range(&object, 3, 4).unwrap(), b"3456");
    assert_eq!(store.get_range(&object, 10, 0).unwrap(), b"");
    for (offset, len) in [(0, 11), (10, 1), (11, 0), (u64::MAX, 1), (1, usize::MAX)] {
        assert_eq!(store.get_range(&object, offset, len).unwrap_err().kind(), StoreErrorKind::Short, "{offset} {len}");
    }
    assert_eq!(store.size(&object).unwrap(), Some(10));
    assert_eq!(store.size(&name("packs/0a")).unwrap(), None);
    assert_eq!(store.size(&name("packs/0a/x.y/z")).unwrap(), None);
    store.put_if_absent(&name("packs/0b"), b"").unwrap();
    store.put_if_absent(&name("top"), b"1").unwrap();
    for (prefix, count) in
        [("", 3), ("packs/", 2), ("packs/0", 2), ("packs/0a", 1), ("packs/0a/", 1), ("t", 1), ("x/", 0), ("../", 0)]
    {
        assert_eq!(listed(&store, prefix).len(), count, "{prefix}");
    }
    store.delete(&object).unwrap();
    store.delete(&object).unwrap();
    assert!(store.get(&object).unwrap_err().is_not_found());
    assert!(store.free_bytes().unwrap() > 0);
    let mode = fs::metadata(store.path().join("top")).unwrap().permissions().mode();
    assert_eq!(mode & 0o027, 0, "{mode:o}");
}

#[test]
fn what_is_no_object_is_not_taken_for_one() {
    let dir = tempfile::tempdir().unwrap();
    let store = LocalStore::open(dir.path()).unwrap();
    let outside = tempfile::tempdir().unwrap();
    fs::write(outside.path().join("secret"), "x").unwrap();
    symlink(outside.path().join("secret"), dir.path().join("link")).unwrap();
    symlink(outside.path(), dir.path().join("dirlink")).unwrap();
    fs::create_dir(dir.path().join("lost+found")).unwrap();
    fs::write(dir.path().join("README"), "x").unwrap();
    fs::create_dir(dir.path().join("dir")).unwrap();
    assert!(store.get(&name("link")).is_err());
    assert_eq!(store.size(&name("link")).unwrap(), None);
    assert!(store.get(&name("dir")).is_err());
    assert_eq!(listed(&store, ""), BTreeMap::new());
    let sparse = fs::File::create(dir.path().join("huge")).unwrap();
    sparse.set_len(MAX_OBJECT_BYTES + 1).unwrap();
    assert_eq!(store.get(&name("huge")).unwrap_err().kind(), StoreErrorKind::TooLarge);
    assert_eq!(store.get_range(&name("huge"), MAX_OBJECT_BYTES, 1).unwrap(), [0]);
}

#[test]
fn a_directory_that_is_missing_is_said() {
    let dir = tempfile::tempdir().unwrap();
    let error = LocalStore::open(&dir.path().join("not-mounted")).unwrap_err();
    assert!(error.is_not_found());
    fs::write(dir.path().join("file"), "x").unwrap();
    assert!(LocalStore::open(&dir.path().join("file")).is_err());
    assert!(LocalStore::create(&dir.path().join("file/below")).is_err());
}

/// A small tmpfs, unmounted when dropped; `None` where this process may not mount.
struct Tmpfs(tempfile::TempDir);

impl Tmpfs {
    fn mount(options: &str) -> Option<Self> {
        let dir = tempfile::tempdir().unwrap();
        let mount =
            Command::new("mount").args(["-t", "tmpfs", "-o", options, "oxpecker-test"]).arg(dir.path()).output();
        match mount {
            Ok(output) if output.status.success() => Some(Self(dir)),
            Ok(output) => {
                println!("skipped: no small file system: {}", String::from_utf8_lossy(&output.stderr).trim());
                None
            }
            Err(error) => {
                println!("skipped: no small file system: {error}");
                None
            }
        }
    }
}

impl Drop for Tmpfs {
    fn drop(&mut self) {
        let _unmounted = Command::new("umount").arg(self.0.path()).status();
    }
}

#[test]
fn a_full_disk_is_told_from_other_errors_and_leaves_nothing() {
    let Some(tmpfs) = Tmpfs::mount("size=1m") else { return };
    let store = LocalStore::open(tmpfs.0.path()).unwrap();
    store.put_if_absent(&name("a/small"), &whole("1", 1000)).unwrap();
    let error = store.put_if_absent(&name("a/large"), &vec![1; 2 << 20]).unwrap_err();
    assert_eq!(error.kind(), StoreErrorKind::NoSpace, "{error}");
    assert!(!error.is_passing());
    assert!(error.to_string().contains("hint: free space"), "{error}");
    assert_eq!(temporary_files(tmpfs.0.path()), Vec::<PathBuf>::new());
    assert_eq!(listed(&store, "").into_keys().collect::<Vec<_>>(), ["a/small"]);
    // Fill it to the last block: every outcome is whole or absent, and what was there stays.
    let mut failed = 0;
    for k in 0..400 {
        match store.put_if_absent(&name(&format!("b{}/{k}", k % 5)), &whole("x", 5000)) {
            Ok(put) => assert_eq!(put, Put::Created),
            Err(error) => {
                assert_eq!(error.kind(), StoreErrorKind::NoSpace, "{error}");
                failed += 1;
            }
        }
    }
    assert!(failed > 0);
    for object in listed(&store, "").into_keys() {
        assert!(is_whole(&store.get(&name(&object)).unwrap()), "{object}");
    }
    // Room again: the next one goes well.
    store.delete(&name("b0/0")).unwrap();
    store.delete(&name("b1/1")).unwrap();
    assert_eq!(store.put_if_absent(&name("b0/0"), &whole("y", 5000)).unwrap(), Put::Created);
}

#[test]
fn a_read_only_file_system_is_told_from_other_errors() {
    let Some(tmpfs) = Tmpfs::mount("size=1m") else { return };
    let store = LocalStore::open(tmpfs.0.path()).unwrap();
    store.put_if_absent(&name("a/b"), b"1").unwrap();
    let remounted = Command::new("mount").args(["-o", "remount,ro"]).arg(tmpfs.0.path()).status().unwrap();
    assert!(remounted.success());
    for error in [
        store.put_if_absent(&name("a/c"), b"1").unwrap_err(),
        store.put_if_absent(&name("new/c"), b"1").unwrap_err(),
        store.delete(&name("a/b")).unwrap_err(),
    ] {
        assert_eq!(error.kind(), StoreErrorKind::ReadOnly, "{error}");
    }
    assert_eq!(store.get(&name("a/b")).unwrap(), b"1");
    let _writable = Command::new("mount").args(["-o", "remount,rw"]).arg(tmpfs.0.path()).status();
}

/// A child without rights: nothing on its own.
#[test]
fn child_without_rights() {
    let Some(dir) = std::env::var_os(CHILD) else { return };
    let store = LocalStore::open(Path::new(&dir)).unwrap();
    for error in [
        store.put_if_absent(&name("b"), b"1").unwrap_err(),
        store.put_if_absent(&name("new/b"), b"1").unwrap_err(),
        store.delete(&name("a")).unwrap_err(),
        store.get(&name("a")).unwrap_err(),
    ] {
        assert_eq!(error.kind(), StoreErrorKind::Permission, "{error}");
        assert!(!error.is_passing());
    }
    println!("all refused");
}

#[test]
fn a_directory_without_rights_is_told_from_other_errors() {
    let dir = tempfile::tempdir().unwrap();
    LocalStore::open(dir.path()).unwrap().put_if_absent(&name("a"), b"1").unwrap();
    fs::set_permissions(dir.path().join("a"), fs::Permissions::from_mode(0o000)).unwrap();
    fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o555)).unwrap();
    let inner = child("child_without_rights", dir.path());
    let mut command = if rustix::process::geteuid().is_root() {
        // Root may do everything: somebody else has to try.
        let mut command = Command::new("setpriv");
        command
            .args(["--reuid", "65534", "--regid", "65534", "--clear-groups"])
            .arg(inner.get_program())
            .args(inner.get_args());
        command.env(CHILD, dir.path()).stdin(Stdio::null());
        command
    } else {
        inner
    };
    let output = command.stderr(Stdio::piped()).output();
    fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o755)).unwrap();
    let output = match output {
        Ok(output) => output,
        Err(error) => return println!("skipped: no process without rights: {error}"),
    };
    let (out, err) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    if err.contains("setpriv:") {
        return println!("skipped: no process without rights: {err}");
    }
    assert!(output.status.success() && out.contains("all refused"), "{out}\n{err}");
}

/// Root makes a backup into the repository of the server's user: that user must be able to read and go on writing.
#[test]
fn what_root_writes_belongs_to_whom_the_repository_belongs() {
    use std::os::unix::fs::{MetadataExt as _, chown};
    if !rustix::process::geteuid().is_root() {
        println!("skipped: only root can give files away");
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    chown(dir.path(), Some(65_534), Some(65_533)).unwrap();
    let store = LocalStore::open(dir.path()).unwrap();
    let name = ObjectName::new("a/b/object").unwrap();
    assert_eq!(store.put_if_absent(&name, b"bytes").unwrap(), Put::Created);
    for path in ["a", "a/b", "a/b/object"] {
        let found = dir.path().join(path).metadata().unwrap();
        assert_eq!((found.uid(), found.gid()), (65_534, 65_533), "{path}");
    }
    // What a root that died left behind is given back; what is somebody's stays theirs.
    chown(dir.path().join("a"), Some(0), Some(0)).unwrap();
    chown(dir.path().join("a/b"), Some(1), Some(1)).unwrap();
    let store = LocalStore::open(dir.path()).unwrap();
    assert_eq!(store.put_if_absent(&ObjectName::new("a/b/other").unwrap(), b"").unwrap(), Put::Created);
    let owner = |path: &str| dir.path().join(path).metadata().unwrap().uid();
    assert_eq!((owner("a"), owner("a/b")), (65_534, 1));
}
