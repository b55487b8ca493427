//! One proof from beginning to end.

use std::{fs, path::PathBuf, time::Instant};

use jiff::Timestamp;
use model::Lsn;
use pg_format::wal::Stream;

use super::{
    ProveOptions, census,
    checks::{pages, queries, structure},
    command, compare, decide,
    error::{Halt, ProveError, file},
    fence::{
        abilities,
        enter::Root,
        keeper::Site,
        memory::MemoryGroup,
        plan::{self, Plan},
    },
    further::{self, FurtherWal},
    identity::Identity,
    place::{self, Place},
    programs::Programs,
    receipt::{
        Check, CheckName, ClusterRecord, Outcome, RECEIPT_FORMAT, Receipt, Stage, StageRecord, SubjectRecord, Verdict,
        millis,
    },
    restored::{self, Restored},
    server::{Launch, Server},
    session::{self, Door},
    settings::{self, Wishes},
    space,
    wal::{self, Fetch, Survey},
};
use crate::progress::{Note, Progress};

/// What a backup's own record adds to a proof.
#[derive(Clone, Default)]
pub(super) struct Recorded<'a> {
    /// Where the backup ends.
    pub(super) stop_lsn: Option<Lsn>,
    /// What was counted before and after.
    pub(super) censuses: Vec<census::Census>,
    /// How text is sorted on the original's host.
    pub(super) sorting: Option<census::Sorting>,
    /// The restore brings all WAL that is needed: what lacks is not to be fetched from elsewhere.
    pub(super) brings_its_wal: bool,
    /// WAL behind the backup, to be replayed as well.
    pub(super) further: Option<&'a dyn FurtherWal>,
}

/// How the files come to the scratch directory.
pub(super) type RestoreStep<'a> = &'a mut dyn FnMut(&Place, &Identity) -> Result<(), Halt>;

/// Proves another tool's backup: runs the user's restore command, in which `{pgdata}` stands for an empty scratch directory and `{scratch}` for
/// one beside it (for tablespaces, say), then recovers and checks what it brought. The command runs as ourselves, outside of the fence.
///
/// # Errors
/// Only where nothing was begun. What goes wrong later is in the receipt.
pub fn prove_command(
    options: &ProveOptions,
    restore_command: &str,
    progress: &dyn Progress,
) -> Result<Receipt, ProveError> {
    command::check(restore_command)?;
    let subject = SubjectRecord::Command { command: command::redact(restore_command) };
    let mut restore =
        |place: &Place, _: &Identity| command::run(restore_command, place, &place.dir().join("restore.log"), progress);
    let needed = options.expected_bytes.unwrap_or(space::UNKNOWN_BYTES);
    run(options, subject, &Recorded::default(), needed, &mut restore, progress)
}

pub(super) fn run(
    options: &ProveOptions,
    subject: SubjectRecord,
    recorded: &Recorded<'_>,
    restore_bytes: u64,
    restore: RestoreStep<'_>,
    progress: &dyn Progress,
) -> Result<Receipt, ProveError> {
    let identity = Identity::choose()?;
    let swept = place::clean_up(&options.registry)?;
    for dir in &swept.removed {
        progress.note(&Note::Warning(format!("removed {}, which a killed proof had left", dir.display())));
    }
    fs::create_dir_all(&options.scratch).map_err(file("create", &options.scratch))?;
    let mut place = Place::create(&options.scratch, &options.registry, &identity)?;
    let mut proof = Proof {
        options,
        recorded,
        identity,
        progress,
        receipt: Receipt {
            format: RECEIPT_FORMAT,
            verdict: Verdict::NotProven,
            reasons: Vec::new(),
            subject,
            started_at: Timestamp::now(),
            finished_at: Timestamp::now(),
            stages: Vec::new(),
            recovery_time_ms: None,
            cluster: None,
            wal: None,
            fence: None,
            checks: Vec::new(),
            queries: Vec::new(),
            notes: Vec::new(),
        },
    };
    let ended = proof.go(&mut place, restore_bytes, restore);
    let mut receipt = proof.receipt;
    let (verdict, reasons) = decide::verdict(&receipt.checks, &receipt.queries);
    (receipt.verdict, receipt.reasons) = (verdict, reasons);
    if let Err(halt) = ended {
        receipt.verdict = receipt.verdict.max(halt.verdict);
        receipt.reasons.insert(0, halt.reason);
    }
    receipt.finished_at = Timestamp::now();
    Ok(receipt)
}

struct Proof<'a> {
    options: &'a ProveOptions,
    recorded: &'a Recorded<'a>,
    identity: Identity,
    progress: &'a dyn Progress,
    receipt: Receipt,
}

impl Proof<'_> {
    fn go(&mut self, place: &mut Place, restore_bytes: u64, restore: RestoreStep<'_>) -> Result<(), Halt> {
        space::demand(place.dir(), restore_bytes + space::BESIDES_BYTES, "the restore with its recovery")?;
        let began = Instant::now();
        self.stage(Stage::Restore, |proof| restore(place, &proof.identity))?;

        let restored = restored::read(&place.data())?;
        self.receipt.cluster = Some(ClusterRecord {
            system_id: restored.control.system_identifier.to_string(),
            major: restored.control.major.number(),
            server: None,
            timeline: restored.timeline(),
            start_lsn: restored.start(),
            stop_lsn: self.recorded.stop_lsn,
            reached_lsn: None,
            bytes: 0,
        });
        let programs = Programs::find(restored.control.major.number(), &self.options.bin_dirs)?;
        let (site, memory, survey) = self.stage(Stage::Prepare, |proof| proof.prepare(place, &restored, &programs))?;
        let launch = Launch {
            site: &site,
            programs: &programs,
            place,
            memory: memory.as_ref(),
            patience: self.options.recovery_patience,
        };
        let progress = self.progress;
        let cancelled = || progress.cancelled();
        let mut server = self.stage(Stage::Recovery, |_| launch.start(&cancelled))?;
        self.receipt.recovery_time_ms = Some(millis(began.elapsed()));
        if let (Some(fence), Some(gap)) = (&mut self.receipt.fence, &server.memory_gap) {
            fence.memory_bytes = None;
            fence.gaps.push(gap.clone());
        }
        if let Some(record) = &mut self.receipt.wal {
            further::replayed(record, &survey, server.redo_done());
        }
        let ended = self.look(&launch, &mut server, &restored, &site.plan);
        ended.map_err(|halt| blame_memory(halt, &mut server))
    }

    /// Makes the directory fit for a server, and the fence fit for what its WAL will do.
    fn prepare(
        &mut self,
        place: &mut Place,
        restored: &Restored,
        programs: &Programs,
    ) -> Result<(Site, Option<MemoryGroup>, Survey), Halt> {
        restored::refuse_ties(&place.data(), place.dir())?;
        // Before anything is fetched into it, and before its files change hands.
        restored::disarm(restored)?;
        let survey = self.survey(place, restored)?;
        let bytes = self.own(place)?;
        if let Some(cluster) = &mut self.receipt.cluster {
            cluster.bytes = bytes;
            cluster.server = Some(programs.version.clone());
            cluster.stop_lsn = cluster.stop_lsn.or(survey.stop);
        }
        let mut root = Root {
            at: place.root(),
            visible: programs.prefix().into_iter().collect(),
            writable: place.dir().to_owned(),
            program: programs.postgres(),
            rebound: Vec::new(),
        };
        let abilities = abilities::find(&self.identity, &root);
        let plan = plan::decide(&abilities, self.options.fence, &survey.outlook).map_err(Halt::not_proven)?;
        let mut record = plan.record();
        let memory = self.bound_memory(place, &mut record)?;
        self.receipt.fence = Some(record);
        root.rebound = self.rebind(place, &plan)?;
        self.configure(place, restored, &survey)?;
        Ok((Site { plan, identity: self.identity.clone(), root }, memory, survey))
    }

    fn survey(&mut self, place: &Place, restored: &Restored) -> Result<Survey, Halt> {
        let progress = self.progress;
        let cancelled = || progress.cancelled();
        let data = place.data();
        let command = restored.restore_command.as_deref().filter(|_| !self.recorded.brings_its_wal);
        let fetch = command.map(|command| Fetch { command, data: &data });
        let began = Instant::now();
        let mut brought = match self.recorded.further {
            Some(further) => {
                let size = Stream::of(&restored.control).map_err(|error| Halt::failed(error.to_string()))?.segment_size;
                further::bring(further, &data, size, &self.identity, &cancelled)?
            }
            None => None,
        };
        let along = brought.as_ref().map(|brought| brought.along.clone()).unwrap_or_default();
        let survey = wal::survey(restored, fetch.as_ref(), &along, &cancelled)?;
        if let Some(brought) = &mut brought {
            further::surveyed(brought, &survey);
        }
        self.receipt.wal = brought.map(|brought| brought.record);
        self.receipt.stages.push(StageRecord { stage: Stage::Wal, ms: millis(began.elapsed()) });
        if restored.label.is_none() {
            let state = restored.control.state;
            self.receipt.notes.push(format!(
                "there is no backup_label: a cold copy or a snapshot (its server was {state}); nothing in it says whether it is whole"
            ));
        }
        if survey.fetched > 0 {
            self.receipt
                .notes
                .push(format!("{} WAL segments were fetched by the restored restore_command", survey.fetched));
        }
        if let (Some(stop), true) = (self.recorded.stop_lsn, restored.label.is_some())
            && survey.end < stop
        {
            return Err(Halt::failed(format!(
                "the backup ends at {stop}, and its WAL is whole only up to {}",
                survey.end
            )));
        }
        Ok(survey)
    }

    /// Gives everything to the server's user; how many bytes there are.
    fn own(&self, place: &Place) -> Result<u64, Halt> {
        let mut bytes = 0;
        for dir in [place.data(), place.tablespaces(), place.tool()] {
            bytes += self.identity.own_tree(&dir)?;
        }
        Ok(bytes)
    }

    fn bound_memory(
        &self,
        place: &mut Place,
        record: &mut super::fence::FenceRecord,
    ) -> Result<Option<MemoryGroup>, Halt> {
        let Some(limit) = self.options.memory_bytes else {
            record.gaps.push("its memory is not bounded: no bound was asked for".to_owned());
            return Ok(None);
        };
        let name = place.dir().file_name().map_or_else(String::new, |name| name.to_string_lossy().into_owned());
        match MemoryGroup::create(&name, limit) {
            Ok(group) => {
                place.note_cgroup(group.path())?;
                record.memory_bytes = Some(limit);
                Ok(Some(group))
            }
            Err(why) => {
                record.gaps.push(format!("its memory is bounded by its settings only: {why}"));
                Ok(None)
            }
        }
    }

    /// Makes the directories that the server finds in the place of the tablespaces that WAL creates.
    fn rebind(&self, place: &Place, plan: &Plan) -> Result<Vec<(PathBuf, PathBuf)>, Halt> {
        let mut rebound = Vec::new();
        for (path, oid) in &plan.rebound {
            let ours = place.tablespaces().join(format!("created-{oid}"));
            fs::create_dir_all(&ours).map_err(Halt::file("create", &ours))?;
            self.identity.own(&ours).map_err(Halt::file("change the owner of", &ours))?;
            rebound.push((path.clone(), ours));
        }
        Ok(rebound)
    }

    fn configure(&self, place: &Place, restored: &Restored, survey: &Survey) -> Result<(), Halt> {
        let conf = place.conf();
        let followed = self.receipt.wal.as_ref().filter(|wal| wal.segments > 0);
        let wishes = Wishes {
            preload: &self.options.preload,
            timeline: followed.map(|wal| wal.timeline).filter(|other| *other != restored.timeline()),
            max_prepared: survey.max_prepared,
        };
        let text = settings::postgresql_conf(&restored.control, &conf, &place.run(), &wishes);
        for (name, text) in [("postgresql.conf", text.as_str()), ("pg_hba.conf", settings::HBA), ("pg_ident.conf", "")]
        {
            let path = conf.join(name);
            fs::write(&path, text).map_err(Halt::file("write", &path))?;
            self.identity.own(&path).map_err(Halt::file("change the owner of", &path))?;
        }
        Ok(())
    }

    /// The checks.
    fn look(&mut self, launch: &Launch<'_>, server: &mut Server, restored: &Restored, plan: &Plan) -> Result<(), Halt> {
        let progress = self.progress;
        let cancelled = || progress.cancelled();
        let data = launch.place.data();
        let rebound: Vec<_> = plan.rebound.iter().map(|(path, _)| path.clone()).collect();
        let (count, wrong) = restored::links_after(&data, launch.place.dir(), &rebound);
        let mut links = Check::new(CheckName::TablespaceLinks, "each leads to a directory of the proof's own");
        links.examined = count;
        for link in wrong {
            links.find(Outcome::Broken, &link);
        }
        let unsafe_links = links.outcome != Outcome::Passed;
        self.receipt.checks.push(links);
        if unsafe_links {
            return Err(Halt::not_proven(
                "recovery made a link out of the scratch directory; nothing else was checked",
            ));
        }

        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .map_err(|source| ProveError::Runtime { source })?;
        let major = restored.control.major;
        let door = session::find_door(&runtime, launch, server, major, self.options.superuser.as_deref(), &cancelled)?;
        let client = runtime
            .block_on(door.open_maintenance())
            .map_err(|error| session::judge(&error, "the recovered server lets nobody in"))?;
        let reached = server.redo_done();
        if let Some(cluster) = &mut self.receipt.cluster {
            cluster.reached_lsn = reached;
        }

        self.stage(Stage::Checksums, |proof| {
            let ask = |sql: &str| {
                runtime
                    .block_on(client.query_one(sql, &[]))
                    .map_err(|error| session::judge(&error, "the server does not answer"))
            };
            runtime
                .block_on(client.batch_execute("CHECKPOINT"))
                .map_err(|error| session::judge(&error, "the recovered server can't make a checkpoint"))?;
            let insert = || {
                let row = ask("SELECT pg_catalog.pg_current_wal_insert_lsn()::text")?;
                row.get::<_, String>(0).parse::<Lsn>().map_err(|error| Halt::not_proven(error.to_string()))
            };
            let check = pages::check(&data, launch.place.dir(), &restored.control, insert, &cancelled)?;
            proof.receipt.checks.push(check);
            Ok(())
        })?;

        let here = self.stage(Stage::Objects, |proof| proof.count(&runtime, &door, &client))?;
        self.stage(Stage::Queries, |proof| {
            let options = proof.options;
            proof.receipt.queries = runtime.block_on(queries::run(&door, &options.queries, options.query_patience));
            if server.runs() { Ok(()) } else { Err(Halt::failed("the server ended while the queries ran")) }
        })?;
        self.stage(Stage::Structure, |proof| {
            let remembered = runtime.block_on(census::remembered_sorting(&client, major));
            let remembered = remembered.map_err(|error| session::judge(&error, "the catalogues can't be read"))?;
            let sorting = compare::sorts_differently(&remembered, &here.sorting).or_else(|| {
                let recorded = proof.recorded.sorting.as_ref();
                recorded.and_then(|recorded| compare::sorts_differently(recorded, &here.sorting))
            });
            let names = runtime.block_on(census::open_all(&client));
            let names = names.map_err(|error| session::judge(&error, "the databases can't be listed"))?;
            let found = runtime.block_on(structure::check(&door, &names, sorting.as_deref(), &cancelled))?;
            proof.receipt.checks.extend([found.databases, found.tables, found.indexes]);
            Ok(())
        })
    }

    /// The census of the restored cluster, compared with what was recorded.
    fn count(
        &mut self,
        runtime: &tokio::runtime::Runtime,
        door: &Door,
        client: &tokio_postgres::Client,
    ) -> Result<census::Census, Halt> {
        let here = runtime
            .block_on(census::full_census(client, |name| {
                let door = door.clone();
                async move { door.open(&name, settings::Session::Ours).await }
            }))
            .map_err(|error| session::judge(&error, "the restored cluster's objects can't be counted"))?;
        self.receipt.checks.push(compare::compare(&self.recorded.censuses, &here));
        Ok(here)
    }

    fn stage<T>(&mut self, stage: Stage, work: impl FnOnce(&mut Self) -> Result<T, Halt>) -> Result<T, Halt> {
        if self.progress.cancelled() {
            return Err(Halt::not_proven("the proof was cancelled"));
        }
        self.progress.proving(stage);
        let began = Instant::now();
        let result = work(self);
        self.receipt.stages.push(StageRecord { stage, ms: millis(began.elapsed()) });
        result
    }
}

/// A server that the kernel killed for its memory says nothing about the backup.
fn blame_memory(halt: Halt, server: &mut Server) -> Halt {
    let killed = server.log_tail().contains("was terminated by signal 9");
    if killed {
        return Halt::not_proven(format!(
            "a process of the scratch server was killed, likely for its memory; hint: allow the proof more ({})",
            halt.reason
        ));
    }
    halt
}
