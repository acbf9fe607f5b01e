//! The way to one server, step by step: the connection, TLS, the log-in; and for each step that
//! fails, what to do.
//!
//! Which servers there are is for `topology`.

use std::time::{Duration, Instant};

use super::report::{Finding, Status};
use crate::connection::Target;
use crate::connection::probe::{self, NoLine, Place, Probe, Site};
use crate::settings::Tls;

/// A server on which the check has logged in.
pub struct Node {
    /// How to get there.
    pub place: Place,
    /// Where it is.
    pub site: Site,
    /// The connection.
    pub probe: Probe,
    /// How long it took to connect.
    pub took: Duration,
    /// The version of TLS, where it is used.
    pub tls: Option<String>,
}

/// A step that failed.
#[derive(Debug)]
pub struct Failure {
    pub step: Step,
    pub why: NoLine,
}

/// The steps.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    Sentinels,
    Reach,
    Tls,
    LogIn,
}

impl Node {
    /// Goes all the way.
    pub async fn open(target: &Target, place: Place) -> Result<Self, Failure> {
        let failed = |step: Step| move |why: NoLine| Failure { step, why };
        let site = probe::find(target, &place)
            .await
            .map_err(failed(Step::Sentinels))?;
        let started = Instant::now();
        probe::reach(target, &site)
            .await
            .map_err(failed(Step::Reach))?;
        let took = started.elapsed();
        let tls = probe::tls_version(target, &site)
            .await
            .map_err(failed(Step::Tls))?;
        let probe = probe::open(target, &place)
            .await
            .map_err(failed(Step::LogIn))?;
        Ok(Self {
            place,
            site,
            probe,
            took,
            tls,
        })
    }

    /// What is said of the connection.
    pub fn reachable(&self) -> Finding {
        let milliseconds = self.took.as_secs_f64() * 1_000.0;
        let text = format!(
            "{} took the connection within {milliseconds:.1} ms",
            self.site
        );
        Finding::new("reachable", Status::Ok, text)
            .detail("server", self.site.to_string())
            .detail("milliseconds", milliseconds)
    }

    /// What is said of TLS.
    pub fn tls(&self, settings: &Tls) -> Finding {
        let Some(version) = &self.tls else {
            let text = match &self.site {
                Site::Unix(_) => "not used on a Unix socket",
                Site::Tcp(endpoint) if is_local(&endpoint.host) => "not used, on this machine",
                Site::Tcp(_) => "not used: passwords and data can be read on the way",
            };
            return Finding::new("tls", Status::Info, text).detail("used", false);
        };
        let authority = match settings.ca {
            Some(_) => "an authority in TLS_CA",
            None => "an authority that the system trusts",
        };
        let own = if settings.cert.is_some() {
            ", with the certificate in TLS_CERT"
        } else {
            ""
        };
        let text = format!("{version}, the server's certificate is from {authority}{own}");
        Finding::new("tls", Status::Ok, text)
            .detail("used", true)
            .detail("version", version.as_str())
    }
}

impl Failure {
    /// The findings: the steps before it, which succeeded, and the one that failed.
    pub fn findings(self, server: &str) -> Vec<Finding> {
        let mut findings = Vec::new();
        if matches!(self.step, Step::Tls | Step::LogIn) {
            let text = format!("{server} takes connections");
            let finding = Finding::new("reachable", Status::Ok, text);
            findings.push(finding.detail("server", server));
        }
        let name = match self.step {
            Step::Sentinels => "sentinels",
            Step::Reach => "reachable",
            Step::Tls => "tls",
            Step::LogIn => "login",
        };
        let advice = self.advice();
        let text = match self.step {
            Step::Sentinels | Step::Reach => {
                format!("cannot reach {server}: {}", self.why.reason())
            }
            Step::Tls | Step::LogIn => self.why.reason(),
        };
        findings.push(Finding::new(name, Status::Failed, text).advice(advice));
        findings
    }

    /// What to do, in plain words.
    pub fn advice(&self) -> &'static str {
        let why = self.why.clone().reason();
        let says = |words: &str| why.contains(words);
        match self.step {
            Step::Sentinels if says("knows no service") || says("know no service") => {
                "set sentinelServiceName in URL to what the sentinels call it (`SENTINEL MASTERS`)"
            }
            Step::Sentinels if says("NOAUTH") || says("WRONGPASS") => {
                "set sentinelUsername and sentinelPassword in URL to those of the sentinels"
            }
            Step::Sentinels if says("is no sentinel") || says("unknown command") => {
                "the URL must name sentinels, by default on port 26379; for a single server use \
                 redis://host:port"
            }
            Step::Sentinels => "check the hosts and ports of the sentinels, and that they run",
            Step::Reach if says("refused") => {
                "nobody listens there: check host and port, that Redis runs, and the addresses \
                 that it listens on (`bind` in its configuration)"
            }
            Step::Reach if says("lookup") || says("name") => {
                "the host's name is not known here: check it in URL, or use its IP address"
            }
            Step::Reach if says("no such file") => "check the path of the Unix socket in URL",
            Step::Reach if says("permission denied") => {
                "let the user that kvredis runs as use the socket (`unixsocketperm`)"
            }
            Step::Reach => {
                "check host and port, and firewalls on the way; a slow network may need a higher \
                 BACKEND_CONNECTION_TIMEOUT_MS"
            }
            Step::Tls if says("not from an authority") => {
                "set TLS_CA to the certificate of the authority that signed the server's (PEM \
                 text, or an absolute path)"
            }
            Step::Tls if says("not for the name") => {
                "use a host in URL that the certificate names, or have one made for this host"
            }
            Step::Tls if says("expired") || says("not valid yet") => {
                "renew the server's certificate, and check the clocks of both machines"
            }
            Step::Tls if says("speak TLS") || says("closed") || says("within") => {
                "without TLS the URL begins with redis://; else use the port that speaks TLS \
                 (`tls-port`)"
            }
            Step::Tls => "check TLS_CA, TLS_CERT and TLS_KEY, and the server's own certificate",
            Step::LogIn if says("WRONGPASS") => {
                "check user and password, in URL or in USERNAME, PASSWORD and PASSWORD_FILE, and \
                 that the user is on (`ACL LIST`)"
            }
            Step::LogIn if says("NOAUTH") => {
                "Redis wants a password: set PASSWORD or PASSWORD_FILE, and USERNAME for an ACL \
                 user"
            }
            Step::LogIn if says("without any password configured") => {
                "Redis has no password: leave it out of the settings, or set one in Redis"
            }
            Step::LogIn if says("PASSWORD_FILE") => {
                "put the password there, readable for the user that kvredis runs as"
            }
            Step::LogIn if says("DB index") => {
                "use a lower database number in URL, or raise `databases` in Redis's configuration"
            }
            Step::LogIn if says("DENIED") => {
                "Redis is in protected mode: set a password in Redis, or `protected-mode no`"
            }
            Step::LogIn if says("NOPERM") => {
                "allow the user what logging in takes: `+select` with a database number, \
                 `+readonly` for replicas of a cluster"
            }
            Step::LogIn if says("no connection within") => {
                "the server takes connections and does not answer: see whether it hangs, or is \
                 another service; a port that speaks TLS needs rediss://"
            }
            Step::LogIn if says("that the sentinels name") => {
                "a failover may be under way: try again in a moment"
            }
            Step::LogIn if says("LOADING") || says("BUSY") || says("MASTERDOWN") => {
                "this passes by itself: try again in a moment"
            }
            Step::LogIn => {
                "see whether it is a Redis that answers there; if its port speaks TLS, the URL \
                 begins with rediss://"
            }
        }
    }
}

fn is_local(host: &str) -> bool {
    host == "localhost" || host == "::1" || host.starts_with("127.")
}
