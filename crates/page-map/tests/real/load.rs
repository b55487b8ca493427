//! A random load with random DDL.

use std::sync::atomic::{AtomicU64, Ordering};

use tokio_postgres::NoTls;

/// What a server was told that it did not take. Some is wanted: locks that are held, tables that are gone.
pub(crate) static REFUSED: AtomicU64 = AtomicU64::new(0);

/// Splitmix64: the same seed gives the same statements, though not the same interleaving.
pub(crate) struct Random(pub(crate) u64);

impl Random {
    pub(crate) fn below(&mut self, end: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        (z ^ (z >> 31)) % end
    }

    fn of<'a>(&mut self, all: &[&'a str]) -> &'a str {
        all[usize::try_from(self.below(all.len() as u64)).unwrap()]
    }
}

/// A session; statements go one by one, as some of them want.
pub(crate) struct Session {
    runtime: tokio::runtime::Runtime,
    client: tokio_postgres::Client,
}

impl Session {
    pub(crate) fn open(url: &str) -> Self {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let (client, connection) = runtime.block_on(tokio_postgres::connect(url, NoTls)).unwrap();
        runtime.spawn(connection);
        let session = Self { runtime, client };
        // Locks of prepared transactions would be waited for without end.
        session.must("set lock_timeout = '100ms'");
        session.must("set statement_timeout = '20s'");
        session
    }

    pub(crate) fn must(&self, sql: &str) {
        self.runtime.block_on(self.client.batch_execute(sql)).unwrap_or_else(|error| panic!("{sql}: {error:?}"));
    }

    /// Whether the server took it.
    fn may(&self, sql: &str) -> bool {
        let taken = self.runtime.block_on(self.client.batch_execute(sql)).is_ok();
        if !taken {
            REFUSED.fetch_add(1, Ordering::Relaxed);
        }
        taken
    }
}

const INDEXES: &[&str] = &[
    "btree (i)",
    "btree (x)",
    "hash (i)",
    "gin ((array[i, i % 7]))",
    "gist (point(i, i % 100))",
    "spgist (x)",
    "spgist (point(i, i % 100))",
    "brin (i) with (pages_per_range = 2)",
];

/// Tables that stay, with every kind of index: their pages are named one by one.
pub(crate) fn prepare(url: &str) {
    let session = Session::open(url);
    // An autovacuum gives way after a second only.
    session.must("set lock_timeout = 0");
    session.must("set statement_timeout = 0");
    for name in ["a", "b"] {
        for number in 0..3 {
            let table = format!("{name}_stays_{number}");
            session.must(&format!("create table {table} (i int, x text, b int default 0) with (fillfactor = 80)"));
            session.must(&format!(
                "insert into {table} (i, x) select i, repeat(chr(97 + i % 26), 20 + i % 150) from generate_series(1, 6000) i"
            ));
            INDEXES.iter().for_each(|index| session.must(&format!("create index on {table} using {index}")));
        }
    }
}

/// One statement on the tables that stay.
fn gentle_step(session: &Session, random: &mut Random, name: &str) {
    let table = format!("{name}_stays_{}", random.below(3));
    let at = random.below(6000);
    let sql = match random.below(9) {
        0..=1 => format!("update {table} set b = b + 1 where i between {at} and {}", at + random.below(30)),
        2 => format!("update {table} set i = i + 1, x = x || 'y' where i between {at} and {}", at + 5),
        3 => format!("delete from {table} where i between {at} and {}", at + 10),
        4 => format!("insert into {table} (i, x) select i, repeat('n', 50) from generate_series({at}, {}) i", at + 10),
        5 => format!("select i from {table} where i > {at} for update"),
        6 => format!("select sum(i) from {table}"),
        7 => format!("vacuum {table}"),
        // The end of the file goes, and comes back.
        _ => format!("delete from {table} where ctid > '({},1)'; vacuum {table}", 60 + random.below(100)),
    };
    // Vacuum wants to be alone.
    for sql in sql.split("; ") {
        session.may(sql);
    }
}

/// One statement, or a few that belong together, on the tables of one session.
fn step(session: &Session, random: &mut Random, name: &str, major: u32) {
    let table = format!("{name}_{}", random.below(6));
    let (rows, at) = (random.below(800), random.below(2000));
    let space = random.of(&["pg_default", "other"]);
    if random.below(3) == 0 {
        return gentle_step(session, random, name);
    }
    match random.below(40) {
        0..=2 => {
            let kind = random.of(&["", "", "unlogged"]);
            let index = random.of(INDEXES);
            session.may(&format!(
                "create {kind} table {table} (i int, x text, b int default 0) with (fillfactor = 70) tablespace {space}"
            ));
            session.may(&format!("create index on {table} using {index}"));
        }
        3 => {
            session.may(&format!("create index on {table} using {}", random.of(INDEXES)));
        }
        4..=9 => {
            session.may(&format!(
                "insert into {table} (i, x) select i, repeat(chr(97 + i % 26), 20 + i % 150) from generate_series({at}, {}) i",
                at + rows
            ));
        }
        10..=13 => {
            session.may(&format!("update {table} set b = b + 1 where i between {at} and {}", at + 50));
        }
        14 => {
            session.may(&format!("update {table} set i = i + 1 where i > {at}"));
        }
        15..=16 => {
            session.may(&format!("delete from {table} where i > {at}"));
        }
        17..=19 => {
            session.may(&format!("vacuum (freeze {}) {table}", random.of(&["on", "off"])));
        }
        20 => {
            session.may(&format!("vacuum full {table}"));
        }
        21 => {
            session.may(&format!("truncate {table}"));
        }
        22 => {
            session.may(&format!("drop table {table}"));
        }
        23 => {
            session.may(&format!("reindex table {table}"));
        }
        24 => {
            session.may(&format!("alter table {table} set {}", random.of(&["logged", "unlogged"])));
        }
        25 => {
            session.may(&format!("alter table {table} set tablespace {space}"));
        }
        26 => {
            session.may(&format!("alter table {table} alter b type {}", random.of(&["int", "bigint"])));
        }
        27 => {
            session.may(&format!("create sequence {table}_s"));
            session.may(&format!("select nextval('{table}_s') from generate_series(1, {rows})"));
        }
        28 => {
            session.may(&format!("select nextval('{table}_s')"));
        }
        29 => {
            // Created and cut off in one transaction, with a part that is taken back.
            let end = random.of(&["commit", "rollback"]);
            if !session.may(&format!(
                "begin; create table {table}_n as select * from generate_series(1, {rows}) i; savepoint a; truncate {table}_n; \
                 insert into {table}_n select 1; rollback to a; drop table if exists {table}_n; {end}"
            )) {
                session.may("rollback");
            }
        }
        30 => {
            let end = random.of(&["commit", "rollback"]);
            let prepared = session.may(&format!(
                "begin; drop table if exists {table}; create table {table} (i int, x text, b int default 0); \
                 insert into {table} select i, 'x' from generate_series(1, {rows}) i; prepare transaction '{table}'"
            ));
            session.may(if prepared { "checkpoint" } else { "rollback" });
            if prepared {
                session.may(&format!("{end} prepared '{table}'"));
            }
        }
        31 => {
            let strategy = if major >= 15 { random.of(&["strategy = wal_log", "strategy = file_copy"]) } else { "" };
            session.may(&format!("create database {name}_d tablespace {space} {strategy}"));
        }
        32 => {
            session.may(&format!("alter database {name}_d set tablespace {space}"));
        }
        33 => {
            session.may(&format!("drop database {name}_d"));
        }
        34 => {
            session.may(&format!(
                "select count(*) from {table}; select lo_from_bytea(0, repeat('y', {rows} * 20)::bytea)"
            ));
        }
        35 => {
            session.may(random.of(&["checkpoint", "select pg_switch_wal()", "analyze"]));
        }
        36 => {
            session.may(&format!("select pg_logical_emit_message(false, 'p', repeat('z', {rows} * 1000))"));
        }
        37 => {
            session
                .may(&format!("create temp table if not exists tt (i int); insert into tt select {at}; truncate tt"));
        }
        38 if name == "a" => {
            session.may(&format!("set wal_compression = {}", random.of(&["on", "off"])));
        }
        _ => {
            let method = random.of(&["pglz", "lz4", "zstd"]);
            session.may("select brin_summarize_new_values(oid) from pg_class where relam = 3580 and relkind = 'i'");
            session.may(&format!("set wal_compression = {method}"));
        }
    }
}

/// Runs so many steps in each of two sessions at once.
pub(crate) fn run(url: &str, seed: u64, steps: u32, major: u32) {
    std::thread::scope(|scope| {
        for session in 0..2 {
            let name = ["a", "b"][session];
            scope.spawn(move || {
                let mut random = Random(seed ^ (session as u64) << 32);
                let session = Session::open(url);
                if name == "b" {
                    session.must("set wal_compression = on");
                }
                for _ in 0..steps {
                    step(&session, &mut random, name, major);
                }
            });
        }
    });
}
