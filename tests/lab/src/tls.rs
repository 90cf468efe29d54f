//! A certificate nobody trusts: an authority of its own for each stand-in, and a leaf for the loopback names; or one that signed
//! itself. And certificates for clients, where a stand-in wants them.

use std::sync::Arc;

use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, KeyUsagePurpose,
};
use rustls::RootCertStore;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};
use rustls::server::WebPkiClientVerifier;
use tokio_rustls::TlsAcceptor;

const WHY: &str = "a certificate for fixed names can be made";

/// A certificate that signed itself, as a fresh ArcGIS shows one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SelfSigned {
    /// The only name in it.
    pub name: String,
    /// CA:TRUE, as `openssl req -x509` makes them.
    pub is_authority: bool,
}

/// What a stand-in needs to be spoken to, in PEM.
#[derive(Clone, Debug)]
pub(crate) struct Papers {
    /// Who trusts this trusts the stand-in: its authority, or the certificate itself.
    pub(crate) ca: String,
    /// A certificate and its key that the stand-in accepts of a client.
    pub(crate) client: (String, String),
}

/// An acceptor, and the papers for those who decide to trust it.
pub(crate) fn acceptor(self_signed: Option<&SelfSigned>, demands_certificate: bool) -> (TlsAcceptor, Papers) {
    let ca_key = KeyPair::generate().expect(WHY);
    let mut ca = CertificateParams::new(Vec::new()).expect(WHY);
    ca.distinguished_name.push(DnType::CommonName, "rekeyd lab authority");
    ca.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    ca.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    let ca_certificate = ca.self_signed(&ca_key).expect(WHY);
    let issuer = Issuer::new(ca, ca_key);

    let key = KeyPair::generate().expect(WHY);
    let (certificate, trusted) = match self_signed {
        Some(one) => {
            let mut params = CertificateParams::new(vec![one.name.clone()]).expect(WHY);
            params.distinguished_name.push(DnType::CommonName, one.name.as_str());
            if one.is_authority {
                params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
            }
            let certificate = params.self_signed(&key).expect(WHY);
            let pem = certificate.pem();
            (certificate, pem)
        }
        None => {
            let names = ["localhost", "127.0.0.1", "gis.example.com"].map(str::to_owned).to_vec();
            let mut leaf = CertificateParams::new(names).expect(WHY);
            leaf.distinguished_name.push(DnType::CommonName, "gis.example.com");
            (leaf.signed_by(&key, &issuer).expect(WHY), ca_certificate.pem())
        }
    };

    let client_key = KeyPair::generate().expect(WHY);
    let mut client = CertificateParams::new(Vec::new()).expect(WHY);
    client.distinguished_name.push(DnType::CommonName, "rotator");
    client.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
    let client = (client.signed_by(&client_key, &issuer).expect(WHY).pem(), client_key.serialize_pem());

    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let config = rustls::ServerConfig::builder_with_provider(provider.clone())
        .with_safe_default_protocol_versions()
        .expect("the provider speaks TLS 1.2 and 1.3");
    let config = if demands_certificate {
        let mut roots = RootCertStore::empty();
        roots.add(ca_certificate.der().clone()).expect(WHY);
        let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider).build().expect(WHY);
        config.with_client_cert_verifier(verifier)
    } else {
        config.with_no_client_auth()
    };
    let chain: Vec<CertificateDer<'static>> = vec![certificate.der().clone()];
    let key = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(key.serialize_der()));
    let config = config.with_single_cert(chain, key).expect("the leaf belongs to its key");
    (TlsAcceptor::from(Arc::new(config)), Papers { ca: trusted, client })
}
