//! Files of variables that nothing else names: what the service that they are for would need.

use std::path::Path;

use super::{
    Candidate, How, plain,
    reached::{self, Given},
    settle::Source,
    usable, variables,
};

/// What a file of variables tells of the service that it is named after. `file`: what it is called in evidence.
pub fn read(file: &str, text: &str) -> Source {
    let Some(name) = service_of(file) else {
        return Source {
            notes: vec![format!("{}: nothing in its path says for which service it is", plain(file))],
            ..Source::default()
        };
    };
    let given: Vec<Given> = variables::lines(text)
        .into_iter()
        .map(|(variable, value, line)| Given {
            variable,
            value,
            place: format!("{}:{line}", plain(file)),
            by: "environment",
        })
        .collect();
    let reached = reached::of(&name.as_str().into(), &given, true);
    let mut candidate = Candidate::new(name.as_str(), How::Unknown, format!("{}:1", plain(file)));
    candidate.held_back = Some("nothing says who runs it: give it a driver".to_owned());
    candidate.alone = false;
    Source { label: "env".to_owned(), candidates: vec![candidate], reached, ..Source::default() }
}

/// `site` for `site.env`, `/etc/default/site` and `site/.env`.
fn service_of(file: &str) -> Option<String> {
    let path = Path::new(file);
    let name = path.file_name()?.to_str()?;
    let bare = name.strip_suffix(".env").or_else(|| name.strip_prefix(".env.")).unwrap_or(name);
    let of_folder = || path.parent()?.file_name()?.to_str().map(str::to_owned);
    let is_general = matches!(bare, "" | ".env" | "env" | "environment");
    let found = if is_general { of_folder()? } else { bare.to_owned() };
    usable(&found).then_some(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_are_named_after_services() {
        for (file, expected) in [
            ("/etc/default/site", Some("site")),
            ("/srv/site.env", Some("site")),
            ("/srv/site/.env", Some("site")),
            ("/srv/site/.env.bot", Some("bot")),
            (".env", None),
            ("/etc/environment", Some("etc")),
        ] {
            assert_eq!(service_of(file).as_deref(), expected, "{file}");
        }
    }

    #[test]
    fn what_they_lead_to() {
        let source =
            read("/srv/site.env", "# x\nDATABASE_URL=postgres://u:hunter2@db.example/site\nREDIS_HOST=cache\n");
        let told: Vec<String> = source
            .reached
            .iter()
            .map(|one| format!("{} {} {} {}", one.service, one.place, one.what, one.is_sure))
            .collect();
        assert_eq!(
            told,
            [
                "site /srv/site.env:2 environment DATABASE_URL: postgresql at db.example:5432 true",
                "site /srv/site.env:3 environment REDIS_HOST: redis at cache false",
            ]
        );
        assert!(!format!("{source:?}").contains("hunter2"));
        assert_eq!(read(".env", "A=1").notes.len(), 1);
    }
}
