//! A journal as JSON lines, the form for the years: each line as it is stored, and a last one with the head.
//!
//! ```text
//! {"seq":1,"prev":"0000…","at":"2026-01-31T12:00:00.000Z",…}
//! {"seq":2,"prev":"<SHA-256 of line 1>",…}
//! {"end":{"seq":2,"hash":"<SHA-256 of line 2>"}}
//! ```

use std::io::{self, BufRead, Read};

use serde::{Deserialize, Serialize};

use super::{
    chain::{Head, MAX_LINE_BYTES},
    fault::{Fault, Verification},
    verify::{Row, Verifier},
};

/// How a last line begins, and no entry does.
const END: &[u8] = b"{\"end\":";

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct End {
    end: Head,
}

/// The last line of an export, without a line break.
pub(super) fn end_line(head: Head) -> String {
    serde_json::to_string(&End { end: head }).expect("a head has no maps")
}

/// Verifies an export, of all of a journal or, behind `verifier`'s start, of its rest.
///
/// # Errors
///
/// Only if `input` cannot be read; all that is wrong with its content is in the result.
pub fn verify_export(mut verifier: Verifier, input: impl BufRead) -> io::Result<Verification> {
    let mut lines = Lines { input, number: 0 };
    let (mut line, mut is_ended) = (Vec::new(), false);
    while lines.next(&mut line)? {
        if is_ended {
            verifier.fault(Fault::BehindEnd { line: lines.number });
            break;
        }
        let end = line.starts_with(END).then(|| serde_json::from_slice::<End>(&line));
        match end {
            Some(Ok(End { end })) => {
                verifier.end(end);
                is_ended = true;
            }
            _ => verifier.row(Row { key: None, line: &line, hash: None }),
        }
    }
    if !is_ended {
        verifier.fault(Fault::NoEnd { last: verifier.last() });
    }
    Ok(verifier.finish())
}

/// Lines of any length, of which more than the longest entry is not kept.
struct Lines<R> {
    input: R,
    number: u64,
}

impl<R: BufRead> Lines<R> {
    /// Reads the next line without its line break; `false` at the end. Of a line that is too long, the start
    /// is read that shows so.
    fn next(&mut self, line: &mut Vec<u8>) -> io::Result<bool> {
        line.clear();
        let most = MAX_LINE_BYTES as u64 + 2;
        if (&mut self.input).take(most).read_until(b'\n', line)? == 0 {
            return Ok(false);
        }
        self.number = self.number.saturating_add(1);
        if line.last() == Some(&b'\n') {
            line.pop();
        } else if line.len() as u64 == most {
            self.input.skip_until(b'\n')?;
        }
        Ok(true)
    }
}
