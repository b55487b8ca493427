use proptest::prelude::*;

use super::*;

fn graph(lines: &[(&str, &[&str])]) -> Result<Graph, Problems> {
    let service = |(name, needs): &(&str, &[&str])| {
        needs.iter().fold(Service::new(*name).starts_in(Duration::from_secs(5)), |service, need| service.needs(*need))
    };
    Graph::new(lines.iter().map(service).collect())
}

fn names(graph: &Graph, ids: &[Id]) -> Vec<String> {
    ids.iter().map(|id| graph.name(*id).to_string()).collect()
}

const OUTAGE: &[(&str, &[&str])] = &[
    ("bot", &["site", "redis", "snekbox"]),
    ("gate", &["site", "bot"]),
    ("site", &["postgres"]),
    ("redis", &["node"]),
    ("snekbox", &["node"]),
    ("postgres", &["node", "node"]),
    ("node", &[]),
];

#[test]
fn layers_and_the_critical_path_of_the_outage() {
    let graph = graph(OUTAGE).unwrap();
    let layers: Vec<_> = graph.layers().iter().map(|layer| names(&graph, layer)).collect();
    assert_eq!(
        layers,
        [vec!["node"], vec!["redis", "snekbox", "postgres"], vec!["site"], vec!["bot"], vec!["gate"]] as [Vec<&str>; 5]
    );
    let path = graph.critical_path(|_| Duration::from_secs(7));
    assert_eq!(names(&graph, &path.members), ["node", "postgres", "site", "bot", "gate"]);
    assert_eq!(path.takes, Duration::from_secs(35));
    let site = graph.id(&"site".into()).unwrap();
    assert_eq!(names(&graph, &graph.affected_by(site)), ["bot", "gate"]);
    assert_eq!(graph.needs(graph.id(&"postgres".into()).unwrap()).len(), 1, "a need said twice is one need");
}

#[test]
fn the_longest_chain_is_by_time_not_by_members() {
    let long = Service::new("c").needs("b").starts_in(Duration::from_secs(1));
    let services = vec![
        Service::new("a").starts_in(Duration::from_secs(100)),
        Service::new("b").starts_in(Duration::from_secs(1)),
        long,
    ];
    let graph = Graph::new(services).unwrap();
    let path = graph.critical_path(|id| graph.service(id).takes());
    assert_eq!(names(&graph, &path.members), ["a"]);
    assert_eq!(path.takes, Duration::from_secs(105));
}

#[test]
fn all_that_is_wrong_is_told_at_once() {
    let problems = graph(&[
        ("site", &["postgers"]),
        ("postgres", &[]),
        ("postgres", &[]),
        ("me", &["me"]),
        ("a\nb", &[]),
        ("", &[]),
        ("far", &["nothing like it"]),
    ])
    .unwrap_err();
    let text = problems.to_string();
    for part in [
        "service \"site\" needs \"postgers\", which is not configured; did you mean \"postgres\"?",
        "two services are called \"postgres\"",
        "service \"me\" needs itself",
        "control character",
        "it is empty",
        "add a [[service]] of that name",
    ] {
        assert!(text.contains(part), "{part:?} is missing in:\n{text}");
    }
    assert!(!text.contains("a\nb"), "a hostile name is escaped");
}

#[test]
fn a_cycle_is_shown_in_its_order() {
    let problems =
        graph(&[("site", &["vault"]), ("vault", &["postgres"]), ("postgres", &["vault", "node"]), ("node", &[])])
            .unwrap_err();
    assert_eq!(problems.0.len(), 1);
    assert!(problems.to_string().contains("\"vault\" -> \"postgres\" -> \"vault\""), "{problems}");
}

#[test]
fn two_cycles_are_both_shown_and_each_is_short() {
    let problems = graph(&[
        ("a", &["b", "c"]),
        ("b", &["c"]),
        ("c", &["a"]),
        ("x", &["y"]),
        ("y", &["x"]),
        ("behind", &["a", "x"]),
    ])
    .unwrap_err();
    let lengths: Vec<usize> = problems
        .0
        .iter()
        .map(|problem| match problem {
            Problem::Cycle { names } => names.len(),
            other => panic!("{other}"),
        })
        .collect();
    assert_eq!(lengths, [2, 2]);
}

#[test]
fn text_dot_and_json() {
    let graph = graph(&[("a \"b\\", &[]), ("site", &["a \"b\\"])]).unwrap();
    let text = graph.to_text();
    assert!(text.contains("at best 20 s to all stable: a \"b\\ -> site"), "{text}");
    assert!(graph.to_dot().contains("\"site\" -> \"a \\\"b\\\\\" [style = bold];"), "{}", graph.to_dot());
    let json = graph.to_json();
    assert_eq!(json["services"][1]["layer"], 1);
    assert_eq!(json["critical_path"]["takes_seconds"], 20.0);
    assert!(Graph::new(vec![]).unwrap().to_text().is_empty());
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    /// Any edges at all: either a right order, or a cycle that is one.
    #[test]
    fn an_order_or_a_cycle(count in 1_usize..12, edges in prop::collection::vec((0_usize..12, 0_usize..12), 0..30)) {
        let edges: Vec<_> = edges.into_iter().map(|(a, b)| (a % count, b % count)).filter(|(a, b)| a != b).collect();
        let services = (0..count).map(|index| {
            let needs = edges.iter().filter(|(from, _)| *from == index);
            needs.fold(Service::new(format!("s{index}")), |service, (_, to)| service.needs(format!("s{to}")))
        });
        match Graph::new(services.collect()) {
            Ok(graph) => {
                let place = |id: Id| graph.order().iter().position(|other| *other == id);
                prop_assert_eq!(graph.order().len(), count);
                for id in graph.ids() {
                    for need in graph.needs(id) {
                        prop_assert!(place(*need) < place(id));
                        prop_assert!(graph.layer(*need) < graph.layer(id));
                    }
                }
            }
            Err(problems) => for problem in problems.0 {
                let Problem::Cycle { names } = problem else { panic!("{problem}") };
                let number = |name: &ServiceName| name.as_str()[1..].parse::<usize>().unwrap();
                for (at, name) in names.iter().enumerate() {
                    let next = &names[(at + 1) % names.len()];
                    prop_assert!(edges.contains(&(number(name), number(next))), "{:?}", names);
                }
            },
        }
    }
}
