//! What compose files tell.

use proptest::prelude::*;

use super::*;

fn edges(compose: &Compose) -> Vec<String> {
    let found = compose.found.iter();
    found.map(|one| format!("{} -> {} {} [{}]", one.service, one.need, one.place, one.what)).collect()
}

#[test]
fn every_way_to_say_it() {
    let text = "\
x-common: &common
  depends_on: [redis]
  environment: &env
    CACHE: redis://redis:6379/0
services:
  site:
    <<: *common
    environment:
      <<: *env
      DATABASE_URL: postgres://site:secret@db:5432/site
      OTHER: postgres://${HOST}/x
  bot:
    depends_on:
      site: {condition: service_healthy}
      redis: {condition: service_started, required: false}
      gone: {condition: service_started}
    links: ['db:database']
  side:
    network_mode: service:bot
    environment: ['API=http://site:8000/', 'EMPTY', 'SELF=http://side/']
  db: {image: postgres, hostname: DB}
  redis: {image: redis}
";
    let compose = parse("compose.yaml", text).unwrap();
    assert_eq!(
        edges(&compose),
        [
            "site -> redis compose.yaml:2 [depends_on]",
            "site -> db compose.yaml:10 [environment DATABASE_URL: postgresql at db:5432]",
            "site -> redis compose.yaml:4 [environment CACHE: redis at redis:6379]",
            "bot -> site compose.yaml:14 [depends_on (service_healthy)]",
            "bot -> redis compose.yaml:15 [depends_on (service_started)]",
            "bot -> db compose.yaml:17 [links]",
            "side -> bot compose.yaml:19 [network_mode]",
            "side -> site compose.yaml:20 [environment API: http at site:8000]",
        ]
    );
    assert_eq!(compose.notes.len(), 1, "{:?}", compose.notes);
    assert!(compose.notes[0].contains("\"gone\""));
    assert!(!format!("{compose:?}").contains("secret"));
}

#[test]
fn what_is_no_compose_file_says_so() {
    assert!(matches!(parse("a", "x: 1"), Err(Error::NoServices { .. })));
    assert!(matches!(parse("a", ""), Err(Error::NoServices { .. })));
    assert!(matches!(parse("a", "a: [1"), Err(Error::Unreadable { .. })));
    assert!(matches!(parse("a", &" ".repeat(BYTES_MAX + 1)), Err(Error::TooLarge { .. })));
    let mut bomb = "a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n".to_owned();
    for level in 1..9 {
        bomb.push_str(&format!("a{level}: &a{level} [{}]\n", vec![format!("*a{}", level - 1); 10].join(", ")));
    }
    assert!(matches!(parse("a", &bomb), Err(Error::Unreadable { .. })));
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn no_text_panics(text in "[ \\-a-z:\\[\\]{}&*<\n'\"|]{0,200}") {
        let _ = parse("f", &text);
        let _ = parse("f", &format!("services:\n  a:\n    depends_on: {text}"));
    }
}

#[test]
fn what_lies_beside_is_read_and_jobs_are_led_through() {
    let base = "\
name: shop
services:
  web:
    env_file: [web.env, {path: gone.env, required: false}, missing.env]
    command: [sh, -c, './wait-for-it.sh cache:6379 && serve']
    depends_on:
      migrate:
        condition: service_completed_successfully
    ports: ['127.0.0.1:${PORT:-8000}:80', '53:53/udp']
  migrate:
    depends_on: [db]
  db:
    image: docker.io/library/postgres:16
    ports: [{target: 5432, published: '5433'}]
    healthcheck: {test: pg_isready}
  cache: {image: redis, profiles: [fast]}
";
    let over = "services:\n  web:\n    environment:\n      POSTGRES_HOST: db\n  worker:\n    extends: {service: base}\n  base:\n    environment: [BROKER=redis://cache]\n";
    let mut env_file = |path: &str| match path {
        "web.env" => Ok(("web.env".to_owned(), "# x\nMAIL_HOST=mail\nAPI=http://base/\n".to_owned())),
        _ => Err("not there".to_owned()),
    };
    let mut beside = Beside { variables: &BTreeMap::new(), env_file: &mut env_file };
    let files = [("c.yaml".to_owned(), base.to_owned()), ("o.yaml".to_owned(), over.to_owned())];
    let (compose, errors) = read("Folder", &files, &mut beside);
    assert_eq!(errors, []);
    assert_eq!(
        edges(&compose),
        [
            "web -> base web.env:3 [env_file API: http at base:80]",
            "web -> cache c.yaml:5 [command: something at cache:6379]",
            "web -> db o.yaml:4 [environment POSTGRES_HOST: postgresql at db]",
            "worker -> cache o.yaml:8 [environment BROKER: redis at cache:6379]",
            "base -> cache o.yaml:8 [environment BROKER: redis at cache:6379]",
            "web -> db c.yaml:7 [waits for the job migrate, which needs it]",
        ]
    );
    assert_eq!(compose.postgres, [("db".into(), vec![5433])]);
    let told: Vec<_> =
        compose.candidates.iter().map(|one| (one.service.as_str(), one.health_port, one.has_health)).collect();
    assert_eq!(
        told,
        [
            ("web", Some(8000), false),
            ("db", None, true),
            ("cache", None, false),
            ("worker", None, false),
            ("base", None, false)
        ]
    );
    assert_eq!(compose.candidates[0].how, How::Docker { project: "shop".into(), service: "web".into() });
    assert_eq!(compose.candidates[2].remarks, ["only in the profile fast"]);
    assert_eq!(compose.notes.len(), 2, "{:?}", compose.notes);
}
