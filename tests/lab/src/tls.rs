//! A certificate nobody trusts: an authority of its own for each stand-in, and a leaf for the loopback names.

use std::sync::Arc;

use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair, KeyUsagePurpose};
use rustls::pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};
use tokio_rustls::TlsAcceptor;

/// An acceptor, and the authority's certificate in PEM for those who decide to trust it.
pub(crate) fn acceptor() -> (TlsAcceptor, String) {
    let why = "a certificate for fixed names can be made";
    let ca_key = KeyPair::generate().expect(why);
    let mut ca = CertificateParams::new(Vec::new()).expect(why);
    ca.distinguished_name.push(DnType::CommonName, "rekeyd lab authority");
    ca.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    ca.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    let ca_certificate = ca.self_signed(&ca_key).expect(why);
    let issuer = Issuer::new(ca, ca_key);

    let key = KeyPair::generate().expect(why);
    let mut leaf = CertificateParams::new(vec!["localhost".to_owned(), "127.0.0.1".to_owned()]).expect(why);
    leaf.distinguished_name.push(DnType::CommonName, "gis.example.com");
    let certificate = leaf.signed_by(&key, &issuer).expect(why);

    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let config = rustls::ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .expect("the provider speaks TLS 1.2 and 1.3")
        .with_no_client_auth()
        .with_single_cert(
            vec![certificate.der().clone()],
            PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(key.serialize_der())),
        )
        .expect("the leaf belongs to its key");
    (TlsAcceptor::from(Arc::new(config)), ca_certificate.pem())
}
