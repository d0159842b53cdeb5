//! Takes a CouchDB's `local.ini` as it is: what [`Setting`] knows of it.
//!
//! It lies over the defaults and under everything else. Values are CouchDB's, times in the unit of their key. Keys that have no
//! meaning here are left alone (`interval`, `auth_plugins`, and `ssl_certificate_max_depth`, since rustls has a limit of its
//! own); a value that can't be taken is an error that names its section and key and never shows a password.

use super::Config;
use super::keys::Setting;

/// What is wrong in the file, and in which line.
pub(super) struct BadLine {
    /// Counted from 1.
    pub line: usize,
    /// Without the line's own text.
    pub problem: String,
}

/// Lays a file over the settings.
pub(super) fn lay_over(text: &str, config: &mut Config) -> Result<(), BadLine> {
    let mut section = "";
    let mut says_proxy_use_secret = false;
    for (line, text) in (1..).zip(text.lines()) {
        let text = text.trim();
        let wrong = |problem: String| BadLine { line, problem };
        if text.is_empty() || text.starts_with(';') {
            continue;
        }
        if let Some(name) = text.strip_prefix('[').and_then(|text| text.strip_suffix(']')) {
            section = name.trim();
            continue;
        }
        let (key, value) = text.split_once('=').ok_or_else(|| wrong("expected `key = value`".into()))?;
        // As in CouchDB, a semicolon after a space begins a comment.
        let (key, value) = (key.trim(), value.split(" ;").next().unwrap_or_default().trim());
        says_proxy_use_secret |= key == "proxy_use_secret";
        let taken = match (section, key, Setting::named(section, key)) {
            ("replicator", "password", _) => Err("belongs to an encrypted key, which can't be read: decrypt the key"),
            ("jwt_auth", "roles_claim_path", _) => Err("can't be had, roles_claim_name can"),
            // It has more words than these.
            ("log", "level", Some(setting)) => setting.set(config, value).or(Ok(())),
            (.., Some(setting)) => setting.set(config, value),
            (.., None) => Ok(()),
        };
        taken.map_err(|problem| wrong(format!("[{section}] {key} {problem}")))?;
    }
    if let Some(problem) = config.replicator.tls.problem() {
        return Err(BadLine { line: text.lines().count(), problem: format!("[replicator] {problem}") });
    }
    // CouchDB's default, for proxies that it lets in.
    if config.auth.handlers.proxy && !says_proxy_use_secret {
        config.auth.proxy.use_secret = false;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

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
        assert!(auth.handlers.proxy && !auth.proxy.use_secret, "as CouchDB's");
        assert_eq!((auth.jwt.keys.len(), auth.jwt.required_claims.iss.as_deref()), (1, Some("me")));
        let proxy =
            read("[chttpd]\nauthentication_handlers = {couch_httpd_auth, cookie_authentication_handler}\n").unwrap();
        assert!(!proxy.auth.handlers.proxy && proxy.auth.proxy.use_secret);
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
