//! The certificate we show where a web tier wants one, or sign with where a login wants that: read, checked as far as that goes
//! without asking anybody, and handed on.
//!
//! Does not look at dates or names in it: whether it is good enough is the other side's to say, and it does say.

use std::fmt;

use rustls::SignatureScheme;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::sign::CertifiedKey;
use zeroize::{Zeroize, Zeroizing};

use crate::model::{Reason, Secret};
use crate::ports::Fault;

/// A certificate with those between it and its authority; not secret.
#[derive(Clone, PartialEq, Eq)]
pub struct Chain {
    file: String,
    pem: Vec<u8>,
}

/// A chain and the private key of its first certificate.
#[derive(Clone, PartialEq, Eq)]
pub struct ClientIdentity {
    chain: Chain,
    key: Secret,
}

impl Chain {
    /// Reads a PEM file: our certificate first, then those that lead to its authority.
    ///
    /// # Errors
    /// [`Fault::Refused`] with `policy-mismatch`: it cannot be read, holds no certificate, or holds a private key.
    pub fn read(file: &str) -> Result<Self, Fault> {
        let refuse = |what: &str| mistake(format!("reading client_cert {file:?}: {what}"));
        // A key may stand in it by mistake: then this buffer is to be wiped as any other.
        let pem = Zeroizing::new(std::fs::read(file).map_err(|error| refuse(&error.to_string()))?);
        if PrivateKeyDer::pem_slice_iter(&pem).next().is_some_and(|key| key.is_ok()) {
            return Err(refuse("it holds a private key; keep that elsewhere and name it in client_key"));
        }
        let chain = Self { file: file.to_owned(), pem: pem.to_vec() };
        let certificates = chain.certificates().ok_or_else(|| refuse("not PEM"))?;
        let first = certificates.first().ok_or_else(|| refuse("no certificate in it"))?;
        rustls::server::ParsedCertificate::try_from(first)
            .map_err(|_| refuse("its first certificate cannot be read"))?;
        Ok(chain)
    }

    /// Adds the key. `named` opens the messages, as [`super::secrets::describe`] does.
    ///
    /// # Errors
    /// [`Fault::Refused`] with `policy-mismatch`: it is no private key in PEM, is encrypted, or belongs to another certificate.
    pub fn with_key(self, key: Secret, named: &str) -> Result<ClientIdentity, Fault> {
        let refuse = |what: String| mistake(format!("{named} for client_key: {what}"));
        let text = key.expose();
        if text.contains("ENCRYPTED") {
            return Err(refuse(
                "the key is encrypted; give it without a passphrase, as a systemd credential".to_owned(),
            ));
        }
        let parsed = PrivateKeyDer::from_pem_slice(text.as_bytes())
            .map_err(|_| refuse("no private key in it (PEM: PKCS#8, PKCS#1 or SEC1)".to_owned()))?;
        let certificates = self.certificates().unwrap_or_default();
        let provider = rustls::crypto::aws_lc_rs::default_provider();
        match CertifiedKey::from_der(certificates, parsed, &provider) {
            Ok(_) => Ok(ClientIdentity { chain: self, key }),
            Err(rustls::Error::InconsistentKeys(_)) => Err(refuse(format!(
                "this key belongs to another certificate than the first of client_cert {:?}",
                self.file
            ))),
            Err(_) => Err(refuse("the key cannot be used; RSA from 2048 bits, ECDSA and Ed25519 can".to_owned())),
        }
    }

    fn certificates(&self) -> Option<Vec<CertificateDer<'static>>> {
        CertificateDer::pem_slice_iter(&self.pem).collect::<Result<_, _>>().ok()
    }
}

impl ClientIdentity {
    /// The file of the certificate, as messages name it.
    pub fn file(&self) -> &str {
        &self.chain.file
    }

    /// The first certificate, as it was signed (DER).
    pub fn certificate(&self) -> Option<Vec<u8>> {
        Some(self.chain.certificates()?.first()?.to_vec())
    }

    /// The message signed as `PS256` of RFC 7518 (RSASSA-PSS, SHA-256, a salt as long as the hash); `None` where the key is no RSA key.
    pub fn sign_ps256(&self, message: &[u8]) -> Option<Vec<u8>> {
        let mut der = PrivateKeyDer::from_pem_slice(self.key.expose().as_bytes()).ok()?;
        let key = rustls::crypto::aws_lc_rs::sign::any_supported_type(&der);
        der.zeroize();
        key.ok()?.choose_scheme(&[SignatureScheme::RSA_PSS_SHA256])?.sign(message).ok()
    }

    /// For the client, which keeps a copy of the key of its own.
    pub(super) fn to_reqwest(&self) -> Result<reqwest::Identity, Fault> {
        let (chain, key) = (&self.chain.pem, self.key.expose().as_bytes());
        let mut both = Zeroizing::new(Vec::with_capacity(chain.len() + key.len() + 1));
        for part in [chain, &b"\n"[..], key] {
            both.extend_from_slice(part);
        }
        reqwest::Identity::from_pem(&both).map_err(|_| {
            mistake(format!("using client_cert {:?} with client_key: not PEM as it should be", self.file()))
        })
    }
}

impl fmt::Debug for Chain {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Chain").field("file", &self.file).finish_non_exhaustive()
    }
}

impl fmt::Debug for ClientIdentity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ClientIdentity").field("file", &self.chain.file).finish_non_exhaustive()
    }
}

fn mistake(why: String) -> Fault {
    Fault::Refused { reason: Reason::PolicyMismatch, why }
}
