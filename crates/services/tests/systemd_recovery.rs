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
