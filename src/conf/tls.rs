//! SSL contexts of locations, made of ngx_lua's `lua_ssl_*` directives.

use std::cell::RefCell;
use std::ptr::{self, NonNull};

use nginx_sys::{
    NGX_LOG_EMERG, NGX_LOG_WARN, NGX_OK, SSL_CTX_set_cipher_list, ngx_int_t, ngx_pcalloc,
    ngx_pool_cleanup_add, ngx_ssl_certificates, ngx_ssl_cleanup_ctx, ngx_ssl_conf_commands,
    ngx_ssl_create, ngx_ssl_crl, ngx_ssl_error, ngx_ssl_t, ngx_ssl_trusted_certificate, ngx_str_t,
};

use crate::nginx::{Conf, Log};
use crate::ngx_lua::TlsSettings;

/// The SSL context for TLS handshakes in a location.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Context {
    /// The loaded ngx_lua has no TLS.
    None,
    /// The directives in the http block could not be applied. If only `init_worker_by_lua*` can use
    /// them, nginx starts nevertheless.
    Unusable,
    /// It belongs to the configuration.
    Made(NonNull<ngx_ssl_t>),
}

/// The settings of a context as text. Locations with equal settings share a context.
type Recipe = Vec<u8>;

/// The contexts of the configuration that is being read.
struct Contexts(RefCell<Vec<(Recipe, NonNull<ngx_ssl_t>)>>);

// SAFETY: nginx reads its configuration in one thread.
unsafe impl Sync for Contexts {}

static CONTEXTS: Contexts = Contexts(RefCell::new(Vec::new()));

/// Forgets the contexts of a configuration, which owns them.
pub fn forget() {
    CONTEXTS.0.take();
}

/// The context for the location that is being merged, see [`TlsSettings::being_merged`]. `None` if
/// it cannot be made; the reason was logged.
pub fn context(cf: Conf) -> Option<Context> {
    match TlsSettings::being_merged(cf) {
        None => Some(Context::None),
        Some(settings) => context_of(cf, settings, cf.log()).map(Context::Made),
    }
}

/// The context for the http block, see [`TlsSettings::of_http_block`]. Locations with the same
/// settings share it.
pub fn http_context(cf: Conf) -> Context {
    let Some(settings) = TlsSettings::of_http_block(cf) else {
        return Context::None;
    };
    // each location may have other settings, so this is not an error
    let Some(context) = cf.quietly(|quiet| context_of(quiet, settings, cf.log())) else {
        cf.log().write(
            NGX_LOG_WARN,
            0,
            format_args!(
                "lua_ssl_* directives of the http block cannot be applied: \
                 timers of init_worker_by_lua* can do no TLS handshakes with memcached"
            ),
        );
        return Context::Unusable;
    };
    Context::Made(context)
}

/// The settings are those of the configuration, and so is the log, which the context has later.
fn context_of(cf: Conf, mut settings: TlsSettings, log: Log) -> Option<NonNull<ngx_ssl_t>> {
    for name in [&mut settings.trusted_certificate, &mut settings.crl] {
        if name.len != 0 && !cf.complete_path(name) {
            return None;
        }
    }
    let recipe = recipe(&settings);
    let known = CONTEXTS
        .0
        .borrow()
        .iter()
        .find_map(|(other, context)| (*other == recipe).then_some(*context));
    if known.is_some() {
        return known;
    }
    let context = create(cf, settings, log)?;
    CONTEXTS.0.borrow_mut().push((recipe, context));
    Some(context)
}

fn recipe(settings: &TlsSettings) -> Recipe {
    let mut recipe = format!("{} {} ", settings.protocols, settings.verify_depth).into_bytes();
    let mut add = |text: &ngx_str_t| {
        recipe.extend_from_slice(format!("{}:", text.len).as_bytes());
        recipe.extend_from_slice(text.as_bytes());
    };
    add(&settings.ciphers);
    add(&settings.trusted_certificate);
    add(&settings.crl);
    for pair in settings.conf_commands.as_slice() {
        add(&pair.key);
        add(&pair.value);
    }
    for files in [settings.certificates, settings.certificate_keys] {
        files.as_slice().iter().for_each(&mut add);
    }
    recipe
}

/// Makes a context, step by step as ngx_lua does.
fn create(cf: Conf, mut settings: TlsSettings, log: Log) -> Option<NonNull<ngx_ssl_t>> {
    let ok = NGX_OK as ngx_int_t;
    let (certificates, keys) = (
        settings.certificates.as_ptr(),
        settings.certificate_keys.as_ptr(),
    );
    let cf = cf.as_ptr();
    // SAFETY: the configuration being read has a pool and a log, and the settings are its own.
    unsafe {
        let context = NonNull::new(ngx_pcalloc((*cf).pool, size_of::<ngx_ssl_t>()))?;
        let context = context.cast::<ngx_ssl_t>();
        let ssl = context.as_ptr();
        (*ssl).log = (*cf).log;
        if ngx_ssl_create(ssl, settings.protocols, ptr::null_mut()) != ok {
            return None;
        }
        let cleanup = ngx_pool_cleanup_add((*cf).pool, 0);
        if cleanup.is_null() {
            ngx_ssl_cleanup_ctx(ssl.cast());
            return None;
        }
        (*cleanup).handler = Some(ngx_ssl_cleanup_ctx);
        (*cleanup).data = ssl.cast();
        if SSL_CTX_set_cipher_list((*ssl).ctx, settings.ciphers.data.cast()) == 0 {
            ngx_ssl_error(
                NGX_LOG_EMERG as usize,
                (*cf).log,
                0,
                c"SSL_CTX_set_cipher_list(\"%V\") failed"
                    .as_ptr()
                    .cast_mut(),
                &raw const settings.ciphers,
            );
            return None;
        }
        if !certificates.is_null()
            && !keys.is_null()
            && ngx_ssl_certificates(cf, ssl, certificates, keys, ptr::null_mut()) != ok
        {
            return None;
        }
        if settings.trusted_certificate.len != 0
            && ngx_ssl_trusted_certificate(
                cf,
                ssl,
                &mut settings.trusted_certificate,
                settings.verify_depth,
            ) != ok
        {
            return None;
        }
        if ngx_ssl_crl(cf, ssl, &mut settings.crl) != ok
            || ngx_ssl_conf_commands(cf, ssl, settings.conf_commands.as_ptr()) != ok
        {
            return None;
        }
        (*ssl).log = log.as_ptr();
        Some(context)
    }
}
