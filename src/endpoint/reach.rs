//! Whether an endpoint may be connected to, as far as it tells: by the URLs of the database, a token and the proxy, and by files.
//!
//! Whoever asks for a replication is told so at once, and nothing is looked up for it. What names stand for, and where redirects lead,
//! is judged where connections are made (`peer/remote/guard.rs`), and so are these once more.

use url::Url;

use super::RemoteEndpoint;
use super::auth::Auth;
use super::connection::Proxy;
use crate::access::Caller;
use crate::policy::{Destination, Forbidden, Policy};

impl RemoteEndpoint {
    /// Judges all URLs that it names. `iam_token_url`: where it gets tokens if it doesn't say.
    pub fn check(&self, policy: &Policy, iam_token_url: &Url) -> Result<(), Forbidden> {
        let proxy = self.connection.proxy.as_ref().map(Proxy::destination);
        let token_url = match &self.auth {
            Some(Auth::Token(grant)) => grant.or_at(iam_token_url).url,
            _ => None,
        };
        let mut urls = std::iter::once(&self.url).chain(&token_url);
        urls.try_for_each(|url| policy.check(&Destination::of(url), proxy))
    }

    /// Judges whether a caller may name the files of this server that it names: an operator's key would have others take him for
    /// the operator, and what goes wrong with a file tells whether it is there.
    pub fn check_files(&self, caller: &Caller) -> Result<(), Forbidden> {
        match self.connection.tls.names_files() && !caller.is_server_admin() {
            true => Err(Forbidden::with_files(Destination::of(&self.url))),
            false => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use serde_json::{Value, json};

    use super::*;
    use crate::endpoint::Endpoint;
    use crate::policy::{EndpointRules, Rule};

    /// Why a source isn't connected to.
    fn refusal(source: Value, more: Value) -> Option<String> {
        let deny = Rule::list("denied.example, 10.0.0.0/8, :22").unwrap();
        let policy = Policy::new(&Arc::new(EndpointRules { deny, ..EndpointRules::default() }), true);
        let mut body = more.as_object().cloned().unwrap_or_default();
        body.extend([("source".to_owned(), source), ("target".to_owned(), json!("http://other.example/t"))]);
        let (source, target) = Endpoint::both(&body).unwrap();
        let iam = Url::parse("https://iam.denied.example/").unwrap();
        let checked = |endpoint: &Endpoint| match endpoint {
            Endpoint::Local(_) => Ok(()),
            Endpoint::Remote(remote) => remote.check(&policy, &iam),
        };
        checked(&target).unwrap();
        checked(&source).err().map(|forbidden| forbidden.to_string())
    }

    #[test]
    fn whatever_url_an_endpoint_names_is_judged() {
        let told = refusal(json!("http://ann:s3cret@DENIED.example/d?token=s3cret"), json!({}));
        let expected = "replications may not connect to http://denied.example:80: `deny` has `denied.example`";
        assert_eq!(told.as_deref(), Some(expected));
        let oauth2 = |url: &str| json!({"oauth2": {"token_url": url, "client_id": "c", "client_secret": "s"}});
        let through = |proxy: &str| json!({"source_proxy": proxy});
        for (source, more) in [
            (json!("http://0xa000001/d"), json!({})),
            (json!({"url": "https://[::ffff:10.0.0.1]/d"}), json!({})),
            (json!({"url": "https://db.example/d", "auth": oauth2("https://denied.example/token")}), json!({})),
            (
                json!({"url": "https://db.example/d", "auth": {"iam": {"api_key": "k", "token_url": "http://h:22"}}}),
                json!({}),
            ),
            (json!("https://db.example/d"), through("http://10.1.1.1:3128")),
            (json!("https://db.example/d"), through("socks5://u:s3cret@denied.example:1080")),
            (json!("https://db.example:22/d"), through("http://proxy.example:3128")),
        ] {
            let told = refusal(source.clone(), more).unwrap_or_else(|| panic!("{source}"));
            assert!(told.contains("`deny` has") && !told.contains("s3cret"), "{told}");
        }
        for (source, more) in [
            (json!("recipes"), json!({})),
            (json!("https://db.example/d"), json!({})),
            (json!({"url": "https://db.example/d", "auth": {"iam": {"api_key": "k"}}}), json!({})),
            (json!("https://db.example/d"), through("socks5://proxy.example")),
        ] {
            assert_eq!(refusal(source, more), None);
        }
    }
}
