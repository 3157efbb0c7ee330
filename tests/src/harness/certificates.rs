//! Certificates for a server of a test, made anew each time.

use std::net::{IpAddr, Ipv4Addr};

use anyhow::Result;
use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, DnType, ExtendedKeyUsagePurpose, IsCa, KeyPair,
    KeyUsagePurpose, SanType,
};

/// A server's certificate for `localhost` and 127.0.0.1, and whom to trust.
#[derive(Debug)]
pub(super) struct Certificates {
    /// The authority that has signed it, as PEM.
    pub(super) authority: String,
    /// One of the same name that has not, as PEM.
    pub(super) other: String,
    /// The server's key and certificate, as PEM.
    pub(super) server: String,
    /// The server's key, as DER (PKCS #8).
    pub(super) key: Vec<u8>,
    /// The server's certificate, as DER.
    pub(super) certificate: Vec<u8>,
}

impl Certificates {
    pub(super) fn generate() -> Result<Self> {
        let (signing, other) = (authority()?, authority()?);
        let mut server = CertificateParams::new(vec!["localhost".to_owned()])?;
        server.subject_alt_names.push(SanType::IpAddress(IpAddr::V4(Ipv4Addr::LOCALHOST)));
        server.distinguished_name.push(DnType::CommonName, "localhost");
        server.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        server.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
        // Strict clients refuse a certificate that does not name its issuer's key.
        server.use_authority_key_identifier_extension = true;
        let key = KeyPair::generate()?;
        let certificate = server.signed_by(&key, &signing)?;
        Ok(Self {
            authority: signing.pem(),
            other: other.pem(),
            server: format!("{}{}", key.serialize_pem(), certificate.pem()),
            key: key.serialize_der(),
            certificate: certificate.der().to_vec(),
        })
    }
}

fn authority() -> Result<CertifiedIssuer<'static, KeyPair>> {
    let mut params = CertificateParams::new(Vec::new())?;
    params.distinguished_name.push(DnType::CommonName, "Authority of a test");
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    Ok(CertifiedIssuer::self_signed(params, KeyPair::generate()?)?)
}
