//! Queries the hosts file and name servers, through hickory.
//!
//! The hosts file is read again for each query, and the system's list of name servers after each
//! failure, because both change while a machine runs. A name in the hosts file is not looked up at
//! a server, in either family: `localhost` with 127.0.0.1 alone stays that. Answers are kept in the
//! [table](super::book), not here.
//!
//! The two families are queried at the same time and separately. Servers that never answer for AAAA
//! are common, and a version must not wait for them: once one family has an address, the other one
//! has [`GRACE`].

use std::{
    net::{IpAddr, SocketAddr},
    pin::pin,
    str::FromStr,
    time::{Duration, Instant},
};

use hickory_resolver::{
    Hosts, TokioResolver,
    config::{ConnectionConfig, NameServerConfig, ResolveHosts, ResolverConfig, ResolverOpts},
    lookup::Lookup,
    net::{DnsError, NetError, runtime::TokioRuntimeProvider},
    proto::{
        op::{Query, ResponseCode},
        rr::{Name, RecordType},
    },
};

use super::book::Answer;

/// Longest wait for one server; `/etc/resolv.conf` may set less. Its default of 5 s would leave a
/// version without endpoints for that long if the first packet is lost.
const PATIENCE: Duration = Duration::from_secs(2);

/// Longest time for a query, with all servers, search domains and retries.
const DEADLINE: Duration = Duration::from_secs(15);

/// How long one family's addresses wait for the other's answer. RFC 8305 section 3 has 50 ms for a
/// waiting user; here a family that is often a little late should not come and go.
const GRACE: Duration = Duration::from_millis(200);

/// An entry of the hosts file expires after this time.
const HOSTS_AGE: Duration = Duration::from_secs(10);

/// Sends queries.
#[derive(Debug)]
pub(super) struct Dns {
    servers: Vec<SocketAddr>,
    resolver: Option<TokioResolver>,
}

impl Dns {
    /// Creates a client of `servers`, or of those in `/etc/resolv.conf` if that is empty.
    pub(super) fn new(servers: Vec<SocketAddr>) -> Self {
        Self { servers, resolver: None }
    }

    /// Looks up `name`; the error is the reason for the failure.
    pub(super) fn ask(
        &mut self,
        name: &str,
    ) -> impl Future<Output = Result<Answer, String>> + Send + 'static {
        let hosts = in_hosts(name);
        let resolver = match hosts {
            Some(_) => Ok(None),
            None => self.resolver().map(Some).map_err(|error| plain(&error)),
        };
        let name = name.to_owned();
        async move {
            if let Some(answer) = hosts {
                return Ok(answer);
            }
            let Some(resolver) = resolver? else { return Err("no resolver".to_owned()) };
            let asked = async {
                let v4 = family(resolver.ipv4_lookup(name.as_str()));
                let v6 = family(resolver.ipv6_lookup(name.as_str()));
                either(v4, v6).await
            };
            let asked = tokio::time::timeout(DEADLINE, asked).await;
            asked.map_err(|_| "no answer in time".to_owned())?
        }
    }

    /// Makes the next query read the system's name servers again.
    pub(super) fn forget_servers(&mut self) {
        self.resolver = None;
    }

    fn resolver(&mut self) -> Result<TokioResolver, NetError> {
        if let Some(resolver) = &self.resolver {
            return Ok(resolver.clone());
        }
        let mut builder = if self.servers.is_empty() {
            TokioResolver::builder_tokio()?
        } else {
            let servers = self.servers.iter().map(server).collect();
            let config = ResolverConfig::from_parts(None, Vec::new(), servers);
            TokioResolver::builder_with_config(config, TokioRuntimeProvider::default())
        };
        let options: &mut ResolverOpts = builder.options_mut();
        options.timeout = options.timeout.min(PATIENCE);
        options.use_hosts_file = ResolveHosts::Never;
        options.cache_size = 0;
        let resolver = builder.build()?;
        self.resolver = Some(resolver.clone());
        Ok(resolver)
    }
}

/// The usable addresses of one family.
async fn family(asked: impl Future<Output = Result<Lookup, NetError>>) -> Result<Answer, String> {
    let found = asked.await.map_err(|error| plain(&error))?;
    let age = found.valid_until().saturating_duration_since(Instant::now());
    let all = found.answers().iter().filter_map(|record| record.data.ip_addr());
    let addresses: Vec<IpAddr> = all.filter(|a| is_reachable(*a)).collect();
    match addresses.is_empty() {
        true => Err("the name has no usable address".to_owned()),
        false => Ok(Answer { addresses, age }),
    }
}

/// Why a query failed, in plain words: the library prints its own structs.
fn plain(error: &NetError) -> String {
    match error {
        NetError::Dns(DnsError::NoRecordsFound(none)) => match none.response_code {
            ResponseCode::NXDomain => "the name does not exist (NXDOMAIN)".to_owned(),
            ResponseCode::NoError => "the name has no address".to_owned(),
            code => format!("the name server reports: {code}"),
        },
        NetError::Dns(DnsError::ResponseCode(code)) => format!("the name server reports: {code}"),
        NetError::Timeout => "the name server does not answer in time".to_owned(),
        NetError::NoConnections => "no name server can be reached".to_owned(),
        other => other.to_string(),
    }
}

/// Combines the answers of both families; if one family is silent, returns the other's.
async fn either(
    v4: impl Future<Output = Result<Answer, String>>,
    v6: impl Future<Output = Result<Answer, String>>,
) -> Result<Answer, String> {
    let (mut v4, mut v6) = (pin!(v4), pin!(v6));
    tokio::select! {
        first = &mut v4 => with_other(first, v6).await,
        first = &mut v6 => with_other(first, v4).await,
    }
}

async fn with_other(
    first: Result<Answer, String>,
    other: impl Future<Output = Result<Answer, String>>,
) -> Result<Answer, String> {
    let Ok(mut first) = first else { return other.await };
    if let Ok(Ok(other)) = tokio::time::timeout(GRACE, other).await {
        first.addresses.extend(other.addresses);
        first.age = first.age.min(other.age);
    }
    Ok(first)
}

/// A server with UDP, and TCP for answers that do not fit.
fn server(address: &SocketAddr) -> NameServerConfig {
    let connections = [ConnectionConfig::udp(), ConnectionConfig::tcp()].map(|mut connection| {
        connection.port = address.port();
        connection
    });
    NameServerConfig::new(address.ip(), true, connections.into())
}

/// Looks up `name` in the hosts file.
fn in_hosts(name: &str) -> Option<Answer> {
    let hosts = Hosts::from_system().ok()?;
    let name = Name::from_str(name).ok()?;
    let addresses: Vec<IpAddr> = [RecordType::A, RecordType::AAAA]
        .into_iter()
        .filter_map(|family| hosts.lookup_static_host(&Query::query(name.clone(), family)))
        .flat_map(|found| {
            found.answers().iter().filter_map(|r| r.data.ip_addr()).collect::<Vec<_>>()
        })
        .collect();
    (!addresses.is_empty()).then_some(Answer { addresses, age: HOSTS_AGE })
}

/// Filtering name servers return 0.0.0.0, which would connect to this machine.
fn is_reachable(address: IpAddr) -> bool {
    !address.is_unspecified() && !address.is_multicast()
}

#[cfg(test)]
mod tests {
    use std::future::{pending, ready};

    use hickory_resolver::net::NoRecords;

    use super::*;

    /// It was "no records found for Query { name: Name(…), query_type: …".
    #[test]
    fn a_name_without_records_is_told_in_plain_words() {
        let name = Name::from_str("gone.test.").expect("a name");
        let none = |code| {
            let query = Query::query(name.clone(), RecordType::A);
            plain(&DnsError::NoRecordsFound(NoRecords::new(query, code)).into())
        };
        assert_eq!(none(ResponseCode::NXDomain), "the name does not exist (NXDOMAIN)");
        assert_eq!(none(ResponseCode::NoError), "the name has no address");
        assert_eq!(none(ResponseCode::ServFail), "the name server reports: Server Failure");
        assert_eq!(plain(&NetError::Timeout), "the name server does not answer in time");
    }

    fn answer(address: &str, seconds: u64) -> Result<Answer, String> {
        let addresses = vec![address.parse().expect("an address")];
        Ok(Answer { addresses, age: Duration::from_secs(seconds) })
    }

    async fn after(millis: u64, answer: Result<Answer, String>) -> Result<Answer, String> {
        tokio::time::sleep(Duration::from_millis(millis)).await;
        answer
    }

    #[tokio::test(start_paused = true)]
    async fn a_family_that_does_not_answer_keeps_nobody_waiting() {
        let began = tokio::time::Instant::now();
        let (v4, v6) = (answer("10.0.0.1", 30), answer("fd00::1", 5));
        assert_eq!(either(ready(v4.clone()), pending()).await, v4);
        assert_eq!(either(pending(), ready(v6.clone())).await, v6);
        assert_eq!(began.elapsed(), 2 * GRACE);
    }

    #[tokio::test(start_paused = true)]
    async fn both_families_count_where_both_answer() {
        let (v4, v6) = (answer("10.0.0.1", 30), answer("fd00::1", 5));
        for (four, six) in [(0, 100), (100, 0), (1000, 1100)] {
            let both = either(after(four, v4.clone()), after(six, v6.clone())).await;
            let mut both = both.expect("addresses");
            both.addresses.sort();
            assert_eq!((both.addresses.len(), both.age), (2, Duration::from_secs(5)));
        }
        let none = || Err("refused".to_owned());
        for wait in [0, 3000] {
            assert_eq!(either(after(0, none()), after(wait, v6.clone())).await, v6);
            assert_eq!(either(after(wait, v4.clone()), after(0, none())).await, v4);
        }
        assert_eq!(either(after(1, none()), after(2, none())).await, none());
    }
}
