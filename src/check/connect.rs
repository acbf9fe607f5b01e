//! The connection to one server, step by step (TCP, TLS, login), with advice for each step that
//! fails. `topology` chooses the servers.

use std::time::{Duration, Instant};

use crate::check::report::{Finding, Status};
use crate::redis::connect_error::{ConnectError, ConnectErrorKind};
use crate::redis::diagnostics;
use crate::redis::diagnostics::Probe;
use crate::redis::options::ConnectOptions;
use crate::redis::selector::ServerSelector;
use crate::redis::transport::ServerAddr;
use crate::settings::tls::Tls;

const NO_SENTINEL: &str = "the URL must name sentinels, by default on port 26379; for a single \
     server use redis://host:port";
const NO_REDIS: &str = "check that the server is Redis; if its port speaks TLS, the \
     URL begins with rediss://";

/// A server on which the check has logged in.
pub(crate) struct ProbedNode {
    pub(crate) selector: ServerSelector,
    pub(crate) addr: ServerAddr,
    pub(crate) probe: Probe,
    pub(crate) took: Duration,
    /// The version of TLS; `None` where it is not used.
    pub(crate) tls: Option<String>,
}

#[derive(Debug)]
pub(crate) struct FailedStep {
    pub(crate) step: Step,
    pub(crate) why: ConnectError,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Step {
    Sentinels,
    Reach,
    Tls,
    LogIn,
}

impl ProbedNode {
    /// Takes all steps to the server.
    pub(crate) async fn open(
        options: &ConnectOptions,
        selector: ServerSelector,
    ) -> Result<Self, FailedStep> {
        let failed = |step: Step| move |why: ConnectError| FailedStep { step, why };
        let addr = diagnostics::resolve(options, &selector)
            .await
            .map_err(failed(Step::Sentinels))?;
        let started = Instant::now();
        diagnostics::dial_only(options, &addr)
            .await
            .map_err(failed(Step::Reach))?;
        let took = started.elapsed();
        let tls = diagnostics::tls_version(options, &addr)
            .await
            .map_err(failed(Step::Tls))?;
        let probe = diagnostics::open(options, &selector)
            .await
            .map_err(failed(Step::LogIn))?;
        Ok(Self {
            selector,
            addr,
            probe,
            took,
            tls,
        })
    }

    pub(crate) fn reachable(&self) -> Finding {
        let milliseconds = self.took.as_secs_f64() * 1_000.0;
        let text = format!(
            "{} accepted the connection within {milliseconds:.1} ms",
            self.addr
        );
        Finding::new("reachable", Status::Ok, text)
            .detail("server", self.addr.to_string())
            .detail("milliseconds", milliseconds)
    }

    pub(crate) fn tls(&self, settings: &Tls) -> Finding {
        let Some(version) = &self.tls else {
            let text = match &self.addr {
                ServerAddr::Unix(_) => "not used on a Unix socket",
                ServerAddr::Tcp(endpoint) if is_local(&endpoint.host) => {
                    "not used, on this machine"
                }
                ServerAddr::Tcp(_) => "not used: passwords and data can be read on the way",
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

impl FailedStep {
    /// The findings: the steps before it, which succeeded, and the one that failed.
    pub(crate) fn findings(self, server: &str) -> Vec<Finding> {
        let mut findings = Vec::new();
        if matches!(self.step, Step::Tls | Step::LogIn) {
            let text = format!("{server} accepts connections");
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
                format!("cannot reach {server}: {}", self.why.message())
            }
            Step::Tls | Step::LogIn => self.why.message().to_owned(),
        };
        findings.push(Finding::new(name, Status::Failed, text).advice(advice));
        findings
    }

    pub(crate) fn advice(&self) -> &'static str {
        // Redis uses the code ERR for many errors, which only the message distinguishes.
        let says = |words: &str| self.why.message().contains(words);
        match (self.step, self.why.kind()) {
            (Step::Sentinels, ConnectErrorKind::UnknownMaster) => {
                "set sentinelServiceName in URL to what the sentinels call it (`SENTINEL MASTERS`)"
            }
            (Step::Sentinels, ConnectErrorKind::Refused(code))
                if code == "NOAUTH" || code == "WRONGPASS" =>
            {
                "set sentinelUsername and sentinelPassword in URL to those of the sentinels"
            }
            (Step::Sentinels, ConnectErrorKind::NotASentinel) => NO_SENTINEL,
            (Step::Sentinels, ConnectErrorKind::Refused(_)) if says("unknown command") => {
                NO_SENTINEL
            }
            (Step::Sentinels, _) => "check the hosts and ports of the sentinels, and that they run",
            (Step::Reach, ConnectErrorKind::ConnectionRefused) => {
                "no process listens there: check host and port, that Redis runs, and the addresses \
                 that it listens on (`bind` in its configuration)"
            }
            (Step::Reach, ConnectErrorKind::Dns) => {
                "the host's name is not known here: check it in URL, or use its IP address"
            }
            (Step::Reach, ConnectErrorKind::SocketNotFound) => {
                "check the path of the Unix socket in URL"
            }
            (Step::Reach, ConnectErrorKind::SocketPermission) => {
                "let the user that kvredis runs as use the socket (`unixsocketperm`)"
            }
            (Step::Reach, _) => {
                "check host and port, and firewalls on the way; a slow network may need a higher \
                 BACKEND_CONNECTION_TIMEOUT_MS"
            }
            (Step::Tls, ConnectErrorKind::UnknownIssuer) => {
                "set TLS_CA to the certificate of the authority that signed the server's (PEM \
                 text, or an absolute path)"
            }
            (Step::Tls, ConnectErrorKind::NameMismatch) => {
                "use a host in URL that the certificate names, or have one made for this host"
            }
            (Step::Tls, ConnectErrorKind::CertificateExpired) => {
                "renew the server's certificate, and check the clocks of both machines"
            }
            (
                Step::Tls,
                ConnectErrorKind::NotTls
                | ConnectErrorKind::ClosedByPeer
                | ConnectErrorKind::Timeout,
            ) => {
                "without TLS the URL begins with redis://; else use the port that speaks TLS \
                 (`tls-port`)"
            }
            (Step::Tls, _) => {
                "check TLS_CA, TLS_CERT and TLS_KEY, and the server's own certificate"
            }
            (Step::LogIn, ConnectErrorKind::PasswordFile) => {
                "put the password there, readable for the user that kvredis runs as"
            }
            (Step::LogIn, ConnectErrorKind::Timeout) => {
                "the server accepts connections but does not reply: check whether it hangs, or is \
                 another service; a port that speaks TLS needs rediss://"
            }
            (Step::LogIn, ConnectErrorKind::WrongRole) => {
                "a failover may be under way: try again in a moment"
            }
            (Step::LogIn, ConnectErrorKind::NotReady) if says("max number of clients") => {
                "check which clients have so many connections (`CLIENT LIST`), or raise `maxclients` in \
                 Redis's configuration"
            }
            (Step::LogIn, ConnectErrorKind::NotReady) => "this is transient: try again in a moment",
            (Step::LogIn, ConnectErrorKind::Refused(code)) => match code.as_str() {
                "WRONGPASS" => {
                    "check user and password, in URL or in USERNAME, PASSWORD and PASSWORD_FILE, \
                     and that the user is on (`ACL LIST`)"
                }
                "NOAUTH" => {
                    "Redis requires a password: set PASSWORD or PASSWORD_FILE, and USERNAME for an \
                     ACL user"
                }
                "NOPERM" => {
                    "allow the user the commands of the handshake: `+select` with a database number, \
                     `+readonly` for replicas of a cluster"
                }
                "DENIED" => {
                    "Redis is in protected mode: set a password in Redis, or `protected-mode no`"
                }
                _ if says("without any password configured") => {
                    "Redis has no password: leave it out of the settings, or set one in Redis"
                }
                _ if says("not allowed in cluster mode") => {
                    "this is a node of a cluster: its URL begins with redis-cluster:// and has no \
                     database number"
                }
                _ if says("DB index") => {
                    "use a lower database number in URL, or raise `databases` in Redis's \
                     configuration; for a cluster the URL begins with redis-cluster://"
                }
                _ => NO_REDIS,
            },
            (Step::LogIn, _) => NO_REDIS,
        }
    }
}

fn is_local(host: &str) -> bool {
    host == "localhost" || host == "::1" || host.starts_with("127.")
}
