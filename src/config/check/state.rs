//! Checks where the journal is, and where its checkpoints go.

use std::path::Path;

use super::{Finding, file_name};
use crate::config::{
    problem::FieldPath,
    schema::{Checkpoints, State},
    url::is_url,
};

pub(super) fn check(state: &State, path: &FieldPath, found: &mut Vec<Finding>) {
    let at_folder = match state {
        State::Folder(_) => path.clone(),
        State::Kept(_) => path.key("folder"),
    };
    file_name(&state.folder().to_string_lossy(), at_folder, found);
    let Some(Checkpoints { file, webhook }) = state.checkpoints() else { return };
    let path = path.key("checkpoints");
    if file.is_none() && webhook.is_none() {
        let message = "names no place; write `file`, `webhook` or both";
        found.push(Finding::new(path.clone(), message));
    }
    if let Some(file) = file {
        let at = path.key("file");
        file_name(&file.to_string_lossy(), at.clone(), found);
        if is_inside(file, state.folder()) {
            let message = "in the folder of the journal, where a checkpoint proves nothing; write a file elsewhere";
            found.push(Finding::new(at, message));
        }
    }
    if webhook.as_ref().is_some_and(|url| !is_url(url)) {
        let message = "no URL; write one such as `https://audit.example.com/checkpoints`";
        found.push(Finding::new(path.key("webhook"), message));
    }
}

fn is_inside(file: &Path, folder: &Path) -> bool {
    !folder.as_os_str().is_empty() && file.starts_with(folder)
}

#[cfg(test)]
mod tests {
    use crate::config::parse;

    /// The problems of a file with this `state`.
    fn problems(state: &str) -> String {
        let text = format!(
            "listen: [ {{ address: 127.0.0.1:0 }} ]\nroutes: [ {{ service: a }} ]\nstate: {state}\nservices: {{ a: {{ \
             baseline: v1, versions: {{ v1: {{ endpoints: [ 10.0.0.1:1 ] }} }} }} }}\n"
        );
        let found = parse(&text).map_or_else(|problems| problems.to_string(), |_| String::new());
        found.replace("3:", "")
    }

    #[test]
    fn the_folder_is_a_text_or_in_a_map() {
        for good in [
            "/var/lib/tidegate",
            "{ folder: /var/lib/tidegate }",
            "{ folder: a, checkpoints: { file: b.note, webhook: \"https://audit.example.com/x\" } }",
        ] {
            assert_eq!(problems(good), "", "{good}");
        }
    }

    #[test]
    fn what_is_wrong_is_named() {
        for (wrong, expected) in [
            ("[]", "state: a list stands here; write the path of a folder, or a map with `folder`"),
            ("\"\"", "state: names no file; write its path"),
            ("{ checkpoints: { file: x } }", "state.folder: missing; add `"),
            (
                "{ folder: a, keep: 1d }",
                "state.keep: unknown field `keep`; known fields: folder, checkpoints",
            ),
            (
                "{ folder: a, checkpoints: {} }",
                "state.checkpoints: names no place; write `file`, `webhook` or both",
            ),
            (
                "{ folder: a, checkpoints: { file: a/x } }",
                "state.checkpoints.file: in the folder of the journal",
            ),
            (
                "{ folder: a, checkpoints: { webhook: x } }",
                "state.checkpoints.webhook: no URL; write one such as",
            ),
        ] {
            let found = problems(wrong);
            assert!(found.contains(expected), "{wrong}: {found}");
        }
    }
}
