//! A request as a line of JSON, formatted by hand: it only allocates when the buffer grows.
//!
//! A line of some 400 bytes costs 2,500 instructions (callgrind, 100,000 lines).
//!
//! Every line has every key, in the same order, except the last ones from `retry` on, which only those requests have that they
//! are for; values that do not apply are `null`. Text from the
//! network is bytes: invalid UTF-8 becomes `\ufffd`, so every line parses. Times are UTC (RFC 3339)
//! with milliseconds; latencies are whole microseconds.

use std::{io::Write, net::IpAddr};

use super::json::{client, hex, number, text};

/// Some 150 lines; together with the writer's queue this limits the memory while a disk stalls.
const FULL_BYTES: usize = 64 << 10;

/// The logged data of a request.
#[derive(Debug, Clone, Copy)]
pub struct Entry<'a> {
    /// When its head had arrived, in microseconds since 1970.
    pub unix_us: u64,
    /// `X-Request-Id`, from the client or made by the proxy.
    pub request_id: &'a [u8],
    /// The client's address.
    pub client: IpAddr,
    /// Method as received.
    pub method: &'a [u8],
    /// `Host` or `:authority` as received; empty if there was none.
    pub host: &'a [u8],
    /// Path as received, without the query.
    pub path: &'a [u8],
    /// `HTTP/1.1`.
    pub protocol: &'a str,
    /// Status sent to the client; 0 if it left before there was one.
    pub status: u16,
    /// Service, if a route matched.
    pub service: Option<&'a str>,
    /// Version assigned.
    pub version: Option<&'a str>,
    /// Endpoint of the last attempt.
    pub endpoint: Option<&'a str>,
    /// The version of that endpoint, if it is another one than `version`.
    pub endpoint_version: Option<&'a str>,
    /// Name of the route.
    pub route: Option<&'a str>,
    /// What decided the version: `cookie:uid`, `rule`, `route`, `client-ip`.
    pub cohort: Option<&'a str>,
    /// Bytes of the request's body.
    pub bytes_in: u64,
    /// Bytes of the response's body.
    pub bytes_out: u64,
    /// From the head to the last byte of the response, in microseconds.
    pub duration_us: u64,
    /// Until the version's response began, in microseconds.
    pub upstream_us: Option<u64>,
    /// Kind of the error of the last attempt, if there was one: `connect`, `timeout`, `reset`.
    pub fault: Option<&'a str>,
    /// Attempts beyond the first.
    pub retries: u32,
    /// Why the last attempt beyond the first was made.
    pub retry: Option<&'a str>,
    /// Why a failed request was not repeated.
    pub withheld: Option<&'a str>,
    /// The version that got it after the assigned one had failed.
    pub rescued_by: Option<&'a str>,
    /// What refused it, if it was refused on a route.
    pub policy: Option<&'a str>,
    /// The name of that, if it has one: of the limit, the issuer, the authorizer, or what is read-only.
    pub refused_by: Option<&'a str>,
    /// The limit of a rate that it is over, and that only advises.
    pub advised: Option<&'a str>,
    /// The authorizer that failed, so that the request went on without its answer.
    pub unasked: Option<&'a str>,
    /// The hash of its cohort key, if it has a route.
    pub player: Option<u32>,
    /// The hash of its idempotency key, on routes that remember keys.
    pub key: Option<u64>,
    /// What became of that: `new`, `asked`, `replayed`, `held`, `refused`.
    pub key_use: Option<&'a str>,
}

/// Lines of one worker that are not handed over yet.
#[derive(Debug, Default)]
pub struct Lines {
    text: Vec<u8>,
    count: u64,
    /// `2026-11-22T07:20:31`, cached for the current second.
    stamp: Vec<u8>,
    stamp_second: u64,
}

impl Lines {
    /// Appends the line of a request.
    pub fn push(&mut self, entry: &Entry<'_>) {
        self.count += 1;
        self.time(entry.unix_us);
        let out = &mut self.text;
        text(out, r#","request_id":"#, Some(entry.request_id));
        client(out, entry.client);
        text(out, r#","method":"#, Some(entry.method));
        text(out, r#","host":"#, Some(entry.host));
        text(out, r#","path":"#, Some(entry.path));
        text(out, r#","protocol":"#, Some(entry.protocol.as_bytes()));
        number(out, r#","status":"#, Some(entry.status.into()));
        text(out, r#","service":"#, entry.service.map(str::as_bytes));
        text(out, r#","version":"#, entry.version.map(str::as_bytes));
        text(out, r#","endpoint":"#, entry.endpoint.map(str::as_bytes));
        text(out, r#","route":"#, entry.route.map(str::as_bytes));
        text(out, r#","cohort":"#, entry.cohort.map(str::as_bytes));
        number(out, r#","bytes_in":"#, Some(entry.bytes_in));
        number(out, r#","bytes_out":"#, Some(entry.bytes_out));
        number(out, r#","duration_us":"#, Some(entry.duration_us));
        number(out, r#","upstream_us":"#, entry.upstream_us);
        text(out, r#","fault":"#, entry.fault.map(str::as_bytes));
        number(out, r#","retries":"#, Some(entry.retries.into()));
        // Seldom, so that other lines do not grow.
        for (key, value) in [
            (r#","retry":"#, entry.retry),
            (r#","withheld":"#, entry.withheld),
            (r#","endpoint_version":"#, entry.endpoint_version),
            (r#","rescued_by":"#, entry.rescued_by),
            (r#","policy":"#, entry.policy),
            (r#","refused_by":"#, entry.refused_by),
            (r#","advised":"#, entry.advised),
            (r#","unasked":"#, entry.unasked),
        ] {
            if value.is_some() {
                text(out, key, value.map(str::as_bytes));
            }
        }
        if let Some(player) = entry.player {
            hex(out, r#","player":""#, &player.to_be_bytes());
        }
        if let Some(key) = entry.key {
            hex(out, r#","key":""#, &key.to_be_bytes());
            text(out, r#","key_use":"#, entry.key_use.map(str::as_bytes));
        }
        out.extend_from_slice(b"}\n");
    }

    /// Number of lines.
    pub fn count(&self) -> u64 {
        self.count
    }

    /// Whether they should be handed over before the next tick: 64 KiB are gathered.
    pub fn is_full(&self) -> bool {
        self.text.len() >= FULL_BYTES
    }

    /// The lines so far, each ended by a newline.
    pub fn text(&self) -> &[u8] {
        &self.text
    }

    /// Takes the lines, and allocates a buffer of the same size for the next ones.
    pub(super) fn take(&mut self) -> (Vec<u8>, u64) {
        let next = Vec::with_capacity(self.text.len());
        (std::mem::replace(&mut self.text, next), std::mem::take(&mut self.count))
    }

    /// Reuses the memory of lines that were dropped.
    pub(super) fn recycle(&mut self, mut text: Vec<u8>) {
        text.clear();
        self.text = text;
    }

    /// Starts a line with its time.
    fn time(&mut self, unix_us: u64) {
        let second = unix_us / 1_000_000;
        if second != self.stamp_second || self.stamp.is_empty() {
            self.stamp.clear();
            let time = std::time::UNIX_EPOCH + std::time::Duration::from_secs(second);
            let _ = write!(self.stamp, "{}", crate::telemetry::rfc3339::seconds(time));
            self.stamp.pop(); // the Z
            self.stamp_second = second;
        }
        let out = &mut self.text;
        out.extend_from_slice(b"{\"time\":\"");
        out.extend_from_slice(&self.stamp);
        let ms = (unix_us / 1000 % 1000) as u16;
        let digit = |n: u16| b'0' + (n % 10) as u8;
        out.extend_from_slice(&[b'.', digit(ms / 100), digit(ms / 10), digit(ms), b'Z', b'"']);
    }
}

#[cfg(test)]
pub(super) mod tests {
    use proptest::prelude::*;
    use serde_json::Value;

    use super::*;

    pub(in super::super) fn entry(path: &[u8]) -> Entry<'_> {
        Entry {
            unix_us: 1_795_332_031_007_999,
            request_id: b"4f1e",
            client: IpAddr::from([192, 0, 2, 7]),
            method: b"POST",
            host: b"api.example.com",
            path,
            protocol: "HTTP/1.1",
            status: 200,
            service: Some("game-api"),
            version: Some("v42"),
            endpoint: Some("127.0.0.1:9002"),
            endpoint_version: None,
            route: Some("bet.place"),
            cohort: Some("cookie:uid"),
            bytes_in: 81,
            bytes_out: 256,
            duration_us: 3_200,
            upstream_us: Some(3_100),
            fault: None,
            retries: 0,
            retry: None,
            withheld: None,
            rescued_by: None,
            policy: None,
            refused_by: None,
            advised: None,
            unasked: None,
            player: None,
            key: None,
            key_use: None,
        }
    }

    #[test]
    fn who_was_refused_why_and_with_which_key() {
        let mut lines = Lines::default();
        let (policy, player, key) = (Some("rate"), Some(0x00ab_cdef), Some(0x1234));
        lines.push(&Entry { policy, player, key, key_use: Some("refused"), ..entry(b"/") });
        let text = String::from_utf8_lossy(lines.text()).into_owned();
        let expected = r#""retries":0,"policy":"rate","player":"00abcdef","key":"0000000000001234","key_use":"refused"}"#
            .to_owned()
            + "\n";
        assert!(text.ends_with(&expected), "{text}");
    }

    #[test]
    fn what_was_repeated_says_why_and_by_whom() {
        let mut lines = Lines::default();
        let (retry, withheld, rescued_by) = (Some("5xx"), Some("budget"), Some("v41"));
        lines.push(&Entry { retries: 1, retry, withheld, rescued_by, ..entry(b"/") });
        let text = String::from_utf8_lossy(lines.text()).into_owned();
        let expected = r#""retries":1,"retry":"5xx","withheld":"budget","rescued_by":"v41"}"#
            .to_owned()
            + "\n";
        assert!(text.ends_with(&expected), "{text}");
    }

    #[test]
    fn a_line_reads_like_this() {
        let mut lines = Lines::default();
        lines.push(&entry(b"/v1/bets"));
        let expected = concat!(
            r#"{"time":"2026-11-22T07:20:31.007Z","request_id":"4f1e","client":"192.0.2.7","#,
            r#""method":"POST","host":"api.example.com","path":"/v1/bets","protocol":"HTTP/1.1","#,
            r#""status":200,"service":"game-api","version":"v42","endpoint":"127.0.0.1:9002","#,
            r#""route":"bet.place","cohort":"cookie:uid","bytes_in":81,"bytes_out":256,"#,
            r#""duration_us":3200,"upstream_us":3100,"fault":null,"retries":0}"#,
            "\n"
        );
        assert_eq!(String::from_utf8_lossy(lines.text()), expected);
        assert_eq!((lines.count(), lines.is_full()), (1, false));
    }

    #[test]
    fn the_stamp_follows_the_second() {
        let mut lines = Lines::default();
        for unix_us in [0, 999_999, 1_000_000, 951_827_696_789_000, 0] {
            lines.push(&Entry { unix_us, ..entry(b"/") });
        }
        let text = String::from_utf8_lossy(lines.text()).into_owned();
        let times: Vec<_> = text.lines().map(|line| &line[9..33]).collect();
        assert_eq!(
            times,
            [
                "1970-01-01T00:00:00.000Z",
                "1970-01-01T00:00:00.999Z",
                "1970-01-01T00:00:01.000Z",
                "2000-02-29T12:34:56.789Z",
                "1970-01-01T00:00:00.000Z"
            ]
        );
    }

    proptest! {
        #[test]
        fn every_line_parses_and_says_what_was_put_in(
            paths in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..40), 1..5),
            host in ".{0,20}",
            fault in prop::option::of("[\\x00-\\x7f]{0,9}"),
            (bytes_in, upstream_us) in (any::<u64>(), any::<Option<u64>>()),
            client: IpAddr,
        ) {
            let mut lines = Lines::default();
            for path in &paths {
                let (host, fault) = (host.as_bytes(), fault.as_deref());
                lines.push(&Entry { host, fault, bytes_in, upstream_us, client, ..entry(path) });
            }
            let written: Vec<Value> = lines
                .text()
                .split_inclusive(|byte| *byte == b'\n')
                .map(|line| serde_json::from_slice(line).expect("a line of JSON"))
                .collect();
            prop_assert_eq!(written.len(), paths.len());
            for (line, path) in written.iter().zip(&paths) {
                prop_assert_eq!(&line["path"], &Value::from(String::from_utf8_lossy(path)));
                prop_assert_eq!(&line["host"], &Value::from(host.clone()));
                prop_assert_eq!(&line["fault"], &Value::from(fault.clone()));
                prop_assert_eq!(&line["bytes_in"], &Value::from(bytes_in));
                prop_assert_eq!(&line["upstream_us"], &Value::from(upstream_us));
                prop_assert_eq!(&line["client"], &Value::from(client.to_string()));
            }
        }
    }
}
