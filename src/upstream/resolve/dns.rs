//! The rim of resolving: the hosts file and name servers, asked through hickory.
//!
//! The hosts file is read again for each question, and the system's list of name servers after each
//! failure, because both are rewritten while a machine runs. A name that stands in the hosts file is
//! not asked of a server, in neither family: `localhost` with 127.0.0.1 alone stays that.
//! Answers are not kept here; the [book](super::book) does.

use std::{
    net::{IpAddr, SocketAddr},
    str::FromStr,
    time::{Duration, Instant},
};

use hickory_resolver::{
    Hosts, TokioResolver,
    config::{
        ConnectionConfig, LookupIpStrategy, NameServerConfig, ResolveHosts, ResolverConfig,
        ResolverOpts,
    },
    net::{NetError, runtime::TokioRuntimeProvider},
    proto::{
        op::Query,
        rr::{Name, RecordType},
    },
};

use super::book::Answer;

/// Longest wait for one server; `/etc/resolv.conf` may ask for less. Its usual 5 s would leave a version
/// without endpoints for that long if the first packet is lost.
const PATIENCE: Duration = Duration::from_secs(2);

/// Longest time for a question, with all servers, search domains and further attempts.
const DEADLINE: Duration = Duration::from_secs(15);

/// An entry of the hosts file is looked at again after this time.
const HOSTS_AGE: Duration = Duration::from_secs(10);

/// Asks for names.
#[derive(Debug)]
pub(super) struct Dns {
    servers: Vec<SocketAddr>,
    resolver: Option<TokioResolver>,
}

impl Dns {
    /// Asks `servers`, or those of `/etc/resolv.conf` if that is empty.
    pub(super) fn new(servers: Vec<SocketAddr>) -> Self {
        Self { servers, resolver: None }
    }

    /// The answer for `name`, or why there is none.
    pub(super) fn ask(
        &mut self,
        name: &str,
    ) -> impl Future<Output = Result<Answer, String>> + Send + 'static {
        let hosts = in_hosts(name);
        let resolver = match hosts {
            Some(_) => Ok(None),
            None => self.resolver().map(Some).map_err(|error| error.to_string()),
        };
        let name = name.to_owned();
        async move {
            if let Some(answer) = hosts {
                return Ok(answer);
            }
            let Some(resolver) = resolver? else { return Err("no resolver".to_owned()) };
            let asked = tokio::time::timeout(DEADLINE, resolver.lookup_ip(name)).await;
            let found = asked.map_err(|_| "no answer in time".to_owned())?;
            let found = found.map_err(|error| error.to_string())?;
            let age = found.valid_until().saturating_duration_since(Instant::now());
            let addresses: Vec<IpAddr> = found.iter().filter(|a| is_reachable(*a)).collect();
            if addresses.is_empty() {
                return Err("the name has no usable address".to_owned());
            }
            Ok(Answer { addresses, age })
        }
    }

    /// Reads the system's name servers again before the next question.
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
        options.ip_strategy = LookupIpStrategy::Ipv4AndIpv6;
        options.use_hosts_file = ResolveHosts::Never;
        options.cache_size = 0;
        let resolver = builder.build()?;
        self.resolver = Some(resolver.clone());
        Ok(resolver)
    }
}

/// A server that is asked over UDP, and over TCP if its answer does not fit.
fn server(address: &SocketAddr) -> NameServerConfig {
    let connections = [ConnectionConfig::udp(), ConnectionConfig::tcp()].map(|mut connection| {
        connection.port = address.port();
        connection
    });
    NameServerConfig::new(address.ip(), true, connections.into())
}

/// What the hosts file says of `name`.
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

/// Filters of names answer 0.0.0.0, which would connect to this very machine.
fn is_reachable(address: IpAddr) -> bool {
    !address.is_unspecified() && !address.is_multicast()
}
