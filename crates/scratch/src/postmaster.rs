//! The server's first process: our own child, watched through a pidfd.

use std::{
    io,
    os::fd::OwnedFd,
    process::{Child, Command, ExitStatus},
    sync::mpsc,
    thread,
    time::Duration,
};

use rustix::{
    event::{PollFd, PollFlags, Timespec, poll},
    process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal},
    thread::CpuSet,
};

/// A started postmaster.
#[derive(Debug)]
pub(crate) struct Postmaster {
    child: Child,
    pidfd: OwnedFd,
}

impl Postmaster {
    fn new(child: Child) -> io::Result<Self> {
        // Not reaped yet, so the id is still its own.
        let pid = i32::try_from(child.id()).ok().and_then(Pid::from_raw).ok_or(io::ErrorKind::InvalidData)?;
        let pidfd = pidfd_open(pid, PidfdFlags::empty())?;
        Ok(Self { child, pidfd })
    }

    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    pub(crate) fn signal(&self, signal: Signal) -> io::Result<()> {
        match pidfd_send_signal(&self.pidfd, signal) {
            // It ended by itself: what the signal was for.
            Ok(()) | Err(rustix::io::Errno::SRCH) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }

    /// Waits for its end, at most `patience`.
    pub(crate) fn wait(&mut self, patience: Duration) -> io::Result<Option<ExitStatus>> {
        let timeout = Timespec {
            tv_sec: i64::try_from(patience.as_secs()).unwrap_or(i64::MAX),
            tv_nsec: patience.subsec_nanos().into(),
        };
        let mut fds = [PollFd::new(&self.pidfd, PollFlags::IN)];
        match poll(&mut fds, Some(&timeout)) {
            Ok(_) | Err(rustix::io::Errno::INTR) => self.child.try_wait(),
            Err(error) => Err(error.into()),
        }
    }
}

type Order = (Command, mpsc::SyncSender<io::Result<Postmaster>>);

/// The thread that starts a cluster's processes.
///
/// The kernel sends the parent-death signal when the *thread* that forked the child ends, not the process (prctl(2),
/// `PR_SET_PDEATHSIG`): a server started from a test's or a runtime's worker thread would stop at some arbitrary moment. So each cluster
/// keeps one thread for this, as long as it lives. Its CPU affinity is the server's, which inherits it before its first instruction.
#[derive(Debug)]
pub(crate) struct Keeper {
    orders: mpsc::Sender<Order>,
}

impl Keeper {
    pub(crate) fn start(cpus: Option<&[usize]>) -> io::Result<Self> {
        let (orders, inbox) = mpsc::channel::<Order>();
        let (report, pinned) = mpsc::sync_channel(1);
        let cpus = cpus.map(<[usize]>::to_vec);
        thread::Builder::new().name("scratch-keeper".into()).spawn(move || {
            let result = cpus.map_or(Ok(()), |cpus| pin(&cpus));
            let ok = result.is_ok();
            // Nobody waits: the cluster was given up.
            let _ = report.send(result);
            while let (true, Ok((mut command, reply))) = (ok, inbox.recv()) {
                let _ = reply.send(command.spawn().and_then(Postmaster::new));
            }
        })?;
        pinned.recv().map_err(|_| gone())??;
        Ok(Self { orders })
    }

    pub(crate) fn spawn(&self, command: Command) -> io::Result<Postmaster> {
        let (reply, started) = mpsc::sync_channel(1);
        self.orders.send((command, reply)).map_err(|_| gone())?;
        started.recv().map_err(|_| gone())?
    }
}

fn gone() -> io::Error {
    io::Error::other("the thread that starts servers is gone")
}

fn pin(cpus: &[usize]) -> io::Result<()> {
    let mut set = CpuSet::new();
    for cpu in cpus {
        if *cpu >= CpuSet::MAX_CPU {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, format!("there is no CPU {cpu}")));
        }
        set.set(*cpu);
    }
    rustix::thread::sched_setaffinity(None, &set)?;
    Ok(())
}
