//! Acts on units.

use tokio::{
    sync::broadcast::error::RecvError,
    time::{Instant, timeout, timeout_at},
};

use super::{
    ACT_WITHIN, Declared, Systemd, TAKEN_ON_WITHIN,
    bus::{JobEvent, Link},
    refusal::{Refusal, plain},
    seen::Unit,
};
use crate::driver::{Act, ActError};

/// What to do with one unit, and how errors are told.
struct Hand<'a> {
    driver: &'a Systemd,
    link: &'a Link,
    one: &'a Declared,
    act: Act,
}

impl Systemd {
    pub(super) async fn act_on(&self, one: &Declared, act: Act) -> Result<(), ActError> {
        let doing = async {
            let refused = |refusal: Refusal| refusal.of_act(act, &one.name, &one.unit, "Hello", &self.address);
            let link = self.link().await.map_err(refused)?;
            Hand { driver: self, link: &link, one, act }.act().await
        };
        timeout(ACT_WITHIN, doing).await.unwrap_or_else(|_| {
            let late = Refusal::Nothing(format!("not within {} s", ACT_WITHIN.as_secs()));
            Err(late.of_act(act, &one.name, &one.unit, "Hello", &self.address))
        })
    }
}

impl Hand<'_> {
    async fn act(&self) -> Result<(), ActError> {
        let unit = self.look().await?;
        let absent = unit.load_state == "not-found" && unit.is_down();
        match self.act {
            Act::Stop if absent => Ok(()),
            Act::Stop => self.job("StopUnit").await,
            Act::Start | Act::Restart | Act::Provision if absent => {
                if self.act != Act::Provision {
                    return Err(self.absent(format!("there is no unit {}", self.one.unit)));
                }
                self.define().await?;
                self.start(&self.look().await?).await
            }
            Act::Restore => Err(ActError::no_backup(&self.one.name)),
            Act::Start | Act::Provision => self.start(&unit).await,
            Act::Restart => self.run(&unit, "RestartUnit").await,
        }
    }

    async fn start(&self, unit: &Unit) -> Result<(), ActError> {
        if matches!(unit.active_state.as_str(), "active" | "reloading" | "refreshing") && unit.job.is_none() {
            return Ok(());
        }
        // A start would wait for the end of systemd's own back-off.
        let method = if unit.waits_to_restart() { "RestartUnit" } else { "StartUnit" };
        self.run(unit, method).await
    }

    /// Starts or restarts, though it was started often before: how often is good is for the planner's budgets to say.
    async fn run(&self, unit: &Unit, method: &str) -> Result<(), ActError> {
        if unit.failed() {
            self.reset().await?;
            return self.job(method).await;
        }
        match self.job(method).await {
            Err(_) if self.look().await?.hit_start_limit() => {
                self.reset().await?;
                self.job(method).await
            }
            done => done,
        }
    }

    async fn reset(&self) -> Result<(), ActError> {
        match self.link.call("ResetFailedUnit", &(self.one.unit.as_str(),)).await {
            Ok(_) => Ok(()),
            // Unloaded meanwhile, and what it failed with too.
            Err(refusal) if refusal.is("NoSuchUnit") => Ok(()),
            Err(refusal) => Err(self.refused("ResetFailedUnit", refusal)),
        }
    }

    /// Makes the unit known from its declared file. The file stays where it is; systemd gets a link to it.
    async fn define(&self) -> Result<(), ActError> {
        let Some(file) = self.one.unit_file.as_deref().and_then(|file| file.to_str()) else {
            return Err(self.absent(format!("there is no unit {}, and no `unit_file` to make it from", self.one.unit)));
        };
        let (runtime, force) = (false, false);
        let linked = self.link.call("LinkUnitFiles", &(vec![file], runtime, force)).await;
        linked.map_err(|refusal| self.refused("LinkUnitFiles", refusal))?;
        self.link.call("Reload", &()).await.map_err(|refusal| self.refused("Reload", refusal))?;
        if self.look().await?.load_state == "not-found" {
            return Err(self.failed(format!("systemd does not find {} though {file} is linked", self.one.unit)));
        }
        Ok(())
    }

    /// Queues a job and waits for its end; for a job that takes its time, until it is sure that systemd is at it.
    async fn job(&self, method: &str) -> Result<(), ActError> {
        let mut jobs = self.link.jobs();
        let path = self.link.queue(method, &self.one.unit).await.map_err(|refusal| self.refused(method, refusal))?;
        let until = Instant::now() + TAKEN_ON_WITHIN;
        let result = loop {
            match timeout_at(until, jobs.recv()).await {
                Ok(Ok(JobEvent::Ended { path: ended, result })) if ended == path => break result,
                Ok(Ok(JobEvent::Ended { .. })) => {}
                Ok(Ok(JobEvent::Lost) | Err(RecvError::Closed)) => {
                    return Err(self.refused(method, Refusal::Nothing("the bus went away".to_owned())));
                }
                Ok(Err(RecvError::Lagged(_))) if self.look().await?.job.as_ref() == Some(&path) => {}
                // It is over; looking tells how it went.
                Ok(Err(RecvError::Lagged(_))) => return Ok(()),
                // Systemd is at it.
                Err(_) => return Ok(()),
            }
        };
        self.judge(&result).await
    }

    /// What came of a job (org.freedesktop.systemd1(5), `JobRemoved`).
    async fn judge(&self, result: &str) -> Result<(), ActError> {
        let unit = self.look().await?;
        let starts = self.act != Act::Stop;
        match result {
            "done" | "skipped" if starts && unit.is_down() && unit.condition_failed => {
                Err(self.failed("one of its conditions does not hold, so systemd did not start it".to_owned()))
            }
            "done" | "skipped" => Ok(()),
            "canceled" => {
                Err(self.refused("JobRemoved", Refusal::Nothing("another job took the place of this one".to_owned())))
            }
            "dependency" => Err(self.failed(format!("a unit that {} requires failed", self.one.unit))),
            "failed" if unit.main_exit_us != 0 => Err(self.failed(format!(
                "its job failed: {}, its process ended with {}",
                plain(&unit.result),
                unit.main_status
            ))),
            other => Err(self.failed(format!("its job ended with '{}': {}", plain(other), plain(&unit.result)))),
        }
    }

    async fn look(&self) -> Result<Unit, ActError> {
        self.link.unit(&self.one.unit).await.map_err(|refusal| self.refused("GetAll", refusal))
    }

    fn refused(&self, asked: &str, refusal: Refusal) -> ActError {
        refusal.of_act(self.act, &self.one.name, &self.one.unit, asked, &self.driver.address)
    }

    fn failed(&self, why: String) -> ActError {
        let hint = format!("`systemctl status {0}` and `journalctl -u {0}` tell more", self.one.unit);
        ActError::Failed { act: self.act, service: self.one.name.clone(), why, hint }
    }

    fn absent(&self, why: String) -> ActError {
        let hint = format!(
            "`systemctl status {}`; with `unit_file` in the configuration, a removed unit can be provisioned again",
            self.one.unit
        );
        ActError::Absent { act: self.act, service: self.one.name.clone(), why, hint }
    }
}
