//! Whether a request whose connection was lost is sent once more on another, on any route.

/// What is known of an attempt whose connection was lost before a byte of an answer came.
#[derive(Debug, Clone, Copy)]
pub struct Lost {
    /// All of the request is still here.
    pub whole: bool,
    /// Sending it twice does what sending it once does (RFC 9110 section 9.2.2).
    pub idempotent: bool,
    /// The endpoint cannot have processed it.
    pub unprocessed: bool,
    /// The connection had served before, so that it may have been closed while the request was on its way.
    pub reused: bool,
    /// The endpoint stated that it did not process it, or it could not be sent on this connection.
    pub refused: bool,
    /// It was sent once more already.
    pub repeated: bool,
    /// Its route says how often it is sent, and leaves no further attempt to the version.
    pub spent: bool,
}

/// Whether the request is sent once more, on a new connection: if that does no harm, and the connection, not
/// the endpoint, is the likely reason.
pub fn may_repeat(lost: Lost) -> bool {
    let harmless = lost.whole && (lost.idempotent || lost.unprocessed);
    let is_left = lost.unprocessed || !lost.spent;
    harmless && is_left && (lost.reused || lost.refused) && !lost.repeated
}

#[cfg(test)]
mod tests {
    use super::*;

    fn all() -> impl Iterator<Item = Lost> {
        (0..128u8).map(|bits| {
            let is = |bit: u8| bits & 1 << bit != 0;
            let (whole, idempotent, unprocessed) = (is(0), is(1), is(2));
            let (reused, refused, repeated, spent) = (is(3), is(4), is(5), is(6));
            Lost { whole, idempotent, unprocessed, reused, refused, repeated, spent }
        })
    }

    #[test]
    fn a_bet_that_may_have_been_taken_is_never_sent_twice() {
        for lost in all().filter(|lost| !lost.idempotent && !lost.unprocessed) {
            assert!(!may_repeat(lost), "{lost:?}");
        }
    }

    #[test]
    fn what_is_no_longer_whole_is_not_sent_and_nothing_is_sent_a_third_time() {
        for lost in all().filter(|lost| !lost.whole || lost.repeated) {
            assert!(!may_repeat(lost), "{lost:?}");
        }
    }

    #[test]
    fn what_may_have_been_processed_is_sent_no_more_often_than_its_route_says() {
        for lost in all().filter(|lost| lost.spent && !lost.unprocessed) {
            assert!(!may_repeat(lost), "{lost:?}");
        }
        let unsent = |lost: &Lost| lost.spent && lost.unprocessed && lost.whole && lost.reused;
        for lost in all().filter(unsent) {
            assert_eq!(may_repeat(lost), !lost.repeated, "{lost:?}");
        }
    }

    #[test]
    fn a_stale_connection_and_a_refusal_are_no_failure_of_a_request_that_can_be_repeated() {
        let whole = |lost: &Lost| lost.whole && !lost.repeated && !lost.spent;
        let harmless = |lost: &Lost| lost.idempotent || lost.unprocessed;
        for lost in all().filter(whole).filter(harmless) {
            assert_eq!(may_repeat(lost), lost.reused || lost.refused, "{lost:?}");
        }
    }
}
