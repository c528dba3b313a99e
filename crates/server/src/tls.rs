//! The manager's side of TLS: its certificate, made at the first start, and which clients it trusts.
//!
//! TLS 1.2 and 1.3 by rustls over ring; agents of the contract bring OpenSSL, whose usual suites contain ours.
//! Invariant: a key is never readable by more than its owner and group, and an existing file is never replaced.

use std::io;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rcgen::{CertificateParams, DnType, ExtendedKeyUsagePurpose, KeyPair, KeyUsagePurpose};
use rustls::crypto::ring;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::server::{ParsedCertificate, WebPkiClientVerifier};
use rustls::{RootCertStore, ServerConfig};
use tld_model::{Timestamp, Zone};
use tld_sys::durable;

use crate::registry::replace_secret;

/// Most bytes of a file with certificates or a key.
const FILE_LIMIT: usize = 1 << 20;
/// Validity of a certificate of ours; agents that verify it have to be given the next one by hand.
const YEARS: i32 = 10;

/// Where certificates and keys are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Files {
    /// The manager's certificate and the chain above it, PEM.
    pub certificate: PathBuf,
    /// Its key, PEM.
    pub key: PathBuf,
    /// Certificates of the authorities whose clients are let in; none = every client.
    pub client_authority: Option<PathBuf>,
}

/// TLS cannot be set up.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// A file cannot be read or written.
    #[error("cannot {verb} `{path}`: {source}")]
    File {
        /// What was tried.
        verb: &'static str,
        /// The file.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// Not PEM, or without what it should hold.
    #[error("`{path}` holds no usable {what}: {reason}")]
    Content {
        /// The file.
        path: PathBuf,
        /// What was looked for.
        what: &'static str,
        /// Why it is not usable.
        reason: String,
    },
    /// One of the pair is there and the other is not.
    #[error("`{present}` exists, but `{missing}` does not; remove it to have both made anew")]
    Half {
        /// The one that is there.
        present: PathBuf,
        /// The one that is not.
        missing: PathBuf,
    },
    /// No certificate could be made.
    #[error("cannot make a certificate: {0}")]
    Make(#[from] rcgen::Error),
    /// Certificate and key do not fit together.
    #[error("cannot serve with `{path}`: {source}")]
    Serve {
        /// The certificate.
        path: PathBuf,
        /// Why not.
        source: rustls::Error,
    },
}

/// Makes a certificate that names `host` and `addresses` and is signed by itself, unless there is one. True if it was made.
///
/// # Errors
/// Only one of the two files exists, or they cannot be written.
pub fn ensure_certificate(
    files: &Files,
    host: &str,
    addresses: &[IpAddr],
    now: Timestamp,
) -> Result<bool, TlsError> {
    match (files.certificate.exists(), files.key.exists()) {
        (true, true) => return Ok(false),
        (true, false) => return Err(half(&files.certificate, &files.key)),
        (false, true) => return Err(half(&files.key, &files.certificate)),
        (false, false) => {}
    }
    let mut names = vec![host.to_owned()];
    names.extend(addresses.iter().map(IpAddr::to_string));
    let mut params = CertificateParams::new(names)?;
    params.distinguished_name.push(DnType::CommonName, host);
    params.distinguished_name.push(DnType::OrganizationName, "ThreatLockDown");
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    // A day back, for agents whose clocks are behind.
    let from = Zone::utc().local(Timestamp::from_secs(now.secs().saturating_sub(86_400)));
    // February has its 28th in every year.
    params.not_before = rcgen::date_time_ymd(from.year, from.month, from.day.min(28));
    params.not_after = rcgen::date_time_ymd(from.year + YEARS, from.month, from.day.min(28));
    let key = KeyPair::generate_for(&rcgen::PKCS_ECDSA_P256_SHA256)?;
    let certificate = params.self_signed(&key)?;
    let text = zeroize::Zeroizing::new(key.serialize_pem());
    replace_secret(&files.key, text.as_bytes()).map_err(failed("write", &files.key))?;
    replace_secret(&files.certificate, certificate.pem().as_bytes()).map_err(|error| {
        // Half a pair would keep the next start from making one.
        let _ = std::fs::remove_file(&files.key);
        failed("write", &files.certificate)(error)
    })?;
    Ok(true)
}

/// What a listener needs.
///
/// # Errors
/// A file cannot be read or holds something else.
pub fn server_config(files: &Files) -> Result<Arc<ServerConfig>, TlsError> {
    let provider = Arc::new(ring::default_provider());
    let chain = certificates(&files.certificate)?;
    let pem = zeroize::Zeroizing::new(read(&files.key)?);
    let key = PrivateKeyDer::from_pem_slice(&pem).map_err(content(&files.key, "private key"))?;
    let serve = |source| TlsError::Serve { path: files.certificate.clone(), source };
    let builder = ServerConfig::builder_with_provider(Arc::clone(&provider))
        .with_safe_default_protocol_versions()
        .map_err(serve)?;
    let builder = match &files.client_authority {
        None => builder.with_no_client_auth(),
        Some(path) => {
            let mut roots = RootCertStore::empty();
            for certificate in certificates(path)? {
                roots.add(certificate).map_err(content(path, "certificate"))?;
            }
            let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider);
            builder.with_client_cert_verifier(verifier.build().map_err(content(path, "certificate"))?)
        }
    };
    let mut config = builder.with_single_cert(chain, key).map_err(serve)?;
    // One request per connection: there is nothing to resume.
    config.send_tls13_tickets = 0;
    config.session_storage = Arc::new(rustls::server::NoServerSessionStorage {});
    Ok(Arc::new(config))
}

/// Whether a verified client's certificate names the address that it comes from.
pub fn names_address(certificate: &CertificateDer<'_>, address: IpAddr) -> bool {
    let name = ServerName::IpAddress(address.to_canonical().into());
    ParsedCertificate::try_from(certificate)
        .is_ok_and(|parsed| rustls::client::verify_server_name(&parsed, &name).is_ok())
}

fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let pem = read(path)?;
    let all = CertificateDer::pem_slice_iter(&pem)
        .collect::<Result<Vec<_>, _>>()
        .map_err(content(path, "certificate"))?;
    if all.is_empty() { Err(content(path, "certificate")("there is none in it")) } else { Ok(all) }
}

fn read(path: &Path) -> Result<Vec<u8>, TlsError> {
    durable::read_bounded(path, FILE_LIMIT).map_err(failed("read", path))
}

fn half(present: &Path, missing: &Path) -> TlsError {
    TlsError::Half { present: present.into(), missing: missing.into() }
}

fn failed(verb: &'static str, path: &Path) -> impl FnOnce(io::Error) -> TlsError + use<> {
    let path = path.to_path_buf();
    move |source| TlsError::File { verb, path, source }
}

fn content<E: std::fmt::Display>(path: &Path, what: &'static str) -> impl FnOnce(E) -> TlsError + use<E> {
    let path = path.to_path_buf();
    move |reason| TlsError::Content { path, what, reason: reason.to_string() }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::MetadataExt;

    use super::*;

    fn files(home: &Path) -> Files {
        Files {
            certificate: home.join("sslmanager.cert"),
            key: home.join("sslmanager.key"),
            client_authority: None,
        }
    }

    fn make(files: &Files) -> Result<bool, TlsError> {
        let addresses = ["192.0.2.1".parse().unwrap(), "2001:db8::1".parse().unwrap()];
        ensure_certificate(files, "manager", &addresses, Timestamp::from_secs(1_750_000_000))
    }

    #[test]
    fn a_certificate_is_made_once_and_serves() {
        let home = tempfile::tempdir().unwrap();
        let files = files(home.path());
        assert!(make(&files).unwrap());
        let key = std::fs::read(&files.key).unwrap();
        assert!(!make(&files).unwrap());
        assert_eq!(std::fs::read(&files.key).unwrap(), key);
        assert_eq!(std::fs::metadata(&files.key).unwrap().mode() & 0o777, 0o640);
        server_config(&files).unwrap();
        let certificate = certificates(&files.certificate).unwrap().remove(0);
        assert!(names_address(&certificate, "::ffff:192.0.2.1".parse().unwrap()));
        assert!(names_address(&certificate, "2001:db8::1".parse().unwrap()));
        assert!(!names_address(&certificate, "192.0.2.2".parse().unwrap()));
    }

    #[test]
    fn half_a_pair_is_an_error_and_stays() {
        let home = tempfile::tempdir().unwrap();
        let files = files(home.path());
        make(&files).unwrap();
        std::fs::remove_file(&files.certificate).unwrap();
        assert!(matches!(make(&files), Err(TlsError::Half { .. })));
        assert!(files.key.exists());
    }

    #[test]
    fn files_without_what_they_should_hold_are_named() {
        let home = tempfile::tempdir().unwrap();
        let files = files(home.path());
        make(&files).unwrap();
        durable::replace(&files.certificate, b"nothing", 0o640).unwrap();
        let error = server_config(&files).unwrap_err().to_string();
        assert!(error.contains("sslmanager.cert` holds no usable certificate"), "{error}");
    }
}
