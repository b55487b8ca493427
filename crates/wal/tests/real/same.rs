//! What is in the repository is what the server has in pg_wal, and what pg_receivewal makes of it.

use std::{
    collections::BTreeMap,
    fs,
    process::{Child, Command, Stdio},
};

use repository::wal::Segment;
use scratch::ScratchCluster;

use crate::support::*;

struct PgReceivewal(Child, tempfile::TempDir);

impl PgReceivewal {
    fn start(cluster: &ScratchCluster) -> Option<Self> {
        let major = cluster.installation().major();
        let mut tools =
            [cluster.installation().clone()].into_iter().chain(scratch::complete_installation(major.max(14)));
        let Some(program) = tools.find_map(|one| one.tool("pg_receivewal")) else {
            println!("skipped: the comparison with pg_receivewal, which is not installed for {major}");
            return None;
        };
        let dir = tempfile::tempdir().unwrap();
        let mut command = Command::new(program);
        command.arg("-D").arg(dir.path()).arg("-h").arg(cluster.socket_dir()).args(["-U", "postgres", "--no-sync"]);
        command.arg("-p").arg(cluster.tcp_port().to_string());
        let child = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
        Some(Self(child, dir))
    }

    fn segments(&self) -> BTreeMap<String, Vec<u8>> {
        let entries = fs::read_dir(self.1.path()).unwrap().map(|entry| entry.unwrap());
        let named = entries.map(|entry| (entry.file_name().into_string().unwrap(), entry.path()));
        named.filter(|(name, _)| name.len() == 24).map(|(name, path)| (name, fs::read(path).unwrap())).collect()
    }
}

impl Drop for PgReceivewal {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

pub fn as_pg_wal(major: u32) {
    let Some(builder) = keeping(major) else { return };
    let mut cluster = builder.start().unwrap();
    let (_, repository) = repository();
    let wal = wal_of(&repository, &cluster);
    let from = now(&cluster);
    let receiver = Receiver::start(&options(&cluster), &repository);
    receiver.until_connected(&cluster);
    let theirs = PgReceivewal::start(&cluster);
    if theirs.is_some() {
        let query =
            "select count(*) from pg_stat_replication where application_name = 'pg_receivewal' and state = 'streaming'";
        receiver.until("pg_receivewal streams", &cluster, || sql(&cluster, &[query]) == "1");
    }
    for _ in 0..5 {
        write(&cluster);
        receiver.until_acknowledged(&cluster, now(&cluster));
    }
    let middle = now(&cluster);
    assert_stored(&wal, 1, &cluster, from, middle);
    let end = switch(&cluster);
    write(&cluster);
    receiver.until_acknowledged(&cluster, now(&cluster));
    assert_stored(&wal, 1, &cluster, from, now(&cluster));
    if let Some(theirs) = theirs {
        let number = end.0 / SEGMENT - 1;
        let last = pg_format::wal::SegmentName { timeline: 1, number }.file_name(size());
        receiver.until("pg_receivewal has the last one", &cluster, || theirs.1.path().join(&last).exists());
        let segments = theirs.segments();
        assert!(segments.len() >= 4, "{:?}", segments.keys());
        for (name, bytes) in segments {
            let name = pg_format::wal::SegmentName::parse(&name, size()).unwrap();
            let ours = wal.get_segment(1, name.number).unwrap();
            assert!(ours == Segment::Whole(bytes), "{name:?} differs");
        }
    }

    // The server restarts: we go on, with nothing lost and nothing twice.
    cluster.stop_fast().unwrap();
    cluster.start_again().unwrap();
    write(&cluster);
    receiver.until_acknowledged(&cluster, now(&cluster));
    cluster.stop_immediate().unwrap();
    cluster.start_again().unwrap();
    write(&cluster);
    receiver.until_acknowledged(&cluster, now(&cluster));
    let end = switch(&cluster);
    receiver.until_acknowledged(&cluster, end);
    assert_stored(&wal, 1, &cluster, from, end);
    let reach = wal.reach(1, from.0 / SEGMENT).unwrap();
    assert_eq!((reach.segment * SEGMENT + reach.bytes >= end.0, reach.beyond), (true, None));
    let told = receiver.stop();
    assert!(!told.iter().any(|event| matches!(event, wal::receive::Event::Gap { .. })), "{told:#?}");

    // Another one goes on where that one was.
    write(&cluster);
    let receiver = Receiver::start(&options(&cluster), &repository);
    receiver.until_acknowledged(&cluster, now(&cluster));
    assert_stored(&wal, 1, &cluster, from, now(&cluster));
    receiver.stop();
}
