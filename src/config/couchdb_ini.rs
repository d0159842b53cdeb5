//! Takes a CouchDB's `local.ini` as it is: `[replicator]`, `[admins]`, `[cors]`, what is said of logins in `[chttpd]`,
//! `[chttpd_auth]`, `[jwt_auth]` and `[jwt_keys]`, and some keys of `[couchdb]`.
//!
//! It lies over the defaults and under everything else. Numbers are CouchDB's: times in milliseconds. Keys of other
//! sections are left alone, and so are keys of `[replicator]` that have no meaning here (`max_jobs`, `auth_plugins`, and
//! `ssl_certificate_max_depth`, since rustls has a limit of its own); a value that can't be taken is an error that names
//! its section and key and never shows a password.

use std::time::Duration;

use secrecy::SecretString;

use super::auth::{Auth, Jwt, JwtKey};
use super::connection::Tls;
use super::cors::{Cors, list};
use super::{Admin, Config};

/// What is wrong in the file, and in which line.
pub(super) struct Problem {
    /// Counted from 1.
    pub line: usize,
    /// Without the line's own text.
    pub problem: String,
}

/// Lays a file over the settings.
pub(super) fn lay_over(text: &str, config: &mut Config) -> Result<(), Problem> {
    let (mut section, mut admins) = (String::new(), Vec::new());
    let mut tls = Tls::default();
    // CouchDB's default, for proxies that it lets in.
    let mut proxy_use_secret = false;
    for (line, text) in (1..).zip(text.lines()) {
        let text = text.trim();
        let wrong = |problem: String| Problem { line, problem };
        if text.is_empty() || text.starts_with(';') {
            continue;
        }
        if let Some(name) = text.strip_prefix('[').and_then(|text| text.strip_suffix(']')) {
            section = name.trim().to_owned();
            continue;
        }
        let (key, value) = text.split_once('=').ok_or_else(|| wrong("expected `key = value`".into()))?;
        // As in CouchDB, a semicolon after a space begins a comment.
        let value = value.split(" ;").next().unwrap_or_default().trim();
        let key = key.trim();
        let taken = match section.as_str() {
            "admins" => Admin::new(key, value).map(|admin| admins.push(admin)),
            "couchdb" if key == "uuid" => {
                config.uuid = Some(value.to_owned());
                Ok(())
            }
            "couchdb" if key == "users_db_security_editable" => {
                boolean(value).map(|editable| config.users_db_security_editable = editable)
            }
            "chttpd" if key == "enable_cors" => boolean(value).map(|enabled| config.cors.enabled = enabled),
            "cors" => cors(key, value, &mut config.cors),
            "chttpd" | "chttpd_auth" | "couch_httpd_auth" => auth(key, value, &mut config.auth, &mut proxy_use_secret),
            "jwt_auth" => jwt(key, value, &mut config.auth.jwt),
            "jwt_keys" => JwtKey::new(key, value).map(|key| config.auth.jwt.keys.push(key)),
            "replicator" => replicator(key, value, config, &mut tls),
            _ => Ok(()),
        };
        taken.map_err(|problem| wrong(format!("[{section}] {key} {problem}")))?;
    }
    if let Some(problem) = tls.problem() {
        return Err(Problem { line: text.lines().count(), problem: format!("[replicator] {problem}") });
    }
    config.replicator.tls = tls.over(&config.replicator.tls);
    if !admins.is_empty() {
        config.admins = admins;
    }
    if config.auth.proxy.enabled {
        config.auth.proxy.use_secret = proxy_use_secret;
    }
    Ok(())
}

fn replicator(key: &str, value: &str, config: &mut Config, tls: &mut Tls) -> Result<(), &'static str> {
    let to = &mut config.replicator;
    match key {
        "worker_processes" => to.worker_processes = positive(value)?,
        "worker_batch_size" => to.worker_batch_size = positive(value)?,
        "http_connections" => to.http_connections = positive(value)?,
        "connection_timeout" => to.connection_timeout = Duration::from_millis(positive(value)?),
        "checkpoint_interval" => to.checkpoint_interval = Duration::from_millis(positive(value)?),
        "retries_per_request" => to.retries_per_request = positive(value)?,
        "socket_options" => to.socket_options = value.parse()?,
        "verify_ssl_certificates" => tls.verify_ssl_certificates = Some(boolean(value)?),
        "ssl_trusted_certificates_file" => tls.ssl_trusted_certificates_file = Some(value.into()),
        "cert_file" => tls.cert_file = Some(value.into()),
        "key_file" => tls.key_file = Some(value.into()),
        "password" => return Err("belongs to an encrypted key, which can't be read: decrypt the key"),
        _ => {}
    }
    Ok(())
}

fn cors(key: &str, value: &str, to: &mut Cors) -> Result<(), &'static str> {
    let lower = |value: &str| list(&value.to_ascii_lowercase());
    match key {
        "origins" => to.origins = list(value),
        "credentials" => to.credentials = boolean(value)?,
        "headers" => to.headers = lower(value),
        "methods" => to.methods = list(value),
        "exposed_headers" => to.exposed_headers = lower(value),
        "max_age" => to.max_age = Duration::from_secs(positive(value)?),
        _ => {}
    }
    Ok(())
}

fn auth(key: &str, value: &str, to: &mut Auth, proxy_use_secret: &mut bool) -> Result<(), &'static str> {
    let text = || (!value.is_empty()).then(|| value.to_owned());
    match key {
        "timeout" => to.timeout = Duration::from_secs(positive(value)?),
        "secret" => to.secret = text().map(SecretString::from),
        "iterations" => to.iterations = positive::<u32>(value)?.try_into().map_err(|_| "must be a positive integer")?,
        "allow_persistent_cookies" => to.allow_persistent_cookies = boolean(value)?,
        "cookie_domain" => to.cookie_domain = text(),
        "same_site" => to.same_site = text().map(|when| when.parse()).transpose()?,
        "require_valid_user" => to.require_valid_user = boolean(value)?,
        "require_valid_user_except_for_up" => to.require_valid_user_except_for_up = boolean(value)?,
        "authentication_handlers" => to.proxy.enabled = value.contains("proxy_authentication_handler"),
        "proxy_use_secret" => *proxy_use_secret = boolean(value)?,
        "x_auth_username" => to.proxy.x_auth_username = value.to_owned(),
        "x_auth_roles" => to.proxy.x_auth_roles = value.to_owned(),
        "x_auth_token" => to.proxy.x_auth_token = value.to_owned(),
        _ => {}
    }
    Ok(())
}

fn jwt(key: &str, value: &str, to: &mut Jwt) -> Result<(), &'static str> {
    match key {
        "required_claims" => to.required_claims = value.parse()?,
        "roles_claim_name" => to.roles_claim_name = value.to_owned(),
        "roles_claim_path" => return Err("can't be had, roles_claim_name can"),
        _ => {}
    }
    Ok(())
}

fn positive<N: std::str::FromStr + Default + PartialEq>(value: &str) -> Result<N, &'static str> {
    value.parse().ok().filter(|number| *number != N::default()).ok_or("must be a positive integer")
}

fn boolean(value: &str) -> Result<bool, &'static str> {
    value.parse().map_err(|_| "must be true or false")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Result<Config, String> {
        let mut config = Config::default();
        lay_over(text, &mut config).map(|()| config).map_err(|wrong| format!("{}: {}", wrong.line, wrong.problem))
    }

    #[test]
    fn a_local_ini_is_taken_as_it_is() {
        let config = read(
            "; CouchDB Configuration Settings\n\n[couchdb]\nuuid = 0123456789abcdef0123456789abcdef\nmax_document_size = 9\n\
             [admins]\nadmin = s3=c;ret ; not hashed yet\n\
             hashed = -pbkdf2-96af052aaa3384add6895c65f483a9148b13c678,921a12f74df0c1052b3e562a23cd227f,10\n[chttpd]\nport = 5984\n\
             [replicator]\nhttp_connections=7\nconnection_timeout = 1500\nsocket_options = [{keepalive, false}]\n\
             verify_ssl_certificates = false\nmax_jobs = 500\n",
        )
        .unwrap();
        assert_eq!(config.uuid.as_deref(), Some("0123456789abcdef0123456789abcdef"));
        assert_eq!(config.admins[0].name, "admin");
        assert!(config.admins[0].password.is("s3=c;ret"));
        assert_eq!(config.admins[1].name, "hashed");
        assert!(config.admins[1].password.is("pass wörd"));
        assert_eq!(config.replicator.http_connections, 7);
        assert_eq!(config.replicator.connection_timeout, Duration::from_millis(1500));
        assert!(!config.replicator.socket_options.keepalive);
        assert_eq!(config.replicator.tls.verify_ssl_certificates, Some(false));
        assert_eq!(config.replicator.worker_processes, Config::default().replicator.worker_processes);
    }

    #[test]
    fn logins_are_taken_as_couchdb_has_them() {
        let auth = read(
            "[chttpd]\nrequire_valid_user = true\nauthentication_handlers = {chttpd_auth, proxy_authentication_handler}, x\n\
             [chttpd_auth]\ntimeout = 60\nsecret = s3cret\nsame_site = Lax\niterations = 10\nallow_persistent_cookies = false\n\
             [jwt_auth]\nrequired_claims = exp, {iss, \"me\"}\n[jwt_keys]\nhmac:_default = aGVsbG8=\n",
        )
        .unwrap()
        .auth;
        assert_eq!((auth.timeout, auth.iterations.get()), (Duration::from_secs(60), 10));
        assert!(auth.secret.is_some() && auth.require_valid_user && !auth.allow_persistent_cookies);
        assert_eq!(auth.same_site, Some(crate::config::auth::SameSite::Lax));
        assert!(auth.proxy.enabled && !auth.proxy.use_secret, "as CouchDB's");
        assert_eq!((auth.jwt.keys.len(), auth.jwt.required_claims.iss.as_deref()), (1, Some("me")));
        let proxy =
            read("[chttpd]\nauthentication_handlers = {couch_httpd_auth, cookie_authentication_handler}\n").unwrap();
        assert!(!proxy.auth.proxy.enabled && proxy.auth.proxy.use_secret);
    }

    #[test]
    fn what_can_not_be_taken_is_named_with_its_line_and_without_secrets() {
        let problem = |text: &str| read(text).unwrap_err();
        assert!(problem("[admins]\nroot = -pbkdf2-s3cret,salt,10\n").starts_with("2: [admins] root has a broken hash"));
        assert!(problem("[admins]\nroot =\n").starts_with("2: [admins] root has an empty password"));
        assert_eq!(
            problem("[replicator]\n\nworker_processes = 0\n"),
            "3: [replicator] worker_processes must be a positive integer"
        );
        assert!(problem("[replicator]\nsocket_options = [{linger, 1}]").contains("socket_options may have keepalive"));
        assert!(!problem("[replicator]\npassword = s3cret").contains("s3cret"));
        assert_eq!(problem("s3cret"), "1: expected `key = value`");
    }
}
