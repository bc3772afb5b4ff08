//! Checks services that are asked whether requests may go on.

use std::time::Duration;

use http::Uri;

use super::{Finding, jwt::header_fault, label};
use crate::config::{
    pattern::{KeySource, is_token_byte},
    problem::FieldPath,
    schema::{Authorizer, AuthorizerCache, Config},
};

/// Longest wait for an answer.
const MOST_WAIT: Duration = Duration::from_secs(30);

/// Longest time that an answer counts.
const MOST_LASTING: Duration = Duration::from_secs(3600);

/// Most answers that are remembered.
const MOST_ANSWERS: u32 = 1_000_000;

/// Fields that belong to a connection or that Tidegate writes itself.
const OWN: [&str; 9] = [
    "host",
    "connection",
    "content-length",
    "transfer-encoding",
    "te",
    "upgrade",
    "expect",
    "x-request-id",
    "x-client-cert-subject",
];

/// Checks the authorizers of `config`.
pub(super) fn check(config: &Config, found: &mut Vec<Finding>) {
    let root = FieldPath::default().key("authorizers");
    let written = config.jwt.values().flat_map(|jwt| jwt.headers.keys());
    let written: Vec<&String> =
        written.chain(config.authorizers.values().flat_map(|a| &a.copy)).collect();
    for (name, authorizer) in &config.authorizers {
        let path = root.key(name);
        if let Err(message) = label(name, "") {
            found.push(Finding::of_name(path.clone(), message));
        }
        one(authorizer, &path, found);
        fields(authorizer, &written, &path, found);
        if let Some(settings) = &authorizer.cache {
            cache(settings, &path.key("cache"), found);
        }
    }
}

fn one(authorizer: &Authorizer, path: &FieldPath, found: &mut Vec<Finding>) {
    let url: Option<Uri> = authorizer.url.parse().ok();
    let is_good = url.as_ref().is_some_and(|url| {
        matches!(url.scheme_str(), Some("http" | "https"))
            && url.authority().is_some_and(|a| !a.host().is_empty() && !a.as_str().contains('@'))
    });
    if !is_good {
        let message = "not a URL; write one such as http://127.0.0.1:9100/check";
        found.push(Finding::new(path.key("url"), message));
    } else if authorizer.ca.is_some() && authorizer.url.starts_with("http://") {
        let message = "not used by http://; write https:// or leave it out";
        found.push(Finding::new(path.key("ca"), message).and(path.key("url")));
    }
    if authorizer.timeout > MOST_WAIT {
        found.push(Finding::new(path.key("timeout"), "longer than 30 s; write at most 30s"));
    }
}

fn fields(
    authorizer: &Authorizer,
    written: &[&String],
    path: &FieldPath,
    found: &mut Vec<Finding>,
) {
    for (index, name) in authorizer.send.iter().enumerate() {
        let here = path.key("send").index(index);
        let lower = name.to_ascii_lowercase();
        if name.is_empty() || !name.bytes().all(is_token_byte) {
            let message = format!("`{name}` is not a header's name; write letters, digits and -");
            found.push(Finding::new(here, message));
        } else if OWN.contains(&&*lower) || lower.starts_with("x-forwarded-") {
            let message = format!("`{name}` is written by Tidegate; leave it out");
            found.push(Finding::new(here, message));
        } else if written.iter().any(|own| own.eq_ignore_ascii_case(name)) {
            let message = format!("no client can send `{name}`; leave it out");
            found.push(Finding::new(here, message));
        } else if authorizer.send[..index].iter().any(|other| other.eq_ignore_ascii_case(name)) {
            found.push(Finding::new(here, format!("`{name}` twice; write it once")));
        }
    }
    for (index, name) in authorizer.copy.iter().enumerate() {
        let here = path.key("copy").index(index);
        if let Some(message) = header_fault(name) {
            found.push(Finding::new(here, message));
        } else if authorizer.copy[..index].iter().any(|other| other.eq_ignore_ascii_case(name)) {
            found.push(Finding::new(here, format!("`{name}` twice; write it once")));
        }
    }
}

fn cache(cache: &AuthorizerCache, path: &FieldPath, found: &mut Vec<Finding>) {
    if !matches!(cache.by, KeySource::Header(_) | KeySource::Cookie(_) | KeySource::Claim(_)) {
        let message = format!(
            "`{}` does not say who the client is; write header:NAME, cookie:NAME or claim:NAME",
            cache.by
        );
        found.push(Finding::new(path.key("by"), message));
    }
    if cache.lasts > MOST_LASTING {
        found.push(Finding::new(path.key("for"), "longer than an hour; write at most 1h"));
    }
    if !(1..=MOST_ANSWERS).contains(&cache.most) {
        let message = format!("out of range; write 1 to {MOST_ANSWERS}");
        found.push(Finding::new(path.key("most"), message));
    }
}

#[cfg(test)]
mod tests {
    use crate::config::parse;

    fn problems(authorizer: &str, route: &str) -> String {
        let text = format!(
            "listen: [ {{ address: 127.0.0.1:0 }} ]\nservices: {{ a: {{ baseline: v1, versions: {{ v1: {{ endpoints: [ 127.0.0.1:1 ] }} }} }} }}\n\
             authorizers: {{ gate: {{ {authorizer} }} }}\nroutes: [ {{ service: a, auth: {{ {route} }} }} ]\n"
        );
        parse(&text).map_or_else(|problems| problems.to_string(), |_| String::new())
    }

    #[test]
    fn an_authorizer_is_asked_about_what_says_who_the_client_is() {
        let all = "url: 'https://gate.example/check', ca: ca.pem, timeout: 1s, on_failure: open, send: [ Authorization, x-device ], \
                   copy: [ x-rights ], cache: { by: 'cookie:session', for: 1m, most: 5 }";
        assert_eq!(problems(all, "external: gate"), "");
        let good = "url: 'http://gate:1/'";
        for (authorizer, route, place, says) in [
            ("url: gate".to_owned(), "external: gate", "gate.url", "not a URL"),
            ("url: 'http://u:p@gate/'".to_owned(), "external: gate", "gate.url", "not a URL"),
            (format!("{good}, timeout: 1m"), "external: gate", "gate.timeout", "30s"),
            (format!("{good}, send: [ host ]"), "external: gate", "send[0]", "leave it out"),
            (
                format!("{good}, send: [ x-a ], copy: [ X-A ]"),
                "external: gate",
                "send[0]",
                "no client",
            ),
            (format!("{good}, copy: [ via ]"), "external: gate", "copy[0]", "meaning"),
            (
                format!("{good}, cache: {{ by: client-ip, for: 1s }}"),
                "external: gate",
                "cache.by",
                "who the client is",
            ),
            (
                format!("{good}, cache: {{ by: 'header:a', for: 2h }}"),
                "external: gate",
                "cache.for",
                "1h",
            ),
            (
                format!("{good}, cache: {{ by: 'header:a', for: 1s, most: 0 }}"),
                "external: gate",
                "cache.most",
                "1000000",
            ),
            (
                format!("{good}, cache: {{ by: 'claim:sub', for: 1s }}"),
                "external: gate",
                "routes[0].auth",
                "asks for no token",
            ),
            (good.to_owned(), "external: gates", "auth.external", "did you mean `gate`"),
        ] {
            let found = problems(&authorizer, route);
            assert!(found.contains(place) && found.contains(says), "{authorizer}: {found}");
            assert_eq!(found.trim_end().lines().count(), 1, "{authorizer}: {found}");
        }
    }
}
