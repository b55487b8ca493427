//! A node with scratch services as units.

#![allow(
    dead_code,
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "not all is used by each test; a test that can't go on fails, and says why it skips"
)]

use std::path::PathBuf;

use scratch::node::{Builder, Node};
use services::driver::systemd::{Declared, Systemd};

use crate::common::service::ScratchService;

/// Where a node can be had; says why not.
pub fn builder() -> Option<Builder> {
    Node::builder().map_err(|error| println!("skipped: {error}")).ok()
}

/// A booted node.
pub struct NodeStage {
    pub node: Node,
}

impl NodeStage {
    /// `None`: none can be had here.
    pub fn boot() -> Option<Self> {
        Some(Self { node: builder()?.boot().unwrap() })
    }

    /// A scratch service as the unit `NAME.service`; `more`: lines of its `[Service]` part. systemd knows it after [`Self::reload`].
    pub fn service(&self, name: &str, needs: &[&ScratchService], more: &str) -> ScratchService {
        let service = ScratchService::new(&self.node.share(), name, needs);
        self.unit(name, &format!("ExecStart={}\n{more}", service.command().join(" ")));
        service
    }

    /// Any unit `NAME.service`.
    pub fn unit(&self, name: &str, service_part: &str) {
        self.node.write_unit(&format!("{name}.service"), &format!("[Service]\n{service_part}\n")).unwrap();
    }

    pub fn reload(&self) {
        self.systemctl(&["daemon-reload"]);
    }

    pub fn systemctl(&self, arguments: &[&str]) -> String {
        self.node.systemctl(arguments).unwrap()
    }

    /// A driver of `NAME.service` for each name.
    pub fn driver(&self, names: &[&str]) -> Systemd {
        let declared = names.iter().map(|name| Declared::new(*name, &format!("{name}.service"), None).unwrap());
        Systemd::new(self.node.bus(), declared.collect())
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.node.share().join(name)
    }
}
