//! Properties of the configuration reader that must hold for any input; used by `fuzz/`, and by the
//! tests with the seeds of its corpus.

use super::{problem::MAX_PROBLEMS, schema::Config};

/// A text is a configuration that is the same after writing and reading it, or has problems, each
/// with a position within the text and in one line of visible characters.
pub fn configuration(input: &[u8]) {
    let Ok(text) = std::str::from_utf8(input) else { return };
    match super::parse(text) {
        Ok(config) => assert_reads_the_same(&config),
        Err(problems) => {
            let all = problems.as_slice();
            assert!(
                !all.is_empty() && all.len() <= MAX_PROBLEMS + 1 && all.is_sorted_by_key(|p| p.at)
            );
            let columns = columns(text);
            for problem in all {
                let at = problem.at;
                let longest = at.line.checked_sub(1).and_then(|nth| columns.get(nth));
                let longest = longest.unwrap_or_else(|| panic!("no line has `{problem}`"));
                assert!((1..=longest + 1).contains(&at.column), "no column has `{problem}`");
                assert!(problem.message.contains("; "), "nothing to do about `{problem}`");
                let shown = problem.to_string();
                assert!(!shown.chars().any(char::is_control), "{shown:?} is no line");
            }
        }
    }
}

fn assert_reads_the_same(config: &Config) {
    let written = serde_json::to_string(config).expect("a configuration can be written");
    match super::parse(&written) {
        Ok(again) => assert_eq!(again, *config, "from {written}"),
        Err(problems) => panic!("{problems}\nin {written}"),
    }
}

/// The length of every line. YAML ends a line with LF, CR or both; the text after the last end is a
/// line, too.
fn columns(text: &str) -> Vec<usize> {
    let lines = text.replace("\r\n", "\n");
    lines.split(['\n', '\r']).map(|line| line.chars().count()).collect()
}

/// Runs the property on every seed of a target.
#[cfg(test)]
pub(crate) fn replay(target: &str, property: fn(&[u8])) {
    let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus").join(target);
    let mut count = 0;
    for entry in std::fs::read_dir(folder).expect("a corpus") {
        let file = entry.expect("an entry").path();
        // Shown if the test fails.
        println!("{}", file.display());
        property(&std::fs::read(file).expect("a seed"));
        count += 1;
    }
    assert!(count > 0, "no seeds of {target}");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn seeds_of_configurations_keep_what_is_promised() {
        replay("configuration", configuration);
    }
}
