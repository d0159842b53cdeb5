use url::Url;

use super::*;

fn rules(text: &str) -> Vec<Rule> {
    Rule::list(text).unwrap_or_else(|error| panic!("{text} {error}"))
}

fn policy(allow: &str, deny: &str) -> Policy {
    let rules = EndpointRules { allow: rules(allow), deny: rules(deny), ..EndpointRules::default() };
    Policy::new(&Arc::new(rules), true)
}

fn to(url: &str) -> Destination {
    Destination::of(&Url::parse(url).unwrap_or_else(|error| panic!("{url} {error}")))
}

/// The name of the rule that forbids a URL, or one of the addresses that its name stands for.
fn refusal(policy: &Policy, url: &str, address: Option<&str>) -> Option<String> {
    let to = to(url);
    let checked = policy.check(&to, None).and_then(|()| match address {
        Some(address) => policy.check_address(&to, address.parse().unwrap()),
        None => Ok(()),
    });
    let told = checked.err()?.to_string();
    assert!(told.starts_with(&format!("replications may not connect to {to}: ")), "{told}");
    Some(told.split('`').nth(if told.contains("` has `") { 3 } else { 1 }).unwrap().to_owned())
}

/// However a forbidden address is written, it is found; what only looks like it isn't.
#[test]
fn every_spelling_of_a_denied_address_is_denied() {
    let policy = policy("", "127.0.0.0/8, ::1, 10.1.2.3");
    for host in [
        "127.0.0.1",
        "127.0.0.1.",
        "127.1",
        "127.0.1",
        "2130706433",
        "2130706433.",
        "0x7f000001",
        "0X7F.1",
        "0x7f.0x0.0x0.0x1",
        "017700000001",
        "0177.0.0.01",
        "0177.0x0.1",
        "127.255.255.254",
        "%31%32%37.0.0.1",
        "１２７.0.0.1",
        "127。0。0。1",
        "①②⑦.0.0.1",
        "[::1]",
        "[0:0:0:0:0:0:0:1]",
        "[0000::0001]",
        "[::ffff:127.0.0.1]",
        "[::ffff:7f00:1]",
        "[::FFFF:7F00:0001]",
        "[::127.0.0.1]",
        "[::ffff:0:127.0.0.1]",
        "[64:ff9b::127.0.0.1]",
        "[64:ff9b::7f00:1]",
        "[64:ff9b:1::7f00:1]",
        "[2002:7f00:1::]",
        "[2002:7f00:0001:abcd::1]",
        "0.0.0.0",
        "0",
        "0x0",
        "[::]",
        "[::ffff:0.0.0.0]",
        "10.1.2.3",
        "167838211",
        "0xa010203",
        "012.1.2.3",
        "10.66051",
        "[::ffff:a01:203]",
    ] {
        for url in [format!("http://{host}/d"), format!("https://u:p@{host}:5984/d?x#y"), format!("socks5://{host}")] {
            let refused = Url::parse(&url).is_err() || refusal(&policy, &url, None).is_some();
            assert!(refused, "{url}");
        }
    }
    for host in
        ["126.255.255.255", "128.0.0.1", "10.1.2.4", "[::2]", "[::ffff:128.0.0.1]", "[2002:8000:1::]", "127.example"]
    {
        assert_eq!(refusal(&policy, &format!("http://{host}/"), None), None, "{host}");
    }
}

/// A name is nothing but what it stands for when it is connected to.
#[test]
fn the_addresses_of_a_name_are_judged_in_every_form() {
    let policy = policy("", "127.0.0.0/8, ::1, 10.0.0.0/8:22, fd00::/8");
    for address in ["127.0.0.1", "127.9.9.9", "::1", "::ffff:127.0.0.1", "64:ff9b::7f00:1", "0.0.0.0", "::", "fd12::1"]
    {
        assert!(refusal(&policy, "http://name.example/", Some(address)).is_some(), "{address}");
    }
    for address in ["8.8.8.8", "10.0.0.1", "2001:db8::1", "fc00::1"] {
        assert_eq!(refusal(&policy, "http://name.example/", Some(address)), None, "{address}");
    }
    let refused = refusal(&policy, "http://name.example:22/", Some("10.0.0.1"));
    assert_eq!(refused.as_deref(), Some("10.0.0.0/8:22"));
}

#[test]
fn link_local_and_metadata_are_denied_until_they_are_allowed_by_name() {
    let default = policy("", "");
    for (host, rule) in [
        ("169.254.1.1", "link-local"),
        ("169.254.169.254", "metadata"),
        ("2852039166", "metadata"),
        ("0xa9fea9fe", "metadata"),
        ("0251.0376.0251.0376", "metadata"),
        ("[::ffff:169.254.169.254]", "metadata"),
        ("[64:ff9b::a9fe:a9fe]", "metadata"),
        ("[2002:a9fe:a9fe::]", "metadata"),
        ("169.254.170.2", "metadata"),
        ("100.100.100.200", "metadata"),
        ("168.63.129.16", "metadata"),
        ("192.0.0.192", "metadata"),
        ("[fd00:ec2::254]", "metadata"),
        ("[fd00:0ec2:0::0254]", "metadata"),
        ("[fd00:ec2::23]", "metadata"),
        ("[fd20:ce::254]", "metadata"),
        ("[fe80::1]", "link-local"),
        ("[febf::1]", "link-local"),
        ("metadata.google.internal", "metadata"),
        ("METADATA.google.internal.", "metadata"),
    ] {
        let url = format!("http://{host}:80/d");
        assert_eq!(refusal(&default, &url, None).as_deref(), Some(rule), "{host}");
        assert_eq!(refusal(&policy("*", ""), &url, None).as_deref(), Some(rule), "everything isn't by name: {host}");
        assert_eq!(refusal(&policy("0.0.0.0/0 ::/0 *:80", ""), &url, None).as_deref(), Some(rule), "{host}");
        let address = host.trim_matches(['[', ']']);
        if address.parse::<IpAddr>().is_ok() {
            assert_eq!(refusal(&default, "http://name/", Some(address)).as_deref(), Some(rule), "{host}");
        }
    }
    for host in ["169.253.1.1", "169.255.1.1", "[fec0::1]", "[fd00:ec3::254]", "127.0.0.1", "10.0.0.1", "[::1]"] {
        assert_eq!(refusal(&default, &format!("http://{host}"), None), None, "{host}");
    }
    let lifted = policy("*, 169.254.1.0/24, fe80::/10, [fd00:ec2::254]:80, metadata.google.internal", "");
    for url in ["http://169.254.1.1", "http://[::ffff:169.254.1.1]", "http://[fe80::1]", "http://[fd00:ec2::254]"] {
        assert_eq!(refusal(&lifted, url, None), None, "{url}");
    }
    assert_eq!(refusal(&lifted, "http://metadata.google.internal/", None), None);
    // What that name stands for is judged as any other.
    let address = refusal(&lifted, "http://metadata.google.internal/", Some("169.254.169.254"));
    assert_eq!(address.as_deref(), Some("metadata"));
    for url in ["http://169.254.2.1", "http://169.254.169.254", "https://[fd00:ec2::254]"] {
        assert!(refusal(&lifted, url, None).is_some(), "{url}");
    }
    // What is allowed by name, and denied too, is denied.
    let both = policy("*, 169.254.1.1", "169.254.0.0/16");
    assert_eq!(refusal(&both, "http://169.254.1.1", None).as_deref(), Some("169.254.0.0/16"));
}

#[test]
fn rules_fit_scheme_name_and_port() {
    for (rule, fits, others) in [
        (
            "db.example",
            &["http://db.example/", "https://DB.EXAMPLE.:5984/", "http://%64b.example"][..],
            &["http://a.db.example", "http://db.example.org", "http://xdb.example"][..],
        ),
        ("DB.Example.", &["http://db.example/"], &["http://example/"]),
        ("*.example", &["http://a.example", "http://a.b.example"], &["http://example", "http://aexample"]),
        ("db*.example", &["http://db.example", "http://db12.example"], &["http://d.example", "http://adb.example"]),
        ("*a*b*", &["http://xaybz", "http://ab"], &["http://ba", "http://a"]),
        ("*.*.example", &["http://a.b.example"], &["http://a.example"]),
        ("bücher.example", &["http://xn--bcher-kva.example", "http://BÜCHER.example"], &["http://bucher.example"]),
        (":22", &["http://h:22", "https://10.0.0.1:22"], &["http://h", "http://h:222"]),
        ("*:1-1023", &["http://h", "https://h:1023"], &["http://h:1024", "socks5://h"]),
        (":1080", &["socks5://h"], &["http://h"]),
        ("http://*", &["http://h", "http://10.0.0.1:5984"], &["https://h", "socks5://h"]),
        ("https://db.example:443", &["https://db.example"], &["http://db.example:443", "https://db.example:444"]),
        ("socks5://p", &["socks5://P:9"], &["http://p"]),
        ("10.0.0.0/8", &["http://10.255.0.1"], &["http://11.0.0.1"]),
        ("10.9.9.9/8", &["http://10.1.1.1"], &["http://11.0.0.1"]),
        ("0.0.0.0/0", &["http://1.2.3.4"], &["http://[2001:db8::1]"]),
        ("::/0", &["http://[2001:db8::1]"], &["http://1.2.3.4", "http://[::ffff:1.2.3.4]"]),
        ("[fd00::]/8:5984", &["http://[fdff::1]:5984"], &["http://[fdff::1]", "http://[fe00::1]:5984"]),
        ("[::ffff:10.0.0.0]/104", &["http://10.1.1.1", "http://[::ffff:10.1.1.1]"], &["http://11.1.1.1"]),
        ("0xa000000/8", &["http://10.1.1.1"], &["http://11.1.1.1"]),
        ("::1", &["http://[::1]"], &["http://[::2]"]),
        ("[::1]:5984", &["http://[::1]:5984"], &["http://[::1]"]),
        ("https://[fd00::1]/128:6984", &["https://[fd00::1]:6984"], &["http://[fd00::1]:6984"]),
    ] {
        let (denied, allowed) = (policy("", rule), policy(rule, ""));
        for url in fits {
            assert_eq!(refusal(&denied, url, None).as_deref(), Some(rule), "{rule} {url}");
            assert_eq!(refusal(&allowed, url, None), None, "{rule} {url}");
        }
        for url in others {
            assert_eq!(refusal(&denied, url, None), None, "{rule} {url}");
            if to(url).address().is_some() {
                assert_eq!(refusal(&allowed, url, None).as_deref(), Some("allow"), "{rule} {url}");
            } else {
                assert_eq!(refusal(&allowed, url, Some("192.0.2.1")).as_deref(), Some("allow"), "{rule} {url}");
            }
        }
    }
}

#[test]
fn what_isnt_allowed_is_forbidden_once_something_is() {
    let policy = policy("*.example, 10.0.0.0/8:5984, https://192.0.2.1", "secret.example, 10.6.6.6");
    let refused = |url: &str, address: &str| refusal(&policy, url, Some(address));
    assert_eq!(refused("http://db.example", "203.0.113.7"), None, "a name is allowed, wherever it is");
    assert_eq!(refused("http://db.example", "10.6.6.6").as_deref(), Some("10.6.6.6"));
    assert_eq!(refused("http://db.example", "169.254.169.254").as_deref(), Some("metadata"));
    assert_eq!(refused("http://secret.example", "203.0.113.7").as_deref(), Some("secret.example"));
    assert_eq!(refused("http://couch:5984", "10.1.2.3"), None, "an address is allowed, whatever it is called");
    assert_eq!(refused("http://couch:5984", "::ffff:10.1.2.3"), None);
    assert_eq!(refused("http://couch:5984", "64:ff9b::10.1.2.3").as_deref(), Some("allow"));
    assert_eq!(refused("http://couch:5984", "11.1.2.3").as_deref(), Some("allow"));
    assert_eq!(refusal(&policy, "http://couch", None).as_deref(), Some("allow"), "no network fits that port");
    assert_eq!(refusal(&policy, "http://192.0.2.1", None).as_deref(), Some("allow"));
    assert_eq!(refusal(&policy, "https://192.0.2.1", None), None);
}

#[test]
fn users_are_held_to_both_lists_and_admins_to_theirs() {
    let lists = EndpointRules {
        allow: rules("*, 169.254.1.1"),
        deny: rules("10.0.0.0/8"),
        allow_users: rules("*.example, 10.0.0.1, 169.254.1.1"),
        deny_users: rules("hq.example"),
    };
    let lists = Arc::new(lists);
    let (admin, user) = (Policy::new(&lists, true), Policy::new(&lists, false));
    for (url, for_admin, for_user) in [
        ("http://db.example", None, None),
        ("http://hq.example", None, Some("hq.example")),
        ("http://db.org", None, Some("allow_users")),
        ("http://10.0.0.1", Some("10.0.0.0/8"), Some("10.0.0.0/8")),
        ("http://169.254.1.1", None, None),
        ("http://169.254.1.2", Some("link-local"), Some("link-local")),
    ] {
        let address = to(url).address().is_none().then_some("203.0.113.7");
        assert_eq!(refusal(&admin, url, address).as_deref(), for_admin, "{url}");
        assert_eq!(refusal(&user, url, address).as_deref(), for_user, "{url}");
    }
    // What users may name doesn't lift what is forbidden to all.
    let lists = EndpointRules { allow_users: rules("169.254.1.1"), ..EndpointRules::default() };
    let user = Policy::new(&Arc::new(lists), false);
    assert_eq!(refusal(&user, "http://169.254.1.1", None).as_deref(), Some("link-local"));
    assert_ne!(user, Policy::new(&user.rules, true));
    let same = Arc::default();
    assert_eq!(
        Policy::new(&same, true),
        Policy::new(&same, false),
        "without lists of their own they share connections"
    );
}

/// Who looks a name up decides what can be known of it.
#[test]
fn a_proxy_is_judged_itself_and_what_is_behind_it_as_far_as_the_url_tells() {
    let policy = policy("", "10.0.0.0/8, proxy.example, db.example:22");
    let check = |url: &str, proxy: &str| policy.check(&to(url), Some(&to(proxy))).map_err(|error| error.to_string());
    let web = "http://other.example:3128";
    assert_eq!(check("http://db.example", web), Ok(()));
    for (url, proxy) in [
        ("http://db.example", "http://proxy.example:3128"),
        ("http://db.example", "socks5://proxy.example"),
        ("http://db.example", "socks5://10.1.1.1"),
        ("http://db.example", "socks5://0x0a.1.1.1"),
        ("http://db.example", "https://[::ffff:10.1.1.1]:3128"),
        ("http://10.1.1.1", web),
        ("http://167837953", web),
        ("http://db.example:22", web),
        ("http://169.254.169.254", web),
        ("http://metadata.google.internal", web),
    ] {
        check(url, proxy).unwrap_err();
    }
    let networks = Policy::new(&Arc::new(EndpointRules { allow: rules("10.0.0.0/8"), ..Default::default() }), true);
    let check = |url: &str, proxy: &str| networks.check(&to(url), Some(&to(proxy))).is_ok();
    assert!(check("http://10.0.0.1", "http://10.0.0.2:3128"));
    assert!(!check("http://db.example", "http://10.0.0.2:3128"), "nobody here learns where that is");
    assert!(check("http://db.example", "socks5://10.0.0.2"), "an address is judged before it is told");
}

#[test]
fn rules_that_make_no_sense_are_refused() {
    for (text, expected) in [
        ("http://", BadRule::Form),
        ("h:", BadRule::Form),
        ("h:http", BadRule::Form),
        ("h:+1", BadRule::Form),
        ("h:9-1", BadRule::Form),
        ("h:70000", BadRule::Form),
        ("h/d", BadRule::Form),
        ("http://h/", BadRule::Form),
        ("u:p@h", BadRule::Form),
        ("10.0.0.0/x", BadRule::Form),
        ("[::1", BadRule::Form),
        ("h?x", BadRule::Form),
        ("ftp://h", BadRule::Scheme),
        ("10.*", BadRule::Pattern),
        ("*.0.0.1*", BadRule::Pattern),
        ("10.0.0.0/33", BadRule::Network),
        ("::/129", BadRule::Network),
        ("[::ffff:10.0.0.0]/95", BadRule::Network),
    ] {
        let found = text.parse::<Rule>();
        assert!(found == Err(expected), "{text}: {found:?}");
    }
    assert_eq!(Rule::list(" ,\n ").unwrap(), []);
    let read: Vec<_> = rules("a, b\nhttps://c:1-2").iter().map(ToString::to_string).collect();
    assert_eq!(read, ["a", "b", "https://c:1-2"]);
}

#[test]
fn what_a_client_calls_a_host_is_told_from_other_names() {
    for (url, name) in [
        ("http://db.example/", "db.example"),
        ("http://DB.example./", "db.example."),
        ("http://127.1/", "127.0.0.1"),
        ("http://[::1]/", "[::1]"),
        ("http://[::1]/", "::1"),
        ("socks5://P", "p"),
    ] {
        assert!(to(url).is_called(name), "{url} {name}");
    }
    for (url, name) in [("http://a/", "b"), ("http://127.0.0.1/", "127.0.0.2"), ("http://[::1]/", "h")] {
        assert!(!to(url).is_called(name), "{url} {name}");
    }
}

/// Only addresses that were written in the URL were looked at, and not all that are inside.
#[test]
fn where_a_server_outside_leads_no_address_inside_is_reached_by_any_name() {
    let rules = Arc::new(EndpointRules { allow: rules("inside.example, 10.0.0.0/8, *"), ..EndpointRules::default() });
    let policy = Policy::new(&rules, true).with_exempt(to("http://inside.example/"));
    let inside =
        ["127.0.0.1", "10.0.0.5", "172.16.0.1", "192.168.1.1", "100.64.0.1", "100.127.255.255", "0.0.0.0", "::1", "::"];
    for address in inside.iter().chain(&["fd00::1", "::ffff:10.0.0.5", "64:ff9b::10.0.0.5", "2002:a00:5::1"]) {
        for url in ["http://inside.example/", "https://other.example/"] {
            let judged = |policy: &Policy| policy.check_address(&to(url), address.parse().unwrap());
            judged(&policy).unwrap();
            assert!(judged(&policy.from_outside()).is_err(), "{url} {address}");
        }
    }
    for address in ["93.184.216.34", "100.63.255.255", "100.128.0.0", "2606:4700::1", "64:ff9b::93.184.216.34"] {
        policy.from_outside().check_address(&to("http://other.example/"), address.parse().unwrap()).unwrap();
    }
}
