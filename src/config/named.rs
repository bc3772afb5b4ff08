//! Positions of the names of files of certificates, keys and alert receivers, so that a fault of a
//! file is reported at its line.

use std::path::{Path, PathBuf};

use super::{
    LoadError, Problem,
    problem::{FieldPath, Position, Problems},
    schema::Config,
};

/// A file that the configuration names.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NamedFile {
    /// The file's path as it is opened.
    pub file: PathBuf,
    /// The position of its name in the text.
    pub at: Position,
    /// The field.
    pub path: FieldPath,
}

/// The files that `config` names for TLS and for alert receivers, with their fields.
pub(super) fn named_files(config: &Config) -> Vec<(FieldPath, &Path)> {
    let (root, mut files) = (FieldPath::default(), Vec::new());
    let listeners = config.listen.iter().enumerate();
    let listeners = listeners.map(|(index, l)| (root.key("listen").index(index), &l.tls));
    let admin = config.admin.iter().map(|admin| (root.key("admin"), &admin.tls));
    for (path, tls) in listeners.chain(admin) {
        let Some(tls) = tls else { continue };
        let path = path.key("tls");
        for (index, one) in tls.certificates.iter().enumerate() {
            let path = path.key("certificates").index(index);
            files.push((path.key("cert"), &*one.cert));
            files.push((path.key("key"), &*one.key));
            files.extend(one.ocsp.iter().map(|ocsp| (path.key("ocsp"), &**ocsp)));
        }
        files.extend(tls.client.iter().map(|c| (path.key("client").key("ca"), &*c.ca)));
    }
    for (name, service) in &config.services {
        for (version, settings) in &service.versions {
            let Some(tls) = &settings.tls else { continue };
            let path = root.key("services").key(name).key("versions").key(version).key("tls");
            files.extend(tls.ca.iter().map(|ca| (path.key("ca"), &**ca)));
            if let Some(client) = &tls.client {
                let path = path.key("client");
                files.push((path.key("cert"), &*client.cert));
                files.push((path.key("key"), &*client.key));
            }
        }
    }
    for (name, jwt) in &config.jwt {
        let path = root.key("jwt").key(name);
        files.extend(jwt.ca.iter().map(|ca| (path.key("ca"), &**ca)));
    }
    for (name, authorizer) in &config.authorizers {
        let path = root.key("authorizers").key(name);
        files.extend(authorizer.ca.iter().map(|ca| (path.key("ca"), &**ca)));
    }
    let alerts = config.alerts.iter().flat_map(|a| a.webhooks.iter().enumerate());
    let alerts = alerts.map(|webhook| ("alerts", webhook));
    let announced = config.announcements.iter().flat_map(|a| a.webhooks.iter().enumerate());
    let announced = announced.map(|webhook| ("announcements", webhook));
    for (field, (index, webhook)) in alerts.chain(announced) {
        let path = root.key(field).key("webhooks").index(index);
        files.extend(webhook.token_file.iter().map(|file| (path.key("token_file"), &**file)));
        files.extend(webhook.ca.iter().map(|ca| (path.key("ca"), &**ca)));
    }
    files
}

/// Converts `faults` of the files `named` in the configuration file `name` into an error: each
/// fault is reported at every place that names its file.
pub fn blame<'a>(
    named: &[NamedFile],
    name: &Path,
    faults: impl IntoIterator<Item = (Option<&'a Path>, String)>,
) -> LoadError {
    let (mut problems, mut others) = (Vec::new(), Vec::new());
    for (file, message) in faults {
        let before = problems.len();
        let places = named.iter().filter(|named| file == Some(&named.file));
        problems.extend(places.map(|NamedFile { at, path, .. }| Problem {
            at: *at,
            path: path.clone(),
            message: message.clone(),
        }));
        if problems.len() == before {
            others.push(message);
        }
    }
    if problems.is_empty() {
        return LoadError::Named { why: others.join("\n") };
    }
    let whole = |message| Problem { at: Position::START, path: FieldPath::default(), message };
    problems.extend(others.into_iter().map(whole));
    let problems = Problems::sorted(problems).expect("there is at least one");
    LoadError::Invalid { path: name.to_owned(), problems }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::read_bytes;

    #[test]
    fn a_fault_of_a_file_is_at_every_place_that_names_it() {
        let text = "\
listen: [ { address: 127.0.0.1:0, tls: { certificates: [ { cert: a.pem, key: a.key } ] } } ]
services:
  s:
    baseline: v1
    versions:
      v1: { endpoints: [ 127.0.0.1:1 ], tls: { ca: a.pem } }
routes: [ { service: s } ]
";
        let name = Path::new("etc/edge.yaml");
        let loaded = read_bytes(name, text.as_bytes()).unwrap();
        let fault = |file| (Some(Path::new(file)), "a.pem: gone".to_owned());
        assert_eq!(
            blame(&loaded.files, name, [fault("etc/a.pem")]).to_string(),
            "etc/edge.yaml:1:66: listen[0].tls.certificates[0].cert: a.pem: gone\n\
             etc/edge.yaml:6:52: services.s.versions.v1.tls.ca: a.pem: gone"
        );
        let other = blame(&loaded.files, name, [(None, "no authorities".to_owned())]);
        assert_eq!(other.to_string(), "no authorities");
    }
}
