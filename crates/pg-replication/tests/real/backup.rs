//! A backup through the protocol is one from which a server starts.

use std::{
    collections::BTreeMap,
    fs::{self, File},
    io::Write,
    os::unix::{ffi::OsStrExt, fs::PermissionsExt},
    path::Path,
};

use pg_replication::{BaseBackup, BaseBackupOptions, Connection, EntryKind, Event, ManifestChecksums};
use scratch::ScratchCluster;

use crate::{builder, socket, sql};

/// What was received: the files' sizes by path, the manifest, the largest progress.
#[derive(Default)]
pub struct Received {
    pub files: BTreeMap<String, u64>,
    pub links: Vec<String>,
    pub manifest: Vec<u8>,
    pub progress: u64,
}

/// Writes a backup below `root`, tablespaces into directories instead of behind links.
pub fn receive(backup: &mut BaseBackup<'_>, root: &Path) -> Received {
    let mut received = Received::default();
    let mut file: Option<(File, u64)> = None;
    fs::create_dir_all(root).unwrap();
    fs::set_permissions(root, fs::Permissions::from_mode(0o700)).unwrap();
    while let Some(event) = backup.next().unwrap() {
        match event {
            Event::Entry(entry) => {
                assert!(file.take().is_none_or(|(_, left)| left == 0), "a file is shorter than it was announced");
                let text = String::from_utf8(entry.path.clone()).unwrap();
                let path = root.join(std::ffi::OsStr::from_bytes(&entry.path));
                match entry.kind {
                    EntryKind::Directory => fs::create_dir_all(&path).unwrap(),
                    EntryKind::Symlink(_) => received.links.push(text),
                    EntryKind::File => {
                        fs::create_dir_all(path.parent().unwrap()).unwrap();
                        file = Some((File::create(&path).unwrap(), entry.size));
                        fs::set_permissions(&path, fs::Permissions::from_mode(entry.mode)).unwrap();
                        received.files.insert(text, entry.size);
                    }
                }
            }
            Event::Data(bytes) => {
                let (file, left) = file.as_mut().unwrap();
                *left -= bytes.len() as u64;
                file.write_all(bytes).unwrap();
            }
            Event::Manifest(bytes) => received.manifest.extend(bytes),
            Event::Progress(bytes) => received.progress = received.progress.max(bytes),
        }
    }
    received
}

pub fn is_complete(major: u32) {
    let Some(builder) = builder(major) else { return };
    let cluster = builder.start().unwrap();
    let inside = cluster.directory().join("space");
    fs::create_dir(&inside).unwrap();
    cluster.give(&inside).unwrap();
    sql(
        &cluster,
        &[
            &format!("create tablespace space location '{}'", inside.display()),
            "create table t as select i, repeat('x', 100) as x from generate_series(1, 30000) i",
            "create table s tablespace space as select i from generate_series(1, 1000) i",
        ],
    );
    let oid = sql(&cluster, &["select oid from pg_tablespace where spcname = 'space'"]);

    let mut connection = Connection::open(&socket(&cluster)).unwrap();
    assert_eq!((connection.major(), connection.is_tls()), (major, false));
    assert_eq!(connection.is_standby(), (major >= 14).then_some(false));
    let identity = connection.identify_system().unwrap();
    let expected = sql(&cluster, &["select system_identifier from pg_control_system()"]);
    assert_eq!((identity.system_identifier.to_string(), identity.timeline), (expected, 1));
    assert_eq!(connection.wal_segment_size().unwrap(), 16 << 20);
    assert!(connection.show("no_such_setting").unwrap_err().to_string().contains("no_such_setting"));
    assert!(connection.show("x; drop").is_err());

    let options =
        BaseBackupOptions { manifest: Some(ManifestChecksums::Sha256), ..BaseBackupOptions::new("it's ours") };
    let mut backup = connection.base_backup(&options).unwrap();
    let start = backup.start();
    assert!(start.timeline == 1);
    let [tablespace] = backup.tablespaces() else { panic!("{:?}", backup.tablespaces()) };
    assert_eq!((tablespace.oid.to_string(), tablespace.location.as_str()), (oid.clone(), inside.to_str().unwrap()));
    let estimate = backup.size_kib().unwrap();
    let copy = tempfile::tempdir_in("/tmp").unwrap();
    let root = copy.path().join("data");
    let received = receive(&mut backup, &root);
    let stop = backup.finish().unwrap();
    assert!(stop.lsn > start.lsn && stop.timeline == 1);
    assert!(estimate > 20_000, "{estimate}");
    if major >= 15 {
        assert!(received.progress > estimate * 1024 / 2, "{}", received.progress);
    }

    let text = String::from_utf8(received.manifest).unwrap();
    assert!(text.contains("\"Checksum-Algorithm\": \"SHA256\"") && text.ends_with("}\n"), "{text}");
    // The map takes the place of the links.
    assert!(received.links.is_empty() && received.files.contains_key("tablespace_map"));
    for path in ["backup_label", "tablespace_map", "global/pg_control", "PG_VERSION"] {
        assert!(received.files.contains_key(path), "{path}");
    }
    assert!(received.files.keys().any(|path| path.starts_with(&format!("pg_tblspc/{oid}/PG_{major}_"))));
    assert!(received.files.keys().any(|path| path.starts_with("pg_wal/0000")));
    let listed = |path: &str| text.contains(&format!("\"Path\": \"{path}\""));
    let unlisted = |path: &&String| !listed(path) && !path.starts_with("pg_wal/");
    assert_eq!(received.files.keys().find(unlisted), None);

    // The connection is as good as new.
    assert_eq!(connection.identify_system().unwrap().system_identifier, identity.system_identifier);

    // A server starts from it and has everything. An in-place directory stands for the tablespace's link.
    fs::remove_file(root.join("tablespace_map")).unwrap();
    starts(&cluster, &root);
}

/// Recovers the copy with a server of its own.
fn starts(cluster: &ScratchCluster, root: &Path) {
    // `template_of` wants a directory without tablespaces: their place is a plain directory here, moved aside and linked after.
    let spaces = root.join("pg_tblspc");
    let aside = root.join("../spaces");
    fs::rename(&spaces, &aside).unwrap();
    fs::create_dir(&spaces).unwrap();
    let restored = ScratchCluster::builder(cluster.installation()).template_of(root).start();
    let restored = restored.unwrap();
    assert_eq!(sql(&restored, &["select count(*) from t"]), "30000");
    assert_eq!(sql(&restored, &["select count(*) from pg_class"]), sql(cluster, &["select count(*) from pg_class"]));
}
