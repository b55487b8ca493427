//! Services and what each of them needs.

mod cycle;
mod path;
mod problem;
mod show;

use std::{collections::HashMap, time::Duration};

use model::ServiceName;

pub use self::{
    path::CriticalPath,
    problem::{Problem, Problems},
};

/// Services of one graph: a hundred times what one guard was made for. Above it the configuration is a mistake.
pub const SERVICES_MAX: usize = 100_000;
/// Needs of all services together.
pub const EDGES_MAX: usize = 1_000_000;
/// Bytes of a service's name, as systemd bounds the names of units.
pub const NAME_BYTES_MAX: usize = 255;
/// What a service is expected to take to its first healthy answer where nobody said it and none was measured.
pub const STARTS_IN_DEFAULT: Duration = Duration::from_secs(10);
/// How long a service has to be healthy to count as stable where nobody said it.
pub const STABLE_FOR_DEFAULT: Duration = Duration::from_secs(5);

/// A service as the configuration declares it. Plain data: nothing here is checked until a [`Graph`] is made of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Service {
    /// What it is called in the configuration.
    pub name: ServiceName,
    /// What has to be stable before it is started.
    pub needs: Vec<ServiceName>,
    /// How long it is expected to take from its start to its first healthy answer; `None` where nobody knows.
    pub starts_in: Option<Duration>,
    /// How long it has to be healthy, without a restart, to count as stable.
    pub stable_for: Duration,
    /// How many services that need this one may start at the same time; `None`: as many as the plan's budget allows.
    pub admits: Option<u32>,
    /// What people lose while it is down.
    pub impact: Vec<String>,
    /// Whether it is somebody else's to start: it is looked at and waited for, never acted on.
    pub external: bool,
}

impl Service {
    /// A service with the defaults.
    pub fn new(name: impl Into<ServiceName>) -> Self {
        Self {
            name: name.into(),
            needs: vec![],
            starts_in: None,
            stable_for: STABLE_FOR_DEFAULT,
            admits: None,
            impact: vec![],
            external: false,
        }
    }

    /// With one more need.
    #[must_use]
    pub fn needs(mut self, name: impl Into<ServiceName>) -> Self {
        self.needs.push(name.into());
        self
    }

    /// With an expected time to its first healthy answer.
    #[must_use]
    pub fn starts_in(mut self, time: Duration) -> Self {
        self.starts_in = Some(time);
        self
    }

    /// The expected time from its start until it counts as stable.
    pub fn takes(&self) -> Duration {
        self.starts_in.unwrap_or(STARTS_IN_DEFAULT).saturating_add(self.stable_for)
    }
}

/// A service of one graph, by its place in the configuration. Means nothing in another graph.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Id(u32);

impl Id {
    /// Its place in the configuration, from zero.
    pub fn index(self) -> usize {
        self.0 as usize
    }
}

/// Services whose names are unique, whose needs exist, and that need one another in no circle.
#[derive(Clone, Debug)]
pub struct Graph {
    services: Vec<Service>,
    by_name: HashMap<ServiceName, Id>,
    needs: Vec<Vec<Id>>,
    needed_by: Vec<Vec<Id>>,
    layer: Vec<u32>,
    order: Vec<Id>,
}

impl Graph {
    /// Checks the services and joins them.
    ///
    /// # Errors
    /// All that is wrong, not only the first: names that are empty, unprintable or taken, needs that don't exist or are the service itself, and
    /// cycles, each with its members in order.
    pub fn new(services: Vec<Service>) -> Result<Self, Problems> {
        let edges: usize = services.iter().map(|service| service.needs.len()).sum();
        if services.len() > SERVICES_MAX || edges > EDGES_MAX {
            return Err(Problems(vec![Problem::TooMany { services: services.len(), edges }]));
        }
        let mut problems = Vec::new();
        let mut by_name = HashMap::with_capacity(services.len());
        for (index, service) in services.iter().enumerate() {
            if let Some(why) = problem::bad_name(service.name.as_str()) {
                problems.push(Problem::BadName { name: service.name.clone(), why });
            }
            if by_name.insert(service.name.clone(), id(index)).is_some() {
                problems.push(Problem::Duplicate { name: service.name.clone() });
            }
        }
        let mut needs: Vec<Vec<Id>> = vec![vec![]; services.len()];
        for (index, service) in services.iter().enumerate() {
            for need in &service.needs {
                match by_name.get(need) {
                    Some(_) if *need == service.name => problems.push(Problem::NeedsItself { name: need.clone() }),
                    Some(found) => needs[index].push(*found),
                    None => problems.push(Problem::Unknown {
                        name: service.name.clone(),
                        need: need.clone(),
                        nearest: problem::nearest(need, &services),
                    }),
                }
            }
            needs[index].sort_unstable();
            needs[index].dedup();
        }
        let mut needed_by: Vec<Vec<Id>> = vec![vec![]; services.len()];
        for (index, needs) in needs.iter().enumerate() {
            for need in needs {
                needed_by[need.index()].push(id(index));
            }
        }
        let (order, layer) = sort(&needs, &needed_by);
        if order.len() < services.len() {
            for members in cycle::find(&needs, &order) {
                let names = members.into_iter().map(|id| services[id.index()].name.clone()).collect();
                problems.push(Problem::Cycle { names });
            }
        }
        if !problems.is_empty() {
            return Err(Problems(problems));
        }
        Ok(Self { services, by_name, needs, needed_by, layer, order })
    }

    /// How many services.
    pub fn len(&self) -> usize {
        self.services.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.services.is_empty()
    }

    /// All services, as they were configured.
    pub fn ids(&self) -> impl DoubleEndedIterator<Item = Id> + ExactSizeIterator + use<> {
        (0..self.services.len()).map(id)
    }

    /// The service of that name.
    pub fn id(&self, name: &ServiceName) -> Option<Id> {
        self.by_name.get(name).copied()
    }

    /// Its declaration.
    pub fn service(&self, id: Id) -> &Service {
        &self.services[id.index()]
    }

    /// Its name.
    pub fn name(&self, id: Id) -> &ServiceName {
        &self.services[id.index()].name
    }

    /// What it needs, without doubles.
    pub fn needs(&self, id: Id) -> &[Id] {
        &self.needs[id.index()]
    }

    /// What needs it.
    pub fn needed_by(&self, id: Id) -> &[Id] {
        &self.needed_by[id.index()]
    }

    /// Its layer: 0 where it needs nothing, else one more than the highest of what it needs.
    pub fn layer(&self, id: Id) -> u32 {
        self.layer[id.index()]
    }

    /// Every service after all that it needs.
    pub fn order(&self) -> &[Id] {
        &self.order
    }

    /// The services by layer; within one in the configuration's order.
    pub fn layers(&self) -> Vec<Vec<Id>> {
        let count = self.layer.iter().max().map_or(0, |last| *last as usize + 1);
        let mut layers = vec![vec![]; count];
        for id in self.ids() {
            layers[self.layer(id) as usize].push(id);
        }
        layers
    }

    /// All that directly or indirectly needs it, in the configuration's order: what is lost while it is down.
    pub fn affected_by(&self, id: Id) -> Vec<Id> {
        let mut seen = vec![false; self.len()];
        let mut open = vec![id];
        while let Some(at) = open.pop() {
            for next in self.needed_by(at) {
                if !std::mem::replace(&mut seen[next.index()], true) {
                    open.push(*next);
                }
            }
        }
        self.ids().filter(|id| seen[id.index()]).collect()
    }
}

/// [`SERVICES_MAX`] keeps every index far below 2^32.
fn id(index: usize) -> Id {
    Id(u32::try_from(index).unwrap_or(u32::MAX))
}

/// Kahn's algorithm, layer by layer. Services on a cycle or behind one are missing from the order.
fn sort(needs: &[Vec<Id>], needed_by: &[Vec<Id>]) -> (Vec<Id>, Vec<u32>) {
    let mut left: Vec<usize> = needs.iter().map(Vec::len).collect();
    let mut layer = vec![0_u32; needs.len()];
    let mut order: Vec<Id> = (0..needs.len()).map(id).filter(|id| left[id.index()] == 0).collect();
    let mut at = 0;
    while let Some(done) = order.get(at).copied() {
        at += 1;
        for next in &needed_by[done.index()] {
            layer[next.index()] = layer[next.index()].max(layer[done.index()] + 1);
            left[next.index()] -= 1;
            if left[next.index()] == 0 {
                order.push(*next);
            }
        }
    }
    (order, layer)
}

#[cfg(test)]
mod tests;
