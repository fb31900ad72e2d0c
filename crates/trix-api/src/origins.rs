//! Under which names the service may be reached, and from which pages.
//!
//! Two attacks are stopped here. *Cross-site requests*: a foreign page makes the
//! browser send our cookie. `Sec-Fetch-Site` and `Origin` tell. *DNS rebinding*:
//! a foreign name is made to point at this machine, so that the browser takes
//! both for one site. The `Host` header tells, because it must be an address, a
//! name of this machine, or a name that was configured.

use axum::http::{HeaderMap, Method, header};

/// The names and origins that are allowed.
#[derive(Clone, Debug)]
pub struct Origins {
    /// Configured origins, lower case, without a slash at the end.
    public: Vec<String>,
    /// Name of this machine, lower case.
    machine: String,
    insecure_http: bool,
}

/// A configured origin is not one.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is no origin; it should look like https://trix.example.org or http://host:9001")]
pub struct BadOrigin(pub String);

/// Why a request was refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refused {
    /// `Host` is absent or a foreign name.
    Host,
    /// The request comes from a foreign page.
    Origin,
}

/// How the session cookie is set for a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CookieKind {
    /// `__Host-trix` with `Secure`: https or this machine.
    Secure,
    /// `trix`: plain http was allowed.
    Plain,
    /// None: plain http from another machine.
    Refused,
}

impl Origins {
    /// From the configured origins and the machine's name.
    pub fn new(
        public: &[String],
        machine: &str,
        insecure_http: bool,
    ) -> Result<Origins, BadOrigin> {
        let public = public
            .iter()
            .map(|o| {
                let lower = o.trim_end_matches('/').to_ascii_lowercase();
                match lower.split_once("://") {
                    Some(("http" | "https", authority))
                        if !authority.is_empty()
                            && !authority.contains(['/', '?', '#', '@', ' ']) =>
                    {
                        Ok(lower)
                    }
                    _ => Err(BadOrigin(o.clone())),
                }
            })
            .collect::<Result<_, _>>()?;
        Ok(Origins { public, machine: machine.to_ascii_lowercase(), insecure_http })
    }

    /// The first configured origin.
    pub fn first(&self) -> Option<&str> {
        self.public.first().map(String::as_str)
    }

    /// Checks `Host` for all methods, and the page that it comes from for those that
    /// change something and for WebSockets (`strict`), which have no such check of the browser's.
    pub fn check(&self, method: &Method, headers: &HeaderMap, strict: bool) -> Result<(), Refused> {
        let host = host(headers).ok_or(Refused::Host)?;
        if !self.host_allowed(&host) {
            return Err(Refused::Host);
        }
        if matches!(*method, Method::GET | Method::HEAD | Method::OPTIONS) && !strict {
            return Ok(());
        }
        let text = |name| match headers.get_all(name).iter().collect::<Vec<_>>().as_slice() {
            [] => Ok(None),
            [one] => one.to_str().map(Some).map_err(|_| Refused::Origin),
            // Two of them are nothing that a browser sends.
            _ => Err(Refused::Origin),
        };
        let origin = text(header::ORIGIN)?.map(str::to_ascii_lowercase);
        if let Some(origin) = &origin {
            if self.public.contains(origin) {
                return Ok(());
            }
            let own = origin.split_once("://").is_some_and(|(scheme, authority)| {
                matches!(scheme, "http" | "https") && authority == host
            });
            if !own {
                return Err(Refused::Origin);
            }
        }
        match text(header::HeaderName::from_static("sec-fetch-site"))? {
            None | Some("same-origin" | "none") => Ok(()),
            Some(_) => Err(Refused::Origin),
        }
    }

    /// How a request's session cookie is set.
    pub fn cookie(&self, headers: &HeaderMap) -> CookieKind {
        let Some(host) = host(headers) else { return CookieKind::Refused };
        let name = without_port(&host);
        let local = name == "localhost"
            || name.ends_with(".localhost")
            || address(name).is_some_and(|ip| ip.is_loopback());
        let https = self.public.iter().any(|o| o.strip_prefix("https://") == Some(host.as_str()));
        match (local || https, self.insecure_http) {
            (true, _) => CookieKind::Secure,
            (false, true) => CookieKind::Plain,
            (false, false) => CookieKind::Refused,
        }
    }

    /// True if plain cookies may be read.
    pub fn plain_cookies(&self) -> bool {
        self.insecure_http
    }

    fn host_allowed(&self, host: &str) -> bool {
        let name = without_port(host);
        // A page of a foreign site never has an address as its host, so no
        // rebinding is possible with one.
        name == "localhost"
            || name.ends_with(".localhost")
            || name == self.machine
            || address(name).is_some()
            || self
                .public
                .iter()
                .filter_map(|o| o.split_once("://"))
                .any(|(_, authority)| authority == host || without_port(authority) == name)
    }
}

/// The one `Host` header in lower case.
fn host(headers: &HeaderMap) -> Option<String> {
    let mut all = headers.get_all(header::HOST).iter();
    let host = all.next()?.to_str().ok()?.to_ascii_lowercase();
    (all.next().is_none() && !host.is_empty()).then_some(host)
}

fn without_port(host: &str) -> &str {
    match host.rsplit_once(':') {
        Some((name, port)) if !name.is_empty() && port.bytes().all(|b| b.is_ascii_digit()) => name,
        _ => host,
    }
}

fn address(name: &str) -> Option<std::net::IpAddr> {
    name.strip_prefix('[').and_then(|n| n.strip_suffix(']')).unwrap_or(name).parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(pairs: &[(&'static str, &str)]) -> HeaderMap {
        pairs.iter().map(|(k, v)| (k.parse().unwrap(), v.parse().unwrap())).collect()
    }

    fn origins() -> Origins {
        Origins::new(&["https://trix.example.org/".into()], "studio", false).unwrap()
    }

    #[test]
    fn a_foreign_name_for_this_machine_is_refused() {
        let check = |host| origins().check(&Method::GET, &headers(&[("host", host)]), false);
        for host in ["127.0.0.1:9001", "[::1]:9001", "localhost:9001", "10.0.0.7", "studio:9001"] {
            assert_eq!(check(host), Ok(()), "{host}");
        }
        assert_eq!(check("trix.example.org"), Ok(()));
        for host in ["evil.example:9001", "127.0.0.1.evil.example", "trix.example.org.evil"] {
            assert_eq!(check(host), Err(Refused::Host), "{host}");
        }
        assert_eq!(origins().check(&Method::GET, &headers(&[]), false), Err(Refused::Host));
        let mut both = HeaderMap::new();
        both.append("host", "localhost".parse().unwrap());
        both.append("host", "evil.example".parse().unwrap());
        assert_eq!(origins().check(&Method::GET, &both, false), Err(Refused::Host));
    }

    #[test]
    fn a_foreign_page_changes_nothing_and_opens_no_socket() {
        let check = |method: Method, strict, more: &[(&'static str, &str)]| {
            let mut all = vec![("host", "localhost:9001")];
            all.extend_from_slice(more);
            origins().check(&method, &headers(&all), strict)
        };
        let foreign = [("origin", "https://evil.example")];
        assert_eq!(check(Method::GET, false, &foreign), Ok(()));
        assert_eq!(check(Method::GET, true, &foreign), Err(Refused::Origin));
        for more in [
            &foreign[..],
            &[("origin", "null")],
            &[("origin", "http://localhost:9002")],
            &[("sec-fetch-site", "cross-site")],
            &[("sec-fetch-site", "same-site")],
            &[("origin", "http://localhost:9001"), ("sec-fetch-site", "cross-site")],
        ] {
            assert_eq!(check(Method::POST, false, more), Err(Refused::Origin), "{more:?}");
        }
        for more in [
            &[][..],
            &[("origin", "http://localhost:9001"), ("sec-fetch-site", "same-origin")],
            &[("origin", "https://trix.example.org")],
            &[("sec-fetch-site", "none")],
        ] {
            assert_eq!(check(Method::POST, true, more), Ok(()), "{more:?}");
        }
    }

    #[test]
    fn plain_http_from_another_machine_gets_a_cookie_only_when_allowed() {
        let kind = |host, insecure| {
            Origins::new(&["https://trix.example.org".into()], "studio", insecure)
                .unwrap()
                .cookie(&headers(&[("host", host)]))
        };
        assert_eq!(kind("127.0.0.1:9001", false), CookieKind::Secure);
        assert_eq!(kind("trix.example.org", false), CookieKind::Secure);
        assert_eq!(kind("10.0.0.7:9001", false), CookieKind::Refused);
        assert_eq!(kind("10.0.0.7:9001", true), CookieKind::Plain);
    }

    #[test]
    fn what_is_no_origin_is_refused_at_the_start() {
        for bad in ["trix.example.org", "ftp://x", "https://", "https://x/y"] {
            assert!(Origins::new(&[bad.into()], "m", false).is_err(), "{bad}");
        }
    }
}
