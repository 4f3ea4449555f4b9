//! A broker that asks who is there: certificates made for one run, passwords, and a listener for every way to get in.
//!
//! ```text
//! authority ─signs─┬─ server    (localhost, 127.0.0.1)   TLS, MUTUAL_TLS, SASL_TLS
//!                  ├─ expired   (ended in 2020)          EXPIRED
//!                  ├─ elsewhere (another host's name)    ELSEWHERE
//!                  └─ client    (CN=windrow)             its key is for MUTUAL_TLS
//! stranger: an authority that has signed nothing here
//! ```
//!
//! [`USER`] may do everything, [`NOBODY`] may log in and do nothing. The plain listener is for the test itself.

use std::{
    fs,
    path::{Path, PathBuf},
};

use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, KeyUsagePurpose,
    date_time_ymd,
};
use tempfile::TempDir;

use super::{Broker, Options, Result, Started, jars::run};
use crate::{fail, skip};

/// Who may do everything.
pub const USER: &str = "alice";
/// The password of [`USER`], for PLAIN and SCRAM: a canary, which must not show anywhere.
pub const PASSWORD: &str = "canary-4f1d9b7c52";
/// Who may log in, with [`PASSWORD`] too, and is then allowed nothing unless [`Secure::allow`] says so.
pub const NOBODY: &str = "mallory";

/// A way to get in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Listener {
    /// TLS; the client needs no certificate.
    Tls,
    /// TLS; the client must show [`Secure::client_certificate`].
    MutualTls,
    /// A password or token, through TLS: PLAIN, SCRAM-SHA-256, SCRAM-SHA-512 or OAUTHBEARER (unsecured tokens).
    SaslTls,
    /// The same without encryption.
    Sasl,
    /// TLS with a certificate that has expired.
    Expired,
    /// TLS with a certificate of another host.
    Elsewhere,
}

impl Listener {
    const ALL: [Self; 6] = [Self::Tls, Self::MutualTls, Self::SaslTls, Self::Sasl, Self::Expired, Self::Elsewhere];

    /// Its name, its protocol, and its certificate, in the broker's settings.
    fn parts(self) -> (&'static str, &'static str, Option<&'static str>) {
        match self {
            Self::Tls => ("TLS", "SSL", Some("server")),
            Self::MutualTls => ("MUTUAL_TLS", "SSL", Some("server")),
            Self::SaslTls => ("SASL_TLS", "SASL_SSL", Some("server")),
            Self::Sasl => ("SASL", "SASL_PLAINTEXT", None),
            Self::Expired => ("EXPIRED", "SSL", Some("expired")),
            Self::Elsewhere => ("ELSEWHERE", "SSL", Some("elsewhere")),
        }
    }
}

/// A broker with listeners that ask for certificates and passwords.
pub struct Secure {
    broker: Broker,
    files: TempDir,
}

impl Broker {
    /// Starts a broker that asks who is there. None: skip the test.
    ///
    /// # Panics
    ///
    /// As [`Broker::own`].
    pub fn secure() -> Option<Secure> {
        match Secure::start(Options::default()) {
            Ok((Started::Here(broker), files)) => Some(Secure { broker, files }),
            Ok((Started::Skipped(reason), _)) => skip(&reason),
            Err(error) => fail(&error.to_string()),
        }
    }
}

impl Secure {
    fn start(options: Options) -> Result<(Started, TempDir)> {
        let files = tempfile::Builder::new().prefix("windrow-keys-").tempdir()?;
        make_certificates(files.path())?;
        Ok((settings(options, files.path()).start()?, files))
    }

    /// The broker, for topics and records; its own address is the plain listener.
    pub fn broker(&self) -> &Broker {
        &self.broker
    }

    /// Where clients reach a listener: `host:port`.
    ///
    /// # Errors
    ///
    /// Never for a broker that has started.
    pub fn address(&self, listener: Listener) -> Result<String> {
        self.broker.listener(listener.parts().0)
    }

    /// The authority that signed the certificates, as PEM.
    pub fn authority(&self) -> PathBuf {
        self.files.path().join("authority.pem")
    }

    /// An authority that signed none of them.
    pub fn stranger(&self) -> PathBuf {
        self.files.path().join("stranger.pem")
    }

    /// The certificate of a client.
    pub fn client_certificate(&self) -> PathBuf {
        self.files.path().join("client.pem")
    }

    /// The key to [`Secure::client_certificate`].
    pub fn client_key(&self) -> PathBuf {
        self.files.path().join("client.key")
    }

    /// The same key, encrypted with [`PASSWORD`].
    pub fn locked_client_key(&self) -> PathBuf {
        self.files.path().join("client.locked")
    }
}

fn settings(options: Options, files: &Path) -> Options {
    let login = |module: &str, rest: &str| format!("org.apache.kafka.common.security.{module} required {rest};");
    let plain = format!("user_{USER}=\"{PASSWORD}\" user_{NOBODY}=\"{PASSWORD}\"");
    let mut options = options
        .set("sasl.enabled.mechanisms", "PLAIN,SCRAM-SHA-256,SCRAM-SHA-512,OAUTHBEARER")
        .set("ssl.keystore.type", "PEM")
        .set("ssl.truststore.type", "PEM")
        .set("ssl.truststore.location", files.join("authority.pem").display())
        .set("listener.name.mutual_tls.ssl.client.auth", "required")
        .set("authorizer.class.name", "org.apache.kafka.metadata.authorizer.StandardAuthorizer")
        .set("super.users", format!("User:ANONYMOUS;User:CN=windrow;User:{USER}"));
    for listener in Listener::ALL {
        let (name, protocol, certificate) = listener.parts();
        let prefix = format!("listener.name.{}", name.to_lowercase());
        options = options.listener(name, protocol);
        if let Some(certificate) = certificate {
            let store = files.join(format!("{certificate}.store"));
            options = options.set(&format!("{prefix}.ssl.keystore.location"), store.display());
        }
        if protocol.starts_with("SASL") {
            let token = login("oauthbearer.OAuthBearerLoginModule", "unsecuredLoginStringClaim_sub=\"broker\"");
            options = options
                .set(&format!("{prefix}.plain.sasl.jaas.config"), login("plain.PlainLoginModule", &plain))
                .set(&format!("{prefix}.scram-sha-256.sasl.jaas.config"), login("scram.ScramLoginModule", ""))
                .set(&format!("{prefix}.scram-sha-512.sasl.jaas.config"), login("scram.ScramLoginModule", ""))
                .set(&format!("{prefix}.oauthbearer.sasl.jaas.config"), token);
        }
    }
    for mechanism in ["SCRAM-SHA-256", "SCRAM-SHA-512"] {
        let users = [USER, NOBODY].map(|user| format!("{mechanism}=[name={user},password={PASSWORD}]"));
        options.users.extend(users);
    }
    options
}

fn make_certificates(files: &Path) -> Result<()> {
    let authority = authority("windrow tests", &files.join("authority.pem"))?;
    self::authority("a stranger", &files.join("stranger.pem"))?;
    let here = ["localhost", "127.0.0.1"];
    let sign = |file: &str, name: &str, hosts: &[&str], until: i32| -> Result<()> {
        let key = KeyPair::generate()?;
        let mut params = CertificateParams::new(hosts.iter().map(|host| host.to_string()).collect::<Vec<_>>())?;
        params.distinguished_name.push(DnType::CommonName, name);
        params.not_before = date_time_ymd(2019, 1, 1);
        params.not_after = date_time_ymd(until, 1, 1);
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
        let certificate = params.signed_by(&key, &authority)?.pem();
        fs::write(files.join(format!("{file}.pem")), &certificate)?;
        fs::write(files.join(format!("{file}.key")), key.serialize_pem())?;
        // As the broker reads it: the key and then its certificate.
        Ok(fs::write(files.join(format!("{file}.store")), key.serialize_pem() + &certificate)?)
    };
    sign("server", "broker", &here, 2099)?;
    sign("expired", "broker", &here, 2020)?;
    sign("elsewhere", "broker", &["elsewhere.example"], 2099)?;
    sign("client", "windrow", &[], 2099)?;
    let words = ["pkcs8", "-topk8", "-in", "client.key", "-out", "client.locked", "-passout"];
    run(files, "openssl", words.into_iter().chain([format!("pass:{PASSWORD}").as_str()]))?;
    Ok(())
}

fn authority(name: &str, file: &Path) -> Result<Issuer<'static, KeyPair>> {
    let key = KeyPair::generate()?;
    let mut params = CertificateParams::default();
    params.distinguished_name.push(DnType::CommonName, name);
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    fs::write(file, params.self_signed(&key)?.pem())?;
    Ok(Issuer::new(params, key))
}
