//! What the network said, where it was asked.

use jiff::civil::Date;

use super::{Check, Family, shows};
use crate::{
    Severity,
    facts::{Answer, Asked, Facts, Question, Source},
    finding::{Finding, Place, Remedy},
    words::shown,
};

pub(super) const SECRETS: &[Check] = &[DSN];
pub(super) const ROUTES: &[Check] = &[HOST, REDIRECT, EXPIRES, UNTRUSTED];

type Page<'a> = (&'a str, Option<&'a str>, &'a Place, &'a Asked<Answer>);

fn pages(facts: &Facts) -> impl Iterator<Item = Page<'_>> {
    facts.probes.iter().flatten().filter_map(|(question, answer)| match question {
        Question::Page { host, redirect, place } => Some((host.as_str(), redirect.as_deref(), place, answer)),
        Question::Address(_) => None,
    })
}

const DSN: Check = Check {
    id: "dsn-does-not-answer",
    title: "An address that a service was given answers nobody",
    family: Family::Secrets,
    severity: Severity::High,
    needs: &[Source::ProbedAddresses],
    reason: "The bot's error reporting led nowhere for a long time, and the bot ran on without a word. Whether an address is right is known only when somebody asks it.",
    limits: "With --probe. Connects, and asks a PostgreSQL whether it is one; logs in nowhere. Names that only the cluster or the compose project knows are not assessed.",
    run: dsn,
};

fn dsn(facts: &Facts) -> Vec<Finding> {
    let findings = facts.probes.iter().flatten().filter_map(|(question, answer)| {
        let Question::Address(address) = question else { return None };
        let why = answer.as_ref().err()?;
        let object = format!("{}: {}:{}", address.name, address.host, address.port);
        if address.is_inside() {
            return Some(DSN.open(
                object,
                format!("{} is known only where the service runs: {why}", address.host),
                &address.place,
            ));
        }
        let message =
            format!("{} leads to {}:{}, and that does not answer: {why}", address.name, address.host, address.port);
        let evidence = shows(
            &address.place,
            format!("{}: {}://…@{}:{}", address.name, address.scheme, address.host, address.port),
        );
        let remedy = Remedy::Advice(format!(
            "Correct {}, or bring up what it names; then let the service send one test message through it.",
            shown(&address.name)
        ));
        Some(DSN.found(object, message, vec![evidence], remedy))
    });
    findings.collect()
}

const HOST: Check = Check {
    id: "host-does-not-answer",
    title: "A name that should answer does not",
    family: Family::Routes,
    severity: Severity::High,
    needs: &[Source::ProbedPages],
    reason: "A host name that had never been taken along was missed only when people looked for their errors. What should answer has to be asked.",
    limits: "With --probe: one GET / of each host in routes and in the expected list, encrypted, else plain. 5xx counts as no answer, 404 does not.",
    run: host,
};

fn host(facts: &Facts) -> Vec<Finding> {
    let findings = pages(facts).filter_map(|(host, _, place, answer)| {
        let why = match answer {
            Err(why) => why.clone(),
            Ok(answer) => match &answer.failed {
                Some(why) => why.clone(),
                None => format!("status {}", answer.status.filter(|status| *status >= 500)?),
            },
        };
        let remedy = Remedy::Advice(format!("See where {host} leads (its record in the name service, then the route, the service behind it and its pods), or take it out of the list."));
        Some(HOST.found(host, format!("{host} does not answer: {why}"), vec![shows(place, host)], remedy))
    });
    findings.collect()
}

const REDIRECT: Check = Check {
    id: "redirect-wrong",
    title: "A redirect leads elsewhere, or is none",
    family: Family::Routes,
    severity: Severity::High,
    needs: &[Source::ProbedPages, Source::ExpectedHosts],
    reason: "The redirect of the error reporting's host name had never been migrated. A wildcard answered in its place, so it looked well from every side but one.",
    limits: "With --probe, of hosts with an expected target. The target has to begin as expected; one step is followed from http to https of the same host.",
    run: redirect,
};

/// A target for comparing: without variables of the old web server, and without a slash at its end.
fn bare(target: &str) -> &str {
    target.split('$').next().unwrap_or(target).trim_end_matches('/')
}

fn redirect(facts: &Facts) -> Vec<Finding> {
    let findings = pages(facts).filter_map(|(host, redirect, place, answer)| {
        let (wanted, answer) = (redirect?, answer.as_ref().ok().filter(|answer| answer.failed.is_none())?);
        let is_redirect = answer.status.is_some_and(|status| (300..400).contains(&status));
        let (wanted_bare, got) = (bare(wanted), answer.location.as_deref().unwrap_or_default());
        let without_scheme = |target: &str| target.split_once("://").map_or(target, |(_, rest)| rest).to_owned();
        if is_redirect && !wanted_bare.is_empty() && without_scheme(got).starts_with(&without_scheme(wanted_bare)) {
            return None;
        }
        let said = match (answer.status, answer.location.as_deref()) {
            (Some(status), Some(location)) => format!("status {status}, to {location}"),
            (Some(status), None) => format!("status {status}, to nowhere"),
            _ => "no status".to_owned(),
        };
        let message = format!("{host} should send on to {wanted}; it answers with {said}");
        let remedy = Remedy::Advice(format!("Give {host} a route of its own that answers 301 with Location: {wanted}; `host-not-served` has one to merge."));
        Some(REDIRECT.found(host, message, vec![shows(place, format!("expected: {host} -> {wanted}"))], remedy))
    });
    findings.collect()
}

const EXPIRES: Check = Check {
    id: "certificate-expires",
    title: "A certificate ends soon, or has ended",
    family: Family::Routes,
    severity: Severity::High,
    needs: &[Source::Certificates],
    reason: "The day on which a certificate ends is known for a year, and is an outage for everybody at the same second. Renewal fails as silently as error reporting did.",
    limits: "With --probe of what hosts show; without, of TLS secrets in the files. Medium from three weeks before its end on, high in the last week.",
    run: expires,
};

/// Days before its end at which a renewal should have been, and at which it is urgent.
const SOON: i32 = 21;
const URGENT: i32 = 7;

fn expires(facts: &Facts) -> Vec<Finding> {
    let probed = pages(facts)
        .filter_map(|(host, _, place, answer)| Some((host.to_owned(), place, answer.as_ref().ok()?.expires?)));
    let filed = facts.certificate_files.iter().map(|file| (file.object.clone(), &file.place, file.expires));
    probed.chain(filed).filter_map(|(object, place, end)| expiry(facts.today, object, place, end)).collect()
}

fn expiry(today: Date, object: String, place: &Place, end: Date) -> Option<Finding> {
    let left = today.until(end).ok()?.get_days();
    if left >= SOON {
        return None;
    }
    let message = if left < 0 {
        format!("the certificate of {object} ended on {end}")
    } else {
        format!("the certificate of {object} ends on {end}, in {left} days")
    };
    let remedy = Remedy::Advice("Ask whatever renews it why it has not (cert-manager: kubectl describe certificate; certbot: certbot renew --dry-run), and let an alert watch the day.".to_owned());
    let finding = EXPIRES.found(object, message, vec![shows(place, format!("ends on {end}"))], remedy);
    Some(if left > URGENT { finding.at_most(Severity::Medium) } else { finding })
}

const UNTRUSTED: Check = Check {
    id: "certificate-untrusted",
    title: "Browsers would not believe a host's certificate",
    family: Family::Routes,
    severity: Severity::Medium,
    needs: &[Source::ProbedPages],
    reason: "A controller that lacks its secret shows a certificate of its own making: people see a warning instead of the page, and programs stop.",
    limits: "With --probe, by the roots of the machine that asks: a private authority has to be known here. One that has only ended is told by `certificate-expires`.",
    run: untrusted,
};

fn untrusted(facts: &Facts) -> Vec<Finding> {
    let findings = pages(facts).filter_map(|(host, _, place, answer)| {
        let answer = answer.as_ref().ok()?;
        let why = answer.untrusted.as_deref()?;
        // Told already, with its day.
        if answer.expires.is_some_and(|end| end < facts.today) {
            return None;
        }
        let remedy = Remedy::Advice(format!("Let an authority that browsers know sign one for {host}, with the whole chain, and name its secret in the route."));
        Some(UNTRUSTED.found(host, format!("{host}: {why}"), vec![shows(place, host)], remedy))
    });
    findings.collect()
}
