//! The thread that is inside of the fence and starts processes there.
//!
//! Namespaces and Landlock belong to a thread and are inherited by what it starts, so one thread per server enters the fence. It must live
//! as long as the server: the kernel sends the parent-death signal when the *thread* that forked ends (prctl(2), `PR_SET_PDEATHSIG`).

use std::{
    ffi::OsString,
    fs::File,
    io,
    os::unix::process::CommandExt,
    path::PathBuf,
    process::{Child, Command, Stdio},
    sync::mpsc,
    thread,
};

use super::{
    abilities::UNSHARE_USER,
    enter::{self, Root},
    landlock,
    plan::{Namespaces, Plan},
};
use crate::proof::identity::{Identity, find_on_path};

/// How much nicer than its surroundings a proof is.
const NICER: i32 = 10;
/// What is added to the server's `oom_score_adj`: when memory runs out it goes before production does.
const OOM_SCORE_ADJ: &str = "500";

/// Everything that a fenced process needs to know about its place.
#[derive(Clone, Debug)]
pub(crate) struct Site {
    pub(crate) plan: Plan,
    pub(crate) identity: Identity,
    pub(crate) root: Root,
}

/// A thread inside of the fence. Dropping it ends what it started.
#[derive(Debug)]
pub(crate) struct Keeper {
    orders: mpsc::Sender<Order>,
    site: Site,
}

type Order = (Command, mpsc::SyncSender<io::Result<Child>>);

/// A program to run inside.
#[derive(Debug)]
pub(crate) struct Job {
    pub(crate) program: PathBuf,
    pub(crate) args: Vec<OsString>,
    pub(crate) directory: PathBuf,
    pub(crate) stdin: Stdio,
    pub(crate) output: File,
}

impl Keeper {
    /// Starts the thread and moves it inside.
    ///
    /// # Errors
    /// Why the fence could not be built, for people.
    pub(crate) fn start(site: Site) -> Result<Self, String> {
        let (orders, inbox) = mpsc::channel::<Order>();
        let (report, entered) = mpsc::sync_channel(1);
        let inner = site.clone();
        let body = move || {
            let result = go_inside(&inner);
            let ok = result.is_ok();
            // Nobody waits: the proof was given up.
            let _ = report.send(result);
            while let (true, Ok((mut command, reply))) = (ok, inbox.recv()) {
                let _ = reply.send(command.spawn());
            }
        };
        thread::Builder::new()
            .name("proof-keeper".into())
            .spawn(body)
            .map_err(|error| format!("can't start the thread of the fence: {error}"))?;
        entered.recv().map_err(|_| "the thread of the fence is gone".to_owned())??;
        Ok(Self { orders, site })
    }

    /// Starts a program inside, as the server's user, without our environment: a stray PGDATA or PGPORT must not reach it.
    ///
    /// # Errors
    /// When it does not start.
    pub(crate) fn spawn(&self, job: Job) -> io::Result<Child> {
        let gone = || io::Error::other("the thread of the fence is gone");
        let mut command = self.command(&job);
        command.env_clear().env("LC_ALL", "C").env("PATH", "/usr/bin:/bin").stdin(job.stdin);
        command.current_dir(&job.directory).stderr(job.output.try_clone()?).stdout(job.output);
        // A group of its own: a terminal's Ctrl-C reaches us alone, and we end the server when we are done with it.
        command.process_group(0);
        let (reply, started) = mpsc::sync_channel(1);
        self.orders.send((command, reply)).map_err(|_| gone())?;
        let child = started.recv().map_err(|_| gone())??;
        // Raising it needs no privilege, and what it starts inherits it.
        if let Err(error) = std::fs::write(format!("/proc/{}/oom_score_adj", child.id()), OOM_SCORE_ADJ) {
            tracing::warn!(%error, "the scratch server's oom_score_adj could not be raised");
        }
        Ok(child)
    }

    fn command(&self, job: &Job) -> Command {
        let Identity { uid, gid, switch, setpriv, .. } = &self.site.identity;
        let mut words: Vec<OsString> = Vec::new();
        if let Some(setpriv) = setpriv {
            words.push(setpriv.into());
            if *switch {
                words.extend([
                    format!("--reuid={uid}").into(),
                    format!("--regid={gid}").into(),
                    "--clear-groups".into(),
                ]);
            }
            words.extend(["--pdeathsig".into(), "KILL".into(), "--".into()]);
        }
        if self.site.plan.namespaces == Namespaces::User
            && let Some(unshare) = find_on_path("unshare")
        {
            words.push(unshare.into());
            words.extend(UNSHARE_USER.iter().map(OsString::from));
        }
        words.push(job.program.clone().into());
        words.extend(job.args.iter().cloned());
        let mut words = words.into_iter();
        let mut command = Command::new(words.next().unwrap_or_default());
        command.args(words);
        command
    }
}

/// In this order: behind Landlock nothing can be mounted any more.
fn go_inside(site: &Site) -> Result<(), String> {
    // Of this thread and its children alone (setpriority(2), "C library/kernel differences"); refused it is no harm.
    let _ = rustix::process::nice(NICER);
    if site.plan.namespaces == Namespaces::Own {
        enter::enter(&site.root)?;
    }
    if site.plan.landlock {
        let mut writable = vec![site.root.writable.clone()];
        // Under its other path a directory is reached without passing through the scratch directory.
        writable.extend(site.root.rebound.iter().map(|(path, _)| path.clone()));
        landlock::restrict(&writable, site.plan.namespaces == Namespaces::User)?;
    }
    Ok(())
}
