//! Scratch services as containers of a scratch engine.

#![allow(
    dead_code,
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "not all is used by each test; a test that can't go on fails, and one that is skipped says so"
)]

use std::path::PathBuf;

use model::ServiceName;
use scratch::{
    ScratchError,
    engine::{Engine, IMAGE},
};
use services::driver::docker::{Declared, Definition, Docker};

use crate::common::{scenario::Scene, service::ScratchService};

/// An engine and what its services have on disk.
pub struct Stage {
    /// The engine.
    pub engine: Engine,
}

/// One service, and a driver that has it.
pub struct One {
    /// The driver.
    pub driver: Docker,
    /// Its name, which is its container's too.
    pub name: ServiceName,
    /// What runs.
    pub service: ScratchService,
}

impl One {
    /// What the generic scenarios want.
    pub fn scene(&self) -> Scene<'_> {
        Scene { driver: &self.driver, name: self.name.clone(), service: &self.service }
    }
}

impl Stage {
    /// `None`, and said so, where no engine can be had.
    pub fn new() -> Option<Self> {
        match Engine::start() {
            Ok(engine) => Some(Self { engine }),
            Err(error @ ScratchError::NoEngine { .. }) => {
                println!("skipped: {error}");
                None
            }
            Err(error) => panic!("{error}"),
        }
    }

    /// Where services are, inside and outside.
    pub fn path(&self) -> PathBuf {
        self.engine.share()
    }

    /// How a scratch service is made.
    pub fn definition(&self, service: &ScratchService, restart: &str) -> Definition {
        definition(service, restart)
    }

    /// The same, and the container that it is.
    pub fn declared(&self, name: &str, service: &ScratchService, restart: &str) -> Declared {
        Declared::container(name, name).definition(self.definition(service, restart))
    }

    /// A driver as each agent has its own.
    pub fn driver(&self, declared: Vec<Declared>) -> Docker {
        Docker::new(&self.engine.socket(), declared).remembering(self.path().join("memory"))
    }

    /// `docker create` of a service, with further options before the image.
    pub fn create(&self, name: &str, service: &ScratchService, options: &[&str]) {
        let share = self.path().display().to_string();
        let bind = format!("{share}:{share}");
        let binds = Engine::binds();
        let mut arguments = vec!["create", "--network=host", "--name", name, "--volume", &bind];
        arguments.extend(binds.iter().flat_map(|bind| ["--volume", bind.as_str()]));
        arguments.extend(options);
        arguments.push(IMAGE);
        let command = service.command();
        arguments.extend(command.iter().map(String::as_str));
        self.engine.docker(&arguments).unwrap();
    }

    /// A service whose container is there and was never started.
    pub fn one(&self, name: &str, options: &[&str]) -> One {
        let service = ScratchService::new(&self.path(), name, &[]);
        self.create(name, &service, options);
        self.again(name, service)
    }

    /// Another driver for a service that is there.
    pub fn again(&self, name: &str, service: ScratchService) -> One {
        let declared = self.declared(name, &service, "no");
        One { driver: self.driver(vec![declared]), name: name.into(), service }
    }
}

/// How a scratch service is made: its directory's parent, where its needs are too, is bound at the same path.
pub fn definition(service: &ScratchService, restart: &str) -> Definition {
    let share = service.dir().parent().unwrap().display().to_string();
    let mut binds = Engine::binds();
    binds.push(format!("{share}:{share}"));
    Definition {
        image: IMAGE.to_owned(),
        command: service.command(),
        binds,
        network: Some("host".to_owned()),
        restart: Some(restart.to_owned()),
        ..Definition::default()
    }
}
