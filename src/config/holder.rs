//! The names of those who may call the admin endpoint.

/// Whether two names, which are ASCII, are those of one holder: `Alice` is nobody else than `alice`.
pub fn is_same_holder(one: &str, other: &str) -> bool {
    one.eq_ignore_ascii_case(other)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn case_does_not_make_another_person() {
        for (one, other, is_same) in
            [("alice", "alice", true), ("Alice", "aLICE", true), ("ana", "ann", false)]
        {
            assert_eq!(is_same_holder(one, other), is_same, "{one} {other}");
        }
    }
}
