//! Connections that the policy forbids: none is made, whichever way leads there.

use reqwest::dns::Resolve as _;

use super::super::guard::Guard;
use super::*;
use crate::policy::{EndpointRules, Forbidden, Rule};

/// A place to connect to that tells whether anybody did.
struct Door {
    port: u16,
    /// Whatever came; ends with the test.
    came: Arc<AtomicUsize>,
    tasks: Tasks,
}

impl Door {
    async fn open() -> Self {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let (port, came, tasks) =
            (listener.local_addr().unwrap().port(), Arc::new(AtomicUsize::new(0)), Tasks::default());
        let counted = came.clone();
        drop(tasks.spawn("a door", async move {
            while listener.accept().await.is_ok() {
                counted.fetch_add(1, Ordering::SeqCst);
            }
        }));
        Self { port, came, tasks }
    }

    /// Ends it, when nobody has come.
    #[track_caller]
    fn stayed_shut(self) {
        assert_eq!(self.came.load(Ordering::SeqCst), 0, "somebody connected");
        self.tasks.stop();
    }
}

fn policy_of(deny: &str) -> Policy {
    let rules = EndpointRules { deny: Rule::list(deny).unwrap(), ..EndpointRules::default() };
    Policy::new(&Arc::new(rules), true)
}

fn settings() -> Arc<config::Replicator> {
    Arc::new(config::Replicator { retries_per_request: 3, ..config::Replicator::default() })
}

async fn guarded(clients: &Clients, endpoint: RemoteEndpoint, policy: &Policy) -> RemotePeer {
    RemotePeer::new(clients, endpoint, policy, settings(), Pulse::default()).await.unwrap()
}

/// Loopback at this port, whatever it is called.
fn loopback(port: u16) -> String {
    format!("127.0.0.0/8:{port}, [::1]:{port}")
}

#[track_caller]
fn is_forbidden<T: std::fmt::Debug>(result: Result<T, PeerError>) -> Forbidden {
    match result {
        Err(PeerError::Forbidden(forbidden)) => forbidden,
        other => panic!("{other:?}"),
    }
}

/// Names that stand for a forbidden address passed every look at the URL.
#[tokio::test]
async fn a_name_is_judged_by_the_address_that_would_be_connected_to() {
    let door = Door::open().await;
    let clients = Clients::new(&settings()).unwrap();
    for scheme in ["http", "https"] {
        let url = json!(format!("{scheme}://localhost:{}/db", door.port));
        let peer = guarded(&clients, endpoint(url), &policy_of(&loopback(door.port))).await;
        let told = is_forbidden(peer.info().await).to_string();
        assert!(told.starts_with(&format!("replications may not connect to {scheme}://localhost:")), "{told}");
        assert!(told.contains("`deny` has `"), "{told}");
    }
    door.stayed_shut();
}

/// The rule is of a port, and the client doesn't tell its resolver which one it looks a name up for.
#[tokio::test]
async fn the_same_name_is_allowed_at_another_port() {
    let url = serve(|_| info()).await.replace("127.0.0.1", "localhost");
    let (door, clients) = (Door::open().await, Clients::new(&settings()).unwrap());
    let policy = policy_of(&loopback(door.port));
    guarded(&clients, endpoint(json!(format!("{url}/db"))), &policy).await.info().await.unwrap();
    let forbidden = json!(format!("http://localhost:{}/db", door.port));
    is_forbidden(guarded(&clients, endpoint(forbidden), &policy).await.info().await);
    door.stayed_shut();
}

#[tokio::test]
async fn urls_are_judged_before_anything_is_opened() {
    let clients = Clients::new(&settings()).unwrap();
    let policy = policy_of("127.0.0.0/8:1");
    for url in ["http://127.0.0.1:1/db", "http://0x7f.1:1/db", "http://[::ffff:127.0.0.1]:1/db", "http://0:1/db"] {
        let opened = RemotePeer::new(&clients, endpoint(json!(url)), &policy, settings(), Pulse::default()).await;
        is_forbidden(opened);
    }
    let server = endpoint(json!("http://127.0.0.1:1/db")).server().unwrap().0;
    is_forbidden(server::RemoteServer::new(&clients, server, &policy, settings()).await);
}

#[tokio::test]
async fn a_redirect_is_judged_at_each_hop_and_by_name() {
    let door = Door::open().await;
    for host in ["127.0.0.1", "localhost", "0x7f000001", "[::ffff:127.0.0.1]", "2130706433"] {
        // The first hop is allowed.
        let to = format!("http://{host}:{}/db/", door.port);
        let url = serve(move |seen| match seen.path.as_str() {
            "/db/" => moved(307, "/there/"),
            _ => moved(307, &to),
        });
        let url = url.await.replace("127.0.0.1", "localhost");
        let clients = Clients::new(&settings()).unwrap();
        let peer = guarded(&clients, endpoint(json!(format!("{url}/db"))), &policy_of(&loopback(door.port))).await;
        is_forbidden(peer.info().await);
    }
    door.stayed_shut();
}

/// The address of a name that a server outside gave was looked at by nobody. A redirect that lasts is remembered.
#[tokio::test]
async fn where_a_server_outside_has_led_no_name_stands_for_an_address_inside() {
    let url = serve(|seen| if seen.path == "/old/" { moved(307, "/db/") } else { info() });
    let url = url.await.replace("127.0.0.1", "localhost");
    let clients = Clients::new(&settings()).unwrap();
    for path in ["db/", "old/"] {
        let peer = guarded(&clients, endpoint(json!("http://192.0.2.1/db")), &policy_of("")).await;
        let led = |from_outside| {
            let url = Url::parse(&format!("{url}/{path}")).unwrap();
            *peer.inner.moved.write().unwrap() = Some(Place { url, from_outside });
        };
        led(false);
        peer.info().await.unwrap();
        // There is a connection now, which isn't used either.
        led(true);
        let told = is_forbidden(peer.info().await).to_string();
        assert!(told.ends_with("a server outside has led there"), "{told}");
    }
}

#[tokio::test]
async fn tokens_are_fetched_from_allowed_places_alone() {
    let (url, door) = (serve(|_| info()).await, Door::open().await);
    let clients = Clients::new(&settings()).unwrap();
    let oauth2 =
        json!({"token_url": format!("http://localhost:{}/token", door.port), "client_id": "c", "client_secret": "s"});
    let source = json!({"url": format!("{url}/db"), "auth": {"oauth2": oauth2}});
    let peer = guarded(&clients, endpoint(source), &policy_of(&loopback(door.port))).await;
    is_forbidden(peer.info().await);
    door.stayed_shut();
}

#[tokio::test]
async fn a_login_goes_nowhere_that_its_database_may_not_go() {
    let door = Door::open().await;
    let clients = Clients::new(&settings()).unwrap();
    let basic = json!({"basic": {"username": "ann", "password": SECRET}});
    let source = json!({"url": format!("http://localhost:{}/db", door.port), "auth": basic});
    let peer = guarded(&clients, endpoint(source), &policy_of(&loopback(door.port))).await;
    let told = is_forbidden(peer.info().await);
    assert!(!format!("{told} {told:?}").contains(SECRET));
    door.stayed_shut();
}

#[tokio::test]
async fn a_proxy_is_judged_by_its_address_and_what_it_is_told_to_connect_to_too() {
    let clients = Clients::new(&settings()).unwrap();
    let through = async |url: String, proxy: String, policy: &Policy| {
        let mut endpoint = endpoint(json!(url));
        endpoint.connection.proxy = crate::endpoint::connection::Proxy::parse(&proxy);
        assert!(endpoint.connection.proxy.is_some());
        guarded(&clients, endpoint, policy).await.info().await
    };
    for scheme in ["http", "socks5"] {
        let door = Door::open().await;
        let proxy = format!("{scheme}://localhost:{}", door.port);
        for url in ["http://192.0.2.1/db", "https://192.0.2.1/db"] {
            let refused = through(url.into(), proxy.clone(), &policy_of(&loopback(door.port))).await;
            is_forbidden(refused);
        }
        door.stayed_shut();
    }
    // A SOCKS proxy is told an address, which is looked up, and judged, here.
    let door = Door::open().await;
    let policy = policy_of(&loopback(6984));
    for scheme in ["http", "https"] {
        let told =
            through(format!("{scheme}://localhost:6984/db"), format!("socks5://127.0.0.1:{}", door.port), &policy);
        is_forbidden(told.await);
    }
    door.stayed_shut();
}

/// A connection that was made for an admin served whoever came next.
#[tokio::test]
async fn a_kept_connection_serves_nobody_who_may_not_make_it() {
    let made = Arc::new(AtomicUsize::new(0));
    let url = serve({
        let made = made.clone();
        move |_| {
            made.fetch_add(1, Ordering::SeqCst);
            info()
        }
    });
    let url = url.await.replace("127.0.0.1", "localhost");
    let clients = Clients::new(&settings()).unwrap();
    let deny_users = Rule::list("127.0.0.0/8, ::1").unwrap();
    let rules = Arc::new(EndpointRules { deny_users, ..EndpointRules::default() });
    let peer = async |is_admin| {
        let endpoint = endpoint(json!(format!("{url}/db")));
        guarded(&clients, endpoint, &Policy::new(&rules, is_admin)).await.info().await
    };
    for _ in 0..2 {
        peer(true).await.unwrap();
        let told = is_forbidden(peer(false).await).to_string();
        assert!(told.contains("`deny_users` has `"), "{told}");
    }
    assert_eq!(made.load(Ordering::SeqCst), 2);
}

#[tokio::test]
async fn a_name_that_no_request_asks_for_is_not_looked_up() {
    let guard = Guard::new(policy_of(""), None);
    assert!(guard.resolve("localhost".parse().unwrap()).await.is_err());
}
