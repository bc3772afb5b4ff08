//! Checks who may call the admin endpoint, and how it is encrypted.

use super::{Finding, file_name, label, tls};
use crate::config::{
    TokenHash, actor,
    holder::is_same_holder,
    problem::FieldPath,
    schema::{Admin, Token},
};

/// Refuses a name under which the journal has what nobody asked for.
fn own_name(name: &str, path: &FieldPath, found: &mut Vec<Finding>) {
    if actor::ALL.iter().any(|own| is_same_holder(own, name)) {
        let message = format!(
            "the journal names Tidegate's own decisions so ({}); write another name, such as that of a person or a pipeline",
            actor::ALL.join(", ")
        );
        found.push(Finding::new(path.key("name"), message));
    }
}

/// Checks the name of a token, and where it is.
pub(super) fn token(token: &Token, path: &FieldPath, found: &mut Vec<Finding>) {
    own_name(&token.name, path, found);
    match (&token.file, &token.hash) {
        (Some(file), None) => file_name(&file.to_string_lossy(), path.key("file"), found),
        (None, Some(hash)) => {
            if let Err(message) = hash.parse::<TokenHash>() {
                found.push(Finding::new(path.key("hash"), message));
            }
        }
        (Some(_), Some(_)) => {
            let message = "`file` says the token already; write one of them";
            found.push(Finding::new(path.key("hash"), message).and(path.key("file")));
        }
        (None, None) => {
            let message = "no token; write `file`, or `hash` as `tidegate token` prints it";
            found.push(Finding::new(path.clone(), message));
        }
    }
}

/// Checks the certificates of the endpoint, and the holders of certificates.
pub(super) fn encryption(admin: &Admin, path: &FieldPath, found: &mut Vec<Finding>) {
    if let Some(settings) = &admin.tls {
        tls::listen(settings, &path.key("tls"), found);
    }
    let asks = admin.tls.as_ref().is_some_and(|tls| tls.client.is_some());
    for (index, holder) in admin.certificates.iter().enumerate() {
        let path = path.key("certificates").index(index);
        if let Err(message) = label(&holder.name, "") {
            found.push(Finding::new(path.key("name"), message));
        }
        own_name(&holder.name, &path, found);
        let tokens = admin.tokens.iter().map(|token| &token.name);
        let before = admin.certificates[..index].iter().map(|other| &other.name);
        let mut others = tokens.chain(before);
        if let Some(other) = others.find(|other| is_same_holder(other, &holder.name)) {
            let message = format!(
                "`{other}` is another holder already; give each a name, which differs by more than case"
            );
            found.push(Finding::new(path.key("name"), message));
        }
        if holder.subject.is_empty() {
            let message = "empty; write the subject of the certificate, such as CN=ci,O=Example";
            found.push(Finding::new(path.key("subject"), message));
        } else if admin.certificates[..index].iter().any(|other| other.subject == holder.subject) {
            let message = "the subject of another holder, too; write it once";
            found.push(Finding::new(path.key("subject"), message));
        }
        if !asks {
            let message =
                "no client is asked for a certificate; write `tls: { client: { ca: FILE } }`";
            found.push(Finding::new(path, message));
        }
    }
}

#[cfg(test)]
mod tests {
    use crate::config::parse;

    fn problems(admin: &str) -> String {
        let text = format!(
            "listen: [ {{ address: 127.0.0.1:0 }} ]\nservices: {{ a: {{ baseline: v1, versions: {{ v1: {{ endpoints: [ 127.0.0.1:1 ] }} }} }} }}\n\
             routes: [ {{ service: a }} ]\nadmin: {{ {admin} }}\n"
        );
        parse(&text).map_or_else(|problems| problems.to_string(), |_| String::new())
    }

    #[test]
    fn everybody_who_may_call_is_known_by_something() {
        let hash = format!("sha256:{}", "0a".repeat(32));
        let tls =
            "tls: { certificates: [ { cert: a, key: b } ], client: { ca: c, mode: optional } }";
        let all = format!(
            "address: 0.0.0.0:9090, {tls}, tokens: [ {{ name: a, hash: '{hash}', role: approver }}, {{ name: b, file: b, role: operate }} ], \
             certificates: [ {{ name: ci, subject: 'CN=ci', role: viewer }} ]"
        );
        assert_eq!(problems(&all), "");
        let only = format!(
            "address: 0.0.0.0:9090, {tls}, certificates: [ {{ name: ci, subject: 'CN=ci' }} ]"
        );
        assert_eq!(problems(&only), "");
        for (admin, place, says) in [
            ("tokens: [ { name: a } ]".to_owned(), "tokens[0]", "no token"),
            (
                format!("tokens: [ {{ name: a, file: f, hash: '{hash}' }} ]"),
                "tokens[0].hash",
                "one of them",
            ),
            (
                "tokens: [ { name: a, hash: 'sha256:12' } ]".to_owned(),
                "tokens[0].hash",
                "64 digits",
            ),
            ("tls: { certificates: [] }".to_owned(), "tls.certificates", "at least one"),
            (
                "certificates: [ { name: a, subject: CN=a } ]".to_owned(),
                "certificates[0]",
                "tls: { client",
            ),
            (format!("{tls}, certificates: [ {{ name: a, subject: '' }} ]"), "subject", "empty"),
            (
                format!(
                    "{tls}, tokens: [ {{ name: a, file: f }} ], certificates: [ {{ name: a, subject: CN=a }} ]"
                ),
                "certificates[0].name",
                "another holder",
            ),
            // Regression: an entry of such a holder looked like one of Tidegate itself.
            (
                "tokens: [ { name: Verdict, file: f } ]".to_owned(),
                "tokens[0].name",
                "own decisions",
            ),
            (
                format!("{tls}, certificates: [ {{ name: rollout, subject: CN=a }} ]"),
                "certificates[0].name",
                "own decisions",
            ),
            (
                "tokens: [ { name: alice, file: f }, { name: Alice, file: g } ]".to_owned(),
                "tokens[1].name",
                "differ only by case",
            ),
            (
                format!(
                    "{tls}, tokens: [ {{ name: Ann, file: f }} ], certificates: [ {{ name: ann, subject: CN=a }} ]"
                ),
                "certificates[0].name",
                "another holder",
            ),
        ] {
            let found = problems(&format!("address: 127.0.0.1:9090, {admin}"));
            assert!(found.contains(place) && found.contains(says), "{admin}: {found}");
            assert_eq!(found.trim_end().lines().count(), 1, "{admin}: {found}");
        }
    }
}
