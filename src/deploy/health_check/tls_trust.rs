//! TLS to a site whose certificate, or whose authority's, is in a file.
//!
//! A server that signed its certificate itself has one that is its own authority, as
//! `openssl req -x509` makes it. webpki takes no authority for a server. curl and OpenSSL do where
//! that very certificate is the one that is trusted, and so does this.

use std::io::{Read, Write};
use std::sync::Arc;

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::{WebPkiServerVerifier, verify_server_name};
use rustls::crypto::{CryptoProvider, ring};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::server::ParsedCertificate;
use rustls::{
    CertificateError, ClientConfig, ClientConnection, DigitallySignedStruct, RootCertStore,
    SignatureScheme, StreamOwned,
};
use ureq::unversioned::transport::{
    Buffers, ConnectionDetails, Connector, Either, LazyBuffers, NextTimeout, Transport,
    TransportAdapter,
};

/// Speaks TLS with sites that one of some certificates vouches for.
#[derive(Debug)]
pub struct Trust {
    config: Arc<ClientConfig>,
}

impl Trust {
    /// Trusts these certificates, in DER, and no others.
    ///
    /// # Errors
    /// None of them can be read.
    pub fn new(certificates: Vec<CertificateDer<'static>>) -> Result<Self, String> {
        let provider = Arc::new(ring::default_provider());
        let verifier = Verifier::new(certificates, provider.clone())?;
        let builder = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .map_err(|e| e.to_string())?;
        let config = builder
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(verifier))
            .with_no_client_auth();
        Ok(Self {
            config: Arc::new(config),
        })
    }
}

/// Verifies what a server shows.
#[derive(Debug)]
struct Verifier {
    usual: Arc<WebPkiServerVerifier>,
    trusted: Vec<CertificateDer<'static>>,
}

impl Verifier {
    fn new(
        trusted: Vec<CertificateDer<'static>>,
        provider: Arc<CryptoProvider>,
    ) -> Result<Self, String> {
        let mut roots = RootCertStore::empty();
        let _ = roots.add_parsable_certificates(trusted.iter().cloned());
        let usual = WebPkiServerVerifier::builder_with_provider(Arc::new(roots), provider);
        Ok(Self {
            usual: usual.build().map_err(|e| e.to_string())?,
            trusted,
        })
    }
}

/// Returns whether a certificate was refused for nothing but that it is that of an authority.
/// webpki looks at that behind the time.
fn is_authority(error: &rustls::Error) -> bool {
    let rustls::Error::InvalidCertificate(CertificateError::Other(other)) = error else {
        return false;
    };
    let error = other.0.downcast_ref::<webpki::Error>();
    error == Some(&webpki::Error::CaUsedAsEndEntity)
}

impl ServerCertVerifier for Verifier {
    fn verify_server_cert(
        &self,
        shown: &CertificateDer<'_>,
        others: &[CertificateDer<'_>],
        name: &ServerName<'_>,
        ocsp: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        let usual = self
            .usual
            .verify_server_cert(shown, others, name, ocsp, now);
        match usual {
            Err(error) if is_authority(&error) && self.trusted.iter().any(|own| own == shown) => {
                verify_server_name(&ParsedCertificate::try_from(shown)?, name)?;
                Ok(ServerCertVerified::assertion())
            }
            usual => usual,
        }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        shown: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.usual.verify_tls12_signature(message, shown, signed)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        shown: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.usual.verify_tls13_signature(message, shown, signed)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.usual.supported_verify_schemes()
    }
}

impl<In: Transport> Connector<In> for Trust {
    type Out = Either<In, Encrypted>;

    fn connect(
        &self,
        details: &ConnectionDetails<'_>,
        chained: Option<In>,
    ) -> Result<Option<Self::Out>, ureq::Error> {
        let Some(transport) = chained else {
            return Ok(None);
        };
        if !details.needs_tls() || transport.is_tls() {
            return Ok(Some(Either::A(transport)));
        }
        let host = details.uri.host().unwrap_or_default();
        let host = host.trim_start_matches('[').trim_end_matches(']');
        let name = ServerName::try_from(host.to_owned())
            .map_err(|_| ureq::Error::Tls("the URL's host is not a name for a certificate"))?;
        let mut connection = ClientConnection::new(self.config.clone(), name)?;
        let mut socket = TransportAdapter::new(transport.boxed(), details.current_time.clone());
        socket.set_timeout(details.timeout);
        connection.complete_io(&mut socket)?;
        Ok(Some(Either::B(Encrypted {
            buffers: LazyBuffers::new(
                details.config.input_buffer_size(),
                details.config.output_buffer_size(),
            ),
            stream: StreamOwned::new(connection, socket),
        })))
    }
}

/// A connection with TLS.
pub struct Encrypted {
    buffers: LazyBuffers,
    stream: StreamOwned<ClientConnection, TransportAdapter>,
}

impl std::fmt::Debug for Encrypted {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Encrypted").finish_non_exhaustive()
    }
}

impl Transport for Encrypted {
    fn buffers(&mut self) -> &mut dyn Buffers {
        &mut self.buffers
    }

    fn transmit_output(&mut self, amount: usize, timeout: NextTimeout) -> Result<(), ureq::Error> {
        self.stream.get_mut().set_timeout(timeout);
        let output = self.buffers.output().get(..amount).unwrap_or_default();
        Ok(self.stream.write_all(output)?)
    }

    fn await_input(&mut self, timeout: NextTimeout) -> Result<bool, ureq::Error> {
        self.stream.get_mut().set_timeout(timeout);
        let amount = self.stream.read(self.buffers.input_append_buf())?;
        self.buffers.input_appended(amount);
        Ok(amount > 0)
    }

    fn is_open(&mut self) -> bool {
        self.stream.get_mut().get_mut().is_open()
    }

    fn is_tls(&self) -> bool {
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::core::cancel::Cancel;

    use std::net::TcpListener;
    use std::time::Duration;

    use rustls::pki_types::PrivateKeyDer;
    use rustls::pki_types::pem::PemObject;
    use rustls::{ServerConfig, ServerConnection};

    use crate::deploy::health_check::{HealthCheck, HttpCheck};

    const OWN: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/certificates/own.pem");
    const KEY: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/certificates/own.key");
    const OTHER: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/certificates/other.pem");
    const LEAF: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/certificates/leaf.pem");
    /// Days since 1970, of days in 2020, 2030 and 2130.
    const DAYS: [u64; 3] = [18_300, 21_915, 58_500];

    fn certificate(path: &str) -> CertificateDer<'static> {
        CertificateDer::from_pem_file(path).expect("a certificate")
    }

    /// Returns whether a server with one certificate is trusted by who trusts another one.
    fn is_trusted(trusted: &str, shown: &str, name: &str, day: u64) -> bool {
        let provider = Arc::new(ring::default_provider());
        let verifier = Verifier::new(vec![certificate(trusted)], provider).expect("reads");
        let name = ServerName::try_from(name.to_owned()).expect("a name");
        let now = UnixTime::since_unix_epoch(Duration::from_secs(day * 86_400));
        let verified = verifier.verify_server_cert(&certificate(shown), &[], &name, &[], now);
        verified.is_ok()
    }

    #[test]
    fn a_self_signed_certificate_is_trusted_where_it_is_that_very_one() {
        let [before, within, after] = DAYS;
        for (trusted, shown, name, day, expected) in [
            (OWN, OWN, "localhost", within, true),
            (OWN, OWN, "127.0.0.1", within, true),
            (OWN, OWN, "example.org", within, false),
            // webpki looks at the time first: this holds it to that.
            (OWN, OWN, "localhost", before, false),
            (OWN, OWN, "localhost", after, false),
            (OWN, OTHER, "localhost", within, false),
            (OTHER, OWN, "localhost", within, false),
            (OWN, LEAF, "localhost", within, true),
            (OWN, LEAF, "localhost", after, false),
            (OTHER, LEAF, "localhost", within, false),
            (LEAF, OWN, "localhost", within, false),
        ] {
            let case = format!("{trusted} {shown} {name} {day}");
            assert_eq!(is_trusted(trusted, shown, name, day), expected, "{case}");
        }
    }

    /// Answers one request with TLS.
    fn site() -> (u16, std::thread::JoinHandle<()>) {
        let listener = TcpListener::bind("127.0.0.1:0").expect("binds");
        let port = listener.local_addr().expect("an address").port();
        let key = PrivateKeyDer::from_pem_file(KEY).expect("a key");
        let config = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
            .with_safe_default_protocol_versions()
            .expect("versions")
            .with_no_client_auth()
            .with_single_cert(vec![certificate(OWN)], key)
            .expect("fits");
        let serves = std::thread::spawn(move || {
            let (socket, _) = listener.accept().expect("a client");
            let server = ServerConnection::new(Arc::new(config)).expect("begins");
            let mut stream = StreamOwned::new(server, socket);
            let mut request = [0; 1024];
            // A client that does not trust us says nothing.
            if stream.read(&mut request).is_ok_and(|count| count > 0) {
                let answer = b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nhello";
                let _ = stream.write_all(answer).and_then(|()| stream.flush());
            }
        });
        (port, serves)
    }

    #[test]
    fn a_site_with_a_certificate_of_its_own_is_asked() {
        for (ca, host, expected) in [
            (Some(OWN), "localhost", true),
            (Some(OWN), "127.0.0.1", true),
            (Some(OTHER), "localhost", false),
            (None, "localhost", false),
        ] {
            let (port, serves) = site();
            let check = HttpCheck {
                url: format!("https://{host}:{port}/"),
                status: 200,
                contains: Some("hello".into()),
                ca: ca.map(str::to_owned),
                ..HttpCheck::default()
            };
            // One try.
            let wait = HealthCheck::http(check, Duration::from_secs(5), Duration::from_secs(10));
            let result = wait.wait_until_ok(&Cancel::default());
            assert_eq!(result.is_ok(), expected, "{ca:?} {host} {result:?}");
            serves.join().expect("ends");
        }
    }
}
