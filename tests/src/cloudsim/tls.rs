//! The server over https: a certificate authority of its own, made at the start, and a listener that
//! hands out connections whose handshake is done.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result};
use axum::serve::Listener;
use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, DnType, ExtendedKeyUsagePurpose, IsCa, KeyPair,
    KeyUsagePurpose,
};
use rustls::ServerConfig;
use rustls::pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;

/// What a client must trust, and what the server shows.
pub(super) struct Identity {
    pub(super) ca_pem: String,
    config: Arc<ServerConfig>,
}

impl Identity {
    /// A new one, good for `localhost` and the loopback addresses.
    pub(super) fn generate() -> Result<Self> {
        let mut authority = CertificateParams::new(Vec::new()).context("cannot describe a certificate authority")?;
        authority.distinguished_name.push(DnType::CommonName, "Simulated cloud");
        authority.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        authority.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        let key = KeyPair::generate().context("cannot make a key")?;
        let authority =
            CertifiedIssuer::self_signed(authority, key).context("cannot sign the certificate authority")?;

        let names = ["localhost", "127.0.0.1", "::1"].map(str::to_owned).to_vec();
        let mut server = CertificateParams::new(names).context("cannot describe the certificate")?;
        server.distinguished_name.push(DnType::CommonName, "localhost");
        server.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        server.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        // Strict clients refuse a certificate that does not name its issuer's key.
        server.use_authority_key_identifier_extension = true;
        let key = KeyPair::generate().context("cannot make a key")?;
        let certificate = server.signed_by(&key, &authority).context("cannot sign the certificate")?;

        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let mut config = ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .context("no version of TLS is to be had")?
            .with_no_client_auth()
            .with_single_cert(
                vec![certificate.der().clone()],
                PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(key.serialize_der())),
            )
            .context("the certificate does not fit its key")?;
        config.alpn_protocols = vec![b"http/1.1".to_vec()];
        Ok(Self { ca_pem: authority.pem(), config: Arc::new(config) })
    }

    /// Takes connections. A client that is slow in the handshake, or breaks it off, holds up nobody else.
    pub(super) fn listen(&self, listener: TcpListener) -> TlsListener {
        let acceptor = TlsAcceptor::from(self.config.clone());
        let address = listener.local_addr();
        let (ready, connections) = mpsc::channel(16);
        tokio::spawn(async move {
            loop {
                let accepted = tokio::select! {
                    accepted = listener.accept() => accepted,
                    () = ready.closed() => return,
                };
                let Ok((stream, peer)) = accepted else {
                    // Out of descriptors, most likely; others may give theirs back meanwhile.
                    tokio::time::sleep(Duration::from_millis(50)).await;
                    continue;
                };
                // Without it, answers come late, not wrong.
                let _ = stream.set_nodelay(true);
                let (acceptor, ready) = (acceptor.clone(), ready.clone());
                tokio::spawn(async move {
                    if let Ok(stream) = acceptor.accept(stream).await {
                        // An error means that the server has stopped.
                        let _ = ready.send((stream, peer)).await;
                    }
                });
            }
        });
        TlsListener { connections, address }
    }
}

/// A listener for [`axum::serve`].
pub(super) struct TlsListener {
    connections: mpsc::Receiver<(TlsStream<TcpStream>, SocketAddr)>,
    address: io::Result<SocketAddr>,
}

impl Listener for TlsListener {
    type Io = TlsStream<TcpStream>;
    type Addr = SocketAddr;

    async fn accept(&mut self) -> (Self::Io, Self::Addr) {
        match self.connections.recv().await {
            Some(connection) => connection,
            // The task above ends after this listener only.
            None => std::future::pending().await,
        }
    }

    fn local_addr(&self) -> io::Result<Self::Addr> {
        self.address.as_ref().copied().map_err(|error| io::Error::new(error.kind(), error.to_string()))
    }
}
