//! Whole recoveries of units on a node: services are killed, and the node with all that is on it.

#![allow(clippy::unwrap_used, clippy::print_stdout, reason = "a test fails by panicking, and says why it skips")]

mod common;
#[path = "common/nspawn.rs"]
mod nspawn;

use std::{cell::RefCell, fs, path::PathBuf, sync::Arc};

use model::ServiceName;
use services::{
    driver::{
        Driver,
        systemd::{Declared, Systemd},
    },
    plan::Outcome,
};

use crate::{
    common::{
        recovery::{Host, agent as recovery_agent},
        scenario::PATIENCE,
        service::{ScratchService, await_that},
        suite,
    },
    nspawn::NodeStage,
};

/// A node whose units are scratch services.
struct NodeHost {
    stage: RefCell<NodeStage>,
}

fn unit(name: &ServiceName) -> String {
    format!("{name}.service")
}

/// What a unit is provisioned from: beside its service.
fn definition(name: &ServiceName, service: &ScratchService) -> PathBuf {
    service.dir().join(unit(name))
}

impl NodeHost {
    /// `None`: no node can be had here.
    fn boot() -> Option<Self> {
        Some(Self { stage: RefCell::new(NodeStage::boot()?) })
    }

    /// Loses power, and gets it back.
    fn restart(&self) {
        let node = &mut self.stage.borrow_mut().node;
        node.kill9().unwrap();
        node.boot_again().unwrap();
    }

    fn systemctl(&self, arguments: &[&str]) -> String {
        self.stage.borrow().systemctl(arguments)
    }
}

impl Host for NodeHost {
    fn path(&self) -> PathBuf {
        self.stage.borrow().node.share()
    }

    fn address(&self) -> String {
        self.stage.borrow().node.bus()
    }

    fn driver(address: &str, services: &[(ServiceName, ScratchService)]) -> Arc<dyn Driver> {
        let declared = services
            .iter()
            .map(|(name, service)| Declared::new(name.clone(), &unit(name), Some(definition(name, service))).unwrap());
        Arc::new(Systemd::new(address, declared.collect()))
    }

    fn prepare(&self, services: &[(ServiceName, ScratchService)]) {
        let stage = self.stage.borrow();
        for (name, service) in services {
            let text = format!("[Service]\nExecStart={}\n", service.command().join(" "));
            fs::write(definition(name, service), text).unwrap();
            std::os::unix::fs::symlink(definition(name, service), stage.node.unit_file(&unit(name))).unwrap();
        }
        stage.reload();
    }

    fn kill(&self, name: &ServiceName, service: &ScratchService) {
        // As its own pid namespace has it.
        let pid = service.pid().unwrap().to_string();
        self.stage.borrow().node.run("kill", &["-9", &pid]).unwrap();
        let state = || self.systemctl(&["show", "-P", "ActiveState", &unit(name)]);
        await_that("its end", PATIENCE, || !service.runs() && state() == "failed\n");
    }

    fn remove(&self, name: &ServiceName, _service: &ScratchService) -> bool {
        fs::remove_file(self.stage.borrow().node.unit_file(&unit(name))).unwrap();
        self.stage.borrow().reload();
        true
    }
}

#[tokio::test]
async fn agent() {
    recovery_agent::<NodeHost>().await;
}

#[tokio::test]
async fn a_node_that_loses_power_is_brought_back_in_order() {
    let Some(host) = NodeHost::boot() else { return };
    let recovery = suite::recovery(&host);
    for boot in 1..=2 {
        let came = recovery.run(|_| {}).await;
        assert_eq!((came.last.plan.outcome, came.acts.len()), (Outcome::Done, 5), "{:?}", came.acts);
        recovery.assert_well(&suite::SHAPE.map(|(name, _)| (name, boot)));
        host.restart();
        assert!(suite::SHAPE.iter().all(|(name, _)| !recovery.service(name).runs()), "all of it is down");
    }
}

#[tokio::test]
async fn slow_a_node_that_dies_in_mid_plan_is_brought_back_all_the_same() {
    let Some(host) = NodeHost::boot() else { return };
    let recovery = suite::recovery(&host);
    let (mut begun, mut lost) = (false, false);
    let came = recovery
        .run(|round| {
            // Once that start is handed over: what we do here holds up an act that was only begun, and it would reach the node's next life.
            if begun && !std::mem::replace(&mut lost, true) {
                host.restart();
            }
            begun |= round.began.iter().any(|one| one.step.service.as_str() == "site");
        })
        .await;
    assert!(lost && came.last.plan.outcome == Outcome::Done, "{}", came.last.plan.to_text());
    recovery.assert_well(&[("db", 2), ("vault", 2), ("gate", 1), ("bot", 1)]);
}

macro_rules! on_a_node {
    ($($name:ident: $scenario:ident,)*) => {
        $(#[tokio::test]
        async fn $name() {
            let Some(host) = NodeHost::boot() else { return };
            suite::$scenario(&host).await;
        })*
    };
}

on_a_node! {
    slow_all_is_brought_back_in_order_and_again_after_sigkill_to_everything:
        all_is_brought_back_in_order_and_again_after_sigkill_to_everything,
    slow_one_that_never_gets_well_is_given_up_and_the_rest_comes_back:
        one_that_never_gets_well_is_given_up_and_the_rest_comes_back,
    slow_one_that_flaps_ends_with_a_person: one_that_flaps_ends_with_a_person,
    slow_one_that_dies_in_mid_plan_is_started_before_what_needs_it:
        one_that_dies_in_mid_plan_is_started_before_what_needs_it,
    slow_a_slow_starter_is_waited_for_and_a_stale_pool_restarted:
        a_slow_starter_is_waited_for_and_a_stale_pool_restarted,
    slow_an_agent_that_is_dropped_after_every_step_goes_on: an_agent_that_is_dropped_after_every_step_goes_on,
    slow_an_agent_that_is_killed_after_every_step_goes_on: an_agent_that_is_killed_after_every_step_goes_on,
    slow_two_agents_are_one_writer_and_what_a_person_stopped_stays_so:
        two_agents_are_one_writer_and_what_a_person_stopped_stays_so,
    slow_a_removed_one_is_made_again_once_for_each_yes: a_removed_one_is_made_again_once_for_each_yes,
    slow_when_things_get_worse_it_stops: when_things_get_worse_it_stops,
}
