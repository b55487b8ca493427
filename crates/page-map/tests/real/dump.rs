//! Records and their blocks, judged by `pg_waldump`.

use std::{fmt::Write, path::Path, process::Command};

use model::Lsn;
use pg_format::wal::{BlockRef, Compression, Decoder, Flow, Fork, Record, Stream};
use scratch::Installation;

/// As `pg_waldump --bkp-details` prints it.
fn block_line(block: &BlockRef<'_>, major: u32) -> String {
    let fork = match block.fork {
        Fork::Main => "main",
        Fork::FreeSpaceMap => "fsm",
        Fork::VisibilityMap => "vm",
        Fork::Init => "init",
    };
    let (relation, id, number) = (block.relation, block.id, block.block);
    let (tablespace, database) = (relation.tablespace, relation.database);
    let mut line = format!("blkref #{id}: rel {tablespace}/{database}/{} fork {fork} blk {number}", relation.number);
    if let Some(image) = block.image {
        let use_ = if image.apply { "" } else { " for WAL verification" };
        let len = u16::try_from(image.bytes.len()).unwrap();
        let hole = match image.compression {
            Compression::None => 8192 - len,
            _ => image.hole_len.unwrap_or(0),
        };
        write!(line, " (FPW{use_}); hole: offset: {}, length: {hole}", image.hole_offset).unwrap();
        let method = match image.compression {
            Compression::None => return line,
            Compression::Pglz => "pglz",
            Compression::Lz4 => "lz4",
            Compression::Zstd => "zstd",
            Compression::Unknown => "unknown",
        };
        write!(line, ", compression saved: {}", 8192 - hole - len).unwrap();
        if major >= 15 {
            write!(line, ", method: {method}").unwrap();
        }
    }
    line
}

fn check(record: &Record<'_>, stream: &Stream, said: &[&str]) {
    let (line, blocks) = said.split_first().expect("a line for each record");
    let parts = record.parts(stream.major).unwrap();
    let images: usize = parts.blocks.iter().filter_map(|block| block.image).map(|image| image.bytes.len()).sum();
    let total = record.header.total_len;
    let without = u64::from(total) - images as u64;
    let words: Vec<&str> = line.split([' ', ',', '/']).filter(|word| !word.is_empty()).collect();
    let after = |word: &str| words.iter().position(|other| *other == word).map(|at| words[at + 1]).unwrap();
    let lsn = |key: &str| {
        let rest = line.split_once(key).unwrap().1.trim_start();
        rest.split([',', ' ']).next().unwrap().parse::<Lsn>().unwrap()
    };
    assert_eq!((lsn("lsn: "), lsn("prev ")), (record.lsn, record.header.prev), "{line}");
    assert_eq!(after("tx:"), record.header.xid.to_string(), "{line}");
    let lens = line.split_once("(rec/tot):").unwrap().1.split_once(',').unwrap().0.replace(' ', "");
    assert_eq!(lens, format!("{without}/{total}"), "{line}");
    let ours: Vec<String> = parts.blocks.iter().map(|block| block_line(block, stream.major.number())).collect();
    let theirs: Vec<&str> = blocks.iter().map(|block| block.trim()).collect();
    assert_eq!(ours, theirs, "{line}");
}

/// Each record of the range is what `pg_waldump` says.
pub(crate) fn agrees(installation: &Installation, data: &Path, stream: &Stream, start: Lsn, wal: (Lsn, &[u8])) {
    let Some(waldump) = installation.tool("pg_waldump") else {
        println!("skipped: no pg_waldump of PostgreSQL {}; hint: cargo xtask testbed", installation.major());
        return;
    };
    let (origin, bytes) = wal;
    let end = Lsn(origin.0 + bytes.len() as u64);
    let mut command = Command::new(waldump);
    command.env("LC_ALL", "C").arg("--bkp-details").arg("-p").arg(data.join("pg_wal"));
    let output = command.args(["-s", &start.to_string(), "-e", &end.to_string()]).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let text = String::from_utf8(output.stdout).unwrap();
    let lines: Vec<&str> =
        text.lines().filter(|line| line.starts_with("rmgr: ") || line.starts_with("\tblkref #")).collect();
    let mut at = 0;
    let (mut records, mut images, mut compressed) = (0, 0, 0);
    let mut decoder = Decoder::new(*stream, origin, start).unwrap();
    decoder
        .feed(bytes, |record| {
            let len = 1 + lines[at + 1..].iter().take_while(|line| line.starts_with('\t')).count();
            check(record, stream, &lines[at..at + len]);
            at += len;
            records += 1;
            let parts = record.parts(stream.major).unwrap();
            for image in parts.blocks.iter().filter_map(|block| block.image) {
                images += 1;
                compressed += u64::from(image.compression != Compression::None);
            }
            Flow::Continue
        })
        .unwrap();
    assert_eq!(at, lines.len(), "pg_waldump knows no more");
    println!("pg_waldump agrees on {records} records with {images} images, {compressed} of them compressed");
    assert!(records > 1000 && images > 100 && compressed > 0);
}
