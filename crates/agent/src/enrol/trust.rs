//! Whether the manager's certificate is believed, and our own one.

use std::path::Path;
use std::sync::Arc;

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, ring, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use rustls::server::ParsedCertificate;
use rustls::{ClientConfig, DigitallySignedStruct, RootCertStore, SignatureScheme};
use tld_config::Enrollment;
use tld_sys::durable;

use super::EnrolError;

const FILE: usize = 1 << 20;

/// The name that the session asks for. A host that is neither a name nor an address is verified under none.
pub(super) fn server_name(host: &str) -> ServerName<'static> {
    let fallback = ServerName::try_from("manager").map(|name| name.to_owned());
    match (ServerName::try_from(host.to_owned()), fallback) {
        (Ok(name), _) | (Err(_), Ok(name)) => name,
        (Err(_), Err(_)) => ServerName::IpAddress(std::net::Ipv4Addr::UNSPECIFIED.into()),
    }
}

pub(super) fn config(
    home: &Path,
    settings: &Enrollment,
    host: &str,
) -> Result<Arc<ClientConfig>, EnrolError> {
    let provider = Arc::new(ring::default_provider());
    let failed = |reason: rustls::Error| EnrolError::Setting(format!("no TLS: {reason}"));
    let roots = match &settings.server_ca_path {
        None => None,
        Some(path) => Some(certificates(&home.join(path))?),
    };
    if roots.is_some() && ServerName::try_from(host.to_owned()).is_err() {
        return Err(EnrolError::Setting(format!("`{host}` is no name that a certificate could have")));
    }
    let verifier = match roots {
        None => Verifier { provider: Arc::clone(&provider), trusted: None },
        Some(certificates) => {
            let mut store = RootCertStore::empty();
            store.add_parsable_certificates(certificates.iter().cloned());
            Verifier { provider: Arc::clone(&provider), trusted: Some((store, certificates)) }
        }
    };
    let builder = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(failed)?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(verifier));
    let config = match (&settings.agent_certificate_path, &settings.agent_key_path) {
        (Some(certificate), Some(key)) => {
            let chain = certificates(&home.join(certificate))?;
            let path = home.join(key);
            let bad = |reason: String| EnrolError::File { path: path.clone(), reason };
            let pem = durable::read_bounded(&path, FILE).map_err(|error| bad(error.to_string()))?;
            let pem = zeroize::Zeroizing::new(pem);
            let key = PrivateKeyDer::from_pem_slice(&pem).map_err(|error| bad(error.to_string()))?;
            builder.with_client_auth_cert(chain, key).map_err(failed)?
        }
        _ => builder.with_no_client_auth(),
    };
    Ok(Arc::new(config))
}

fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, EnrolError> {
    let bad = |reason: String| EnrolError::File { path: path.to_path_buf(), reason };
    let pem = durable::read_bounded(path, FILE).map_err(|error| bad(error.to_string()))?;
    let all = CertificateDer::pem_slice_iter(&pem)
        .collect::<Result<Vec<_>, _>>()
        .map_err(|error| bad(error.to_string()))?;
    if all.is_empty() { Err(bad("there is no certificate in it".into())) } else { Ok(all) }
}

/// Takes any certificate, or those that lead to a trusted one and name the host.
#[derive(Debug)]
struct Verifier {
    provider: Arc<CryptoProvider>,
    trusted: Option<(RootCertStore, Vec<CertificateDer<'static>>)>,
}

impl ServerCertVerifier for Verifier {
    fn verify_server_cert(
        &self,
        certificate: &CertificateDer<'_>,
        chain: &[CertificateDer<'_>],
        name: &ServerName<'_>,
        _stapled: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        let Some((roots, pinned)) = &self.trusted else { return Ok(ServerCertVerified::assertion()) };
        let parsed = ParsedCertificate::try_from(certificate)?;
        // A certificate that was handed to us as the authority itself needs nobody else's word.
        if !pinned.iter().any(|known| known.as_ref() == certificate.as_ref()) {
            let algorithms = self.provider.signature_verification_algorithms.all;
            rustls::client::verify_server_cert_signed_by_trust_anchor(
                &parsed, roots, chain, now, algorithms,
            )?;
        }
        rustls::client::verify_server_name(&parsed, name)?;
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        verify_tls12_signature(message, certificate, signed, algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        verify_tls13_signature(message, certificate, signed, algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}
