//! Passes on what nginx-sys found out about the nginx tree it was built for.
//!
//! nginx-sys reads `NGINX_SOURCE_DIR` and `NGINX_BUILD_DIR`, generates the bindings and publishes
//! the features of that nginx as `DEP_NGINX_*` variables to build scripts of crates that depend on
//! it directly.

use std::env;

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    println!("cargo::rerun-if-env-changed=DEP_NGINX_FEATURES_CHECK");
    println!("cargo::rerun-if-env-changed=DEP_NGINX_FEATURES");
    println!("cargo::rerun-if-env-changed=DEP_NGINX_VERSION");
    println!("cargo::rerun-if-env-changed=DEP_NGINX_VERSION_NUMBER");
    // nginx/1.22.1
    let version = env::var("DEP_NGINX_VERSION").unwrap_or_default();
    let number = version.rsplit('/').next().unwrap_or_default();
    println!("cargo::rustc-env=BUILT_FOR_NGINX={number}");
    println!(
        "cargo::rustc-check-cfg=cfg(ngx_feature, values({}))",
        env::var("DEP_NGINX_FEATURES_CHECK").unwrap_or_else(|_| "any()".to_string())
    );
    if let Ok(features) = env::var("DEP_NGINX_FEATURES") {
        for feature in features.split(',').map(str::trim) {
            println!("cargo::rustc-cfg=ngx_feature=\"{feature}\"");
        }
    }
    // since 1.27.3 nginx counts changes of an upstream's servers
    println!("cargo::rustc-check-cfg=cfg(nginx_peers_config)");
    let version = env::var("DEP_NGINX_VERSION_NUMBER").ok();
    let version = version.and_then(|number| number.trim().parse::<u32>().ok());
    let features = env::var("DEP_NGINX_FEATURES").unwrap_or_default();
    let shares = features
        .split(',')
        .any(|feature| feature.trim() == "http_upstream_zone");
    if shares && version.is_some_and(|version| version >= 1_027_003) {
        println!("cargo::rustc-cfg=nginx_peers_config");
    }
}
