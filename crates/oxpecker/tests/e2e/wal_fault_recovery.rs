//! Recoveries and archiving on every major version, and disks that are full or take no writes on the way.

use std::{
    fs,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    thread,
    time::Duration,
};

use scratch::{Installation, ScratchCluster};

use crate::wal::{
    ROWS, Receiver, Scene, assert_recovers, assert_stopped, both_roads_make_one_copy, lost_server,
    no_recovery_ends_before_the_end_of_wal, sql, try_sql, until,
};

/// The server of a major version; where there is none, that is said.
pub fn installed(major: u32) -> Option<Installation> {
    scratch::installation(major).map_err(|error| println!("skipped: {error}")).ok()
}

/// One test for each version.
macro_rules! majors {
    ($($check:path: $($name:ident = $major:literal),*;)*) => {
        $($(#[test]
        fn $name() {
            if let Some(installation) = $crate::wal_fault_recovery::installed($major) {
                $check(&installation);
            }
        })*)*
    };
}
pub(crate) use majors;

majors! {
    both_roads_make_one_copy: slow_both_roads_14 = 14, slow_both_roads_15 = 15, slow_both_roads_16 = 16, slow_both_roads_17 = 17, slow_both_roads_18 = 18;
    no_recovery_ends_before_the_end_of_wal: slow_no_recovery_ends_14 = 14, slow_no_recovery_ends_15 = 15, slow_no_recovery_ends_16 = 16, slow_no_recovery_ends_17 = 17, slow_no_recovery_ends_18 = 18;
    a_repository_that_takes_nothing_stops_no_server: slow_archiving_waits_14 = 14, slow_archiving_waits_15 = 15, slow_archiving_waits_16 = 16, slow_archiving_waits_17 = 17, slow_archiving_waits_18 = 18;
    a_recovery_without_room_stops: slow_recovery_without_room_14 = 14, slow_recovery_without_room_15 = 15, slow_recovery_without_room_16 = 16, slow_recovery_without_room_17 = 17, slow_recovery_without_room_18 = 18;
    a_server_that_is_killed_again_and_again: slow_server_killed_14 = 14, slow_server_killed_15 = 15, slow_server_killed_16 = 16, slow_server_killed_17 = 17, slow_server_killed_18 = 18;
    killed_at_any_moment: slow_killed_commands_14 = 14, slow_killed_commands_15 = 15, slow_killed_commands_16 = 16, slow_killed_commands_17 = 17, slow_killed_commands_18 = 18;
    a_standby_waits_for_its_repository: slow_standby_waits_14 = 14, slow_standby_waits_15 = 15, slow_standby_waits_16 = 16, slow_standby_waits_17 = 17, slow_standby_waits_18 = 18;
    a_repository_that_is_read_only_is_recovered_from: slow_recovery_read_only_14 = 14, slow_recovery_read_only_15 = 15, slow_recovery_read_only_16 = 16, slow_recovery_read_only_17 = 17, slow_recovery_read_only_18 = 18;
}

/// A file system in memory, gone with the value.
pub struct Mount(PathBuf);

impl Mount {
    /// `None`, and said why, where it can't be had.
    pub fn make(at: &Path, options: &str) -> Option<Self> {
        let output = Command::new("mount").args(["-t", "tmpfs", "-o", options, "tmpfs"]).arg(at).output().unwrap();
        if !output.status.success() {
            println!("skipped: no file system of one's own: {}", String::from_utf8_lossy(&output.stderr).trim());
            return None;
        }
        Some(Self(at.to_owned()))
    }

    pub fn remount(&self, options: &str) {
        let output = Command::new("mount").args(["-o", &format!("remount,{options}")]).arg(&self.0).output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    }
}

impl Drop for Mount {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(&self.0).status();
    }
}

/// The repository's directory is put on a file system of its own.
fn on_a_disk(scene: &Scene, options: &str) -> Option<Mount> {
    let repository = scene.place.path().join("repository");
    let aside = scene.place.path().join("aside");
    fs::rename(&repository, &aside).unwrap();
    fs::create_dir(&repository).unwrap();
    let mount = Mount::make(&repository, options);
    crate::wal::run(Command::new("cp").arg("-a").arg(aside.join(".")).arg(&repository));
    scene.give();
    mount
}

/// Full, then read-only: archiving fails and says why, nobody waits for it, and when it can, it goes on where it was.
fn a_repository_that_takes_nothing_stops_no_server(installation: &Installation) {
    let mut scene = Scene::on(installation);
    sql(&scene.cluster, &["create table ledger (i int, x text)"]);
    let base = scene.base();
    let Some(mount) = on_a_disk(&scene, "size=3m,mode=0700") else { return };
    scene.archive();
    let failed = "select failed_count from pg_stat_archiver";
    let write = || sql(&scene.cluster, &[ROWS, "select pg_switch_wal()"]);
    let fails = |words: &str| {
        let before: u64 = sql(&scene.cluster, &[failed]).parse().unwrap();
        until(
            "archiving fails",
            || scene.cluster.log_tail(),
            || {
                write();
                sql(&scene.cluster, &[failed]).parse::<u64>().unwrap() > before
                    && scene.cluster.log_tail().contains(words)
            },
        );
    };
    let archived = "select coalesce(last_archived_wal, '') >= pg_walfile_name(pg_current_wal_lsn() - 1048576) from pg_stat_archiver";
    let catches_up = || {
        sql(&scene.cluster, &["insert into ledger values (0, 'whole')", "select pg_switch_wal()"]);
        until("all is archived", || scene.cluster.log_tail(), || sql(&scene.cluster, &[archived]) == "t");
    };
    fails("No space left on device");
    assert!(scene.cluster.log_tail().contains("hint: free space"), "{}", scene.cluster.log_tail());
    mount.remount("size=256m");
    catches_up();
    mount.remount("ro");
    fails("Read-only file system");
    mount.remount("rw");
    catches_up();
    let (stored, away) = (scene.place.path().join("repository/wal"), scene.place.path().join("repository/away"));
    fs::rename(&stored, &away).unwrap();
    fs::write(&stored, "").unwrap();
    fails("hint: ");
    fs::remove_file(&stored).unwrap();
    fs::rename(&away, &stored).unwrap();
    catches_up();
    sql(&scene.cluster, &["insert into ledger values (0, 'the last second')", "select pg_switch_wal()"]);
    until("all is archived", || scene.cluster.log_tail(), || sql(&scene.cluster, &[archived]) == "t");
    let rows = sql(&scene.cluster, &["select count(*) from ledger"]);
    scene.cluster.kill9().unwrap();
    assert_recovers(&scene, base.path(), "--ahead 4", &rows);
}

/// Where a file that was fetched finds no room, the recovery stops and nobody promotes; with room it gets to the end.
fn a_recovery_without_room_stops(installation: &Installation) {
    let mut scene = Scene::on(installation);
    let (base, rows) = lost_server(&mut scene);
    // Not to take a file system for each copy of the data: the command's temporary file has no room where it is to appear.
    let small = scene.place.path().join("small");
    fs::create_dir(&small).unwrap();
    let Some(mount) = Mount::make(&small, "size=128k,mode=0777") else { return };
    let get = format!("{} %f {}/%f", scene.command("wal get --data-dir . --ahead 0 --patience 100ms"), small.display());
    let command = format!("{get} && mv {}/%f %p", small.display());
    let error = scene.recover_by(base.path(), &command).unwrap_err();
    assert_stopped(&error);
    assert!(error.contains("No space left on device") && error.contains("hint: see that the disk has room"), "{error}");
    mount.remount("size=64m");
    // A shell's own answer for what is not there: the code of `wal get` comes through.
    let recovered = scene.recover_by(base.path(), &command).unwrap_or_else(|error| panic!("{error}"));
    assert_eq!(sql(&recovered, &["select count(*) from ledger"]), rows, "{}", recovered.log_tail());
}

fn a_repository_that_is_read_only_is_recovered_from(installation: &Installation) {
    let mut scene = Scene::on(installation);
    let (base, rows) = lost_server(&mut scene);
    let Some(mount) = on_a_disk(&scene, "size=256m,mode=0700") else { return };
    mount.remount("ro");
    assert_recovers(&scene, base.path(), "--ahead 4", &rows);
}

/// Pushes that are killed leave nothing that is in the way; a command that is killed while a recovery waits for it ends that, and promotes nobody.
fn killed_at_any_moment(installation: &Installation) {
    let mut scene = Scene::on(installation);
    sql(&scene.cluster, &["create table ledger (i int, x text)"]);
    let base = scene.base();
    let data = scene.cluster.data_dir();
    let push = |name: &str| {
        let mut command = Command::new(scene.place.path().join("oxpecker"));
        command.current_dir(&data).arg("--config").arg(scene.place.path().join("oxpecker.toml"));
        command.args(["wal", "push", &format!("pg_wal/{name}")]).stdin(Stdio::null()).stdout(Stdio::null());
        command.stderr(Stdio::piped()).spawn().unwrap()
    };
    let mut killed = 0;
    for after in 0..30 {
        let name = sql(&scene.cluster, &[ROWS, "select pg_walfile_name(pg_switch_wal())"]);
        let mut child = push(&name);
        thread::sleep(Duration::from_millis(after));
        // One that is done by now can't be killed any more.
        let _ = child.kill();
        killed += u32::from(!child.wait().unwrap().success());
        // Every second one is left to the archive command, and comes behind those that follow it.
        if after % 2 == 0 {
            let output = push(&name).wait_with_output().unwrap();
            assert!(output.status.success(), "{after} ms: {}", String::from_utf8_lossy(&output.stderr));
        }
    }
    assert!(killed > 0, "all were too fast");
    scene.give();
    scene.archive();
    sql(&scene.cluster, &["insert into ledger values (0, 'the last second')"]);
    let last = sql(&scene.cluster, &["select pg_walfile_name(pg_switch_wal())"]);
    let archived = format!("select coalesce(last_archived_wal, '') >= '{last}' from pg_stat_archiver");
    until("all is archived", || scene.cluster.log_tail(), || sql(&scene.cluster, &[&archived]) == "t");
    let rows = sql(&scene.cluster, &["select count(*) from ledger"]);
    scene.cluster.kill9().unwrap();
    assert_recovers(&scene, base.path(), "--ahead 4", &rows);
    for after in ["0.001", "0.01", "0.03"] {
        let get = scene.command("wal get --ahead 0 %f %p");
        // It kills itself and with that says so, as a shell would that is killed for want of memory.
        let killed = format!("timeout -s KILL {after} {get}");
        match scene.recover_by(base.path(), &killed) {
            Err(log) => assert_stopped(&log),
            // In time, each time.
            Ok(recovered) => assert_eq!(sql(&recovered, &["select count(*) from ledger"]), rows, "{after}"),
        }
    }
}

/// A standby that lives of the archive: while that is away it neither ends nor promotes itself, and then it goes on.
fn a_standby_waits_for_its_repository(installation: &Installation) {
    let mut scene = Scene::on(installation);
    sql(&scene.cluster, &["create table ledger (i int, x text)"]);
    let base = scene.base();
    scene.archive();
    let archived = || {
        let segment = sql(&scene.cluster, &[ROWS, "select pg_walfile_name(pg_switch_wal())"]);
        let question = format!("select coalesce(last_archived_wal, '') >= '{segment}' from pg_stat_archiver");
        until("all is archived", || scene.cluster.log_tail(), || sql(&scene.cluster, &[&question]) == "t");
        sql(&scene.cluster, &["select count(*) from ledger"])
    };
    let data = base.path().join("data");
    fs::write(data.join("standby.signal"), "").unwrap();
    let builder = ScratchCluster::builder(installation).template_of(&data).setting("autovacuum", "off");
    let builder = builder.setting("restore_command", scene.command("wal get --standby %f %p"));
    let standby =
        builder.setting("archive_mode", "off").setting("wal_retrieve_retry_interval", "200ms").start().unwrap();
    let count = || try_sql(&standby, &["select count(*) from ledger"]).unwrap_or_default();
    let rows = archived();
    until("the first rows", || standby.log_tail(), || count() == rows);
    let (stored, away) = (scene.place.path().join("repository"), scene.place.path().join("away"));
    fs::rename(&stored, &away).unwrap();
    until("it is told so", || standby.log_tail(), || standby.log_tail().contains("trying again"));
    assert_eq!(sql(&standby, &["select pg_is_in_recovery()"]), "t", "{}", standby.log_tail());
    assert_eq!(count(), rows);
    fs::rename(&away, &stored).unwrap();
    let rows = archived();
    until("the rest", || standby.log_tail(), || count() == rows);
    assert_eq!(sql(&standby, &["select pg_is_in_recovery()"]), "t", "{}", standby.log_tail());
    assert!(!standby.log_tail().contains("FATAL"), "{}", standby.log_tail());
}

/// A primary that dies and is started again at once: the program that receives goes on, as the archive command does.
fn a_server_that_is_killed_again_and_again(installation: &Installation) {
    let mut scene = Scene::on(installation);
    sql(&scene.cluster, &["create table ledger (i int, x text)"]);
    let base = scene.base();
    let mut receiver = Receiver::start(&scene);
    scene.archive();
    for round in 0..4 {
        sql(&scene.cluster, &[ROWS]);
        receiver.until_durable(&scene.cluster);
        if round % 2 == 0 {
            scene.cluster.kill9().unwrap();
        } else {
            scene.cluster.stop_immediate().unwrap();
        }
        scene.cluster.start_again().unwrap();
    }
    sql(&scene.cluster, &["insert into ledger values (0, 'whole')", "select pg_switch_wal()"]);
    sql(&scene.cluster, &["insert into ledger values (0, 'the last second')"]);
    receiver.until_durable(&scene.cluster);
    let rows = sql(&scene.cluster, &["select count(*) from ledger"]);
    scene.cluster.kill9().unwrap();
    assert_eq!(receiver.stop(), Some(0), "{}", scene.place.log());
    assert_recovers(&scene, base.path(), "--ahead 4", &rows);
}
