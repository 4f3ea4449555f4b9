//! Who may ask for what: the host that a request names, the page that it comes from, its token, and the form of what it brings.
//!
//! ```text
//!   Host ours? ──► Origin, Sec-Fetch-Site ours? ──► token, where one is needed ──► JSON, if it changes something
//!       no: 403            no: 403                    no: 401, by a proxy: 403            no: 415
//! ```
//!
//! The first two are against pages of elsewhere in a browser of somebody who may reach this address: one whose own name has been
//! made to point here, and one that sends requests to another host than its own. A client that is no browser can name any host; it
//! is the token that counts then.

use std::{
    collections::BTreeSet,
    net::{IpAddr, Ipv6Addr},
    sync::Arc,
};

use hyper::{
    HeaderMap, Method, StatusCode,
    header::{self, HeaderName},
    http::request::Parts,
};
use secrecy::{ExposeSecret, SecretString};
use subtle::ConstantTimeEq;

use super::answer::Refusal;

/// What proxies add to what they pass on.
const PROXIED: [&str; 4] = ["forwarded", "x-forwarded-for", "x-forwarded-host", "x-real-ip"];

/// What a request is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Need {
    /// A file of the page, which says nothing of the job.
    Page,
    /// What the job does.
    Read,
    /// What it remembers: a query costs time and memory of the process, more than can be kept account of.
    Query,
    /// To do something with the job.
    Change,
}

pub(super) struct Access {
    pub(super) token: Arc<SecretString>,
    /// Whether it was given by the user: then to read needs it too.
    configured: bool,
    /// In lower case.
    names: BTreeSet<String>,
    /// The address that it is served at, if others cannot reach it; otherwise it may have many.
    only: Option<IpAddr>,
}

impl Access {
    pub(super) fn new(at: IpAddr, hosts: &[String], token: Arc<SecretString>, configured: bool) -> Self {
        let names = hosts.iter().map(|name| name.to_ascii_lowercase()).chain(["localhost".into()]).collect();
        Self { token, configured, names, only: at.is_loopback().then_some(at) }
    }

    /// Whether this request may do this.
    pub(super) fn check(&self, request: &Parts, need: Need) -> Result<(), Refusal> {
        let host = self.host(request)?;
        from_here(request, host)?;
        match need {
            Need::Page => {}
            Need::Read if !self.configured => directly(&request.headers)?,
            Need::Read | Need::Query | Need::Change => self.token(&request.headers)?,
        }
        match need {
            Need::Change => is_json(&request.headers),
            _ => Ok(()),
        }
    }

    /// The host that the request names, if that is this one.
    fn host<'a>(&self, request: &'a Parts) -> Result<&'a str, Refusal> {
        if request.uri.authority().is_some() {
            return Err(Refusal::bad("this is not a proxy: ask for a path, such as /api/status"));
        }
        let host = once(&request.headers, header::HOST)?;
        let host = host.ok_or_else(|| Refusal::bad("the request names no host: it needs a header Host"))?;
        if self.is_ours(host) {
            return Ok(host);
        }
        Err(Refusal::new(
            StatusCode::FORBIDDEN,
            format!(
                "this job is not served to requests for the host {host:?}: use its address, or localhost, or start it with \
                 Serve::host(…) and that name"
            ),
        ))
    }

    fn is_ours(&self, host: &str) -> bool {
        let name = without_port(host);
        if self.names.contains(&name.to_ascii_lowercase()) {
            return true;
        }
        match (ip(name), self.only) {
            (Some(named), Some(only)) => named == only || named.is_loopback(),
            // A page on the network has a name to mislead with, and cannot do so with an address.
            (Some(_), None) => true,
            (None, _) => false,
        }
    }

    fn token(&self, headers: &HeaderMap) -> Result<(), Refusal> {
        let refused = |words: &str| Err(Refusal::new(StatusCode::UNAUTHORIZED, words));
        let where_it_is =
            "it is in the URL that the job printed when it was started, behind #token=, or what it was configured with";
        let Some(authorization) = once(headers, header::AUTHORIZATION)? else {
            return refused(&format!("this needs the token of the job, as Authorization: Bearer TOKEN; {where_it_is}"));
        };
        let (scheme, token) = authorization.split_once(' ').unwrap_or((authorization, ""));
        let same: bool = token.trim().as_bytes().ct_eq(self.token.expose_secret().as_bytes()).into();
        match scheme.eq_ignore_ascii_case("bearer") && same {
            true => Ok(()),
            false => refused(&format!("this is not the token of the job: {where_it_is}")),
        }
    }
}

/// The one value of a header. Who sends two wants that somebody else sees the other.
fn once(headers: &HeaderMap, name: HeaderName) -> Result<Option<&str>, Refusal> {
    let mut values = headers.get_all(&name).iter();
    let (first, second) = (values.next(), values.next());
    if second.is_some() {
        return Err(Refusal::bad(format!("the header {name} is there more than once")));
    }
    let text = first.map(|value| value.to_str());
    text.transpose().map_err(|_| Refusal::bad(format!("the header {name} is not text")))
}

/// `[::1]` of `[::1]:8080`, `name` of `name:8080`. Which port it is does not matter: a tunnel may have another, and a name is what
/// misleads.
fn without_port(host: &str) -> &str {
    let port = |port: &str| port.chars().all(|c| c.is_ascii_digit());
    match host.rsplit_once(':') {
        Some((name, rest)) if port(rest) && (!name.contains(':') || name.ends_with(']')) => name,
        _ => host,
    }
}

/// An address as it stands in a URL.
fn ip(name: &str) -> Option<IpAddr> {
    match name.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')) {
        Some(inner) => inner.parse::<Ipv6Addr>().ok().map(IpAddr::V6),
        None => name.parse().ok().filter(IpAddr::is_ipv4),
    }
}

/// Whether a page of elsewhere has sent the request. Browsers say so in one of these headers, and pages cannot change them.
fn from_here(request: &Parts, host: &str) -> Result<(), Refusal> {
    let refused = |words: String| Err(Refusal::new(StatusCode::FORBIDDEN, words));
    if let Some(origin) = once(&request.headers, header::ORIGIN)? {
        let site = origin.strip_prefix("http://").or_else(|| origin.strip_prefix("https://"));
        if !site.is_some_and(|site| site.eq_ignore_ascii_case(host)) {
            return refused(format!(
                "a page of {origin:?} may not ask this job for anything: open the page of the job itself"
            ));
        }
    }
    let header = |name: &'static str| once(&request.headers, HeaderName::from_static(name));
    let opens_the_page = request.method == Method::GET
        && request.uri.path() == "/"
        && header("sec-fetch-mode")? == Some("navigate")
        && header("sec-fetch-dest")?.is_none_or(|dest| dest == "document");
    match header("sec-fetch-site")? {
        None | Some("same-origin" | "none") => Ok(()),
        Some(_) if opens_the_page => Ok(()),
        Some(site) => refused(format!(
            "a page of elsewhere ({site}) may not ask this job for anything: open the page of the job itself"
        )),
    }
}

/// What everybody on this machine may read is not for whom a proxy lets in: it makes everybody one of this machine. Proxies say so.
fn directly(headers: &HeaderMap) -> Result<(), Refusal> {
    match PROXIED.iter().find(|name| headers.contains_key(**name)) {
        None => Ok(()),
        Some(name) => Err(Refusal::new(
            StatusCode::FORBIDDEN,
            format!(
                "a proxy has sent this, as the header {name} says, and through it others than those on this machine could read what the \
                 job does: give the job a token, with Serve::token(…)"
            ),
        )),
    }
}

/// A form of a page of elsewhere cannot be sent as this.
fn is_json(headers: &HeaderMap) -> Result<(), Refusal> {
    let kind = once(headers, header::CONTENT_TYPE)?.unwrap_or_default();
    let kind = kind.split(';').next().unwrap_or_default().trim();
    match kind.eq_ignore_ascii_case("application/json") {
        true => Ok(()),
        false => {
            let words = "what changes something must be JSON: send Content-Type: application/json, and {} if there is nothing to say";
            Err(Refusal::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, words))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn access(at: &str, hosts: &[&str]) -> Access {
        let hosts: Vec<String> = hosts.iter().map(|name| name.to_string()).collect();
        Access::new(at.parse().unwrap(), &hosts, Arc::new("token".into()), false)
    }

    #[test]
    fn a_host_is_this_one_or_not() {
        let local = access("127.0.0.1", &[]);
        for ours in ["127.0.0.1", "127.0.0.1:8080", "localhost:1", "LOCALHOST", "[::1]:8080", "[::1]", "127.0.0.2:80"] {
            assert!(local.is_ours(ours), "{ours}");
        }
        let foreign = [
            "evil.example",
            "evil.example:8080",
            "192.168.0.7",
            "127.0.0.1.evil.example",
            "localhost.evil.example",
            "localhost.",
            "",
            ":8080",
            "[::2]:8080",
            "::1",
            "127.0.0.1:8080:9",
            "127.0.0.1@evil.example",
            "0.0.0.0",
            "2130706433",
            "127.1",
            "localhost:80x",
            "evil.example#localhost",
        ];
        for host in foreign {
            assert!(!local.is_ours(host), "{host}");
        }
        let named = access("127.0.0.1", &["Jobs.example.com"]);
        assert!(
            named.is_ours("jobs.example.com:443") && named.is_ours("JOBS.example.com") && !named.is_ours("example.com")
        );
        let open = access("0.0.0.0", &["jobs.example.com"]);
        for ours in ["192.168.0.7:8080", "[fe80::1]", "jobs.example.com", "localhost"] {
            assert!(open.is_ours(ours), "{ours}");
        }
        assert!(!open.is_ours("evil.example"), "a name may mislead wherever it is served");
    }
}
