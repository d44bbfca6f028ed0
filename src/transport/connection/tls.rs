//! TLS of one connection: what a handshake is asked for, OpenSSL's part of it, and what makes one
//! TLS connection another than the next.

use std::ffi::{CStr, c_int, c_void};
use std::ptr::{self, NonNull};
use std::rc::Rc;

use nginx_sys::{
    EVP_PKEY, EVP_PKEY_free, EVP_PKEY_up_ref, EVP_sha256, NGX_AGAIN, NGX_OK, NGX_SSL_BUFFER,
    NGX_SSL_CLIENT, OPENSSL_STACK, OPENSSL_sk_free, OPENSSL_sk_num, OPENSSL_sk_pop,
    OPENSSL_sk_value, SSL_CTRL_CHAIN_CERT, SSL_CTRL_SET_TLSEXT_HOSTNAME,
    SSL_CTRL_SET_TLSEXT_STATUS_REQ_TYPE, SSL_SESSION, SSL_SESSION_free, SSL_SESSION_up_ref,
    SSL_ctrl, SSL_get_verify_result, SSL_use_PrivateKey, SSL_use_certificate,
    TLSEXT_NAMETYPE_host_name, TLSEXT_STATUSTYPE_ocsp, X509, X509_V_OK, X509_chain_up_ref,
    X509_digest, X509_free, X509_verify_cert_error_string, ngx_create_pool, ngx_destroy_pool,
    ngx_int_t, ngx_ssl_check_host, ngx_ssl_connection_t, ngx_ssl_create_connection,
    ngx_ssl_get_session, ngx_ssl_handshake, ngx_ssl_set_session, ngx_ssl_shutdown, ngx_ssl_t,
    ngx_str_t,
};

use crate::nginx::Request;
use crate::transport::connection::handlers::handlers;
use crate::transport::connection::nginx_connection::NgxConnection;
use crate::transport::error::Error;
use crate::transport::log::log_socket_error;

// SAFETY: may be called at any time.
unsafe extern "C" {
    safe fn ERR_clear_error();
}

/// Longest name of a server in SNI, in bytes.
pub const MAX_SERVER_NAME: usize = 255;

/// What a handshake is asked for (`tcpsock:sslhandshake`).
#[derive(Clone, Debug)]
pub struct Handshake {
    /// A session to resume, if any.
    pub session: Option<Rc<TlsSession>>,
    /// For SNI and, if verified, for the certificate to match.
    pub server_name: Option<Vec<u8>>,
    /// Whether the certificate must be good.
    pub verify: bool,
    /// Whether to ask for an OCSP status.
    pub status_request: bool,
    /// Where the object is connected to, as `connect` was told.
    pub host: Vec<u8>,
    /// The port that `connect` was told; 0 with a unix socket.
    pub port: u16,
    /// A certificate of ours, if any.
    pub certificate: Option<Rc<Certificate>>,
}

impl Handshake {
    /// Host and port that `connect` was told.
    pub fn peer(&self) -> (&[u8], u16) {
        (&self.host, self.port)
    }
}

/// A TLS session, held for as long as it is needed.
#[derive(Debug)]
pub struct TlsSession(NonNull<SSL_SESSION>);

impl TlsSession {
    /// # Safety
    ///
    /// `session` is live.
    pub unsafe fn hold(session: NonNull<SSL_SESSION>) -> TlsSession {
        // SAFETY: by this function's contract.
        unsafe { SSL_SESSION_up_ref(session.as_ptr()) };
        TlsSession(session)
    }
}

impl Drop for TlsSession {
    fn drop(&mut self) {
        // SAFETY: the reference is its own.
        unsafe { SSL_SESSION_free(self.0.as_ptr()) };
    }
}

/// A certificate with its chain and its key, held as long as they are needed.
#[derive(Debug)]
pub struct Certificate {
    /// `STACK_OF(X509)`
    chain: NonNull<OPENSSL_STACK>,
    key: NonNull<EVP_PKEY>,
}

impl Certificate {
    /// `None`: no memory.
    ///
    /// # Safety
    ///
    /// `chain` is a live `STACK_OF(X509)`, `key` a live `EVP_PKEY`.
    pub unsafe fn hold(chain: NonNull<c_void>, key: NonNull<c_void>) -> Option<Certificate> {
        // SAFETY: by this function's contract.
        unsafe {
            let chain = NonNull::new(X509_chain_up_ref(chain.as_ptr().cast()))?;
            let key = key.cast::<EVP_PKEY>();
            EVP_PKEY_up_ref(key.as_ptr());
            Some(Certificate {
                chain: chain.cast(),
                key,
            })
        }
    }

    /// The certificates, the leaf first.
    fn get(&self, at: c_int) -> Result<NonNull<X509>, Error> {
        // SAFETY: the chain is live; an index out of range gives null.
        let certificate = unsafe { OPENSSL_sk_value(self.chain.as_ptr(), at) };
        NonNull::new(certificate.cast()).ok_or_else(|| failed("invalid client certificate chain"))
    }
}

impl Drop for Certificate {
    fn drop(&mut self) {
        // SAFETY: the references are its own.
        unsafe {
            while let Some(certificate) = NonNull::new(OPENSSL_sk_pop(self.chain.as_ptr())) {
                X509_free(certificate.as_ptr().cast());
            }
            OPENSSL_sk_free(self.chain.as_ptr());
            EVP_PKEY_free(self.key.as_ptr());
        }
    }
}

/// What a TLS connection was made with and to: connections that differ in it are never mixed.
#[derive(Debug, PartialEq, Eq)]
pub struct Tls {
    host: Vec<u8>,
    port: u16,
    /// The location's context: trusted certificates, protocols and so on.
    pub context: usize,
    server_name: Option<Vec<u8>>,
    verify: bool,
    /// SHA-256 of our certificate.
    certificate: Option<[u8; 32]>,
}

/// A handshake to be done, and the identity that the connection has after it.
pub type Pending = (Handshake, Rc<Tls>);

impl Tls {
    /// Whether it was made with this host.
    pub fn is_to(&self, host: &[u8], port: u16) -> bool {
        self.host == host && self.port == port
    }
}

impl Handshake {
    pub fn identity(&self, context: NonNull<ngx_ssl_t>) -> Result<Tls, Error> {
        let certificate = match &self.certificate {
            None => None,
            Some(certificate) => {
                let mut digest = [0; 32];
                let leaf = certificate.get(0)?.as_ptr();
                // SAFETY: the certificate is live; a SHA-256 has 32 bytes.
                let done = unsafe {
                    X509_digest(leaf, EVP_sha256(), digest.as_mut_ptr(), ptr::null_mut())
                };
                if done == 0 {
                    return Err(failed("ssl fetch client certificate from chain failed"));
                }
                Some(digest)
            }
        };
        Ok(Tls {
            host: self.host.clone(),
            port: self.port,
            context: context.addr().get(),
            server_name: self.server_name.clone(),
            verify: self.verify,
            certificate,
        })
    }
}

/// Names that cannot go into SNI, or not into a log line.
pub fn is_bad_name(name: &[u8]) -> bool {
    name.is_empty() || name.len() > MAX_SERVER_NAME || name.iter().any(u8::is_ascii_control)
}

impl NgxConnection {
    /// Gives it its TLS part.
    pub fn add_tls(&mut self, handshake: &Handshake, context: usize) -> Result<(), Error> {
        let c = self.as_ptr();
        let context = ptr::with_exposed_provenance_mut::<ngx_ssl_t>(context);
        let ok = NGX_OK as ngx_int_t;
        // SAFETY: the connection is open, and has no TLS part yet; the context belongs to the
        // configuration of the request that waits for this. What the handshake holds is live.
        unsafe {
            if (*c).pool.is_null() {
                (*c).pool = ngx_create_pool(256, (*c).log);
                if (*c).pool.is_null() {
                    return Err(Error::NoMemory);
                }
            }
            let flags = (NGX_SSL_BUFFER | NGX_SSL_CLIENT) as usize;
            if ngx_ssl_create_connection(context, c, flags) != ok {
                return Err(failed("failed to create ssl connection"));
            }
            (*c).set_sendfile(0);
            let ssl = (*(*c).ssl).connection;
            if let Some(session) = &handshake.session
                && ngx_ssl_set_session(c, session.0.as_ptr()) != ok
            {
                return Err(failed("ssl set session failed"));
            }
            if let Some(certificate) = &handshake.certificate {
                if SSL_use_certificate(ssl, certificate.get(0)?.as_ptr()) == 0 {
                    return Err(failed("ssl set client certificate failed"));
                }
                for at in 1..OPENSSL_sk_num(certificate.chain.as_ptr()) {
                    // SSL_add1_chain_cert
                    let added = SSL_ctrl(
                        ssl,
                        SSL_CTRL_CHAIN_CERT as c_int,
                        1,
                        certificate.get(at)?.as_ptr().cast(),
                    );
                    if added == 0 {
                        return Err(failed("ssl set client intermediate certificate failed"));
                    }
                }
                if SSL_use_PrivateKey(ssl, certificate.key.as_ptr()) == 0 {
                    return Err(failed("ssl set client private key failed"));
                }
            }
            if let Some(name) = &handshake.server_name {
                let name = [name, &b"\0"[..]].concat();
                // SSL_set_tlsext_host_name
                let set = SSL_ctrl(
                    ssl,
                    SSL_CTRL_SET_TLSEXT_HOSTNAME as c_int,
                    TLSEXT_NAMETYPE_host_name as _,
                    name.as_ptr().cast_mut().cast(),
                );
                if set == 0 {
                    return Err(failed("SSL_set_tlsext_host_name failed"));
                }
            }
            if handshake.status_request {
                // SSL_set_tlsext_status_type
                SSL_ctrl(
                    ssl,
                    SSL_CTRL_SET_TLSEXT_STATUS_REQ_TYPE as c_int,
                    TLSEXT_STATUSTYPE_ocsp as _,
                    ptr::null_mut(),
                );
            }
        }
        Ok(())
    }

    /// Begins or goes on with the handshake (`ngx_ssl_handshake`). True: it is over, successfully
    /// or not. False: nginx calls the handler when it is.
    pub fn handshake(&mut self) -> bool {
        let c = self.as_ptr();
        // SAFETY: the connection is open, and has its TLS part.
        unsafe {
            let again = ngx_ssl_handshake(c) == NGX_AGAIN as ngx_int_t;
            if again {
                (*(*c).ssl).handler = Some(handlers().handshake);
            }
            !again
        }
    }

    /// nginx's part of TLS, if there is one.
    fn ssl(&self) -> Option<&ngx_ssl_connection_t> {
        // SAFETY: the connection is open; its TLS part lives as long, and no reference to it is
        // kept across a call of nginx.
        unsafe { (*self.as_ptr()).ssl.as_ref() }
    }

    pub fn has_handshaken(&self) -> bool {
        self.ssl().is_some_and(|ssl| ssl.handshaked() != 0)
    }

    /// A reference to its TLS session, which is the caller's to free; null if there is none.
    pub fn tls_session(&self) -> *mut SSL_SESSION {
        match self.has_handshaken() {
            // SAFETY: the connection is open and has its TLS part.
            true => unsafe { ngx_ssl_get_session(self.as_ptr()) },
            false => ptr::null_mut(),
        }
    }

    /// Checks that the peer's certificate is valid and, if there is a `server_name`, that it was
    /// issued for that name.
    pub fn verify(
        &self,
        server_name: Option<&[u8]>,
        request: Option<Request>,
    ) -> Result<(), Error> {
        let c = self.as_ptr();
        // SAFETY: the connection has done its handshake; the texts of codes are static.
        let (code, text) = unsafe {
            let code = SSL_get_verify_result((*(*c).ssl).connection);
            let text = CStr::from_ptr(X509_verify_cert_error_string(code));
            (code, text.to_string_lossy())
        };
        if code != X509_V_OK as std::ffi::c_long {
            log_socket_error(
                request,
                self.peer(),
                "lua ssl certificate verify error",
                format_args!(": ({code}: {text})"),
            );
            return Err(Error::Tls(format!("{code}: {text}")));
        }
        let Some(name) = server_name else {
            return Ok(());
        };
        let mut text = ngx_str_t {
            len: name.len(),
            data: name.as_ptr().cast_mut(),
        };
        // SAFETY: as above; the name is only read.
        if unsafe { ngx_ssl_check_host(c, &mut text) } != NGX_OK as ngx_int_t {
            log_socket_error(
                request,
                self.peer(),
                "lua ssl certificate does not match host",
                format_args!(" \"{}\"", String::from_utf8_lossy(name)),
            );
            return Err(failed("certificate host mismatch"));
        }
        Ok(())
    }

    /// Ends its TLS part, if it has one. Sends no close_notify alert, as cosockets do not.
    pub fn end_tls(&mut self) {
        let c = self.as_ptr();
        // SAFETY: the connection is open; nginx frees what belongs to TLS.
        unsafe {
            if !(*c).ssl.is_null() {
                (*(*c).ssl).set_no_wait_shutdown(1);
                (*(*c).ssl).set_no_send_shutdown(1);
                ngx_ssl_shutdown(c);
            }
            if !(*c).pool.is_null() {
                ngx_destroy_pool((*c).pool);
                (*c).pool = ptr::null_mut();
            }
        }
    }
}

/// An error of this text. OpenSSL's own errors are forgotten, or nginx would report them as stale
/// later.
pub fn failed(text: &str) -> Error {
    ERR_clear_error();
    Error::Tls(text.to_owned())
}
